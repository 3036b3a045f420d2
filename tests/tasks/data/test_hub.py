"""A data set of a hub: fetched at its commit by the real client from a local server, pinned, brought again, and refused when it is another."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recompress.data.sources import read_settings_of
from recompress.errors import InputError
from tests.hub import HubHandler, serving
from tests.tasks.data.projects import DVC, dvc

REVISION = "89abcdef0123456789abcdef0123456789abcdef"
HERE = Path(__file__).parents[2] / "data" / "files" / "texts_parquet"
ENTRY = """
datasets:
  theirs:
    benchmark: text-classification
    format: parquet
    source: raw/theirs
    files: "data/{{split}}-*.parquet"
    rename: {{validation: dev}}
    hub: {{dataset: {dataset}, revision: "{revision}"}}
"""


class Hub(HubHandler):
    """What a hub answers when one commit of a data set is fetched. It holds a script and a readme too, which nobody should ask for."""

    files: dict[str, bytes] = {}
    asked: list[str] = []

    def get(self) -> None:
        Hub.asked.append(self.path)
        name = self.path.partition(f"/resolve/{REVISION}/")[2]
        if self.path.startswith(f"/api/datasets/some/texts/revision/{REVISION}"):
            self.answer(200, json.dumps({"id": "some/texts", "sha": REVISION, "siblings": [{"rfilename": file} for file in Hub.files]}).encode(), {})
        elif self.path.startswith("/api/datasets/some/texts/tree/"):
            tree = [{"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for file, data in Hub.files.items()]
            self.answer(200, json.dumps(tree).encode(), {})
        elif self.path.startswith("/api/datasets/some/texts/revision/"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Revision Not Found"})
        elif name in Hub.files and self.path.startswith("/datasets/some/texts/"):
            data = Hub.files[name]
            self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository Not Found"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    files = {f"data/{path.name}": path.read_bytes() for path in sorted(HERE.iterdir())}
    monkeypatch.setattr(Hub, "files", files | {"texts.py": b"raise SystemExit", "README.md": b"about", "data/extra.parquet": b"of another config"})
    monkeypatch.setattr(Hub, "asked", [])
    with serving(Hub) as address:
        yield address


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "dvc.yaml").write_text(DVC.lstrip())
    (root / "params.yaml").write_text(ENTRY.format(dataset="some/texts", revision=REVISION))
    return root


def cli(root: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, because the client reads where the hub is when it is imported."""
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(root / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PATH": "/usr/bin:/bin",
    }
    environment |= {"PYTHONPATH": str(Path(__file__).parents[3]), "HOME": str(root)}
    command = [sys.executable, "-m", "flows.cli", "--root", str(root), "data", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment, timeout=200, check=False)


def test_a_data_set_of_a_hub_is_fetched_pinned_explained_and_brought_again(hub: str, theirs: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=theirs, check=True)
    dvc(theirs, "init", "-q")
    fetched = cli(theirs, hub, "fetch", "theirs", "--json")
    assert fetched.returncode == 0, fetched.stderr
    assert {path.name: path.read_bytes() for path in (theirs / "raw" / "theirs" / "data").iterdir()} == {
        path.name: path.read_bytes() for path in HERE.iterdir()
    }
    assert not any("texts.py" in path or "README" in path or "extra" in path for path in Hub.asked if "/resolve/" in path)
    assert json.loads(fetched.stdout)["md5"] in (theirs / "raw" / "theirs.dvc").read_text()
    explained = cli(theirs, "http://127.0.0.1:1", "explain", "theirs", "--json")
    assert json.loads(explained.stdout)["rows"] == {"train": 24, "dev": 8, "test": 8}, explained.stderr
    for lost in (theirs / "raw" / "theirs", theirs / ".dvc" / "cache"):
        shutil.rmtree(lost)
    accepted = cli(theirs, hub, "accept", "theirs")  # a fresh clone: the pointer is there, the bytes are not
    assert accepted.returncode == 0, accepted.stderr
    assert (theirs / "prepared" / "theirs" / "test.parquet").is_file()


def test_a_hub_that_gives_other_files_than_the_pin_is_refused(hub: str, theirs: Path) -> None:
    (theirs / "raw").mkdir()
    (theirs / "raw" / "theirs.dvc").write_text(f"outs:\n- md5: {'0' * 32}.dir\n  size: 4887\n  nfiles: 3\n  hash: md5\n  path: theirs\n")
    for command in ("fetch", "accept"):
        refused = cli(theirs, hub, command, "theirs")
        assert (refused.returncode, refused.stderr.count("the hub gives other files")) == (3, 1), refused.stderr
        assert not (theirs / "raw" / "theirs").exists()


@pytest.mark.parametrize(
    ("dataset", "revision", "code", "message"),
    [("some/texts", REVISION[::-1], 2, "has no revision"), ("no/texts", REVISION, 2, "is not on the hub")],
)
def test_what_the_hub_does_not_have_is_one_line_and_nothing_is_left(hub: str, theirs: Path, dataset: str, revision: str, code: int, message: str) -> None:
    (theirs / "params.yaml").write_text(ENTRY.format(dataset=dataset, revision=revision))
    refused = cli(theirs, hub, "fetch", "theirs")
    assert (refused.returncode, message in refused.stderr, refused.stderr.count("recompress: ")) == (code, True, 1), refused.stderr
    assert not (theirs / "raw" / "theirs").exists()


def test_without_a_network_and_without_a_file_the_ways_out_are_named(hub: str, theirs: Path) -> None:
    refused = cli(theirs, "http://127.0.0.1:1", "fetch", "theirs")
    assert (refused.returncode, "neither in the local cache nor can the hub be reached" in refused.stderr) == (2, True), refused.stderr
    (theirs / "params.yaml").write_text(ENTRY.format(dataset="some/texts", revision=REVISION).replace("data/{split}-*", "{split}"))
    refused = cli(theirs, hub, "fetch", "theirs")
    assert (refused.returncode, "has no file like {split}.parquet" in refused.stderr) == (3, True), refused.stderr


@pytest.mark.parametrize(("revision", "dataset"), [("main", "some/texts"), (REVISION[:12], "some/texts"), (REVISION, "texts"), (REVISION, "../texts")])
def test_a_name_that_moves_is_no_revision(revision: str, dataset: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(ENTRY.format(dataset=dataset, revision=revision))
    with pytest.raises(InputError, match=r"is a (full commit|hub id)"):
        read_settings_of(tmp_path, "theirs")
