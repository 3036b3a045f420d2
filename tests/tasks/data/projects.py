"""A project of a few made-up sentences, with a real DVC."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tasks.data.bring import accept
from tasks.data.workbench import run_dvc

PARAMS = """
datasets:
  toy: {benchmark: text-classification, format: jsonl, source: raw/toy, files: "{slice}/{split}.jsonl"}
  words: {benchmark: language-modelling, format: lines, source: raw/words, files: "{slice}.txt"}
  made: {benchmark: text-classification, format: jsonl, source: collected/made, files: "{split}.jsonl", split_off: {test: {share: 0.2}, dev: {share: 0.1}}}
"""
DVC = """
stages:
  collect_made:
    cmd: python "$COLLECT"
    deps: [params.yaml]
    outs: [collected/made]
  prepare:
    foreach: ${datasets}
    do:
      cmd: python -m recompress.data.prepare ${key}
      deps: ["${item.source}"]
      params: ["datasets.${key}"]
      outs: ["prepared/${key}"]
"""
COLLECT = """
import json, os, pathlib, time
folder = pathlib.Path("collected/made")
folder.mkdir(parents=True)
word = pathlib.Path(os.environ["MADE_FROM"]).read_text().strip()
if word == "wait":
    pathlib.Path(os.environ["MADE_FROM"]).with_suffix(".waiting").touch()
    time.sleep(60)
if word == "fail":
    raise SystemExit("the collector found nothing")
rows = [{"text": f"{word} {i}", "label": "ab"[i % 2]} for i in range(40)]
(folder / "train.jsonl").write_text("".join(json.dumps(row) + chr(10) for row in rows))
"""


def dvc(folder: Path, *arguments: str) -> None:
    completed = run_dvc(folder, folder, *arguments)
    assert completed.returncode == 0, completed.stderr


def put_raw(folder: Path) -> None:
    for slice_ in ("east", "west"):
        for split, count in (("train", 12), ("dev", 4), ("test", 4)):
            path = folder / "toy" / slice_ / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f'{{"text": "{split} {slice_} {i}", "label": "{"ab"[i % 2]}"}}\n' for i in range(count)))
    (folder / "words").mkdir()
    (folder / "words" / "east.txt").write_text("neno moja na lingine\nTest, EAST 3!\nmaneno mawili\n")


def make(root: Path) -> Path:
    """A project whose raw data is tracked and adopted, and whose prepared data is pinned."""
    root.mkdir()
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    for name, text in (("params.yaml", PARAMS), ("dvc.yaml", DVC), ("collect.py", COLLECT), ("word", "first")):
        (root / name).write_text(text.lstrip())
    dvc(root, "init", "-q")
    put_raw(root / "raw")
    dvc(root, "add", "-q", "raw/toy", "raw/words")
    return root


@pytest.fixture(scope="module")
def pinned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once; tests work on copies."""
    root = make(tmp_path_factory.mktemp("pinned") / "project")
    with pytest.MonkeyPatch.context() as patch:
        collector(patch, root)
        for name in ("toy", "words", "made"):
            assert accept(root, name)
    return root


@pytest.fixture
def project(pinned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(pinned, root)
    monkeypatch.delenv("RECOMPRESS_DATA_MIRROR", raising=False)
    collector(monkeypatch, root)
    return root


def collector(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """What the collecting stage reads: it stands for packages, which change without any file of the project changing."""
    monkeypatch.setenv("COLLECT", str(root / "collect.py"))
    monkeypatch.setenv("MADE_FROM", str(root / "word"))


def no_dvc(*_: Any, **__: Any) -> Any:
    raise AssertionError("DVC was asked although everything was here")


def lose(root: Path, *paths: str) -> None:
    for path in paths:
        shutil.rmtree(root / path)


def lock_of(root: Path) -> bytes:
    return (root / "dvc.lock").read_bytes()
