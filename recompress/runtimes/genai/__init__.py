"""Decoders for ONNX Runtime GenAI: a graph with a cache of keys and values, and ``genai_config.json`` beside it.

    graph      nodes and tensors, one after the other
    matrices   a matrix of a network in the graph: as floats, or as codes in blocks
    decoder    the graph of a Llama or a GPT-2, from what its own description says
    held       what a graph holds, read back by the definition of its operators
    folder     graph and config, written

The library ``onnxruntime_genai`` opens the folder and answers from it; it is imported where it is needed, so that nobody else has to have it.
"""

from __future__ import annotations

from types import ModuleType

from recompress.errors import InputError

INSTALL = "pip install 'recompress[genai]'"


def library() -> ModuleType:
    """The library ``onnxruntime_genai``, which sends nothing home. Raises ``InputError`` where it is not installed."""
    try:
        import onnxruntime_genai
    except ImportError:
        raise InputError(f"models for ONNX Runtime GenAI need the package onnxruntime-genai, which is not installed: {INSTALL}") from None
    onnxruntime_genai.disable_telemetry_events()  # ``recompress`` itself has said so to its environment, which is what stops the rest of it
    module: ModuleType = onnxruntime_genai
    return module
