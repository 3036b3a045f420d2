"""The folder of a registered version: the model directory, the script that serves it, and the code that the script needs, as MLflow reads them.

MLmodel · pyfunc_model.py · requirements.txt · code/recompress/… · artifacts/model/…
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import warnings
from pathlib import Path

import recompress
from recompress.records import Runtime

NEEDED = ("mlflow", "numpy", "pandas", "jaxtyping", "pydantic", "rfc8785", "regex", "tokenizers", "transformers")
NEEDED_BY: dict[Runtime, tuple[str, ...]] = {
    "torch": ("torch", "safetensors"),
    "packed": ("torch", "safetensors"),
    "onnx": ("onnx", "onnxruntime"),
    "gguf": ("xllamacpp",),
    "genai": ("onnxruntime", "onnxruntime-genai"),
}
"""Packages that the served model imports, pinned as they are here."""


def write_version(directory: Path, root: Path) -> None:
    """Write the version of a model directory into ``root``, which must not exist. The manifest is the caller's to write, when all is there."""
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types.schema import AnyType, ColSpec, Schema

    from recompress.benchmarks import benchmark_of, columns_of
    from recompress.models.checkpoint import read_info

    package, model = root.parent / "recompress", root.parent / "model"
    shutil.copytree(directory, model, copy_function=_link)  # MLflow copies it under the name that it has here, and follows no links out of its folder
    shutil.copytree(Path(recompress.__file__).parent, package, ignore=_only_python)
    asked = columns_of(benchmark_of(read_info(directory)))
    columns = [ColSpec("string", name) for name in asked] if len(asked) > 1 else [ColSpec("string")]
    text_in = ModelSignature(inputs=Schema([*columns]), outputs=Schema([ColSpec(AnyType())]))  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow would like an example; the signature says it all
        save_model(
            root,
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": model.as_uri()},  # a plain path with % or # in it would be read as a URL
            code_paths=[str(package)],
            pip_requirements=_requirements(directory),
            signature=text_in,
            model_config={"unverified": False, "threads": 1},
        )
    for folder in {path.parent for path in root.rglob("*.py")}:
        (folder / "__pycache__").touch()  # a file, so that Python finds no room for bytecode that no manifest lists


def _link(source: str, target: str) -> None:
    """A second name for the same bytes where the file system allows it, a copy where not."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _only_python(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name == "__pycache__" or not (name.endswith(".py") or (Path(folder) / name).is_dir())}


def _requirements(directory: Path) -> list[str]:
    from recompress.models.checkpoint import read_info

    names = NEEDED + NEEDED_BY[read_info(directory).runtime]
    return [f"{name}=={importlib.metadata.version(name).split('+')[0]}" for name in names]
