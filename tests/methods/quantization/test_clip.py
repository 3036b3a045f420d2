"""AWQ's clips: every group and factor in loops over the tokens themselves, rows that are never farther, and what a step saves with and without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import jaxtyped
from torch import Tensor

from recompress.errors import EffectMissing
from recompress.methods.quantization import awq, clip
from recompress.methods.quantization.awq import Awq
from recompress.methods.quantization.grid import FewBits, Grid, codes_on, grid_of, values_of
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from tests.methods.quantization.by_hand import uneven
from tests.six import inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
clipped_grid = jaxtyped(typechecker=beartype)(clip.clipped_grid)
CONFIGS = [
    FewBits(bits=3, group_size=8),
    FewBits(bits=2, group_size=8, symmetric=True),
    FewBits(bits=4),
    FewBits(bits=3, group_size=8, symmetric=True, scales="mse"),
]


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A matrix with some heavy weights, factors of its columns, and tokens whose inputs go together."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(60, 16, generator=draw, dtype=torch.float64) + 0.7 * torch.randn(60, 1, generator=draw, dtype=torch.float64)
    weight = torch.randn(6, 16, generator=draw, dtype=torch.float64)
    weight[torch.rand(weight.shape, generator=draw) < 0.1] *= 3
    return weight, torch.rand(16, generator=draw, dtype=torch.float64) + 0.5, tokens


def steps(group: Tensor, config: FewBits) -> Grid:
    return grid_of(group[None], config.bits, None, symmetric=config.symmetric, scales=config.scales)


def apart(group: Tensor, grid: Grid, columns: Tensor, config: FewBits) -> Tensor:
    return (group - values_of(codes_on(group[None], grid, config.bits), grid)[0]) * columns


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_each_group_has_the_best_clip_and_each_row_keeps_its_clips_where_they_help_it_as_a_whole(seed: int, config: FewBits, monkeypatch: Any) -> None:
    monkeypatch.setattr(clip, "CHUNK", 32)  # two rows at once
    weight, columns, tokens = drawn(seed)
    size, widened, kept, cut = config.group_size or 16, weight / columns, 0, 0
    found = clipped_grid(widened, columns, tokens.T @ tokens, config)
    for o in range(len(weight)):
        gaps: dict[str, list[Tensor]] = {"whole": [], "clipped": []}
        grids: dict[str, list[Grid]] = {"whole": [], "clipped": []}
        for g in range(16 // size):
            part = slice(g * size, (g + 1) * size)
            group, narrow, seen = widened[o, part], columns[part], tokens[:, part]
            most = float(group.abs().max())
            every = [steps(group, config), *(steps(group.clamp(-(1 - 0.05 * i) * most, (1 - 0.05 * i) * most), config) for i in range(1, 11))]
            losses = [float(sum((float(token @ apart(group, grid, narrow, config)) ** 2) for token in seen)) for grid in every]
            best = every[losses.index(min(losses))]
            cut += best is not every[0]
            for what, grid in (("whole", every[0]), ("clipped", best)):
                gaps[what].append(apart(group, grid, narrow, config))
                grids[what].append(grid)
        whole, clipped = (float((tokens @ torch.cat(gaps[what])).square().sum()) for what in ("whole", "clipped"))
        chosen = grids["clipped" if clipped < whole else "whole"]
        kept += clipped < whole
        for g, grid in enumerate(chosen):
            assert float(found.scales[o, g]) == pytest.approx(float(grid.scales), rel=1e-9)
            assert float(found.zeros[o, g]) == float(grid.zeros)
    assert kept > 0
    assert cut > 0


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_no_row_is_farther_from_what_it_was_than_without_clips_and_most_are_nearer(config: FewBits) -> None:
    weight, columns, tokens = drawn(7)
    hessian, error = tokens.T @ tokens, {}
    for what, given in (("clipped", hessian), ("whole", None)):
        quantized = awq.rounded_with(weight, columns, config, given)
        zeros = torch.full_like(quantized.scales, float(1 << (config.bits - 1))) if quantized.zeros is None else quantized.zeros
        values = values_of(quantized.codes, Grid(quantized.scales, zeros)) * columns
        error[what] = (tokens @ (weight - values).T).square().sum(0)
    assert bool((error["clipped"] <= error["whole"] * (1 + 1e-9)).all())
    assert int((error["clipped"] < error["whole"]).sum()) >= 3


def test_groups_that_help_alone_and_harm_the_row_are_not_clipped() -> None:
    """Two groups whose errors cancel: each alone would be nearer with a clip, both together would not."""
    harmed = 0
    for seed in range(40):
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(8, 16, generator=draw, dtype=torch.float64)
        common = torch.randn(50, 1, generator=draw, dtype=torch.float64)
        tokens, config = common.expand(-1, 16) + 0.05 * torch.randn(50, 16, generator=draw, dtype=torch.float64), FewBits(bits=2, group_size=8)
        found, whole = clipped_grid(weight, torch.ones(16, dtype=torch.float64), tokens.T @ tokens, config), grid_of(weight, 2, 8, symmetric=False)
        losses = [(tokens @ (weight - values_of(codes_on(weight, grid, 2), grid)).T).square().sum(0) for grid in (found, whole)]
        assert bool((losses[0] <= losses[1] * (1 + 1e-9)).all())
        harmed += int((found.scales == whole.scales).all(1).sum())
    assert harmed > 0


@pytest.mark.parametrize(("family", "dials"), [("bert", {}), ("llama", {"foldable": True}), ("gpt2", {"symmetric": True})], ids=str)
def test_a_step_clips_where_it_is_told_to_at_the_same_bytes(family: str, dials: dict[str, Any], tmp_path: Path) -> None:
    save(uneven(family), tmp_path / "source")
    reports = {}
    for told in (True, False):
        config = Awq(bits=3, group_size=16, clip=told, calibration_examples=12, **dials)
        reports[told] = run_step("awq", config, tmp_path / "source", tmp_path / str(told), inputs_of(family, tmp_path / f"work-{told}", 24))
    assert reports[True].size_bytes == reports[False].size_bytes
    scales = {told: [m.scales for m in load(tmp_path / str(told)).torch_network.modules() if hasattr(m, "scales")] for told in reports}
    smaller = [float((clipped.abs() < whole.abs()).float().mean()) for clipped, whole in zip(scales[True], scales[False], strict=True)]
    assert all(share > 0.1 for share in smaller)
    claims = [[claim["what"] for claim in reports[told].claims] for told in (True, False)]
    assert ["error of the layers' outputs, at most 99.9% of that without clips" in each for each in claims] == [True, False]


@pytest.mark.parametrize("family", ["bert", "llama", "gpt2"])
def test_clips_that_clip_nothing_are_refused(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The errors are the same but for the order of sums, which may fall either way."""
    monkeypatch.setattr(awq, "clipped_grid", lambda rows, columns, hessian, config: grid_of(rows, config.bits, config.group_size, symmetric=config.symmetric))
    save(uneven(family), tmp_path / "source")
    with pytest.raises(EffectMissing, match="error of the layers' outputs, at most 99.9% of that without clips"):
        run_step("awq", Awq(bits=4, clip=True, group_size=16), tmp_path / "source", tmp_path / "made", inputs_of(family, tmp_path / "work", 24))


def test_clips_that_harm_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that cuts half of every range, whatever it costs."""
    usual = awq.clipped_grid

    def halved(*given: Any) -> Grid:
        grid = usual(*given)
        return Grid(grid.scales * 0.5, grid.zeros)

    monkeypatch.setattr(awq, "clipped_grid", halved)
    save(uneven("bert"), tmp_path / "source")
    with pytest.raises(EffectMissing, match="error of the layers' outputs, at most 99.9% of that without clips"):
        run_step("awq", Awq(bits=4, clip=True), tmp_path / "source", tmp_path / "made", inputs_of("bert", tmp_path / "work", 24))
    assert not (tmp_path / "made").exists()


def test_settings_of_before_are_written_as_they_were() -> None:
    """What an earlier version wrote keeps its digest."""
    assert "clip" not in Awq().model_dump(mode="json")
    assert Awq(clip=True).model_dump(mode="json")["clip"] is True
