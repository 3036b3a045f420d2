"""Quantization: the same numbers in fewer bits."""
