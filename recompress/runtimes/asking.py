"""One way to ask a torch network, wherever it learns, teaches, is calibrated or answers: what its answer is made of.

logits      [batch, labels], [batch, length, labels], or, of a head that finds spans, [batch, length, 2]: how likely each token begins and ends the answer
by unit     [batch, units, choices]: what a loss compares. A text or a token chooses among labels; the beginning and the end of an answer among tokens
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int

from recompress.models.architecture import architecture_named
from recompress.models.heads import SEQUENCE, SPANS
from recompress.runtimes.batches import inputs_of

if TYPE_CHECKING:
    from torch import Tensor

NEVER = -1e4
"""The logit of a token that cannot be chosen: its share is 0, and no difference of two such logits is infinite."""
OUTPUTS = ("start_logits", "end_logits")
"""What transformers, and graphs, call the two outputs of a head that finds spans."""


def logits_of(network: Any, batch: Mapping[str, Tensor]) -> Float[Tensor, "batch ..."]:
    """What a network says to a batch, of which it is given what networks read."""
    import torch

    answered = network(**inputs_of(batch))
    if OUTPUTS[0] in answered:
        return torch.stack([answered[name] for name in OUTPUTS], dim=-1)
    logits: Tensor = answered["logits"]
    return logits


def finds_spans(network: Any) -> bool:
    """Whether its head finds the beginning and the end of an answer; ``network`` may be wrapped by whoever trains it on several processes."""
    return type(getattr(network, "module", network)).__name__.endswith(SPANS.auto_class.removeprefix("AutoModel"))


def reads_first(network: Any) -> bool:
    """Whether its head reads nothing of the last layer but the first token: that of an encoder which answers for a text as a whole. A decoder's reads the last."""
    head, config = type(network).__name__.endswith(SEQUENCE.auto_class.removeprefix("AutoModel")), getattr(network, "config", None)
    return head and not architecture_named(str(getattr(config, "model_type", ""))).causal


def by_unit(network: Any, logits: Float[Tensor, "batch ..."], mask: Int[Tensor, "batch length"]) -> Float[Tensor, "batch units choices"]:
    """``logits_of`` as losses take them; no padding is ever chosen."""
    if finds_spans(network):
        return logits.transpose(1, 2).masked_fill(mask[:, None, :] == 0, NEVER)
    return logits if logits.ndim == 3 else logits[:, None]


def units_of(network: Any, batch: Mapping[str, Tensor]) -> Float[Tensor, "batch units choices"]:
    """Both in one."""
    return by_unit(network, logits_of(network, batch), batch["attention_mask"])
