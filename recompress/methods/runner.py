"""The runner of steps: what is the same for every method.

A step is loaded, run, saved, read back from disk, compared with what was in memory, and asked to prove what it promised. Only then does its directory get
its name. A method that reports success and changed nothing fails here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from recompress.errors import EffectMissing, InputError, IntegrityError
from recompress.integrity.atomic_directory import new_directory
from recompress.methods.registry import Claim, Inputs, Method, all_methods, get_method
from recompress.models.architecture import architecture_named
from recompress.models.checkpoint import Checkpoint, load, read_info, write
from recompress.models.onnx_graph import numbers_in, read_graph
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


def run_step(method_name: str, config: Settings, source: Path, target: Path, inputs: Inputs) -> StepReport:
    """Run one step on the model in ``source`` and leave the result in ``target``, in full or not at all.

    Raises ``InputError`` when the step cannot follow what is in ``source`` or ``target`` exists, ``EffectMissing`` when a promise was not kept, and
    ``IntegrityError`` when weights are not finite or the saved model does not answer like the one in memory.
    """
    method = get_method(method_name)
    started = perf_counter()
    info = read_info(source)
    _check_takes(method, info.runtime, info.steps)
    _check_losses(method, config, info.steps)
    _check_order(method, info.steps)
    before = load(source)
    _check_supported(method, inputs.benchmark.name, _family(source))
    if method.check is not None:
        method.check(config)
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
        report = StepReport(
            method=method_name,
            config=config.model_dump(mode="json"),
            claims=tuple(claim.as_json() for claim in claims),
            parameters_before=parameters_in(before),
            parameters=parameters_in(after),
            size_bytes_before=_size(source),
            size_bytes=_size(partial),
            seconds=round(perf_counter() - started, 3),
        )
    log.info("%s: %s", method_name, "; ".join(f"{c.what} {c.measured:g}" for c in claims))
    return report


def check_chain(steps: Sequence[tuple[str, Settings]], benchmark: str, architecture: str | None) -> None:
    """Refuse a chain of steps that makes no sense, before anything runs: unknown methods, wrong runtimes, unsupported benchmarks and architectures.

    ``architecture`` is a config's ``model_type``; ``None`` while the base model has not been looked at. Raises ``InputError``.
    """
    if not steps:
        raise InputError("a variant needs at least one step")
    if architecture is not None:
        architecture_named(architecture)
    runtime, zeros = "torch", 0.0
    done: list[str] = []
    for name, config in steps:
        method = get_method(name)
        if not isinstance(config, method.config):
            raise InputError(f"{name} takes settings of the class {method.config.__name__}, got {type(config).__name__}")
        _check_takes(method, runtime, done)
        _check_losses(method, config, done)
        _check_order(method, done)
        _check_supported(method, benchmark, architecture)
        if method.check is not None:
            method.check(config)
        zeros = _check_zeros(method, config, zeros)
        runtime = method.gives
        done.append(name)


def parameters_in(checkpoint: Checkpoint) -> int:
    """Numbers stored in the weights; a tensor that is used twice counts once, scales and zero points of a quantized graph do not count."""
    if isinstance(checkpoint.network, Path):
        return numbers_in(read_graph(checkpoint.network))
    from recompress.models.files import distinct_tensors
    from recompress.models.packed import numbers_in as numbers_in_tensors

    return numbers_in_tensors(distinct_tensors(checkpoint.network))


def _check_takes(method: Method, runtime: str, steps: Sequence[str]) -> None:
    if method.takes == runtime:
        return
    if steps:
        raise InputError(f"{method.name} cannot follow {steps[-1]}, which leaves the {method.takes} runtime; put it before")
    raise InputError(f"{method.name} needs a model on the {method.takes} runtime, this one is on {runtime}")


def _check_losses(method: Method, config: Settings, steps: Sequence[str]) -> None:
    lost = [step for step in steps if method.loses is not None and method.loses(config, step)]
    if lost:
        raise InputError(f"{method.name} begins anew, so that what {lost[-1]} did before it would be lost; put {method.name} first, or leave {lost[-1]} out")


def _check_order(method: Method, steps: Sequence[str]) -> None:
    known = all_methods()
    for step in steps:
        reason = method.not_after.get(step) or (known[step].not_before.get(method.name) if step in known else None)
        if reason:
            raise InputError(f"{method.name} cannot follow {step}: {reason}")


def _check_zeros(method: Method, config: Settings, before: float) -> float:
    """The share of zeros that is sure to be there after a step, where ``before`` was sure before it. A step that asks for fewer is refused."""
    asked, pattern = getattr(config, "sparsity", None), getattr(config, "pattern", None)
    if asked is None or method.family != "pruning":
        return before if method.family == "training" else 0.0  # any other step may change what there is to be zero
    if pattern is not None:
        remaining, _, group = pattern.partition(":")
        asked = 1 - int(remaining) / int(group)
    elif 0 < asked < before and getattr(config, "block", None) is None:  # single zeros make no block
        raise InputError(
            f"{method.name}: sparsity {asked:g} is less than the {before:g} that a step before it asks for; ask for more, or leave one of them out"
        )
    return max(asked, before)


def _check_supported(method: Method, benchmark: str, architecture: str | None) -> None:
    if benchmark not in method.benchmarks:
        raise InputError(f"{method.name} does not support the benchmark {benchmark!r}; it supports {', '.join(method.benchmarks)}")
    if architecture is not None and architecture not in method.architectures:
        raise InputError(f"{method.name} does not support the architecture {architecture!r}; it supports {', '.join(method.architectures)}")


def _family(directory: Path) -> str:
    from recompress.models.files import read_config

    return str(read_config(directory).model_type)


def _refuse_broken_numbers(checkpoint: Checkpoint, name: str) -> None:
    if isinstance(checkpoint.network, Path):
        return
    for tensor_name, tensor in checkpoint.network.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise IntegrityError(f"{name} left {int((~tensor.isfinite()).sum())} numbers in {tensor_name} that are not finite; nothing was written")


def _probe(checkpoint: Checkpoint, inputs: Inputs) -> list[Feature]:
    examples = (inputs.dev or inputs.train)[:PROBE]
    if not examples:
        raise InputError("a step needs at least one example to compare the saved model with")
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
    broken = [
        f"{claim.what}: asked for {'' if claim.bound == 'equal' else claim.bound + ' '}{claim.asked:g}, measured {claim.measured:g}"
        for claim in claims
        if not claim.kept
    ]
    if broken:
        raise EffectMissing(f"{name} did not do what it promised ({'; '.join(broken)}); nothing was written")


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
