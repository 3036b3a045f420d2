"""Codebooks of vectors: found by weighted k-means, then changed code by code and book by book against what the outputs lose.

    k-means:      minimise  sum_n sum_j h[n, j] (p[n, j] - c[code[n], j])^2                 begun by D^2 sampling, followed by Lloyd's rounds
    refinement:   minimise  sum_o (w_o - v_o) H (w_o - v_o)^T,   v_o = scale_o * sum_m codebook[m, code[o, g, m]],   H = X^T X
                  codes: one after another the best of its book, all others as they are; books: conjugate gradients on the normal equations

None of the steps of the refinement raises what it minimises.
Source: Lloyd 1982; Arthur and Vassilvitskii 2007 (k-means++); Egiazarian et al. 2024 (AQLM), arXiv:2401.06118, eq. 3 and section 3.2 (there a beam search
over codes and Adam on the books).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from recompress.models.packed.vectors import decoded

SAMPLE = 1 << 15
"""Points that the first means are drawn from."""
CHUNK = 1 << 24
"""Distances that are held at once."""
STEPS = 10
"""Conjugate gradients for each change of the books."""


def kmeans(points: Float[Tensor, "n width"], heavy: Float[Tensor, "n width"], count: int, rounds: int, draw: torch.Generator) -> Float[Tensor, "count width"]:
    """``count`` means. A mean that no point is nearest to stays where it is."""
    means = _begin(points, heavy, count, draw)
    for _ in range(rounds):
        codes = nearest(points, heavy, means)
        mass = torch.zeros_like(means).index_add_(0, codes, heavy)
        total = torch.zeros_like(means).index_add_(0, codes, heavy * points)
        moved = torch.where(mass > 0, total / mass.clamp_min(1e-30), means)
        if torch.equal(moved, means):
            break
        means = moved
    return means


def nearest(points: Float[Tensor, "n width"], heavy: Float[Tensor, "n width"], means: Float[Tensor, "count width"]) -> Int[Tensor, " n"]:
    """The number of the nearest mean of each point."""
    squares, count = means.square().T, max(1, CHUNK // len(means))
    parts = zip(torch.split(points, count), torch.split(heavy, count), strict=True)
    return torch.cat([torch.addmm(h @ squares, h * p, means.T, alpha=-2).argmin(1) for p, h in parts])


def _begin(points: Float[Tensor, "n width"], heavy: Float[Tensor, "n width"], count: int, draw: torch.Generator) -> Float[Tensor, "count width"]:
    """Points as first means, each drawn with the square of its distance to those before it."""
    if len(points) > SAMPLE:
        chosen = torch.randperm(len(points), generator=draw)[:SAMPLE].to(points.device)
        points, heavy = points[chosen], heavy[chosen]
    means = points.new_zeros((count, points.shape[1]))
    far = heavy.sum(1).clamp_min(torch.finfo(heavy.dtype).tiny)
    for i in range(count):
        place = torch.multinomial(far.cpu().double(), 1, generator=draw)
        means[i] = points[place.to(points.device)]
        gap = (heavy * (points - means[i]).square()).sum(1)
        far = gap if i == 0 else torch.minimum(far, gap)
        if not far.any():  # every point is a mean
            means[i + 1 :] = means[i]
            break
    return means


def residual_codes(
    points: Float[Tensor, "n width"], heavy: Float[Tensor, "n width"], count: int, books: int, rounds: int, draw: torch.Generator
) -> tuple[UInt8[Tensor, "n books"], Float[Tensor, "books count width"]]:
    """Book after book, each for what the books before it leave."""
    left, codes, codebooks = points.clone(), [], []
    for _ in range(books):
        means = kmeans(left, heavy, count, rounds, draw).half().to(points.dtype)
        code = nearest(left, heavy, means)
        left -= means[code]
        codes.append(code.to(torch.uint8))
        codebooks.append(means)
    return torch.stack(codes, 1), torch.stack(codebooks)


def improve_codes(
    weight: Float[Tensor, "out in"],
    codes: UInt8[Tensor, "out groups books"],
    books: Float[Tensor, "books count width"],
    scales: Float[Tensor, "out 1"],
    hessian: Float[Tensor, "in in"],
) -> None:
    """One pass over all codes of each row, in place."""
    step = max(1, CHUNK // max(books.shape[1], weight.shape[1]))
    for start in range(0, len(weight), step):
        part = slice(start, start + step)
        _improve(weight[part], codes[part], books, scales[part], hessian)


def _improve(weight: Tensor, codes: Tensor, books: Tensor, scales: Tensor, hessian: Tensor) -> None:
    width = books.shape[2]
    pull = (weight - scales * decoded(codes, books)) @ hessian
    for group in range(codes.shape[1]):
        part = slice(group * width, (group + 1) * width)
        block, here = hessian[part, part], pull[:, part].clone()
        change = torch.zeros_like(here)
        for m, book in enumerate(books):
            code = codes[:, group, m].long()
            now = book[code]
            along = 2 * (here + scales * (now @ block))  # minus the slope of the loss, were this vector not there
            costs = scales * ((book @ block) * book).sum(1) - along @ book.T
            best = costs.argmin(1)
            best = torch.where(costs.gather(1, best[:, None]) < costs.gather(1, code[:, None]), best[:, None], code[:, None])[:, 0]
            moved = scales * (book[best] - now)
            here -= moved @ block
            change += moved
            codes[:, group, m] = best.to(torch.uint8)
        pull -= change @ hessian[part]


def loss(
    weight: Float[Tensor, "out in"],
    codes: UInt8[Tensor, "out groups books"],
    books: Float[Tensor, "books count width"],
    scales: Float[Tensor, "out 1"],
    hessian: Float[Tensor, "in in"],
) -> float:
    """What the outputs lose."""
    gap = weight - scales * decoded(codes, books)
    return float((gap @ hessian).mul_(gap).sum(dtype=torch.float64))


def improve_books(
    weight: Float[Tensor, "out in"],
    codes: UInt8[Tensor, "out groups books"],
    books: Float[Tensor, "books count width"],
    scales: Float[Tensor, "out 1"],
    hessian: Float[Tensor, "in in"],
) -> Float[Tensor, "books count width"]:
    """Books that lose less with these codes."""
    places = codes.long().flatten(0, 1)

    def gathered(rows: Float[Tensor, "out in"]) -> Float[Tensor, "books count width"]:
        """What each vector of each book gets from all places where it stands."""
        parts = (scales * rows).reshape(-1, books.shape[2])
        return torch.stack([torch.zeros_like(book).index_add_(0, places[:, m], parts) for m, book in enumerate(books)])

    change = torch.zeros_like(books)
    left = gathered((weight - scales * decoded(codes, books)) @ hessian)
    ahead, size = left.clone(), left.square().sum()
    enough = size * torch.finfo(size.dtype).eps ** 2
    for _ in range(STEPS):
        if size <= enough:
            break
        bent = gathered((scales * decoded(codes, ahead)) @ hessian)
        length = size / (ahead * bent).sum().clamp_min(torch.finfo(size.dtype).tiny)
        change += length * ahead
        left -= length * bent
        last, size = size, left.square().sum()
        ahead = left + (size / last) * ahead
    return books + change
