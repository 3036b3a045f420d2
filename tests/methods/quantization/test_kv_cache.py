"""The step that keeps keys and values in few bits: what it writes down, what it proves, what takes it along and what refuses it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recompress.errors import EffectMissing, InputError
from recompress.export import export
from recompress.methods.chain import check_chain
from recompress.methods.quantization.kv_cache import FILES, KvCache, prove, worst_rounding
from recompress.methods.registry import Claim, all_methods, get_method
from recompress.methods.runner import StepReport, run_step
from recompress.models.cache_bits import CacheBits
from recompress.models.checkpoint import load, read_info, save
from recompress.models.one_file import FILES as OTHER_RUNTIMES
from recompress.predict import Predictor
from recompress.runtimes import open_runtime, rounded_cache, runtime_of
from tests.six import DECODERS, checkpoint_of, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
DIALS: dict[str, Any] = {"bits": 2, "group": 8, "residual": 4}
TOKENS = [(7 * i) % 200 + 5 for i in range(40)]


def step(family: str, place: Path, **dials: Any) -> StepReport:
    if not (place / "source").exists():
        checkpoint = checkpoint_of(family, tie_word_embeddings=False)
        checkpoint.torch_network.get_output_embeddings().weight.data.mul_(8)  # it says loudly what it says
        save(checkpoint, place / "source")
    return run_step("kv_cache", KvCache(**DIALS | dials), place / "source", place / "kept", inputs_of(family, place / "work"))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("family", DECODERS)
def test_it_is_written_down_and_proven(family: str, bits: int, tmp_path: Path) -> None:
    report = step(family, tmp_path, bits=bits)
    assert read_info(tmp_path / "kept").cache == CacheBits(bits, 8, 4)  # type: ignore[arg-type]
    assert all(Claim(**claim).kept for claim in report.claims)
    assert report.parameters == report.parameters_before
    before, after = (load(tmp_path / name).torch_network.state_dict() for name in ("source", "kept"))
    assert all(tensor.equal(after[name]) for name, tensor in before.items())
    claims = {claim["what"]: claim["measured"] for claim in report.claims}
    assert claims["bits of a number that is rounded"] == bits + 4
    assert claims["tokens that are rounded"] == 24


def test_whoever_opens_the_directory_answers_through_it(tmp_path: Path) -> None:
    step("llama", tmp_path)
    feature = [{"input_ids": TOKENS, "attention_mask": [1] * 40}]
    [served], [plain] = (open_runtime(tmp_path / name).logits(feature) for name in ("kept", "source"))
    checkpoint = load(tmp_path / "source")
    [wanted] = runtime_of(replace(checkpoint, info=replace(checkpoint.info, cache=CacheBits(2, 8, 4)))).logits(feature)
    assert np.array_equal(served, wanted)
    assert np.abs(served - plain).max() > 1e-2
    one, other = (
        Predictor(tmp_path / name).continue_text(["nyumba ya asha na " * 2, "kula leo jana kazi ya kwa", "cheza na juma, leo kwa"], 40)
        for name in ("kept", "source")
    )
    assert one != other


def test_packed_weights_take_it_along(tmp_path: Path) -> None:
    step("llama", tmp_path)
    inputs = inputs_of("llama", tmp_path / "packing")
    run_step("rtn", get_method("rtn").config(bits=8), tmp_path / "kept", tmp_path / "packed", inputs)
    assert read_info(tmp_path / "packed").cache == CacheBits(2, 8, 4)
    runtime: Any = open_runtime(tmp_path / "packed")
    runtime.prefill(TOKENS, 64)
    assert isinstance(runtime.cache, rounded_cache.RoundedCache)


def test_the_farthest_key_by_hand() -> None:
    exact = np.zeros((1, 16, 2), dtype=np.float32)
    exact[0, :8, 0], exact[0, 8:, 0], exact[0, :, 1] = np.arange(8), 3 * np.arange(8), np.arange(16)
    kept = exact.copy()
    kept[0, 3, 0] += 0.5
    assert worst_rounding(exact, kept, CacheBits(4, 8, 1), by_channel=True) == pytest.approx(0.5 / (7 / 15))
    kept[0, 12, 0] += 1.4
    assert worst_rounding(exact, kept, CacheBits(4, 8, 1), by_channel=True) == pytest.approx(0.5 / (7 / 15))
    kept[0, 12, 0] += 1
    assert worst_rounding(exact, kept, CacheBits(4, 8, 1), by_channel=True) == pytest.approx(2.4 / (21 / 15))


def keys_by_token(keys: Any, form: CacheBits) -> Any:
    return rounded_cache.in_ranges(keys.reshape(-1, form.group), form.bits)


WRONG: dict[str, tuple[str, Any, str]] = {
    "values are in another order": (
        "round_values",
        lambda values, form: rounded_cache.in_ranges(values.flip(2).reshape(-1, form.group), form.bits),
        "largest rounding of a value",
    ),
    "keys are rounded by token": ("round_keys", keys_by_token, "largest rounding of a key"),
    "more bits than were asked for": ("in_ranges", lambda rows, bits: rounded_cache.joined(None, _in_eight(rows)), "bits of a number"),
}


def _in_eight(rows: Any) -> Any:
    from recompress.models.packed.ranges import in_ranges

    return in_ranges(rows, 8)


@pytest.mark.parametrize("what", WRONG)
def test_a_cache_that_rounds_otherwise_is_noticed(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong, why = WRONG[what]
    monkeypatch.setattr(rounded_cache, name, wrong)
    if what.startswith("more"):
        monkeypatch.setattr(rounded_cache, "out_of_ranges", lambda ranges, bits, columns: _out_of_eight(ranges, columns))
    with pytest.raises(EffectMissing, match=why):
        step("llama", tmp_path)
    assert not (tmp_path / "kept").exists()


def _out_of_eight(ranges: Any, columns: int) -> Any:
    from recompress.models.packed.ranges import out_of_ranges

    return out_of_ranges(ranges, 8, columns)


def test_a_runtime_that_does_not_look_is_noticed(tmp_path: Path) -> None:
    step("llama", tmp_path)
    before, after = load(tmp_path / "source"), load(tmp_path / "kept")
    after.info = replace(after.info, cache=None)
    claims = prove(before, after, KvCache(**DIALS), inputs_of("llama", tmp_path / "work"))
    assert not all(claim.kept for claim in claims)


def test_another_form_than_was_asked_for_is_noticed(tmp_path: Path) -> None:
    step("llama", tmp_path)
    before, after = load(tmp_path / "source"), load(tmp_path / "kept")
    for dials in ({"bits": 4}, {"residual": 12}):
        assert not all(claim.kept for claim in prove(before, after, KvCache(**DIALS | dials), inputs_of("llama", tmp_path / "work")))


def _spoil(layer: Any, keys: Any, values: Any) -> Any:
    return keys, 40 * values.flip(2) if layer.rounded else values


def test_garbage_in_later_layers_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer is looked at number by number, all others by what becomes of the answers."""
    begin = rounded_cache.RoundedCache.__init__

    def spoiled(self: Any, *given: Any) -> None:
        begin(self, *given)
        for layer in self.layers[1:]:
            layer.update = lambda *states, update=layer.update, layer=layer: _spoil(layer, *update(*states))

    monkeypatch.setattr(rounded_cache.RoundedCache, "__init__", spoiled)
    with pytest.raises(EffectMissing, match="how far answers moved"):
        step("llama", tmp_path)


