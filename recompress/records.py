"""What tasks hand to each other: small frozen records, never tensors or models.

A reference is a uri and a digest. The uri says where the bytes may be fetched; the digest says what they must be, and whoever fetches compares.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from recompress.digest import sha256_json
from recompress.settings import Sha256

Split = Literal["train", "dev", "test"]
Runtime = Literal["torch", "onnx"]


class Record(BaseModel):
    """A frozen record with one JSON form and one digest."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        return sha256_json(self.as_json())


class DatasetRef(Record):
    """Prepared, frozen splits: ``train.parquet``, ``dev.parquet``, ``test.parquet`` in one directory, pinned in ``dvc.lock``."""

    name: str
    benchmark: str
    uri: str
    sha256: Sha256
    """Digest of the directory, as ``recompress.digest.sha256_directory`` gives it."""
    md5: str
    """What DVC calls the same bytes (``….dir``)."""
    labels: tuple[str, ...]
    slices: tuple[str, ...]
    rows: dict[str, int]
    """Examples in each split, after the choice of slices."""
    unlabelled: tuple[str, Sha256] | None = None
    """Directory and digest of a prepared text data set (one ``text`` column), where the recipe names one."""


class ModelRef(Record):
    """A model directory: weights, tokenizer, configuration and ``recompress.json``."""

    name: str
    kind: Literal["base", "baseline", "variant"]
    uri: str
    sha256: Sha256
    runtime: Runtime = "torch"
    steps: tuple[str, ...] = ()
    """Names of the steps that made it from the baseline, in order."""


class Evaluation(Record):
    """What was measured on one model. Units stand in the metrics' names; ratios are baseline divided by this model, so that more is better."""

    model: str
    model_sha256: Sha256
    dataset_sha256: Sha256
    metrics: dict[str, float]
    """The benchmark's metrics on the whole test split, and ``parameters``, ``size_bytes``, ``peak_memory_bytes``, ``latency_p50_ms`` …"""
    slices: dict[str, dict[str, float]]
    """The benchmark's metrics for each slice."""
    types: dict[str, dict[str, float]] = {}
    """The benchmark's metrics for each label or entity type."""
    predictions_uri: str = ""
    """A Parquet file with a row for each test example: ``example``, ``slice``, ``reference``, ``prediction`` and the ``counts`` that metrics add up."""
    predictions_sha256: str = ""
    machine: dict[str, str] = {}
    """Processor, cores, threads used, operating system and library versions: latencies hold for these only."""
