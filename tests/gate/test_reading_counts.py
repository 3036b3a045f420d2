"""What was measured is read from the file that an evaluation names, and from no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from recompress.benchmarks.text_classification import TextClassification
from recompress.errors import IntegrityError
from recompress.gate import Expected, Measured, read_measured
from recompress.integrity.digest import sha256_file
from recompress.records import Evaluation
from tests.gate.cases import CANDIDATE, DATASET, LABELS, expected, measured, policy, references, scores


def written(path: Path, **changes: Any) -> Path:
    counts = TextClassification().counts(references(6), references(6), LABELS).tolist()
    columns = {"example": list(range(6)), "slice": ["hau"] * 6, "reference": [list(r) for r in references(6)], "prediction": [["food"]] * 6, "counts": counts}
    pyarrow.parquet.write_table(pyarrow.table({name: value for name, value in (columns | changes).items() if value is not None}), path)
    return path


def evaluation_of(path: Path) -> Evaluation:
    return Evaluation(model="m", model_sha256=CANDIDATE, dataset_sha256=DATASET, metrics={}, slices={}, predictions_sha256=sha256_file(path))


def test_the_counts_are_read_from_the_predictions_that_the_evaluation_names(tmp_path: Path) -> None:
    path = written(tmp_path / "p.parquet")
    model = read_measured(evaluation_of(path), path)
    assert isinstance(model, Measured)
    assert list(model.examples) == ["0", "1", "2", "3", "4", "5"]
    assert float(scores(model.counts.sum(0))["accuracy"]) == 1


@pytest.mark.parametrize("place", [10, -10])
def test_predictions_that_were_touched_are_not_read(tmp_path: Path, place: int) -> None:
    path = written(tmp_path / "p.parquet")
    evaluation = evaluation_of(path)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match="the predictions of m have sha256"):
        read_measured(evaluation, path)


@pytest.mark.parametrize("column", ["example", "slice", "reference", "counts"])
def test_predictions_without_a_column_are_not_read(tmp_path: Path, column: str) -> None:
    path = written(tmp_path / "p.parquet", **{column: None})
    with pytest.raises(IntegrityError, match=f"no column '{column}'"):
        read_measured(evaluation_of(path), path)


def test_predictions_with_ragged_counts_are_not_read(tmp_path: Path) -> None:
    path = written(tmp_path / "p.parquet", counts=[[1, 1]] * 5 + [[1]])
    with pytest.raises(IntegrityError, match="counts of different lengths"):
        read_measured(evaluation_of(path), path)


def test_the_pairing_changes_with_order_slice_and_reference() -> None:
    usual = measured("m", CANDIDATE, set())
    same = measured("n", "f" * 64, {1, 2, 3})
    assert usual.pairing_sha256 == same.pairing_sha256
    for name in ("examples", "slices", "references"):
        rows = list(getattr(usual, name))
        rows[0], rows[-1] = rows[-1], rows[0]
        assert replace(usual, **{name: rows}).pairing_sha256 != usual.pairing_sha256
    assert Expected.model_validate(expected(policy()).as_json()) == expected(policy())
