"""Which steps may follow which: asked of a whole recipe before anything runs, and of each step again before it does."""

from __future__ import annotations

from collections.abc import Sequence

from recompress.errors import InputError
from recompress.methods.registry import Method, all_methods, get_method
from recompress.models.architecture import architecture_named
from recompress.settings.base import Settings


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
    for place, (name, config) in enumerate(steps):
        method = get_method(name)
        if not isinstance(config, method.config):
            raise InputError(f"{name} takes settings of the class {method.config.__name__}, got {type(config).__name__}")
        check_next(method, config, runtime, done, benchmark, architecture)
        if method.check_steps is not None:
            method.check_steps(config, steps[:place])
        zeros = _check_zeros(method, config, zeros)
        runtime = method.gives
        done.append(name)


def check_next(method: Method, config: Settings, runtime: str, steps: Sequence[str], benchmark: str, architecture: str | None) -> None:
    """Refuse a step on a model that stands on ``runtime`` and went through ``steps``. Raises ``InputError``."""
    _check_takes(method, runtime, steps)
    _check_losses(method, config, steps)
    _check_order(method, steps)
    _check_supported(method, benchmark, architecture)
    if method.check is not None:
        method.check(config)
    if method.check_benchmark is not None:
        method.check_benchmark(config, benchmark)


def _check_takes(method: Method, runtime: str, steps: Sequence[str]) -> None:
    if method.takes == runtime:
        return
    if runtime == "torch" and method.takes == "packed":
        raise InputError(f"{method.name} needs weights that are packed; put a step that packs them, like rtn or gptq, right before it")
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
