"""What Prometheus is told."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """The numbers of one server. None of them holds anything that was asked."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter("recompress_requests", "Requests to /invocations, by the status that they got.", ["code"], registry=registry)
        self.seconds = Histogram("recompress_request_seconds", "Seconds from the head of a request to its answer.", buckets=SECONDS, registry=registry)
        self.rows = Counter("recompress_rows", "Rows that were answered.", registry=registry)
        self.waiting = Gauge("recompress_waiting_rows", "Rows that wait for the model.", registry=registry)
        self.batches = Histogram("recompress_batch_rows", "Rows that were put to the model together.", buckets=ROWS, registry=registry)
        self.failures = Counter("recompress_model_failures", "Rows on which the model failed.", registry=registry)
        self.version = Gauge("recompress_model_info", "The version that answers.", ["model", "version", "manifest_sha256"], registry=registry)
        self.changes = Counter("recompress_version_changes", "Versions that took over, and looks that ended in a refusal.", ["outcome"], registry=registry)
        self.refused = Gauge("recompress_alias_refused", "1 while what the alias names is refused and the version before it goes on.", registry=registry)
        self.looked = Gauge("recompress_alias_looked_at_timestamp_seconds", "When the alias was last looked at without an error.", registry=registry)
        for outcome in ("served", "refused"):
            self.changes.labels(outcome)
        self.looked.set(float("nan"))  # until somebody looks; whoever serves one version never does

    def takes_over(self, model: str, version: str, manifest_sha256: str) -> None:
        """Another version answers from now on."""
        self.version.clear()
        self.version.labels(model, version, manifest_sha256).set(1)

    def looked_at(self) -> None:
        self.looked.set(time.time())
        self.refused.set(0)

    def text(self) -> bytes:
        return generate_latest(self.registry)
