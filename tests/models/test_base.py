"""A base model is found where the recipe says, and refused when it is not the pinned one. The hub is a local server that speaks its protocol to the real client."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recompress.errors import InputError, IntegrityError
from recompress.integrity.digest import sha256_directory
from recompress.models.base import find_base
from tests.hub import HubHandler, serving

REVISION = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = b"weights of a model"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "pytorch_model.bin": b"a pickle", "run_me.py": b"print('no')"}


class Hub(HubHandler):
    """The two calls of a model hub that fetching one revision takes: what is in it, and each file."""

    asked: list[str] = []

    def get(self) -> None:
        Hub.asked.append(self.path)
        if self.path.startswith(f"/api/models/some/model/revision/{REVISION}"):
            body = json.dumps({"id": "some/model", "sha": REVISION, "siblings": [{"rfilename": name} for name in FILES]}).encode()
            self.answer(200, body, {"Content-Type": "application/json"})
        elif self.path.startswith("/api/models/some/model/tree/"):
            body = json.dumps(
                [{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()} for name, data in FILES.items()]
            ).encode()
            self.answer(200, body, {"Content-Type": "application/json"})
        elif self.path.startswith("/api/models/some/model/revision/"):
            self.answer(404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Revision Not Found"})
        elif (name := self.path.rsplit("/", 1)[-1]) in FILES and f"/resolve/{REVISION}/" in self.path:
            data = FILES[name]
            self.answer(200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": REVISION, "Content-Type": "application/octet-stream"})
        else:
            self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository Not Found"})


@pytest.fixture
def hub() -> Iterator[str]:
    with serving(Hub) as address:
        yield address


def ask(model: str, revision: str, tmp_path: Path, endpoint: str, sha256: str | None = None) -> subprocess.CompletedProcess[str]:
    """``find_base`` in a process of its own, because the client reads where the hub is when it is imported."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom recompress.models.base import find_base\nfrom recompress.errors import RecompressError\n"
        f"try: print(find_base({model!r}, revision={revision!r}, sha256={sha256!r}, root=Path({str(tmp_path)!r})))\n"
        "except RecompressError as error: print(error, file=sys.stderr); sys.exit(error.exit_code)\n"
    )
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "PATH": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=False)


def test_a_hub_model_is_fetched_at_its_commit_without_pickles_or_code(hub: str, tmp_path: Path) -> None:
    done = ask("some/model", REVISION, tmp_path, hub, SHA256)
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.strip().splitlines()[-1])
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert not any("pytorch_model.bin" in path or "run_me.py" in path for path in Hub.asked)
    assert all(file.is_symlink() for file in folder.iterdir()), "which is how the client keeps them, and what a run must take"
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    assert sha256_directory(folder) == sha256_directory(plain)
    # a second time, with the hub gone: from the local cache
    assert ask("some/model", REVISION, tmp_path, "http://127.0.0.1:1", SHA256).returncode == 0


@pytest.mark.parametrize(
    ("model", "revision", "sha256", "code", "message"),
    [
        ("some/model", REVISION, "0" * 64, 5, "the recipe says 000"),
        ("some/model", REVISION[::-1], None, 2, "has no revision"),
        ("no/model", REVISION, None, 2, "not on the hub"),
    ],
)
def test_what_the_hub_does_not_have_is_one_clear_line(hub: str, tmp_path: Path, model: str, revision: str, sha256: str | None, code: int, message: str) -> None:
    done = ask(model, revision, tmp_path, hub, sha256)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert message in done.stderr


def test_without_a_network_the_ways_out_are_named(tmp_path: Path) -> None:
    done = ask("some/model", REVISION, tmp_path, "http://127.0.0.1:1")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "package://" in done.stderr
    assert "folder" in done.stderr


def make(folder: Path, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(WEIGHTS)
    return folder


def test_a_folder_is_a_folder_and_its_digest_is_checked(tmp_path: Path) -> None:
    make(tmp_path / "mine")
    assert find_base("mine", sha256=SHA256, root=tmp_path) == tmp_path / "mine"
    with pytest.raises(IntegrityError, match="the recipe says 1111"):
        find_base("mine", sha256="1" * 64, root=tmp_path)


def test_a_package_is_looked_into_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "a_model_package"
    make(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_base("package://a_model_package/model", sha256=SHA256, root=tmp_path) == package / "model"
    with pytest.raises(InputError, match="holds no folder '../x'"):
        find_base("package://a_model_package/../x", root=tmp_path)
    with pytest.raises(InputError, match="pip install not-here"):
        find_base("package://not_here/model", root=tmp_path)


def test_pickles_missing_revisions_and_missing_folders_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "old", "pytorch_model.bin")
    with pytest.raises(InputError, match="a pickle"):
        find_base("old", root=tmp_path)
    with pytest.raises(InputError, match="needs base.revision"):
        find_base("some/model", root=tmp_path)
    with pytest.raises(InputError, match="is not a folder here"):
        find_base("./nowhere", root=tmp_path)
