"""The example of the guides: an exported folder behind HTTP, in a process that has nothing of this project, with the answers that it was judged by."""

from __future__ import annotations

import ast
import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recompress.export import export
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import read_info, save
from recompress.models.tokenizer import plain_tokenizer
from recompress.predict import Predictor
from tests.servers import free_port
from tests.six import checkpoint_of, inputs_of, texts

EXAMPLE = Path(__file__).parents[2] / "docs" / "serve_without_recompress.py"


@contextmanager
def served(folder: Path, elsewhere: Path) -> Iterator[int]:
    """The port at which the example answers."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-I", str(EXAMPLE), str(folder), str(port)], cwd=elsewhere, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            assert process.poll() is None, "the example ended"
            with closing(socket.socket()) as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def ask(port: int, body: bytes) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", "/", body)
        response = connection.getresponse()
        return response.status, response.read()


def test_the_example_imports_nothing_but_two_packages_and_the_standard_library() -> None:
    tree = ast.parse(EXAMPLE.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"onnxruntime", "tokenizers"}


@pytest.mark.parametrize("steps", [(), ("dynamic_int8",)], ids=["floats", "int8"])
def test_it_answers_as_the_model_does(tmp_path: Path, steps: tuple[str, ...]) -> None:
    """Too long texts and loose spaces too; a request that is none gets 400, and the server goes on."""
    directory = tmp_path / "model"
    checkpoint = checkpoint_of("distilbert")
    save(replace(checkpoint, tokenizer=plain_tokenizer(checkpoint.tokenizer, checkpoint.info.max_length)), directory)  # as a trained model has it
    for name in steps:
        run_step(name, get_method(name).config(), directory, tmp_path / name, inputs_of("distilbert", tmp_path / "work"))
        directory = tmp_path / name
    export(directory, tmp_path / "exported", "onnx", examples=texts(4))
    plain = [" ".join(example.words) for example in texts(4)]
    asked = [*plain, "  ".join(plain) * read_info(directory).max_length, f"\t{plain[0]}\n"]
    expected: list[dict[str, Any]] = Predictor(directory)(asked)
    assert expected[4]["truncated"]
    with served(tmp_path / "exported", tmp_path) as port:
        for bad in (b"{", b"{}", b'{"text": 3}', b"[]"):
            assert ask(port, bad)[0] == 400
        for text, wanted in zip(asked, expected, strict=True):
            status, body = ask(port, json.dumps({"text": text}).encode())
            given = json.loads(body)
            assert (status, given["label"]) == (200, wanted["label"])
            assert given["score"] == pytest.approx(wanted["score"], abs=1e-4)
