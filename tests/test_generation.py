"""What a model of language writes: the likeliest tokens, the same with a cache as without, on torch and on llama.cpp, until it stops or there is no room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recompress.errors import InputError
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models import chat
from recompress.models.chat import as_questions, stops_of
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.predict import Predictor, summary
from recompress.runtimes import open_runtime, runtime_of
from recompress.runtimes.generation import can_continue, continued, following
from tests.six import DECODERS, checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
PROMPT = "nyumba ya asha na "
TEMPLATE = (
    "{% for message in messages %}{{ bos_token }}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}answer:{% endif %}"
)


def sharp(family: str) -> Checkpoint:
    """Random weights say next to nothing: these say it loudly, so that no rounding changes which token is the likeliest."""
    checkpoint = checkpoint_of(family, tie_word_embeddings=False)
    checkpoint.torch_network.get_output_embeddings().weight.data.mul_(8)
    return checkpoint


def by_hand(runtime: Any, prompt: list[int], count: int) -> list[int]:
    """Without a cache: the whole text is read again for each token."""
    text = list(prompt)
    for _ in range(count):
        [logits] = runtime.logits([{"input_ids": text, "attention_mask": [1] * len(text)}])
        text.append(int(logits[-1].argmax()))
    return text[len(prompt) :]


@pytest.mark.parametrize("family", DECODERS)
def test_a_cache_changes_nothing_and_transformers_writes_the_same(family: str) -> None:
    import torch

    checkpoint = sharp(family)
    runtime, prompt = runtime_of(checkpoint), checkpoint.tokenizer(PROMPT)["input_ids"]
    written = list(following(can_continue(runtime), prompt, 12))
    assert written == by_hand(runtime, prompt, 12)
    given = torch.tensor([prompt])
    whole = checkpoint.torch_network.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=12, do_sample=False, eos_token_id=[], pad_token_id=0)
    assert written == whole[0, len(prompt) :].tolist()
    assert len({*written}) > 1, "one token again and again shows nothing"
    again = list(following(can_continue(runtime), prompt, 12))
    assert again == written, "something of the text before was left in the cache"


@pytest.mark.parametrize("family", DECODERS)
def test_llama_cpp_writes_what_torch_writes(family: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    checkpoint = sharp(family)
    save(checkpoint, tmp_path / "source")
    run_step("gguf", get_method("gguf").config(weights="f32"), tmp_path / "source", tmp_path / "made", inputs_of(family, tmp_path / "work"))
    prompt = checkpoint.tokenizer(PROMPT)["input_ids"]
    served = can_continue(open_runtime(tmp_path / "made"))
    assert list(following(served, prompt, 20)) == list(following(can_continue(runtime_of(checkpoint)), prompt, 20))
    one, other = Predictor(tmp_path / "source"), Predictor(tmp_path / "made")
    assert one.continue_text([PROMPT, "kula"], 9) == other.continue_text([PROMPT, "kula"], 9)


class Told:
    """A runtime that writes what it was told."""

    positions = 8

    def __init__(self, *tokens: int) -> None:
        self.lock = nullcontext()
        self.tokens, self.read = list(tokens), []  # type: ignore[var-annotated]

    def prefill(self, tokens: Any, room: int) -> Any:
        self.read, self.room = list(tokens), room
        return self._next()

    def decode(self, token: int) -> Any:
        self.read.append(token)
        return self._next()

    def _next(self) -> Any:
        return np.eye(10)[self.tokens.pop(0)]


def test_it_ends_at_a_stop_token_at_the_number_or_at_the_last_position() -> None:
    assert continued(Told(4, 5, 9, 6), [1, 2], 4, frozenset({9})) == ((4, 5), True)
    runtime = Told(4, 5, 9, 6)
    assert continued(runtime, [1, 2], 3) == ((4, 5, 9), False)
    assert (runtime.read, runtime.room) == ([1, 2, 4, 5], 5), "the last token is written and not read"
    assert continued(Told(*range(9)), [1] * 6, 100) == ((0, 1), False)
    with pytest.raises(InputError, match="the prompt has 8 tokens, and the model reads 8, answer included; make it shorter"):
        continued(Told(), [1] * 8, 1)
    with pytest.raises(InputError, match="no token to begin with"):
        continued(Told(), [], 1)


@pytest.mark.parametrize("served", [False, True], ids=["torch", "llama.cpp"])
def test_several_who_ask_at_once_get_what_each_would_get_alone(served: bool, tmp_path: Path) -> None:
    checkpoint = sharp("llama")
    save(checkpoint, tmp_path / "model")
    if served:
        pytest.importorskip("xllamacpp")
        run_step("gguf", get_method("gguf").config(), tmp_path / "model", tmp_path / "made", inputs_of("llama", tmp_path / "work"))
    predictor = Predictor(tmp_path / ("made" if served else "model"))
    prompts = ["nyumba ya", "kula leo jana", "asha", "kazi na kwa"] * 4
    alone = [predictor.continue_text([prompt], 20) for prompt in prompts]
    foreseen = [predictor([prompt]) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda prompt: predictor.continue_text([prompt], 20), prompts)) == alone
        both = [pool.submit(predictor, [prompt]) if i % 2 else pool.submit(predictor.continue_text, [prompt], 20) for i, prompt in enumerate(prompts)]
        assert [one.result() for one in both] == [foreseen[i] if i % 2 else alone[i] for i in range(len(prompts))]


def test_a_model_of_language_answers_in_its_own_form(tmp_path: Path) -> None:
    checkpoint = sharp("llama")
    checkpoint.tokenizer.chat_template = TEMPLATE
    save(checkpoint, tmp_path / "model")
    assert load(tmp_path / "model").tokenizer.chat_template == TEMPLATE
    predictor = Predictor(tmp_path / "model")
    assert predictor.writes
    [asked], [plain] = predictor.continue_text(["kula"], 5), predictor.continue_text(["kula"], 5, plain=True)
    encode = checkpoint.tokenizer
    assert asked["prompt_tokens"] == len(encode("<end>user: kula\nanswer:")["input_ids"])
    assert plain["prompt_tokens"] == len(encode("kula")["input_ids"])
    assert asked["completion"] != plain["completion"]
    assert set(asked) == {"completion", "tokens", "prompt_tokens", "ended"}
    assert summary(asked) == asked["completion"]
    with pytest.raises(InputError, match="the prompt has .* tokens, and the model reads 64"):
        predictor.continue_text(["kula " * 99], 5)


def test_models_of_another_kind_write_nothing(tmp_path: Path) -> None:
    save(checkpoint_of("bert"), tmp_path / "bert")
    with pytest.raises(InputError, match="made for token-classification and writes nothing"):
        Predictor(tmp_path / "bert").continue_text(["kula"], 5)
    save(checkpoint_of("gpt2"), tmp_path / "source")
    served = Predictor(tmp_path / "source")
    served.runtime = SimpleNamespace(name="onnx")  # type: ignore[assignment]
    assert not served.writes
    with pytest.raises(InputError, match="the onnx runtime keeps no keys and values"):
        served.continue_text(["kula"], 5)


def test_stop_tokens_are_special_ones_that_end_an_answer() -> None:
    tokenizer = checkpoint_of("llama").tokenizer
    assert stops_of(tokenizer) == {tokenizer.eos_token_id}
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|other|>"]})
    tokenizer.add_tokens(["<|eot_id|>"])
    assert stops_of(tokenizer) == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_a_template_is_rendered_as_transformers_renders_it() -> None:
    tokenizer = checkpoint_of("llama").tokenizer
    tokenizer.chat_template = TEMPLATE
    expected = tokenizer.apply_chat_template([{"role": "user", "content": 'a "b"\n'}], tokenize=False, add_generation_prompt=True)
    assert as_questions(TEMPLATE, ['a "b"\n', "b"], {"bos_token": "<end>", "eos_token": "<end>"}) == [expected, expected.replace('a "b"\n', "b")]


SPOILT = {
    "forever": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "runs for too long|did not end within",
    ),
    "too large": ("{{ 'x' * 9999999999 }}", "asks for more memory"),
    "too long": ("{{ 'x' * 2000000 }}", "makes 2,000,000 characters"),
    "broken": ("{% for %}", "cannot be used: .*; ask without it"),
    "refuses": ("{{ raise_exception('only for two') }}", "cannot be used: only for two"),
    "reaches out": ("{{ ''.__class__.__mro__ }}", "cannot be used: access to attribute '__class__'"),
    "imports": ("{% include '/etc/passwd' %}", "cannot be used"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_template_that_does_anything_else_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template, said = SPOILT[name]
    if name == "forever":
        monkeypatch.setattr(chat, "SECONDS", 2)
    with pytest.raises(InputError, match=said) as caught:
        as_questions(template, ["x"], {})
    assert "\n" not in str(caught.value)
    assert "--plain" in str(caught.value)
