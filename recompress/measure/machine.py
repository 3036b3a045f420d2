"""The machine that a measurement holds for."""

from __future__ import annotations

import importlib.metadata
import platform
from contextlib import suppress
from pathlib import Path

import psutil

INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve")
"""Processor flags that decide how fast small numbers are multiplied."""
LIBRARIES = ("torch", "transformers", "onnxruntime", "numpy")


def machine_facts() -> dict[str, str]:
    """Processor, instructions, cores, memory, operating system and library versions. The same on every call on one machine."""
    processor = _processor()
    flags = (processor.get("flags") or processor.get("Features") or "").split()
    facts = {
        "processor": processor.get("model name") or platform.processor() or platform.machine(),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
        "architecture": platform.machine(),
        "cores": str(psutil.cpu_count(logical=False) or "unknown"),
        "threads": str(psutil.cpu_count(logical=True) or "unknown"),
        "memory_gib": str(round(psutil.virtual_memory().total / 2**30)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return facts | _versions()


def _versions() -> dict[str, str]:
    """What is not installed is left out: whoever looks for what is missing asks this, too."""
    versions = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _processor() -> dict[str, str]:
    """The first processor of ``/proc/cpuinfo``; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
