"""What a claim about whole layers is measured on: a little of the text that the method was given, sent through the network after the step.

    error(layer) = ||f(X; W) - f(X; W')||_F^2 / ||f(X; W)||_F^2          X: what the layer of the network *after* the step receives; f: the layer with all that is in it

and the same for a simpler method's matrices on the same X.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from recompress.layerwise.engine import ready
from recompress.methods.probe import OutputErrors, Simpler, probe_features
from recompress.methods.registry import Inputs
from recompress.models.architecture import is_linear, layers_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.padding import padding_of
from recompress.models.shared_layers import shares_of
from recompress.models.surgery import weight_of
from recompress.runtimes.batches import pad_batch


def layer_errors(before: Checkpoint, after: Checkpoint, inputs: Inputs, simpler: Simpler) -> OutputErrors:
    """How far what each layer puts out is from what the layer before the step would make of the same, for the step and for ``simpler``, as means over layers.

    Of layers that share their weights the first counts. Raises what ``probe_features`` raises.
    """
    errors: list[tuple[float, float]] = []
    dense, network = before.torch_network.eval(), after.torch_network.eval()
    batch = {name: torch.from_numpy(rows) for name, rows in pad_batch(probe_features(before, inputs), padding_of(network)).items()}
    text = batch["attention_mask"].bool()

    def look(was: nn.Module) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
        linears = {name: part for name, part in was.named_modules() if is_linear(part)}
        matrices = {name: simpler(name, weight_of(linear)) for name, linear in linears.items()}
        held = {f"{name}.weight": matrix if isinstance(linears[name], nn.Linear) else matrix.T for name, matrix in matrices.items()}

        def compare(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any], came: Any) -> None:
            wanted, ours, theirs = (_tensor(answer)[text] for answer in (was(*given, **named), came, functional_call(was, held, given, named)))
            size = float(wanted.square().sum()) or 1.0
            errors.append((float((wanted - ours).square().sum()) / size, float((wanted - theirs).square().sum()) / size))

        return compare

    layers = zip(shares_of(network), layers_of(dense), layers_of(network), strict=True)
    hooks = [new.module.register_forward_hook(look(old.module), with_kwargs=True) for i, (first, old, new) in enumerate(layers) if first == i]
    try:
        with ready(network), torch.no_grad():  # no cache, which each layer would be asked to lengthen three times
            network(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    ours, theirs = zip(*errors, strict=True)
    return OutputErrors(sum(ours) / len(ours), sum(theirs) / len(theirs))


def _tensor(answer: Any) -> Tensor:
    first: Tensor = answer[0] if isinstance(answer, tuple) else answer
    return first