@pytest.mark.parametrize(
    "dials, why",
    [
        ({"group": 16}, "group 16 does not divide the 8 channels of a head; choose 8"),
        ({"residual": 9}, "residual 9 and group 8 leave every token of the 16 that are read as it is.*leave the step out"),
    ],
)
def test_what_would_do_nothing_or_does_not_fit_is_refused(dials: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        step("llama", tmp_path, **dials)
    assert not (tmp_path / "kept").exists()


def test_a_head_that_no_group_divides_is_told_so(tmp_path: Path) -> None:
    save(checkpoint_of("llama", head_dim=12), tmp_path / "source")
    with pytest.raises(InputError, match="group 32 does not divide the 12 channels of a head; nor does any other; leave the step out"):
        run_step("kv_cache", KvCache(), tmp_path / "source", tmp_path / "kept", inputs_of("llama", tmp_path / "work"))


def test_it_is_not_refused_for_leaving_the_weights_as_they_are(tmp_path: Path) -> None:
    step("llama", tmp_path)
    with pytest.raises(InputError, match="kv_cache cannot follow kv_cache: .*one such step is enough"):
        run_step("kv_cache", KvCache(**DIALS | {"bits": 4}), tmp_path / "kept", tmp_path / "again", inputs_of("llama", tmp_path / "work"))


def test_every_method_that_leaves_torch_refuses_it_and_says_the_way_out() -> None:
    away = {name for name, method in all_methods().items() if method.gives in OTHER_RUNTIMES}
    assert away == set(FILES)
    for name in away:
        method = get_method(name)
        packing = [] if method.takes == "torch" else [("rtn", get_method("rtn").config(group_size=32, symmetric=True))]
        if set(method.benchmarks) & {"language-modelling"} and "llama" in method.architectures:
            with pytest.raises(InputError, match=f"{name} cannot follow kv_cache: it has a cache of its own.*; leave kv_cache out, or stay on torch"):
                check_chain([("kv_cache", KvCache()), *packing, (name, method.config())], "language-modelling", "llama")


@pytest.mark.parametrize("to", ["transformers", "onnx", "gguf"])
def test_no_export_leaves_it_behind_in_silence(to: str, tmp_path: Path) -> None:
    step("llama", tmp_path)
    with pytest.raises(InputError, match=f"keeps keys and values in 2 bits, which nothing that reads {to} does; export a variant without kv_cache"):
        export(tmp_path / "kept", tmp_path / "out", to)
    assert not (tmp_path / "out").exists()


def test_encoders_are_refused() -> None:
    with pytest.raises(InputError, match="kv_cache does not support the (architecture|benchmark)"):
        check_chain([("kv_cache", KvCache())], "token-classification", "bert")
