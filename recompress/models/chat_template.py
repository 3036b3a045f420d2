"""Renders a chat template, alone in a process of its own: a template is a program that came with a model, and may want to run forever or to eat all memory.

    python chat_template.py < {"template": …, "conversations": [messages, …], "tokens": {"bos_token": …, "eos_token": …}}

It imports nothing of this package, runs in Jinja's sandbox, and gives up at the limits of its process.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

SECONDS = 5
"""Of the processor."""
MEMORY = 1 << 30
"""Bytes of address space."""
LONGEST = 1 << 20
"""Characters of what comes out."""


def bound() -> None:
    """Set the limits, where the system has any."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def render(asked: dict[str, Any]) -> list[str]:
    """What the template makes of the messages of each conversation, ready for an answer to be written. Raises what Jinja raises."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = lambda value, **given: json.dumps(value, ensure_ascii=False, **given)
    environment.globals["raise_exception"] = refuse
    template = environment.from_string(asked["template"])
    return [template.render(messages=messages, add_generation_prompt=True, **asked["tokens"]) for messages in asked["conversations"]]


def main() -> None:
    asked = json.load(sys.stdin)
    bound()
    try:
        texts = render(asked)
    except MemoryError:
        sys.exit("it asks for more memory than a template may have")
    except Exception as error:  # a template can do anything wrong
        sys.exit(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
    if (longest := max(map(len, texts))) > LONGEST:
        sys.exit(f"it makes {longest:,} characters out of one question")
    sys.stdout.write(json.dumps(texts))


if __name__ == "__main__":
    main()
