from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recompress.errors import IntegrityError
from recompress.integrity import model_files
from recompress.integrity.digest import canonical_json, sha256_bytes
from recompress.integrity.model_files import MANIFEST_FILE, MODEL_FOLDER, check_model_directory, check_version, read_manifest, take_out, write_manifest
from tests.promotion.stage import model_directory, safetensors

ONNX = b"\x08\x08\x12\x04test\x3a\x02\x0a\x00"


def make_version(root: Path) -> tuple[Path, str]:
    model_directory(root / MODEL_FOLDER, 1)
    (root / MODEL_FOLDER / "model.onnx").write_bytes(ONNX)
    (root / "MLmodel").write_text("flavors: {}\n")
    (root / "code" / "recompress").mkdir(parents=True)
    (root / "code" / "recompress" / "__init__.py").write_text('"""What serves it."""\n')
    (root / "code" / "recompress" / "__pycache__").write_text("")
    return root, write_manifest(root)


@pytest.fixture
def version(tmp_path: Path) -> tuple[Path, str]:
    return make_version(tmp_path / "version")


@pytest.fixture(scope="module")
def shared_version(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, list[str]]:
    root, digest = make_version(tmp_path_factory.mktemp("kept"))
    return root, digest, sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_the_digest_of_the_manifest_is_the_digest_of_the_folder(version: tuple[Path, str]) -> None:
    root, digest = version
    entries = check_version(root, digest)
    assert [e.path for e in entries] == sorted(e.path for e in entries)
    assert MANIFEST_FILE not in {e.path for e in entries}
    assert sha256_bytes((root / MANIFEST_FILE).read_bytes()) == digest == write_manifest(root)
    assert json.loads((root / MANIFEST_FILE).read_text()) == [list(e) for e in entries]
    (root / "registered_model_meta").write_text("model_name: x\n")
    check_version(root, digest)


@settings(deadline=None, max_examples=200)
@given(which=st.integers(0, 100), at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_every_single_byte_change_is_found_and_its_file_is_named(shared_version: tuple[Path, str, list[str]], which: int, at: int, byte: int) -> None:
    root, digest, paths = shared_version
    path = paths[which % len(paths)]
    data = (root / path).read_bytes()
    at = at % len(data) if data else 0
    changed = bytearray(data) or bytearray(b"?")
    changed[at] = byte if changed[at] != byte or not data else byte ^ 1
    (root / path).write_bytes(changed)
    try:
        with pytest.raises(IntegrityError, match=path.replace(".", r"\.")) as error:
            check_version(root, digest)
        assert "\n" not in str(error.value)
    finally:
        (root / path).write_bytes(data)
    check_version(root, digest)


def remove(root: Path) -> None:
    (root / MODEL_FOLDER / "vocab.txt").unlink()


def add(root: Path) -> None:
    (root / MODEL_FOLDER / "vocab2.txt").write_text("x")


def cut(root: Path) -> None:
    data = (root / MODEL_FOLDER / "vocab.txt").read_bytes()
    (root / MODEL_FOLDER / "vocab.txt").write_bytes(data[:-1])


def swap(root: Path) -> None:
    one, other = root / MODEL_FOLDER / "vocab.txt", root / MODEL_FOLDER / "config.json"
    one_bytes, other_bytes = one.read_bytes(), other.read_bytes()
    one.write_bytes(other_bytes)
    other.write_bytes(one_bytes)


def link(root: Path) -> None:
    (root / MODEL_FOLDER / "vocab.txt").rename(root.parent / "elsewhere.txt")
    (root / MODEL_FOLDER / "vocab.txt").symlink_to(root.parent / "elsewhere.txt")


def bytecode(root: Path) -> None:
    (root / "code" / "recompress" / "__pycache__").unlink()
    (root / "code" / "recompress" / "__pycache__").mkdir()
    (root / "code" / "recompress" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (remove, r"vocab\.txt is missing"),
        (add, r"vocab2\.txt stands in .* but not in its manifest"),
        (cut, r"vocab\.txt in .* has sha256"),
        (swap, r"config\.json in .* has sha256"),
        (link, r"vocab\.txt is a link"),
        (bytecode, r"__pycache__ is missing"),
        (lambda root: (root / MANIFEST_FILE).unlink(), "the upload was cut off"),
        (lambda root: shutil.rmtree(root), f"{MANIFEST_FILE} is missing"),
    ],
)
def test_what_was_done_to_a_version_is_found(version: tuple[Path, str], harm: Callable[[Path], None], message: str) -> None:
    root, digest = version
    harm(root)
    with pytest.raises(IntegrityError, match=message):
        check_version(root, digest)


