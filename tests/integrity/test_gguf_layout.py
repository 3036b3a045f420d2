"""A GGUF file is whole, or it is named as what it is not; nothing that it says of its own size is believed."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest

from recompress.errors import IntegrityError
from recompress.integrity.file_kinds import KINDS, check_kind
from recompress.integrity.gguf_layout import check_layout

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Every kind of value, and two tensors of which the second is in blocks."""
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("a", 7)
    writer.add_bool("b", True)
    writer.add_float32("c", 0.5)
    writer.add_string("d", "text")
    writer.add_array("e", ["one", "two"])
    writer.add_array("f", [1, 2, 3])
    writer.add_tensor("first", np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.add_tensor("second", gguf.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q4_0), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_a_whole_file_says_what_its_tensors_are(small: bytes) -> None:
    first, second = check_layout(io.BytesIO(small), len(small))
    assert (first.name, first.dimensions, first.kind, first.size) == ("first", (3, 2), 0, 24)
    assert (second.name, second.dimensions, second.kind, second.size) == ("second", (64, 2), 2, 72)


def test_a_file_that_ends_anywhere_before_its_end_is_refused(small: bytes, tmp_path: Path) -> None:
    padding = 32 - 72 % 32
    for length in range(len(small) - padding):
        with pytest.raises(ValueError):
            check_layout(io.BytesIO(small[:length]), length)
    (tmp_path / "model.gguf").write_bytes(small[: len(small) - padding - 1])
    with pytest.raises(IntegrityError, match="model.gguf is broken or cut short: it is .* bytes long, and its tensor second goes on beyond that"):
        check_kind(tmp_path, "model.gguf", KINDS)


def test_counts_that_the_file_has_no_room_for_are_refused_at_once(small: bytes) -> None:
    for place in (8, 16):
        with pytest.raises(ValueError, match="promises|ends within"):
            check_layout(io.BytesIO(small[:place] + struct.pack("<Q", 1 << 40) + small[place + 8 :]), len(small))
    length_of_e = small.index(b"\x03\x00\x00\x00\x00\x00\x00\x00one") - 8
    with pytest.raises(ValueError, match="promises 1,099,511,627,776 of something"):
        check_layout(io.BytesIO(small[:length_of_e] + struct.pack("<Q", 1 << 40) + small[length_of_e + 8 :]), len(small))


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda data: b"GGML" + data[4:], "does not begin with GGUF"),
        (lambda data: data[:4] + struct.pack("<I", 9) + data[8:], "version 9 is not known"),
        (
            lambda data: data.replace(b"second" + struct.pack("<IQ", 2, 64), b"second" + struct.pack("<IQ", 2, 63)),
            "rows of 63 numbers, its type has blocks of 32",
        ),
        (lambda data: data.replace(b"second" + struct.pack("<I", 2), b"second" + struct.pack("<I", 5)), "second has 5 dimensions"),
    ],
    ids=["magic", "version", "blocks", "dimensions"],
)
def test_what_is_no_gguf_is_named(small: bytes, change: object, said: str) -> None:
    spoilt = change(small)  # type: ignore[operator]
    assert spoilt != small
    with pytest.raises(ValueError, match=said):
        check_layout(io.BytesIO(spoilt), len(spoilt))


def test_tensors_of_a_type_that_is_not_known_are_left_to_whoever_reads_them(small: bytes) -> None:
    spoilt = small.replace(struct.pack("<IQQI", 2, 64, 2, 2), struct.pack("<IQQI", 2, 64, 2, 99))
    assert check_layout(io.BytesIO(spoilt), len(spoilt))[1].size == 0
