"""ONNX Runtime keeps nothing below a person's home of this machine and what it was asked, wherever this package is imported first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import {first}
import onnxruntime
from onnx import helper
node, (given, told) = helper.make_node("Relu", ["x"], ["y"]), (helper.make_tensor_value_info(name, 1, [1]) for name in "xy")
model = helper.make_model(helper.make_graph([node], "g", [given], [told]), opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("first", ["recompress", "tasks"])
def test_nothing_is_left_at_home(first: str, tmp_path: Path) -> None:
    plain = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    home = {"HOME": str(tmp_path)} | {f"XDG_{name}_HOME": str(tmp_path / name) for name in ("CACHE", "DATA", "CONFIG")}
    subprocess.run([sys.executable, "-c", CODE.format(first=first)], check=True, env=plain | home)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
