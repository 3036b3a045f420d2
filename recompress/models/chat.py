"""What a model of language that answers people is asked with, and where its answer ends: its chat template and its stop tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recompress.errors import InputError

TEMPLATE = Path(__file__).with_name("chat_template.py")
SECONDS = 15
"""Of passing time; the template's own process has fewer of the processor."""
TOGETHER = 64
"""Texts that one process puts into a template."""
STOPS = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>", "</s>", "<end_of_turn>")
"""What the usual models end an answer with, besides the token that their tokenizer says."""


def stops_of(tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: what the tokenizer says, and of the usual ones those that are special here."""
    special = {token.content: number for number, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items() if token.special}
    named = {special[name] for name in STOPS if name in special}
    return frozenset(named if tokenizer.eos_token_id is None else named | {int(tokenizer.eos_token_id)})


def prompts_of(tokenizer: Any, texts: Sequence[str], *, plain: bool = False) -> list[list[int]]:
    """Each text as the tokens that an answer is written behind: in the form of a chat, where the model has one and ``plain`` does not say otherwise. Raises as
    ``as_questions``."""
    encode, template = tokenizer.backend_tokenizer.encode, None if plain else tokenizer.chat_template
    if template is None:
        return [list(encode(text).ids) for text in texts]
    named = {name: token for name in ("bos_token", "eos_token") if (token := getattr(tokenizer, name)) is not None}
    return [list(encode(asked, add_special_tokens=False).ids) for asked in as_questions(template, texts, named)]


def as_questions(template: str, texts: Sequence[str], tokens: dict[str, str]) -> list[str]:
    """Each text as what a person said, in the model's own form, ready for the answer. ``tokens``: what templates call ``bos_token`` and ``eos_token``.

    Raises ``InputError`` for a template that does not end, or does anything else wrong.
    """
    return [asked for start in range(0, len(texts), TOGETHER) for asked in _rendered(template, texts[start : start + TOGETHER], tokens)]


def _rendered(template: str, texts: Sequence[str], tokens: dict[str, str]) -> list[str]:
    asked = {"template": template, "conversations": [[{"role": "user", "content": text}] for text in texts], "tokens": tokens}
    try:
        done = subprocess.run([sys.executable, "-I", str(TEMPLATE)], input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError(f"the model's chat template did not end within {SECONDS} s; ask without it (--plain, or chat: false in a recipe)") from None
    if done.returncode < 0:
        raise InputError("the model's chat template runs for too long; ask without it (--plain, or chat: false in a recipe)")
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise InputError(f"the model's chat template cannot be used: {words[-1].strip()[:200]}; ask without it (--plain, or chat: false in a recipe)")
    rendered: list[str] = json.loads(done.stdout)
    return rendered
