"""LoRA: win back what a step cost by training low-rank changes of the encoder's linear layers alone, and merge them into the weights afterwards.

    W' = W + alpha / rank * (B A) * M            A [rank, in] random, B [out, rank] zero at first, W fixed;   M = 0 where W was pruned, else 1

Without pruned weights M is all ones and the formula is the paper's. With them, M stands in the forward pass of the training already, so that what is merged
is what was trained, and zeros (n of m, too) are zeros afterwards; the change is then no longer of low rank, but what is trained still is.
Little memory is taken by the optimizer: it knows A and B only. Embeddings, norms, biases and the head stay as they are.
Source: Hu et al. 2021, arXiv:2106.09685, eq. 3 and section 4.1; layers of peft.
"""

from __future__ import annotations

import importlib.metadata
import math
from typing import TYPE_CHECKING, Annotated, Any

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from recompress.benchmarks import ALL_BENCHMARKS
from recompress.errors import InputError
from recompress.methods.registry import Claim, Inputs, method
from recompress.methods.training_probe import learned
from recompress.methods.training_step import prove_training, train_in_step, was_pruned
from recompress.models.architecture import ALL_ARCHITECTURES, encoder_linears, shape_of
from recompress.models.checkpoint import Checkpoint
from recompress.models.packed import place
from recompress.models.surgery import weight_of
from recompress.training.settings import Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from recompress.models.architecture import Linear

ADAPTER = "default"


class Lora(Schedule):
    """How large the changes may be, and how they are trained."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 3
    """Passes over the training examples."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-4
    """The highest learning rate; adapters bear more than whole weights do."""
    rank: Annotated[int, Field(ge=1, le=4096)] = 8
    """Rank of each change: the smaller side of ``A`` and of ``B``."""
    alpha: Annotated[int, Field(ge=1, le=4096)] = 16
    """Each change is multiplied by ``alpha / rank``."""


def rank_of(change: Float[Tensor, "out in"], largest: float, most: int) -> int:
    """The rank of ``change``, as far as 32-bit weights of size ``largest`` can tell, at most ``most``: that of its product with random columns, in 64 bits."""
    outputs, inputs = change.shape
    columns = torch.randn((inputs, most), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rounding = torch.finfo(torch.float32).eps * largest * (math.sqrt(outputs) + math.sqrt(inputs)) * (math.sqrt(inputs) + math.sqrt(most))
    return int((torch.linalg.svdvals(change.double() @ columns) > rounding).sum())


def prove(before: Checkpoint, after: Checkpoint, config: Lora, inputs: Inputs) -> list[Claim]:
    """What holds after any training; the names of all tensors; what was not adapted; that half of the matrices changed at least; that the change of a matrix
    in which nothing was pruned has the adapters' rank or, where training used less of it, a lower one; and that it learned."""
    was, now = before.torch_network.state_dict(), after.torch_network.state_dict()
    old, new = dict(encoder_linears(before.torch_network)), dict(encoder_linears(after.torch_network))
    adapted = {id(parameter) for linear in old.values() for parameter in (linear.weight,)}
    fixed = [name for name, parameter in before.torch_network.named_parameters() if id(parameter) not in adapted]
    pruned, highest, changed = was_pruned(before), 0, 0
    for name, linear in old.items():
        if name in new and linear.weight.shape == new[name].weight.shape:
            changed += not linear.weight.equal(new[name].weight) or not linear.weight.any()
            if not pruned or (linear.weight != 0).all():
                largest = max(float(one.weight.detach().abs().max()) for one in (linear, new[name]))
                change, most = weight_of(new[name]) - weight_of(linear), min(config.rank + 4, *shape_of(linear))
                highest = max(highest, rank_of(change, largest, most))
    return [
        *prove_training(before, after),
        Claim("tensors with other names", 0, len(was.keys() ^ now.keys())),
        Claim("other tensors that changed", 0, sum(name not in now or not was[name].equal(now[name]) for name in fixed)),
        Claim("matrices that changed", len(old), changed, len(old) // 2),  # behind weights that are all zero nothing does
        Claim("largest rank of a change", config.rank, highest, bound="at most"),
        learned(before, after, inputs),
    ]


@method(
    "lora",
    Lora,
    family="training",
    prove=prove,
    source="Hu et al. 2021, arXiv:2106.09685, eq. 3",
    needs=("training",),
    benchmarks=ALL_BENCHMARKS,
    architectures=ALL_ARCHITECTURES,
)
def train_lora(checkpoint: Checkpoint, config: Lora, inputs: Inputs) -> Checkpoint:
    """Train low-rank changes of the encoder's linear layers and merge them; what was pruned stays zero."""
    adapters = adapt(checkpoint.torch_network, config, inputs.seed, hold=was_pruned(checkpoint))
    checkpoint = train_in_step(
        checkpoint,
        config,
        inputs,
        "lora",
        depends_on={"peft": importlib.metadata.version("peft")},
        hold=False,  # the weights are fixed, and B is zero at first
    )
    merge(checkpoint.torch_network, adapters)
    return checkpoint


def adapt(network: PreTrainedModel, config: Lora, seed: int, *, hold: bool) -> tuple[str, ...]:
    """Put an adapter in the place of each linear layer of the encoder, and let nothing else be trained; ``hold`` zeros at zero. Gives their names.

    Raises ``InputError`` for a rank that some matrix cannot have.
    """
    linears = dict(encoder_linears(network))
    for name, linear in linears.items():
        if config.rank > min(shape_of(linear)):
            raise InputError(f"rank {config.rank} is more than the smaller side of {name}, which is {' x '.join(map(str, shape_of(linear)))}; lower it")
    network.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        for name, linear in linears.items():
            place(network, name, _adapter(linear, config, hold=hold))
    return tuple(linears)


def merge(network: PreTrainedModel, adapters: tuple[str, ...]) -> None:
    """Add what was trained to the weights, and put the plain linear layers back into their places."""
    for name in adapters:
        adapter: Any = network.get_submodule(name)
        linear = adapter.base_layer
        with torch.no_grad():
            change = adapter.get_delta_weight(ADAPTER)
            linear.weight += change * (linear.weight != 0) if adapter.holds_zeros else change
        place(network, name, linear)
    network.requires_grad_(True)


def _adapter(linear: Linear, config: Lora, *, hold: bool) -> Any:
    from peft import LoraConfig
    from peft.tuners.lora import Linear as Adapter

    class Masked(Adapter):
        """The change is zero where the weight is."""

        def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            fixed: Any = self.base_layer
            weight = fixed.weight + self.get_delta_weight(ADAPTER) * (fixed.weight != 0)
            return torch.nn.functional.linear(x, weight.T if self.fan_in_fan_out else weight, fixed.bias)

    transposed = not isinstance(linear, torch.nn.Linear)
    masked = hold and bool((linear.weight == 0).any())
    lora_config = LoraConfig(r=config.rank, lora_alpha=config.alpha, fan_in_fan_out=transposed)
    kind = Masked if masked else Adapter
    adapter: Any = kind(linear, ADAPTER, lora_config, r=config.rank, lora_alpha=config.alpha, is_target_conv_1d_layer=transposed)
    adapter.holds_zeros = masked
    return adapter
