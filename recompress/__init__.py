"""Recompress: keep the small versions of language models current, proven and reproducible.

This package holds all the thinking and none of the plumbing: it knows torch and transformers, and has never heard of Prefect, MLflow, DVC or Great Expectations.
"""

__version__ = "0.1.0"
