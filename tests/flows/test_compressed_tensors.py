"""A champion with packed weights, handed over for vLLM: what transformers writes from the folder is what the champion writes here."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.models.files import quiet_transformers
from tests.flows.chat_project import make_project
from tests.flows.toy_project import run

pytest.importorskip("gguf")
pytest.importorskip("compressed_tensors")
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
VARIANTS = """\
  gptq:
    - gptq: {bits: 4, group_size: 32, calibration_examples: 8}
"""


def test_a_champion_is_handed_over(tmp_path: Path) -> None:
    folder = make_project(tmp_path, VARIANTS)
    assert run(folder, "run", "recipe.yaml")["promotion"]["model"] is not None
    done = run(folder, "export", "chat@champion", "out", "--to", "compressed-tensors")
    assert done["agreement"]["texts"] > 100
    checked = run(folder, "audit", "verify", "out")
    assert (checked["kind"], checked["to"], checked["signed"]) == ("export", "compressed-tensors", True)
    [answer] = run(folder, "predict", "chat@champion", "nyumba ya", "--plain", "--tokens", "6")["predictions"]
    assert _written_by_transformers(folder / "out", "nyumba ya") == answer["completion"]
    (folder / "out" / "config.json").write_text("{}")
    assert "config.json" in run(folder, "audit", "verify", "out", code=5)["error"]


def _written_by_transformers(out: Path, prompt: str) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(out)
    given = tokenizer(prompt, return_tensors="pt")
    with quiet_transformers():
        network = AutoModelForCausalLM.from_pretrained(out)
        ids = network.generate(**given, max_new_tokens=6, do_sample=False)[0]
    written: str = tokenizer.decode(ids[given["input_ids"].shape[1] :], skip_special_tokens=True)
    return written
