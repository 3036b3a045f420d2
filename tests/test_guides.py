"""The guides say what is so: commands and options that exist, messages that the code has, files that are read, links that lead somewhere, and no request outside."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from flows.cli import main
from recompress.gate import REASONS
from recompress.policy import Policy
from recompress.recipe import Recipe
from recompress.settings.file import read_values
from tests.tiny import tiny_checkpoint

DOCS = Path(__file__).parents[1] / "docs"
GUIDES = sorted([*DOCS.glob("*.md"), DOCS.parent / "README.md"])


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def called(line: str) -> list[str]:
    """The words behind ``recompress`` in a line of shell; nothing where it is not called."""
    words = shlex.split(line.split(" > ")[0].split(" < ")[0], comments=True)
    return words[words.index("recompress") + 1 :] if "recompress" in words else []


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_command_in_a_guide_exists_with_its_options(page: Path) -> None:
    for line in "".join(blocks(page, "sh")).replace("\\\n", "").splitlines():
        words, command = called(re.sub(r"^\.venv/bin/|(?<=&& )\.venv/bin/", "", line)), main
        while words and isinstance(command, click.Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]  # type: ignore[assignment]
        assert not words or not isinstance(command, click.Group) or command.invoke_without_command, line
        known = {option for one in command.params for option in one.opts}
        assert {word for word in words if word.startswith("--")} <= known, line


def texts_of_the_code() -> str:
    """Every text in the code, with … for what is filled in."""
    return "\n".join(text for folder in ("recompress", "tasks", "flows") for path in (DOCS.parent / folder).rglob("*.py") for text in _texts(path))


def _texts(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_every_message_in_troubleshooting_is_one_of_the_code() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    code = texts_of_the_code()
    messages = [row for row in rows if " " in row]
    assert len(messages) > 40
    for message in messages:
        for part in re.split(r"'?…'?|\(FILE:LINE\)", message):
            assert part.strip(" ;:,?'()") in code, f"{message!r}: nothing says {part!r}"


def test_every_reason_in_troubleshooting_is_one_of_the_gate() -> None:
    gate = (DOCS / "troubleshooting.md").read_text().split("## The gate")[1].split("## ")[0]
    named = {name for first in re.findall(r"^\| (`.*?`) \|", gate, re.MULTILINE) for name in re.findall(r"`([^`]+)`", first)}
    assert len(named) > 10
    assert named <= set(REASONS)


def test_the_recipe_and_the_policy_of_the_guides_are_read() -> None:
    policies = [yaml.safe_load(block) for block in blocks(DOCS / "policy.md", "yaml")]
    whole = policies[0] | {"limits": policies[0]["limits"] | policies[1]["limits"], "approval": {"mode": policies[0]["approval"]}}
    assert read_values(Policy, whole, "the guide").limits is not None
    [recipe] = [block for block in blocks(DOCS / "your_model.md", "yaml") if block.startswith("name:")]
    values = yaml.safe_load(recipe)
    assert read_values(Recipe, values | {"base": {"model": values["baseline"]["model"]}}, "the guide").baseline.given is not None


def test_the_example_of_the_library_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = tiny_checkpoint("text-classification")
    checkpoint.torch_network.save_pretrained("our-topics")
    checkpoint.tokenizer.save_pretrained("our-topics")
    shutil.copyfile(DOCS.parent / "policies" / "quickstart.yaml", "policy.yaml")
    exec("".join(blocks(DOCS / "library.md", "python")), {})
    assert Path("topics-onnx/onnx/model.onnx").is_file()
    assert Path("topics-8-bits").is_dir()


def test_the_reference_is_that_of_the_code() -> None:
    checked = subprocess.run([sys.executable, "docs/write_reference.py", "--check"], cwd=DOCS.parent, capture_output=True, text=True, check=False, timeout=120)
    assert checked.returncode == 0, checked.stderr


def test_the_site_asks_nobody_outside_for_anything(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="the guides' site needs pip install '.[docs]'")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path)], cwd=DOCS.parent, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(GUIDES)
    for page in pages:
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text()):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), (page, tag)
