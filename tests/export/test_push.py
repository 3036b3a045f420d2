"""An exported folder goes to a hub by the real client. The hub is a local server that speaks its protocol: create, preupload, LFS batch, upload, verify, commit."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from recompress.export import export
from recompress.models.checkpoint import save
from tests.evidence.stories import KEY, OTHER
from tests.hub import HubHandler, serving
from tests.six import checkpoint_of

COMMIT = "c" * 40


class Hub(HubHandler):
    """Keeps what is committed; large files by their digest until a commit names them."""

    files: dict[str, bytes] = {}
    large: dict[str, bytes] = {}
    created: list[dict[str, Any]] = []
    tokens: set[str] = set()
    refuses = 0

    def post(self, body: bytes) -> None:
        Hub.tokens.add(self.headers.get("Authorization", ""))
        here = f"http://{self.headers['Host']}"
        if Hub.refuses:
            return self.answer(Hub.refuses, {"error": "no"})
        if self.path == "/api/repos/create":
            Hub.created.append(json.loads(body))
            return self.answer(200, {"url": f"{here}/team/topics", "name": "team/topics"})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith("safetensors") else "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if self.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**asked, "authenticated": True, "actions": {"upload": {"href": f"{here}/lfs/{asked['oid']}"}, "verify": {"href": f"{here}/verify"}}}
                for asked in json.loads(body)["objects"]
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if self.path == "/verify":
            return self.answer(200, {})
        if "/commit/" in self.path:
            for line in map(json.loads, body.decode().splitlines()):
                if line["key"] == "file":
                    Hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "lfsFile":
                    Hub.files[line["value"]["path"]] = Hub.large[line["value"]["oid"]]
            return self.answer(200, {"commitUrl": f"{here}/team/topics/commit/{COMMIT}", "commitOid": COMMIT, "hookOutput": "", "success": True})
        return self.answer(404, {"error": self.path})

    def put(self, body: bytes) -> None:
        assert self.path == f"/lfs/{hashlib.sha256(body).hexdigest()}"
        Hub.large[self.path.removeprefix("/lfs/")] = body
        self.answer(200, {})


@pytest.fixture
def hub() -> Iterator[str]:
    Hub.files, Hub.large, Hub.created, Hub.tokens, Hub.refuses = {}, {}, [], set(), 0
    with serving(Hub) as address:
        yield address


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("push")
    save(checkpoint_of("distilbert"), place / "model")
    (place / "keys").mkdir()
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (place / "keys" / "recompress.pem").write_bytes(pem)
    (place / "keys" / "recompress.pem").chmod(0o600)
    export(place / "model", place / "out", "transformers", facts={"model": "topics", "version": "3"}, key=KEY)
    return place


def push(
    place: Path, endpoint: str, repository: str = "team/topics", *more: str, folder: str = "out", token: str = "hf_secret_of_a_test"
) -> subprocess.CompletedProcess[str]:
    """In a process of its own, because the client reads where the hub is when it is imported."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = clean | {"HF_ENDPOINT": endpoint, "HF_HOME": str(place / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-m", "flows.cli", "--root", str(place), "push", str(place / folder), repository, *more]
    return subprocess.run(command, capture_output=True, text=True, env=environment | ({"HF_TOKEN": token} if token else {}), timeout=120, check=False)


def test_every_file_arrives_in_one_commit_and_the_secret_is_not_told(folder: Path, hub: str) -> None:
    done = push(folder, hub)
    assert done.returncode == 0, done.stderr
    assert Hub.files == {path.relative_to(folder / "out").as_posix(): path.read_bytes() for path in (folder / "out").rglob("*") if path.is_file()}
    assert Hub.created[0]["visibility"] == "private"
    assert Hub.tokens == {"Bearer hf_secret_of_a_test"}
    assert "hf_secret" not in done.stdout + done.stderr
    assert f"team/topics at {COMMIT}" in done.stdout
    assert push(folder, hub, "team/topics", "--public").returncode == 0
    assert Hub.created[1]["visibility"] == "public"


def test_a_changed_folder_and_one_of_somebody_else_are_not_uploaded(folder: Path, hub: str) -> None:
    import shutil

    shutil.copytree(folder / "out", folder / "changed", dirs_exist_ok=True)
    (folder / "changed" / "config.json").write_text("{}")
    export(folder / "model", folder / "foreign", "transformers", key=OTHER)
    for name in ("changed", "foreign"):
        done = push(folder, hub, folder=name)
        assert (done.returncode, done.stderr.count("\n")) == (5, 1), done.stderr
    assert not Hub.created
    assert not Hub.files


@pytest.mark.parametrize(
    ("refuses", "code", "why"), [(401, 2, "set HF_TOKEN"), (403, 2, "set HF_TOKEN"), (400, 2, "refuses to take"), (503, 1, "try again later")]
)
def test_a_hub_that_refuses_is_one_line(folder: Path, hub: str, refuses: int, code: int, why: str) -> None:
    Hub.refuses = refuses
    done = push(folder, hub)
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    assert "hf_secret" not in done.stderr


def test_a_hub_that_is_not_there_and_a_name_that_is_none_are_one_line(folder: Path) -> None:
    for done, why in ((push(folder, "http://127.0.0.1:1"), "cannot be reached"), (push(folder, "http://127.0.0.1:1", "topics"), "owner/name")):
        assert done.returncode != 0
        assert why in done.stderr
        assert "Traceback" not in done.stderr