def test_a_manifest_that_was_rewritten_to_fit_is_found_by_its_digest_alone(version: tuple[Path, str]) -> None:
    root, digest = version
    (root / MODEL_FOLDER / "vocab.txt").write_text("[UNK]\nkwaheri\n")
    assert write_manifest(root) != digest
    check_version(root, None)
    with pytest.raises(IntegrityError, match="belongs to another model"):
        check_version(root, digest)


@pytest.mark.parametrize("path", ["../outside.txt", "a/../../outside.txt", "/etc/passwd", "a\\..\\b", "./config.json", "a//b", "", "a/", "..", "x\0y", "x\ny"])
def test_a_path_that_leaves_the_folder_is_refused(version: tuple[Path, str], path: str) -> None:
    root, _ = version
    (root.parent / "outside.txt").write_text("x")
    data = canonical_json([[path, 1, sha256_bytes(b"x")]])
    (root / MANIFEST_FILE).write_bytes(data)
    with pytest.raises(IntegrityError, match="lies outside its directory or is no plain path") as refusal:
        take_out(root, sha256_bytes(data), root.parent / "copy")
    assert "\n" not in str(refusal.value)
    assert not (root.parent / "copy").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"[[1,2,3]]",
        b'[["a",1]]',
        b'[["a",true,"b"]]',
        b'[ ["a",1,"b"]]',
        b'[["b",1,"x"],["a",1,"x"]]',
        b'[["a",1,"x"],["a",2,"y"]]',
        b"[" * 50_000,
        b"\xff",
        b"x" * ((16 << 20) + 1),
    ],
)
def test_what_is_no_manifest_is_refused(version: tuple[Path, str], data: bytes) -> None:
    root, _ = version
    (root / MANIFEST_FILE).write_bytes(data)
    with pytest.raises(IntegrityError, match=MANIFEST_FILE):
        read_manifest(root, sha256_bytes(data))


