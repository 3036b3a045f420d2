"""A step that asks for what is there already is refused before anything is written, and says the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recompress.errors import InputError
from recompress.methods.registry import Claim, Method, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, save
from recompress.settings.base import Settings
from tests.six import checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
STEPS: list[tuple[str, str, dict[str, Any], str]] = [
    ("group_queries", "llama", {}, "every layer has 1 key and value head already"),
    ("prune_structure", "bert", {}, "told to cut nothing"),
    ("prune_structure", "bert", {"layers": 2}, "the model has 2 already"),
    ("share_layers", "bert", {"groups": 2}, "the model has as many already"),
    ("svd", "bert", {"energy": 1.0}, "energy 1 leaves every matrix whole"),
    ("fisher_svd", "bert", {"energy": 1.0}, "energy 1 leaves every matrix whole"),
    ("activation_svd", "bert", {"energy": 1.0}, "energy 1 leaves every matrix whole"),
    ("factorize_embeddings", "bert", {"energy": 1.0}, "energy 1 leaves the embeddings whole"),
    ("magnitude", "bert", {"sparsity": 0.0}, "sparsity 0 makes no zeros"),
    ("wanda", "bert", {"sparsity": 0.0}, "sparsity 0 makes no zeros"),
    ("sparsegpt", "bert", {"sparsity": 0.0}, "sparsity 0 makes no zeros"),
]


@pytest.mark.parametrize(("name", "family", "dials", "why"), STEPS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_there_already_is_refused(name: str, family: str, dials: dict[str, Any], why: str, tmp_path: Path) -> None:
    save(checkpoint_of(family, **({"num_key_value_heads": 1} if family == "llama" else {})), tmp_path / "source")
    with pytest.raises(InputError, match=why) as refused:
        run_step(name, get_method(name).config(**dials), tmp_path / "source", tmp_path / "target", inputs_of(family, tmp_path / "work"))
    assert "\n" not in str(refused.value)
    assert "leave" in str(refused.value)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("touch", [False, True])
def test_the_runner_refuses_any_other_step_that_leaves_every_weight_as_it_was(touch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(checkpoint: Checkpoint, *_: Any) -> Checkpoint:
        checkpoint.torch_network.get_input_embeddings().weight.data[3, 5] += 1e-6 * touch
        return checkpoint

    idle = Method(name="idle", family="pruning", config=Settings, run=run, prove=lambda *_: [Claim("work", 1, 1)], summary="", source="")
    monkeypatch.setattr("recompress.methods.runner.get_method", lambda _: idle)
    save(checkpoint_of("bert"), tmp_path / "source")
    if touch:
        run_step("idle", Settings(), tmp_path / "source", tmp_path / "target", inputs_of("bert", tmp_path / "work"))
        return
    with pytest.raises(InputError, match="idle has nothing to do: with these settings every weight stays what it is"):
        run_step("idle", Settings(), tmp_path / "source", tmp_path / "target", inputs_of("bert", tmp_path / "work"))
    assert not (tmp_path / "target").exists()
