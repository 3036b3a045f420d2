"""One layer at a time: what flows into its linear layers is collected, a method changes them, and the layer's outputs are computed again, so that the next
layer sees what this one became.

Statistics of one layer are held at a time, and what flows between layers lies on disk, one file for each batch: memory holds the model, one layer's
statistics and one batch. After each layer a sealed checkpoint is kept in the step's folder; killed and called again, the work goes on behind the last whole
one and ends with the same bytes.

Linear layers with the same input (query, key and value; the gate and the neurons) are one group with one set of statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from recompress.errors import IntegrityError
from recompress.integrity.atomic_directory import storage_error
from recompress.layerwise.statistics import Kind, Statistics
from recompress.layerwise.storage import hidden_of, keep, restore, stamp
from recompress.models.architecture import Layer, Linear, is_linear, layers_of, shape_of
from recompress.models.factored import FactoredLinear
from recompress.models.packed import place, unpacked
from recompress.models.padding import padding_of
from recompress.models.shared_layers import share, shares_of
from recompress.progress import bar
from recompress.runtimes.batches import Batch, Feature, batches_of
from recompress.training.resume import PREFIX, open_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WINDOWS, TOKENS = 4, 512
"""So many windows, and of so many tokens, are computed together at most, but one at least: all that memory holds of the activations."""


Group = Mapping[str, Linear]
"""Linear layers with the same input, by name."""
Visit = Callable[[Group, Statistics], Mapping[str, nn.Module]]
"""Changes the linear layers of a group in place, and gives those that others are to stand in the place of."""


Change = Callable[["Flowing"], None]
"""Changes a layer in place by what flows into it."""


def each_layer(
    network: PreTrainedModel, features: Sequence[Feature], visit: Visit, *, wanted: Collection[Kind], depends_on: Mapping[str, Any], workdir: Path, label: str
) -> None:
    """Let ``visit`` change all linear layers of the network's layers, from the first layer to the last, by the statistics in ``wanted``. The rest is as for
    ``change_layers``. Raises what that does, and ``IntegrityError`` for activations that are not finite."""

    def change(flowing: Flowing) -> None:
        _change(flowing, visit, wanted)

    change_layers(network, features, change, depends_on=depends_on, workdir=workdir, label=label)


def change_layers(
    network: PreTrainedModel,
    features: Sequence[Feature],
    change: Change,
    *,
    depends_on: Mapping[str, Any],
    workdir: Path,
    label: str,
    rounds: int | None = None,
) -> None:
    """Let ``change`` have all layers, from the first to the last, each with what flows into it behind those that were changed; layers with one set of weights
    are changed once, by what the first of them sees.

    ``depends_on`` is what the result depends on besides weights and text, as plain JSON; a folder that belongs to something else is emptied. ``rounds`` is how often
    ``change`` calls ``flowing.progress.update`` for a layer, once for each batch if left out. Raises ``StorageError`` when ``workdir`` cannot be written.
    """
    folder = workdir / "layers"
    batches = [batch for _, batch in batches_of(features, padding_of(network), windows_at_once(features))]
    layers, shares = [layer.module for layer in layers_of(network)], shares_of(network)  # and not their linear layers, which go when they are replaced
    beside = Beside(network, layers[0])
    each = len(batches) + (len(batches) if rounds is None else rounds)
    with ready(network), torch.no_grad(), bar(label, len(layers) * each, "batch" if rounds is None else "step") as progress:
        newest = open_folder(folder, stamp(network, features, {**depends_on, "batches": [list(batch["input_ids"].shape) for batch in batches]}))
        try:
            if newest is None:
                newest = keep(folder, None, 0, {}, (begin(network, layers[0], batch)[0] for batch in batches))
            done = int(newest.name.removeprefix(PREFIX))
            for i in range(done):
                restore(layers[i], newest, i)
            share(network, shares)
            progress.update(done * each)
            for i in range(done, len(layers)):
                flowing = Flowing(network, i, beside, batches, newest, progress)
                if shares[i] == i:
                    change(flowing)
                newest = keep(folder, newest, i + 1, layers[i].state_dict(), _outputs(flowing, layers[i]))
        except OSError as error:
            storage = storage_error(error, folder)
            if storage is None:
                raise
            raise storage from None


class Flowing:
    """What flows into one layer, batch by batch, behind layers that were changed already."""

    def __init__(self, network: PreTrainedModel, index: int, beside: Beside, batches: Sequence[Batch], source: Path, progress: Any) -> None:
        self.network, self.index, self.beside, self.batches, self.source, self.progress = network, index, beside, batches, source, progress

    def layer(self) -> Layer:
        """The layer, with the linear layers that it has now. Who replaces them lets go of it, so that they are freed."""
        return layers_of(self.network)[self.index]

    def text(self, i: int) -> Bool[Tensor, "batch length"]:
        """Where batch ``i`` has text, and no padding."""
        return torch.from_numpy(self.batches[i]["attention_mask"]).bool().to(self.network.device)

    def through(self, module: Callable[..., Any], i: int) -> Float[Tensor, "batch length width"]:
        """What ``module``, the layer or something in its place, makes of batch ``i``."""
        return call(self.network, module, self.beside, self.batches[i], hidden_of(self.source, i))


def windows_at_once(features: Sequence[Feature]) -> int:
    """How many of them are computed together."""
    return min(WINDOWS, max(1, TOKENS // max(len(feature["input_ids"]) for feature in features)))


def groups_of(layer: Layer) -> list[tuple[Linear, ...]]:
    """The linear layers of a layer by their inputs; of one that is stored as two factors the first is in its group, the second alone. All that there are
    must be among them."""
    by_input = [tuple(dict.fromkeys((layer.query, layer.key, layer.value))), (layer.out,), layer.neurons_in, (layer.neurons_out,)]
    groups = [tuple(linear.first if isinstance(linear, FactoredLinear) else linear for linear in group) for group in by_input]
    groups += [(linear.second,) for group in by_input for linear in group if isinstance(linear, FactoredLinear)]
    known = {id(linear) for group in groups for linear in group}
    assert all(id(module) in known for module in layer.module.modules() if is_linear(module)), "a linear layer that nobody has described"
    return groups


def _change(flowing: Flowing, visit: Visit, wanted: Collection[Kind]) -> None:
    """Collect the layer's statistics and let ``visit`` have its groups, one after another; each group's statistics and linear layers go when it is done."""
    layer, network = flowing.layer(), flowing.network
    groups, module = groups_of(layer), layer.module
    del layer
    statistics = [Statistics(shape_of(group[0])[1], wanted, network.device) for group in groups]
    text: dict[str, Bool[Tensor, "batch length"]] = {}
    waiting: set[int] = set()

    def hook_of(own_statistics: Statistics) -> Callable[[nn.Module, Any], None]:
        def look(_: nn.Module, given: Any) -> None:
            own_statistics.add(given[0][text["mask"]].float())
            waiting.discard(id(own_statistics))
            if not waiting:
                raise _Reached

        return look

    hooks = [group[0].register_forward_pre_hook(hook_of(own_statistics)) for group, own_statistics in zip(groups, statistics, strict=True)]
    try:
        for i in range(len(flowing.batches)):
            text["mask"] = flowing.text(i)
            waiting.update(map(id, statistics))
            with suppress(_Reached):  # what comes behind the last group's inputs is not asked for
                flowing.through(module, i)
            flowing.progress.update(1)
    finally:
        for hook in hooks:
            hook.remove()
    names = {id(module): name for name, module in network.named_modules()}
    while groups:
        group, own_statistics = groups.pop(0), statistics.pop(0)
        if not own_statistics.are_finite:
            raise IntegrityError(f"what flows into {names[id(group[0])]} is not finite on the calibration text; the model is broken")
        for name, replacement in visit({names[id(linear)]: linear for linear in group}, own_statistics).items():
            place(network, name, replacement)


def _outputs(flowing: Flowing, module: nn.Module) -> Iterator[Tensor]:
    with unpacked(module):
        for i in range(len(flowing.batches)):
            yield flowing.through(module, i)
            flowing.progress.update(1)


def call(network: PreTrainedModel, module: Callable[..., Any], beside: Beside, batch: Batch, hidden: Tensor) -> Float[Tensor, "batch length width"]:
    """The output of one layer for stored inputs, with the masks and positions that the network itself makes."""
    rest, named = beside(batch)
    came = module(hidden.to(network.device), *rest, **named)
    output: Tensor = came[0] if isinstance(came, tuple) else came
    return output


class Beside:
    """What the network gives its layers beside the hidden states: masks and positions. They follow from the padding alone, so that batches which are padded
    alike, one after another, share them."""

    def __init__(self, network: PreTrainedModel, first: nn.Module) -> None:
        self.network, self.first = network, first
        self._mask: Int[np.ndarray, "batch length"] | None = None
        self._made: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})

    def __call__(self, batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = batch["attention_mask"]
        if self._mask is None or not np.array_equal(self._mask, mask):
            _, rest, named = begin(self.network, self.first, batch)
            self._mask, self._made = mask, (rest, named)
        return self._made


class _Reached(Exception):
    """What was looked for is reached; nothing behind it is to be computed."""


def begin(network: PreTrainedModel, first: nn.Module, batch: Batch) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
    """What the network gives its first layer: the embedded tokens, and all else."""
    seen: list[Any] = []

    def stop(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.extend((given, named))
        raise _Reached

    hook = first.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        network.base_model(**{name: torch.from_numpy(values).to(network.device) for name, values in batch.items()})
    except _Reached:
        pass
    finally:
        hook.remove()
    given, named = seen
    return given[0], given[1:], named


@contextmanager
def ready(network: PreTrainedModel) -> Iterator[None]:
    """In evaluation mode, and without the cache of keys and values that decoders keep for generating."""
    config: Any = network.eval().config
    usual = getattr(config, "use_cache", None)
    if usual is not None:
        config.use_cache = False
    try:
        yield
    finally:
        if usual is not None:
            config.use_cache = usual
