"""What a model of language that answers people is asked with, and where its answer ends: its chat template and its stop tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from recompress.errors import InputError

TEMPLATE = Path(__file__).with_name("chat_template.py")
SECONDS = 15
"""Of passing time; the template's own process has fewer of the processor."""
STOPS = ("<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "<|eot_id|>", "<|end|>", "</s>", "<end_of_turn>")
"""What the usual models end an answer with, besides the token that their tokenizer says."""


def stops_of(tokenizer: Any) -> frozenset[int]:
    """The tokens that end an answer: what the tokenizer says, and of the usual ones those that are special here."""
    special = {token.content: number for number, token in tokenizer.backend_tokenizer.get_added_tokens_decoder().items() if token.special}
    named = {special[name] for name in STOPS if name in special}
    return frozenset(named if tokenizer.eos_token_id is None else named | {int(tokenizer.eos_token_id)})


def as_question(template: str, text: str, tokens: dict[str, str]) -> str:
    """``text`` as what a person said, in the model's own form, ready for the answer. ``tokens``: what templates call ``bos_token`` and ``eos_token``.

    Raises ``InputError`` for a template that does not end, or does anything else wrong.
    """
    asked = {"template": template, "messages": [{"role": "user", "content": text}], "tokens": tokens}
    try:
        done = subprocess.run([sys.executable, "-I", str(TEMPLATE)], input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        raise InputError(f"the model's chat template did not end within {SECONDS} s; ask without it (--plain)") from None
    if done.returncode < 0:
        raise InputError("the model's chat template runs for too long; ask without it (--plain)")
    if done.returncode:
        words = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise InputError(f"the model's chat template cannot be used: {words[-1].strip()[:200]}; ask without it (--plain)")
    rendered: str = json.loads(done.stdout)
    return rendered
