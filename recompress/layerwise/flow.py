"""What flows between the layers of one network, kept on disk, and what happens there at the matrices that read heads and neurons: so two networks can be
compared layer by layer while one of them is changed, and memory holds a batch of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from recompress.layerwise.engine import Beside, begin, call
from recompress.models.architecture import Layer, layers_of
from recompress.runtimes.batches import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Part = Literal["out", "neurons_out"]
PARTS: tuple[Part, ...] = ("out", "neurons_out")
"""The matrices of a layer whose answers are added to the residual stream, in their order."""


class Seen(NamedTuple):
    """At one output matrix, for one batch."""

    residual: Float[Tensor, "batch length hidden"]
    given: Float[Tensor, "batch length in"]
    answer: Float[Tensor, "batch length hidden"]


class _Reached(Exception):
    """What was looked for is reached; nothing behind it is to be computed."""


class Flow:
    """What flows between the layers of one network, a file for each batch."""

    def __init__(self, network: PreTrainedModel, batches: Sequence[Batch], folder: Path) -> None:
        self.network, self.batches, self.folder = network, batches, folder
        first = layers_of(network)[0].module
        self._beside = Beside(network, first)
        folder.mkdir()
        for i, batch in enumerate(batches):
            self._write(i, begin(network, first, batch)[0])

    def pass_through(self, layer: Layer) -> None:
        """What flowed into ``layer`` becomes what flows out of it."""
        for i, batch in enumerate(self.batches):
            self._write(i, call(self.network, layer.module, self._beside, batch, self._read(i)))

    def look(self, layer: Layer, part: Part, *, and_pass: bool = False) -> Iterator[Seen]:
        """What happens at an output matrix of the layer that comes next, batch by batch; with ``and_pass`` the batches pass through the layer meanwhile."""
        seen: dict[str, Tensor] = {}

        def between(_: Any, given: tuple[Tensor, ...]) -> None:
            seen["between"] = given[0]

        def attended(_: Any, __: Any, answer: Tensor) -> None:
            seen["attended"] = answer

        def reached(_: Any, given: tuple[Tensor, ...], answer: Tensor) -> None:
            seen["given"], seen["answer"] = given[0], answer
            if not and_pass:
                raise _Reached

        for i, batch in enumerate(self.batches):
            flowing = self._read(i)
            hooks = [layer.neurons_in[0].register_forward_pre_hook(between), layer.out.register_forward_hook(attended)]
            hooks += [getattr(layer, part).register_forward_hook(reached)]
            try:
                with suppress(_Reached):
                    self._write(i, call(self.network, layer.module, self._beside, batch, flowing))
            finally:
                for hook in hooks:
                    hook.remove()
            if part == "neurons_out":
                # Where norms come first, the stream runs past them; where they come last, what they give is the stream, and what the neurons receive.
                flowing = flowing + seen["attended"] if layer.architecture.norms_first else seen["between"]
            yield Seen(flowing, seen["given"], seen["answer"])

    def _read(self, i: int) -> Tensor:
        hidden: Tensor = load_file(self.folder / f"{i:05d}.safetensors")["hidden"]
        return hidden.to(self.network.device)

    def _write(self, i: int, hidden: Tensor) -> None:
        save_file({"hidden": hidden.cpu().contiguous()}, self.folder / f"{i:05d}.safetensors")
