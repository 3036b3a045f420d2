"""The served model, logged as *models from code*: this script is copied beside the model and run by whoever loads it. It holds no pickle.

It stands on its own: MLflow, and the ``recompress`` package that is carried along in ``code/``. Before the model is opened, every file of the version is hashed
against its manifest; a version that does not match is not served.

This check comes with the model, so it finds accidents and not somebody who replaces it; ``recompress serve`` and ``recompress audit check`` look from outside.

``RECOMPRESS_SERVE_MANIFEST`` is the digest that the manifest must have (the ledger and the version's tag ``recompress.manifest_sha256`` know it). Without it
the version is compared with the manifest that lies beside it. ``RECOMPRESS_SERVE_UNVERIFIED=1``, or the model config ``unverified``, serves it unchecked,
with a warning in the log.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow.models
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from recompress.integrity.model_files import MODEL_FOLDER, check_version
from recompress.predict import Predictor

log = logging.getLogger("recompress.served")


class ServedModel(PythonModel):
    """Plain text in, or pairs of texts; labels and scores, numbers, or words, tags and entities out. Or questions with their contexts in, and answers with their
    places out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Hash the version, then open its model. Raises ``IntegrityError`` when a file is not what the manifest says."""
        model = Path(context.artifacts["model"])
        config = context.model_config or {}
        if config.get("unverified") or os.environ.get("RECOMPRESS_SERVE_UNVERIFIED") == "1":
            log.warning("%s is served UNVERIFIED, because it was asked for: nobody knows whether these are the bytes that were promoted", model)
        else:
            root = model.parents[MODEL_FOLDER.count("/")]
            check_version(root, os.environ.get("RECOMPRESS_SERVE_MANIFEST") or None)
        self.predictor = Predictor(model, int(config.get("threads") or 1))

    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        return self.predictor(rows_of(model_input, self.predictor.columns))


def rows_of(model_input: Any, columns: Sequence[str]) -> list[str | dict[str, str]]:
    """The rows in what MLflow hands over, as the model is asked. Raises ``ValueError`` for anything else."""
    if len(columns) == 1:
        return [*texts_of(model_input, columns[0])]
    if not hasattr(model_input, "columns") or not set(columns) <= set(model_input.columns):
        raise ValueError(f"the model is asked with a table of the columns {' and '.join(columns)}")
    rows: list[str | dict[str, str]] = model_input[list(columns)].to_dict("records")
    return rows


def texts_of(model_input: Any, column: str = "text") -> list[str]:
    """The texts in what MLflow hands over: a text, several, or a table with one column of them. Raises ``ValueError`` for anything else."""
    if isinstance(model_input, str):
        return [model_input]
    if hasattr(model_input, "columns"):
        names = list(model_input.columns)
        if column not in names and (len(names) != 1 or isinstance(names[0], str)):
            raise ValueError(f"the table needs a column {column!r}, it has {', '.join(map(str, names))}")
        model_input = model_input[column if column in names else names[0]]
    texts = list(model_input)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"row {number} is {type(text).__name__} and not text: {str(text)[:60]!r}")
    return texts


mlflow.models.set_model(ServedModel())
