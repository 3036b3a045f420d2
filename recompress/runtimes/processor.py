"""What the processor can do."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

VNNI = {"avx512_vnni", "avx_vnni"}


@cache
def int8_overflows() -> bool:
    """Whether sums of 8-bit products saturate here: on x86 without VNNI, two products of an unsigned and a signed byte are added in 16 bits.

    Where the system does not say what the processor can (not Linux), it is taken to be recent.
    """
    flags = _flags() if platform.machine().lower() in ("x86_64", "amd64", "i686") else set()
    return bool(flags) and not flags & VNNI


def _flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())
