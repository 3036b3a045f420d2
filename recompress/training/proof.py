"""What must be measurable after any training: weights moved, the shape is what it was, and what was pruned is still zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

from recompress.methods.registry import Claim

if TYPE_CHECKING:
    from recompress.models.checkpoint import Checkpoint


def prove_training(before: Checkpoint, after: Checkpoint) -> list[Claim]:
    """Claims on the number of parameters, on whether any weight moved, and on the zeros of the encoder's linear layers."""
    from recompress.models.architecture import encoder_linears
    from recompress.models.files import distinct_tensors

    was, now = before.torch_network.state_dict(), after.torch_network.state_dict()
    moved = any(name not in now or not tensor.equal(now[name]) for name, tensor in was.items())
    pairs = zip(encoder_linears(before.torch_network), encoder_linears(after.torch_network), strict=False)
    pruned = [(old.weight == 0, new.weight) for (_, old), (_, new) in pairs if old.weight.shape == new.weight.shape]
    zeros = sum(int((linear.weight == 0).sum()) for _, linear in encoder_linears(before.torch_network))
    return [
        Claim("parameters", *(sum(tensor.numel() for tensor in distinct_tensors(which.torch_network).values()) for which in (before, after))),
        Claim("weights moved", 1, float(moved)),
        Claim("zeros that stayed zero", zeros, sum(int((weight[mask] == 0).sum()) for mask, weight in pruned)),
    ]
