"""The lines of a flow: functions of a recompression, which are Prefect's tasks where a flow of Prefect runs them and plain functions everywhere else."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, update_wrapper
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Caller(Protocol):
    """A recompression, as far as its lines are concerned."""

    def call(self, line: Line[..., Any], *arguments: Any, **named: Any) -> Any: ...


class Line(Generic[P, R]):
    """A line by its name in Prefect, which may hold the names of parameters in braces. How it is done, the recompression says that it is called with."""

    def __init__(self, name: str, fn: Callable[Concatenate[Any, P], R]) -> None:
        self.name, self.fn = name, fn
        update_wrapper(self, fn)

    def __call__(self, run: Caller, /, *arguments: P.args, **named: P.kwargs) -> R:
        done: R = run.call(self, *arguments, **named)
        return done

    @cached_property
    def task(self) -> Any:
        """The line as a task. Prefect takes seconds to be imported, and whoever looks ahead or finds everything does without it."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        return task(task_run_name=self.name, cache_policy=NO_CACHE, persist_result=False)(self.fn)


def line(name: str) -> Callable[[Callable[Concatenate[Any, P], R]], Line[P, R]]:
    """Make a function of a recompression a line."""
    return lambda fn: Line(name, fn)
