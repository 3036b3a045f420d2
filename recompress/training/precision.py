"""Which precision a training runs in."""

from __future__ import annotations

from typing import Literal

from recompress.training.settings import Precision


def choose_precision(wanted: Precision) -> Literal["fp32", "bf16"]:
    """``auto`` becomes bf16 where the GPU, or else the processor (AVX512_BF16 or AMX), computes in it, and fp32 elsewhere, where it would only be slower."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"
