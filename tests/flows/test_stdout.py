"""stdout holds a command's result and nothing else, and one that cannot be written is one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flows.stdout import only_results, write_result

NOISY = """
import os, subprocess, sys
from flows.stdout import only_results, write_result
with only_results():
    print("a library speaks")
    os.write(1, b"a library in C speaks\\n")
    subprocess.run(["echo", "a child speaks"])
    write_result('{"answer": 42}')
    print("and again")
print("after it")
"""


def test_what_libraries_and_children_print_is_no_result() -> None:
    done = subprocess.run([sys.executable, "-c", NOISY], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert done.stdout == '{"answer": 42}\nafter it\n'
    assert sorted(done.stderr.splitlines()) == ["a child speaks", "a library in C speaks", "a library speaks", "and again"]


def test_it_holds_where_stdout_is_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    with only_results():
        sys.stdout.write("a library speaks\n")
        write_result(json.dumps({"answer": 42}))
    assert capsys.readouterr() == ('{"answer": 42}\n', "a library speaks\n")


TINY = """
from flows.cli import main
from flows.terminal import show
@main.command()
def tiny() -> None:
    show({}, True, str)
main(["tiny"])
"""


@pytest.mark.parametrize(
    ("where", "code", "line"),
    [
        ("> /dev/full", 1, "recompress: stdout cannot be written: No space left on device; the result was not delivered, make space and ask again\n"),
        (">&-", 1, "recompress: stdout is closed, so there is no place for the result; send it to a file (> result.json)\n"),
        ("> /dev/null", 0, ""),
    ],
)
def test_a_result_that_cannot_be_written_is_one_line(where: str, code: int, line: str) -> None:
    command = ["bash", "-c", f'"$0" -c "$1" {where}', sys.executable, TINY]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, line)


def test_help_stands_on_stdout() -> None:
    done = subprocess.run([sys.executable, "-m", "flows.cli", "methods", "--help"], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert "Every method of compression" in done.stdout
    assert done.stderr == ""


def test_a_current_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    code = "import sys; from flows.cli import main; import os; os.chdir(sys.argv[1]); os.rmdir(sys.argv[1]); main(['methods'])"
    (tmp_path / "gone").mkdir()
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "gone")], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "recompress: the current folder is gone; go to one that is there, or give --root with the whole path of the project\n"
