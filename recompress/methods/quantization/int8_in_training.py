"""The rounding of an int8 graph as a part of the network: what is trained computes what ONNX Runtime computes with the file that is written afterwards.

    matrices        W^[o] = s[o] * q[o]         q = clamp(round(W / s), -n, n),  s[o] = max|W[o]| / n                   n = 127, or 64 where 7 bits are used
    tables          E^ = s * (u - z)            u = clamp(round(E / s) + z, 0, 255),  s = (max E - min E) / 255,  z = round(-min E / s)
    inputs          x^ = t * (u - z)            the same with the range of each input as it comes: all rows of the batch, padding included

Where the head reads the first token alone, the graph computes the last layer for no other (``recompress.runtimes.lean.first``), keys and values aside: there t and z
are those of the first tokens.
Ranges include zero, halves are rounded to the even number, and the numbers are 32-bit floats, as in ONNX Runtime's ``quantize_dynamic`` and ``DynamicQuantizeLinear``.
Gradients go straight through where a code is in its range, and are zero where it was cut off; scales and zero points are taken as they come.
Source: Jacob et al. 2018, arXiv:1712.05877, eq. 1 and section 3; Bengio et al. 2013, arXiv:1308.3432 (the gradient goes straight through).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations

from recompress.models.architecture import is_linear, layers_of
from recompress.runtimes.asking import reads_first

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel

CODES = 255
"""The largest code of inputs and tables."""
TINY = torch.finfo(torch.float32).tiny


class Steps(NamedTuple):
    """How codes are laid out: ``value = scale * (code - zero)`` for the codes from ``low`` to ``high``."""

    scale: Float[Tensor, "..."]
    zero: Float[Tensor, "..."]
    low: int
    high: int


def matrix_steps(weight: Float[Tensor, "out in"], *, per_channel: bool, reduced: bool) -> Steps:
    """A scale for each output, or one for the whole matrix."""
    largest = weight.abs().amax(1, keepdim=True) if per_channel else weight.abs().amax()
    limit = 64 if reduced else 127
    scale = (largest.double() / limit).float()
    return Steps(torch.where(scale < TINY, 1.0, scale), torch.zeros_like(scale), -limit, limit)


def table_steps(table: Float[Tensor, "tokens width"]) -> Steps:
    low, high = table.amin().clamp(max=0).double(), table.amax().clamp(min=0).double()
    scale = (high - low) / CODES
    if scale < TINY:
        return Steps(torch.ones(()), torch.zeros(()), 0, CODES)
    return Steps(scale.float(), (-low / scale).round().float(), 0, CODES)


def input_steps(received: Float[Tensor, "..."]) -> Steps:
    low, high = received.amin().clamp(max=0), received.amax().clamp(min=0)
    scale = (high - low) / CODES
    scale = torch.where(scale == 0, 1.0, scale)
    return Steps(scale, (-low / scale).clamp(0, CODES).round(), 0, CODES)


def codes_of(values: Float[Tensor, "..."], steps: Steps) -> Float[Tensor, "..."]:
    return _places(values, steps).clamp_(steps.low, steps.high)


def rounded(values: Float[Tensor, "..."], steps: Steps) -> Float[Tensor, "..."]:
    """What the codes stand for; the gradient goes straight through where a code is in range."""
    answer: Float[Tensor, ...] = _Round.apply(values, *steps)  # type: ignore[no-untyped-call]
    return answer


def _places(values: Tensor, steps: Steps) -> Tensor:
    return (values / steps.scale).round_().add_(steps.zero)


class _Round(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
        places = _places(values, Steps(scale, zero, low, high))
        ctx.save_for_backward((places >= low) & (places <= high))
        return places.clamp_(low, high).sub_(zero).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        [inside] = ctx.saved_tensors
        return gradients[0] * inside, None, None, None, None


class RoundedMatrix(nn.Module):
    """For ``torch.nn.utils.parametrize``: a weight to what its codes stand for. Weights that are zero at the beginning stay zero."""

    def __init__(self, weight: Float[Tensor, "out in"], *, per_channel: bool, reduced: bool) -> None:
        super().__init__()
        self.per_channel, self.reduced = per_channel, reduced
        zero = weight == 0
        self.register_buffer("zero", zero if zero.any() else None, persistent=False)

    def forward(self, original: Float[Tensor, "out in"]) -> Float[Tensor, "out in"]:
        zero = self._buffers["zero"]
        weight = original if zero is None else torch.where(zero, 0, original)
        return rounded(weight, matrix_steps(weight.detach(), per_channel=self.per_channel, reduced=self.reduced))


class RoundedInputs:
    """Rounds what linear layers receive. Layers that receive the same tensor get the same answer, computed once for each range that it is rounded with.

    ``layer`` is the one that the graph computes for the first token alone, all but ``whole``. It is told by when it runs: layers may share what holds their weights.
    """

    def __init__(self, layer: nn.Module | None = None, whole: Sequence[nn.Module] = ()) -> None:
        self.received: Tensor | None = None
        self.answers: dict[bool, Tensor] = {}
        self.layer, self.whole, self.inside = layer, whole, False

    def __call__(self, module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        [received] = given
        if received is not self.received:
            self.received, self.answers = received, {}
        first = self.inside and all(module is not other for other in self.whole)
        if first not in self.answers:
            values = received.float()
            self.answers[first] = rounded(values, input_steps((values[:, :1] if first else values).detach()))
        return (self.answers[first],)

    def hooks(self) -> list[RemovableHandle]:
        """What tells it when the layer begins and ends."""
        if self.layer is None:
            return []

        def enter(*_: Any) -> None:
            self.inside = True

        def leave(*_: Any) -> None:
            self.inside = False

        return [self.layer.register_forward_pre_hook(enter), self.layer.register_forward_hook(leave)]


def rounded_inputs(network: PreTrainedModel) -> RoundedInputs:
    """As the graph of this network rounds them."""
    if not reads_first(network):
        return RoundedInputs()
    last = layers_of(network)[-1]
    return RoundedInputs(last.module, [part for linear in (last.key, last.value) for part in linear.modules()])


def round_looked_up(table: nn.Embedding, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
    """What the codes of a table stand for, of the rows that were looked up: the same as looking up in the rounded table, and much less to round."""
    return rounded(answer, table_steps(table.weight.detach()))


@contextmanager
def as_int8(network: PreTrainedModel, *, per_channel: bool, reduced: bool, embeddings: bool, inputs: bool = True) -> Iterator[None]:
    """While the block runs, ``network`` computes as its int8 graph would; afterwards it has its weights in floats as they are by then.

    Without ``inputs``, weights alone are rounded.
    """
    linears = [module for module in network.modules() if is_linear(module)]
    tables = [module for module in network.modules() if isinstance(module, nn.Embedding)] if embeddings else []
    hook = rounded_inputs(network)
    hooks = [*hook.hooks(), *(linear.register_forward_pre_hook(hook) for linear in linears)] if inputs else []
    hooks += [table.register_forward_hook(round_looked_up) for table in tables]
    for linear in linears:
        register_parametrization(linear, "weight", RoundedMatrix(linear.weight.detach(), per_channel=per_channel, reduced=reduced))
    try:
        yield
    finally:
        for linear in linears:
            remove_parametrizations(linear, "weight", leave_parametrized=False)
            _weight_first(linear)
        for placed in hooks:
            placed.remove()


def _weight_first(linear: nn.Module) -> None:
    """As it was before: the order of a network's parameters is that of its file and of its graph."""
    for name, parameter in list(linear.named_parameters(recurse=False)):
        if name != "weight":
            delattr(linear, name)
            setattr(linear, name, parameter)
