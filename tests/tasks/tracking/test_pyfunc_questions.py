"""A served model that finds answers is asked with two columns, says so in its signature, and refuses anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from recompress.integrity.model_files import write_manifest
from recompress.models.checkpoint import save
from recompress.predict import Predictor
from tasks.tracking.model_version import write_version
from tests.six import checkpoint_of

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
ASKED = [{"question": "kwa", "context": "leo asha kula"}, {"question": "ya", "context": "kazi nairobi jana " * 6}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    import mlflow.pyfunc

    place = tmp_path_factory.mktemp("served")
    save(checkpoint_of("bert-reader"), place / "reader")
    write_version(place / "reader", place / "version")
    write_manifest(place / "version")
    return mlflow.pyfunc.load_model(str(place / "version")), place / "reader"


def test_it_answers_as_the_model_folder_does(served: tuple[Any, Path]) -> None:
    model, folder = served
    assert [column.name for column in model.metadata.signature.inputs] == ["question", "context"]
    assert model.predict(pd.DataFrame(ASKED)) == Predictor(folder)(ASKED)


@pytest.mark.parametrize("asked", [pd.DataFrame([{"question": "kwa"}]), ["kwa"]], ids=["one column", "a list"])
def test_what_lacks_a_column_is_refused(asked: Any, served: tuple[Any, Path]) -> None:
    with pytest.raises(Exception, match=r"question|context|columns"):
        served[0].predict(asked)