def test_a_version_without_a_model_is_none(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("x")
    with pytest.raises(IntegrityError, match="holds no model"):
        write_manifest(tmp_path)


def test_take_out_copies_what_is_listed_and_nothing_else(version: tuple[Path, str], tmp_path: Path) -> None:
    root, digest = version
    (root / "registered_model_meta").write_text("x")
    copy = take_out(root, digest, tmp_path / "copy")
    assert check_version(copy, digest) == check_version(root, digest)
    assert not (copy / "registered_model_meta").exists()


def test_a_file_that_changes_between_the_check_and_the_copy_is_not_used(version: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, digest = version

    def check_and_swap(directory: Path, sha256: str) -> object:
        entries = check_version(directory, sha256)
        (directory / MODEL_FOLDER / "vocab.txt").write_text("[UNK]\nkwaheri\n")
        return entries

    monkeypatch.setattr(model_files, "check_version", check_and_swap)
    with pytest.raises(IntegrityError, match=r"artifacts/model/vocab\.txt in .* changed while it was read"):
        take_out(root, digest, tmp_path / "copy")


@pytest.mark.parametrize("name", ["modeling.py", "MLmodel", "conda.yaml"])
def test_what_serves_a_model_does_not_stand_in_it(version: tuple[Path, str], name: str) -> None:
    root, _ = version
    (root / MODEL_FOLDER / name).write_text("x = 1\n")
    with pytest.raises(IntegrityError, match=f"artifacts/model/{name} is of a kind that is not accepted"):
        write_manifest(root)


@pytest.mark.parametrize("second", [[0, 16], [8, 24], [20, 36]])
def test_tensors_that_share_bytes_or_leave_some_between_them_are_refused(tmp_path: Path, second: list[int]) -> None:
    header = json.dumps({name: {"dtype": "F32", "shape": [4], "data_offsets": span} for name, span in {"a": [0, 16], "b": second}.items()}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(second[1]))
    with pytest.raises(IntegrityError, match="its tensors overlap or leave gaps"):
        check_model_directory(tmp_path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("model.safetensors", pickle.dumps({"w": 1}), "is a pickle"),
        ("config.json", pickle.dumps({"w": 1}, protocol=2), "is a pickle"),
        ("config.json", pickle.dumps({"w": 1}, protocol=0), "broken"),
        ("model.onnx", pickle.dumps([1], protocol=0), "broken"),
        ("pytorch_model.bin", b"x", "of a kind that is not accepted"),
        ("model.pt", b"x", "of a kind that is not accepted"),
        ("model.pkl", b"x", "of a kind that is not accepted"),
        ("modeling.py", b"x = 1\n", "of a kind that is not accepted"),
        ("config", b"{}", "of a kind that is not accepted"),
        ("config.json", b"{", "broken"),
        ("vocab.txt", b"\xff\xfe", "broken"),
        ("vocab.txt", b"a\0b", "not a text"),
        ("model.safetensors", b"", "no safetensors header"),
        ("model.safetensors", safetensors(1)[:-1], "it should be"),
        ("model.safetensors", safetensors(1) + b"x", "it should be"),
        ("model.safetensors", (1 << 60).to_bytes(8, "little") + b"{}", "no safetensors header"),
        ("model.safetensors", (2).to_bytes(8, "little") + b"[]", "broken"),
        ("model.onnx", b"", "it holds no version of ONNX and no graph"),
        ("model.onnx", ONNX[:8], "it holds no graph"),
        ("model.onnx", ONNX[:-1], "beyond the end of the file"),
        ("model.onnx", ONNX + b"\x08", "ends within a number"),
        ("spm.model", b"plain words", "it holds no pieces"),
    ],
)
def test_what_no_model_may_hold(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    directory = model_directory(tmp_path / "model", 1)
    check_model_directory(directory)
    (directory / name).write_bytes(data)
    with pytest.raises(IntegrityError, match=message) as refusal:
        check_model_directory(directory)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_archive_under_another_name_is_refused(tmp_path: Path) -> None:
    directory = model_directory(tmp_path / "model", 1)
    with zipfile.ZipFile(directory / "model.safetensors", "w") as archive:
        archive.writestr("archive/data.pkl", b"x")
    with pytest.raises(IntegrityError, match="is a pickle or an archive"):
        check_model_directory(directory)


@pytest.mark.parametrize("kept_bytes", range(1, 60, 7))
def test_a_cut_model_is_refused_wherever_it_was_cut(tmp_path: Path, kept_bytes: int) -> None:
    directory = model_directory(tmp_path / "model", 1)
    (directory / "model.safetensors").write_bytes(safetensors(1)[:kept_bytes])
    with pytest.raises(IntegrityError, match="model.safetensors is broken or cut short"):
        check_model_directory(directory)


def test_files_that_real_libraries_write_are_accepted(tmp_path: Path) -> None:
    import numpy as np
    import onnx
    from onnx import TensorProto, helper
    from safetensors.numpy import save_file

    save_file({"a": np.zeros((3, 2), np.float32), "b": np.ones(5, np.int8)}, tmp_path / "model.safetensors", {"format": "pt"})
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    onnx.save(helper.make_model(helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])), str(tmp_path / "model.onnx"))
    check_model_directory(tmp_path)
