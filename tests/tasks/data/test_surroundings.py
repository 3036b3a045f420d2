"""Data as DVC puts it there: links into its cache, on other disks, pinned by older versions, pinned wherever, brought by whatever DVC is set to."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
from pathlib import Path

import pytest

from recompress.data.ignored import ignored_in
from recompress.errors import DataRefused, StorageError
from recompress.integrity.digest import sha256_directory
from tasks.data.bring import accept, bring
from tasks.data.dvc_config import quoted, read_config
from tasks.data.fetch import silent_host
from tasks.data.pins import is_here, pin_of_source, tracked
from tasks.data.placing import replaced
from tasks.data.status import status
from tests.tasks.data.projects import dvc, lock_of, lose


def states(root: Path) -> dict[str, str]:
    return {row["name"]: f"{row['state']}: {row['detail']}" for row in status(root)}


def test_links_into_dvc_s_cache_are_what_dvc_put_there_and_others_are_foreign(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config").write_text("[cache]\n    type = symlink\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "mine"))
    lose(project, "raw/toy", "prepared/toy")
    dvc(project, "checkout", "-q", "raw/toy.dvc", "prepare@toy")
    assert (project / "raw" / "toy" / "east" / "dev.jsonl").is_symlink()
    assert (project / "prepared" / "toy" / "dev.parquet").is_symlink()
    assert states(project)["toy"].startswith("ready: ")
    brought = bring(project, "toy")
    assert sha256_directory(brought.prepared) == brought.dataset.sha256, "what has a digest holds plain files"
    assert accept(project, "toy") == {}, "the bench has files of its own, whatever the user's settings"
    assert not (project / "prepared" / "toy" / "dev.parquet").is_symlink()
    foreign = project / "raw" / "toy" / "east" / "dev.jsonl"
    shutil.copyfile(foreign, tmp_path / "dev.jsonl")
    foreign.unlink()
    foreign.symlink_to(tmp_path / "dev.jsonl")
    with pytest.raises(DataRefused, match="is a link"):
        is_here(project, tracked(project)["raw/toy"])


def test_data_is_placed_on_another_disk(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other disk"
    shutil.move(project / "prepared", other)
    (project / "prepared").symlink_to(other)
    usual = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.is_relative_to(other) != Path(target).is_relative_to(other):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self))
        return usual(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    (project / "raw" / "toy" / "east" / "train.jsonl").write_text('{"text": "one more", "label": "a"}\n{"text": "and another", "label": "b"}\n')
    dvc(project, "add", "-q", "raw/toy")
    assert accept(project, "toy").keys() == {"prepared/toy"}
    assert states(project)["toy"].startswith("ready: ")
    lose(project, "prepared/toy")
    bring(project, "toy")
    assert sorted(path.name for path in other.iterdir()) == ["made", "toy", "words"]


@pytest.mark.parametrize(
    ("error", "reason"), [(errno.EBUSY, "a mount cannot be replaced; mount the folder around it"), (errno.ENOSPC, "No space left on device")]
)
def test_where_nothing_can_be_placed_the_old_data_and_its_pin_stay(project: Path, monkeypatch: pytest.MonkeyPatch, error: int, reason: str) -> None:
    old, lock, usual = sha256_directory(project / "prepared" / "toy"), lock_of(project), Path.rename
    (project / "raw" / "toy" / "east" / "train.jsonl").write_text('{"text": "one more", "label": "a"}\n{"text": "and another", "label": "b"}\n')
    dvc(project, "add", "-q", "raw/toy")

    def rename(self: Path, target: Path) -> Path:
        if self == project / "prepared" / "toy" or (error == errno.ENOSPC and ".toy.new-" in str(target)):
            raise OSError(error, os.strerror(error), str(self))
        return usual(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match=f"toy cannot be put into its place: .*{reason}; nothing was changed"):
        accept(project, "toy")
    assert (sha256_directory(project / "prepared" / "toy"), lock_of(project)) == (old, lock)
    assert sorted(path.name for path in (project / "prepared").iterdir()) == ["made", "toy", "words"]


def test_what_is_placed_gives_way_again_where_the_rest_fails_and_a_killed_placing_is_taken_up(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    target = tmp_path / "target"
    shutil.copytree(tmp_path / "old", target)

    def fail() -> None:
        with replaced({target: tmp_path / "new"}):
            assert (target / "file").read_text() == "new"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (target / "file").read_text() == "old"
    target.rename(tmp_path / ".target.old-01234567")  # killed between the two renames
    (tmp_path / ".target.new-01234567").mkdir()
    shutil.copytree(tmp_path / "old", tmp_path / "new", dirs_exist_ok=True)
    with replaced({target: tmp_path / "new"}):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "target"]


def test_what_dvcignore_names_is_not_counted(project: Path) -> None:
    junk = project / "raw" / "toy" / ".DS_Store"
    junk.write_text("x")
    assert states(project)["toy"].startswith("refused: raw/toy was changed")
    (project / ".dvcignore").write_text("# what the desktop leaves\n.DS_Store\n*.bak\n!kept.bak\nscratch/\n")
    assert states(project)["toy"].startswith("ready: ")
    assert accept(project, "toy") == {}, "nor read"
    ignored = ignored_in(project / "raw")
    verdicts = {"toy/a.bak": True, "toy/kept.bak": False, "toy/scratch/x": True, "toy/east/train.jsonl": False}
    assert {name: ignored(project / "raw" / name) for name in verdicts} == verdicts


def test_what_dvc_2_pinned_is_taken_as_dvc_takes_it(project: Path) -> None:
    raw, files, size = project / "raw" / "toy", [], 0
    for path in sorted(raw.rglob("*.jsonl")):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        size += path.stat().st_size
        files.append({"md5": hashlib.md5(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest(), "relpath": path.relative_to(raw).as_posix()})
    listing = json.dumps(sorted(files, key=lambda file: file["relpath"]), sort_keys=True)
    md5 = hashlib.md5(listing.encode()).hexdigest() + ".dir"
    pointer = project / "raw" / "toy.dvc"
    pointer.write_text(f"outs:\n- md5: {md5}\n  size: {size}\n  nfiles: {len(files)}\n  path: toy\n")
    assert states(project)["toy"].startswith("ready: ")
    accept(project, "toy")  # DVC 3 reads the same bytes under another name
    assert states(project)["toy"].startswith("ready: ")
    pointer.write_text(pointer.read_text().replace("outs:\n- md5", "outs:\n- hash: md5\n  md5"))
    assert states(project)["toy"].startswith("refused: ")


def test_the_pointer_of_a_source_is_found_wherever_it_stands(project: Path) -> None:
    (project / "corpora").mkdir()
    (project / "raw" / "toy").rename(project / "corpora" / "mine")
    (project / "raw" / "toy.dvc").unlink()
    settings = project / "params.yaml"
    settings.write_text(settings.read_text().replace("source: raw/toy", "source: corpora/mine"))
    with pytest.raises(DataRefused, match="`dvc add corpora/mine`"):
        accept(project, "toy")
    dvc(project, "add", "-q", "corpora/mine")
    accept(project, "toy")
    assert states(project)["toy"].startswith("ready: ")
    (project / "corpora" / "mine.dvc").rename(project / "mine.dvc")
    (project / "mine.dvc").write_text(f"wdir: corpora\n{(project / 'mine.dvc').read_text()}")
    assert pin_of_source(project, "corpora/mine") is not None
    (project / "mine.dvc").unlink()
    (project / "corpora" / ".gitignore").unlink()
    dvc(project, "add", "-q", "corpora")
    with pytest.raises(
        DataRefused, match=r"corpora/mine lies in corpora, which corpora\.dvc pins as a whole.*`dvc remove corpora.dvc`, then `dvc add corpora/mine`"
    ):
        accept(project, "toy")


def test_a_remote_of_the_user_s_own_settings_is_asked(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config").write_text(f"[core]\n    remote = team\n['remote \"team\"']\n    url = {tmp_path / 'remote'}\n")
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "mine"))
    assert read_config(project).remotes == ("team",)
    dvc(project, "push", "-q", "raw/toy.dvc")
    lose(project, "raw/toy", ".dvc/cache")
    bring(project, "toy")
    assert is_here(project, tracked(project)["raw/toy"])


def test_whether_a_host_answers_is_asked_at_its_own_port_and_only_where_nothing_else_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert silent_host(f"git://127.0.0.1:{port}/corpus") == silent_host(f"http://127.0.0.1:{port}/corpus") == ""
    assert silent_host(f"https://127.0.0.1:{port}/corpus") == "127.0.0.1"
    assert silent_host("git@127.0.0.1:corpus") == silent_host("ssh://git@127.0.0.1:9/corpus") == silent_host(str(tmp_path)) == ""
    (tmp_path / "gitconfig").write_text('[url "http://mirror/"]\n    insteadOf = https://127.0.0.1/\n')
    assert silent_host(f"https://127.0.0.1:{port}/corpus") == ""
    (tmp_path / "gitconfig").unlink()
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert silent_host(f"https://127.0.0.1:{port}/corpus") == ""


def test_a_mirror_that_is_not_there_and_stages_that_cannot_be_read_are_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose(project, "raw/toy", ".dvc/cache")
    monkeypatch.setenv("RECOMPRESS_DATA_MIRROR", "/no/such/folder")
    with pytest.raises(DataRefused, match="RECOMPRESS_DATA_MIRROR names /no/such/folder, which is no folder"):
        bring(project, "toy")
    (project / "dvc.yaml").write_text("stages: [\n")
    with pytest.raises(DataRefused, match=r"dvc\.yaml:2 cannot be read: .*restore it from git"):
        accept(project, "toy")


@pytest.mark.parametrize("name", ["a b", "a#b, c", 'a"b', "a'b", "a%b"])
def test_a_cache_in_a_folder_with_an_odd_name_is_named_as_dvc_reads_it(tmp_path: Path, name: str) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(f"[cache]\n    dir = {quoted(tmp_path / name)}\n")
    assert read_config(tmp_path).cache == tmp_path / name
