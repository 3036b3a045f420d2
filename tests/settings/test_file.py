"""What a person writes is read strictly, and what is wrong is said by line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from recompress.errors import InputError
from recompress.settings.base import Settings, Share, Slug
from recompress.settings.file import read_settings


class Inner(Settings):
    sparsity: Share = 0.5


class Outer(Settings):
    name: str
    rate: float = 0.1
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] = {}
    tables: bool | Literal["few"] = True
    lists: Annotated[dict[Slug, tuple[dict[str, object], ...]], Field(min_length=1)] = {"a": ()}


def read(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path, Outer)


def test_what_is_right_is_read(tmp_path: Path) -> None:
    outer = read(tmp_path, "name: 2026-11-20\nrate: 2e-4\ninner: {sparsity: 0.25}\nmany: [{sparsity: 0}, {}]\nnamed: {a: {sparsity: 0.1}}\n")
    assert outer == Outer(name="2026-11-20", rate=2e-4, inner=Inner(sparsity=0.25), many=(Inner(sparsity=0.0), Inner()), named={"a": Inner(sparsity=0.1)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\nrat: 1\n", r"unknown key 'rat' \(.*x.yaml:2\); did you mean 'rate'\?"),
        ("name: x\ninner:\n  sparsty: 0.5\n", r"unknown key 'sparsty' \(.*x.yaml:3\); did you mean 'sparsity'\?"),
        ("name: x\nmany:\n  - {}\n  - spars: 0.1\n", r"unknown key 'spars' \(.*x.yaml:4\); did you mean 'sparsity'\?"),
        ("name: x\nnamed:\n  a:\n    sparsity: 1.5\n", r"named.a.sparsity is a share in \[0, 1\), got 1.5 \(.*x.yaml:4\)"),
        ("name: x\nrate: fast\n", r"rate is a number, got 'fast' \(.*x.yaml:2\)"),
        ("name: x\nrate: '0.1'\n", r"rate is a number, got '0.1' \(.*x.yaml:2\)"),
        ("name: x\nrate: .nan\n", r"rate is a number, got NaN"),
        ("name: x\nname: y\n", r"'name' is given twice \(.*x.yaml:2\)"),
        ("rate: 1\n", r"name is missing \(.*x.yaml:1\)"),
        ("name: [x\n", r"not valid YAML: .* \(.*x.yaml:\d\)"),
        ("name: &a x\nmany:\n  - *a\n\n\n  - {}\n", r"uses a YAML alias .* \(.*x.yaml:3\)"),
        ("name: x\nrate: 9007199254740992\n", r"'9007199254740992' is a number beyond 9,007,199,254,740,991, .* \(.*x.yaml:2\)"),
        ('name: "\\ud800"\n', r"holds half a character \(.*x.yaml:1\)"),
        ('name: x\n"\\ud800": 1\n', r"a key is a word, and here stands something else \(.*x.yaml:2\)"),
        ("name: x\n[a, b]: 1\n", r"a key is a word, and here stands something else \(.*x.yaml:2\)"),
        ("name: !!binary aGk=\n", r"'aGk=' is bytes to YAML; write it as text, a number, true or false \(.*x.yaml:1\)"),
        ("name: x\nrate: " + "[" * 41 + "]" * 41, r"nested deeper than 40 lists and keys \(.*x.yaml:2\)"),
        ("name: x\nrate: " + "[" * 3000 + "]" * 3000, r"x.yaml is nested deeper than 40 lists and keys"),
        ("", r"is empty"),
        ("name: x\ntables: fw\n", r"^tables is true or false or 'few', got 'fw' \([^;]*x.yaml:2\)$"),
        ("name: x\ntables: 1\n", r"^tables is true or false or 'few', got 1 \([^;]*x.yaml:2\)$"),
        ("name: x\nlists: {}\n", r"^lists needs 1 or more, got {} \(.*x.yaml:2\)$"),
        ("name: x\nlists:\n  A: []\n", r"^lists.A is a name of at most 80 small letters, .*, got 'A' \(.*x.yaml:3\)$"),
        ("name: x\nlists:\n  a:\n    - wanda\n", r"^lists.a.0 is keys and values, got 'wanda' \(.*x.yaml:4\)$"),
        ("name: x\nlists: {a: }\n", r"^lists.a is a list, got null \(.*x.yaml:2\)$"),
        ("- 1\n", r"the file is keys and values"),
        ("name: !!python/object/apply:os.system [ls]\n", r"name is text"),
    ],
)
def test_what_is_wrong_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_settings(tmp_path / "no.yaml", Outer)
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read as UTF-8"):
        read_settings(tmp_path / "b.yaml", Outer)


def test_several_things_that_are_wrong_are_said_together(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        read(tmp_path, "name: x\nrat: 1\ninner: {sparsity: 2}\n")
    assert "unknown key 'rat'" in str(refusal.value)
    assert "inner.sparsity" in str(refusal.value)
