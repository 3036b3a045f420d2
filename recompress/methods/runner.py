"""The runner of steps: what is the same for every method.

A step is loaded, run, saved, read back from disk, compared with what was in memory, and asked to prove what it promised. Only then does its directory get
its name. A method that reports success and changed nothing fails here.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from recompress.errors import EffectMissing, InputError, IntegrityError
from recompress.integrity.atomic_directory import new_directory
from recompress.methods.chain import check_next
from recompress.methods.examples import is_blank, telling
from recompress.methods.registry import Claim, Inputs, Method, get_method
from recompress.models.checkpoint import Checkpoint, load, read_info, write
from recompress.models.one_file import numbers_in_file
from recompress.records import Record
from recompress.runtimes import runtime_of
from recompress.settings.base import Settings

if TYPE_CHECKING:
    from recompress.runtimes import Feature

log = logging.getLogger(__name__)
PROBE = 8
"""Examples whose outputs are compared before and after saving."""
CLOSE = 1e-5
"""The largest difference of an output, relative to the largest output, that the same weights may give in another place of the memory."""


class StepReport(Record):
    """What a step did, measured on the directory that it left."""

    method: str
    config: dict[str, Any]
    claims: tuple[dict[str, Any], ...]
    """Each as ``Claim.as_json`` gives it."""
    parameters_before: int
    parameters: int
    size_bytes_before: int
    size_bytes: int
    seconds: float
    blank_examples: int = 0
    """Training examples without any text, which calibration left out."""


def run_step(method_name: str, config: Settings, source: Path, target: Path, inputs: Inputs) -> StepReport:
    """Run one step on the model in ``source`` and leave the result in ``target``, in full or not at all.

    Raises ``InputError`` when the step cannot follow what is in ``source`` or ``target`` exists, ``EffectMissing`` when a promise was not kept, and
    ``IntegrityError`` when weights are not finite or the saved model does not answer like the one in memory.
    """
    method = get_method(method_name)
    started = perf_counter()
    info = read_info(source)
    check_next(method, config, info.runtime, info.steps, inputs.benchmark.name, _family(source))
    before = load(source)
    inputs.workdir.mkdir(parents=True, exist_ok=True)
    done = method.run(load(source), config, inputs)
    done.info = replace(done.info, runtime=method.gives, steps=(*done.info.steps, method.name))
    _refuse_broken_numbers(done, method_name)
    with new_directory(target) as partial:
        write(done, partial)
        after = load(partial)
        _compare(done, after, _probe(after, inputs), method_name)
        claims = method.prove(before, after, config, inputs)
        _check_claims(method_name, claims)
        _refuse_no_change(before, done, method)
        report = StepReport(
            method=method_name,
            config=config.model_dump(mode="json"),
            claims=tuple(claim.as_json() for claim in claims),
            parameters_before=parameters_in(before),
            parameters=parameters_in(after),
            size_bytes_before=_size(source),
            size_bytes=_size(partial),
            seconds=round(perf_counter() - started, 3),
            blank_examples=sum(map(is_blank, inputs.train)) if "calibration" in method.needs else 0,
        )
    log.info("%s: %s", method_name, "; ".join(f"{c.what} {c.measured:g}" for c in claims))
    return report


def parameters_in(checkpoint: Checkpoint) -> int:
    """Numbers stored in the weights; a tensor that is used twice counts once, scales and zero points of a quantized graph or file do not count."""
    if isinstance(checkpoint.network, Path):
        return numbers_in_file(checkpoint.network)
    from recompress.models.files import distinct_tensors
    from recompress.models.packed import numbers_in as numbers_in_tensors

    return numbers_in_tensors(distinct_tensors(checkpoint.network))


def _family(directory: Path) -> str:
    from recompress.models.files import read_config

    return str(read_config(directory).model_type)


def _refuse_no_change(before: Checkpoint, done: Checkpoint, method: Method) -> None:
    """Raises ``InputError`` where every tensor and every token is what it was: whatever the settings ask for is there already."""
    if isinstance(before.network, Path) or isinstance(done.network, Path) or _kept_otherwise(before, done):
        return
    was, now = before.network.state_dict(), done.network.state_dict()
    if was.keys() == now.keys() and all(tensor.equal(now[name]) for name, tensor in was.items()) and _shares(before) == _shares(done):
        raise InputError(f"{method.name} has nothing to do: with these settings every weight stays what it is; ask for more, or leave the step out")


def _kept_otherwise(before: Checkpoint, done: Checkpoint) -> bool:
    """Whether the model keeps its numbers, or keys and values, in other forms, which no tensor in memory shows."""
    return (before.info.cache, before.info.floats) != (done.info.cache, done.info.floats)


def _shares(checkpoint: Checkpoint) -> int:
    """Where the tensors lie: fewer places where several use one."""
    return len({tensor.data_ptr() for tensor in checkpoint.torch_network.state_dict().values()})


def _refuse_broken_numbers(checkpoint: Checkpoint, name: str) -> None:
    if isinstance(checkpoint.network, Path):
        return
    for tensor_name, tensor in checkpoint.network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise IntegrityError(f"{name} left {int((~tensor.isfinite()).sum())} numbers in {tensor_name} that are not finite; nothing was written")


def _probe(checkpoint: Checkpoint, inputs: Inputs) -> list[Feature]:
    examples = telling(inputs.dev, PROBE) or telling(inputs.train, PROBE)
    if not examples:
        raise InputError("a step needs at least one example that is not blank, to compare the saved model with")
    info = checkpoint.info
    return inputs.benchmark.encode(checkpoint.tokenizer, examples, info.labels, info.max_length)


def _compare(done: Checkpoint, after: Checkpoint, probe: list[Feature], name: str) -> None:
    """What was read back must be what was in memory: every tensor exactly, the tokenizer exactly, and the outputs."""
    if not isinstance(done.network, Path):
        saved = after.torch_network.state_dict()
        for tensor_name, tensor in done.network.state_dict().items():
            if tensor_name not in saved or not tensor.equal(saved[tensor_name]):
                raise IntegrityError(f"{name}: {tensor_name} is not the same when it is read back from disk")
    if done.tokenizer.get_vocab() != after.tokenizer.get_vocab():
        raise IntegrityError(f"{name}: the tokenizer is not the same when it is read back from disk")
    for was, now in zip(runtime_of(done).logits(probe), runtime_of(after).logits(probe), strict=True):
        if not np.isfinite(now).all():
            raise IntegrityError(f"{name}: the model gives outputs that are not finite; nothing was written")
        if was.shape != now.shape or np.abs(was - now).max(initial=0) > CLOSE * max(1.0, float(np.abs(was).max(initial=0))):
            raise IntegrityError(f"{name}: the model that was read back from disk answers differently; nothing was written")


def _check_claims(name: str, claims: list[Claim]) -> None:
    if not claims:
        raise EffectMissing(f"{name} proved nothing; nothing was written")
    broken = [f"{claim.what}: asked for {claim.limit}, measured {claim.measured:g}" for claim in claims if not claim.kept]
    if broken:
        raise EffectMissing(f"{name} did not do what it promised ({'; '.join(broken)}); nothing was written")


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
