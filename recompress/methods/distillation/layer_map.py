"""Which layer of the teacher each layer of the student looks at. People count layers from 1; code counts from 0.

    uniform   g(m) = floor(m * N / M), at least 1      top   g(m) = m + N - M      bottom   g(m) = m      last   g(M) = N alone

for layer m of a student of M layers and a teacher of N.
Source: Jiao et al. 2020 (TinyBERT), arXiv:1909.10351, section 3.1 and table 4 (uniform, top, bottom); Wang et al. 2020 (MiniLM), arXiv:2002.10957 (last).
"""

from __future__ import annotations

from typing import Literal

from recompress.errors import InputError

Rule = Literal["uniform", "top", "bottom", "last"]


def partners(rule: Rule | tuple[int, ...], student: int, teacher: int) -> dict[int, int]:
    """For each layer of the student that has a partner, the teacher's layer, both counted from 0. ``student`` and ``teacher`` are numbers of layers.

    An explicit rule names a layer of the teacher, or 0 for none, for each layer of the student. Raises ``InputError`` for a layer that is not there.
    """
    if rule == "last":
        return {student - 1: teacher - 1}
    if rule == "uniform":
        return {m - 1: max(1, m * teacher // student) - 1 for m in range(1, student + 1)}
    if isinstance(rule, str):
        if student > teacher:
            raise InputError(f"layer_map {rule} pairs each of the student's {student} layers with one of the teacher's own, which has {teacher}; take uniform")
        return {m: m + (teacher - student if rule == "top" else 0) for m in range(student)}
    if len(rule) != student:
        raise InputError(f"layer_map names {len(rule)} layers of the teacher, but the student has {student} layers; name one for each, or 0 for none")
    missing = [layer for layer in rule if layer > teacher]
    if missing:
        raise InputError(f"layer_map names layer {missing[0]} of the teacher, which has {teacher}; layers are counted from 1, and 0 is none")
    return {m: layer - 1 for m, layer in enumerate(rule) if layer}
