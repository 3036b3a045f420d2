"""Which tokens are seen rounded, one at a time; codes of a row by hand; and a directory that says nonsense of its cache."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from recompress.errors import IntegrityError
from recompress.models.cache_bits import CacheBits
from recompress.models.checkpoint import INFO_FILE, load, read_info, save
from recompress.models.packed.bits import unpack
from recompress.models.packed.ranges import in_ranges, joined, out_of_ranges
from tests.six import checkpoint_of


@pytest.mark.parametrize("group, residual", [(8, 1), (8, 4), (8, 8), (16, 20)])
def test_a_group_is_rounded_when_enough_tokens_stand_behind_it(group: Any, residual: int) -> None:
    form = CacheBits(4, group, residual)
    for read in range(1, 100):
        whole = [start + group for start in range(0, read, group) if start + group + residual <= read]
        assert form.rounded(read) == max(whole, default=0)
        assert residual <= read - form.rounded(read) or read < residual
        assert read - form.rounded(read) < residual + group


@pytest.mark.parametrize("group, residual", [(8, 1), (8, 4), (16, 20)])
def test_parts_are_as_long_as_all_tokens_of_one_see_the_same(group: Any, residual: int) -> None:
    form = CacheBits(4, group, residual)
    for held in range(40):
        for count in range(1, 50):
            places, parts = list(range(held, held + count)), list(form.parts(held, count))
            assert sum(parts) == count
            for number, part in enumerate(parts):
                mine, places = places[:part], places[part:]
                assert len({form.rounded(place + 1) for place in mine}) == 1
                assert number == len(parts) - 1 or form.rounded(places[0] + 1) > form.rounded(mine[0] + 1)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_codes_of_a_row_by_hand(bits: int) -> None:
    top = 2**bits - 1
    rows = torch.stack([torch.arange(32.0) % (top + 1) * 0.25 + 7, torch.full((32,), -3.5), torch.linspace(-1, 1, 32)])
    ranges = in_ranges(rows, bits)
    assert ranges.lows.tolist() == [7, -3.5, -1]
    assert float(ranges.steps[0]) == pytest.approx(0.25 * min(31, top) / top, rel=1e-3)
    assert float(ranges.steps[1]) == 0
    step = float(ranges.steps[2])
    assert unpack(ranges.codes, bits, 32)[2].tolist() == [min(top, round((float(x) + 1) / step)) for x in rows[2]]
    back = out_of_ranges(ranges, bits, 32)
    assert back[1].tolist() == rows[1].tolist()
    assert bool(((back - rows).abs() <= 0.5 * ranges.steps.float()[:, None] * 1.01 + 4e-3 / top).all())
    assert ranges.size_bytes == 3 * (32 * bits // 8 + 4)
    both = joined(ranges, in_ranges(rows[:1], bits))
    assert torch.equal(out_of_ranges(both, bits, 32), torch.cat([back, back[:1]]))
    assert joined(None, ranges) is ranges


def test_it_is_written_and_read_and_left_out_of_other_models(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("llama")
    save(checkpoint, tmp_path / "plain")
    assert "cache" not in json.loads((tmp_path / "plain" / INFO_FILE).read_text())
    form = CacheBits(2, 8, 4)
    save(replace(checkpoint, info=replace(checkpoint.info, cache=form)), tmp_path / "kept")
    assert read_info(tmp_path / "kept").cache == form
    assert load(tmp_path / "kept").info.cache == form


@pytest.mark.parametrize("wrong", [{"bits": 3}, {"group": 5}, {"residual": 0}, {"residual": "four"}, {"steps": 1}])
def test_nonsense_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = checkpoint_of("llama")
    save(replace(checkpoint, info=replace(checkpoint.info, cache=CacheBits(2, 8, 4))), tmp_path / "kept")
    path = tmp_path / "kept" / INFO_FILE
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"cache": told["cache"] | wrong}))
    with pytest.raises(IntegrityError, match="is broken: cache"):
        read_info(tmp_path / "kept")
