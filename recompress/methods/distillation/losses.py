"""What a student may be compared with: answers, states of layers, and relations between tokens. Pure functions of tensors; padding never counts.

    answers      T^2 * KL(softmax(teacher / T) || softmax(student / T))
    states       MSE(H_student W, H_teacher), or 1 - cos of the same
    relations    1 / (A * tokens) * sum over heads and tokens of KL(R_teacher || R_student),   R = softmax(X X^T / sqrt(d_r))

A relation's heads are cut anew: X, the queries, keys or values of a whole layer, is split into A relation heads of width d_r each, so that teacher and
student may have heads of any number and size. A decoder's tokens are related to those up to them, as its attention is.

Source: Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2 (the factor T^2 keeps the gradients' size when T changes); Jiao et al. 2020 (TinyBERT),
arXiv:1909.10351, eq. 8 and 9; Wang et al. 2021 (MiniLMv2), arXiv:2012.15828, section 3.1 (relations; here the mean of Q-Q, K-K and V-V).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, log_softmax

from recompress.training.losses import ONE_LABEL, Losses

StatesLoss = Literal["mse", "cosine"]


def divergence(student: Float[Tensor, "*units labels"], teacher: Float[Tensor, "*units labels"], *, temperature: float) -> Float[Tensor, "*units"]:
    """KL(teacher || student) of each unit in nats, both softened by ``temperature``."""
    return ONE_LABEL.apart(student, teacher, temperature=temperature)


def distillation_loss(
    student: Float[Tensor, "batch units labels"], teacher: Float[Tensor, "batch units labels"], *, temperature: float, losses: Losses = ONE_LABEL
) -> Float[Tensor, ""]:
    """T^2 times how far the two are apart by ``losses`` (KL, where the answer is one label of several), the mean over units that the teacher spoke about (its
    row is not all zeros); 0 where it spoke about none."""
    taught = (teacher != 0).any(dim=-1)
    each = losses.apart(student, teacher, temperature=temperature)
    return temperature**2 * torch.where(taught, each, 0.0).sum() / taught.sum().clamp(min=1)


def states_loss(
    student: Float[Tensor, "batch length width"], teacher: Float[Tensor, "batch length width"], text: Bool[Tensor, "batch length"], *, kind: StatesLoss
) -> Float[Tensor, ""]:
    """Mean over the tokens of the text of the mean squared difference, or of 1 - the cosine."""
    mine, its = student[text].float(), teacher[text].float()
    if kind == "mse":
        return (mine - its).square().mean()
    return (1 - cosine_similarity(mine, its, dim=-1)).mean()


def relation_loss(
    student: Float[Tensor, "batch length width"], teacher: Float[Tensor, "batch length other"], text: Bool[Tensor, "batch length"], *, heads: int, causal: bool
) -> Float[Tensor, ""]:
    """The KL of relations, the mean over relation heads and the tokens of the text. ``heads`` divides both widths; ``causal`` for decoders."""
    seen = text[:, None, None, :].expand(-1, 1, text.shape[1], -1)
    seen = seen.tril() if causal else seen
    wanted, given = _log_relations(teacher, seen, heads), _log_relations(student, seen, heads)
    each = torch.where(seen, wanted.exp() * (wanted - given), 0.0).sum(dim=-1)
    return torch.where(text[:, None, :], each, 0.0).sum() / (heads * text.sum())


def next_token_loss(
    student: Float[Tensor, "batch length vocabulary"],
    teacher: Float[Tensor, "batch length vocabulary"],
    text: Bool[Tensor, "batch length"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """T^2 * KL of the distributions of the next token, the mean over the tokens of the text."""
    return temperature**2 * divergence(student[text].float(), teacher[text].float(), temperature=temperature).mean()


def columns(logits: Float[Tensor, "batch length vocabulary"], chosen: Int[Tensor, " chosen"] | None) -> Float[Tensor, "batch length chosen"]:
    """The logits of the chosen tokens; of all of them where none are named."""
    return logits if chosen is None else logits[..., chosen.to(logits.device)]


def _log_relations(
    states: Float[Tensor, "batch length width"], seen: Bool[Tensor, "batch 1 length length"], heads: int
) -> Float[Tensor, "batch heads length length"]:
    split = states.float().view(*states.shape[:2], heads, -1).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / split.shape[-1] ** 0.5
    return log_softmax(scores.masked_fill(~seen, torch.finfo(scores.dtype).min), dim=-1)
