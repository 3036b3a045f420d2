"""A stage's code is a dial like any other: named in params.yaml, kept in dvc.lock, and refused where it is not the code that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from recompress.data.version import check_version, version_of, versions_in, with_present_versions
from recompress.errors import InputError
from recompress.settings.file import SettingsFile

PARAMS = """# prepare: stands here too
code:
  pydocs: "00"   # a note
  prepare: "0123456789abcdef0123456789abcdef"
datasets:
  toy: {benchmark: text-classification, format: jsonl, source: raw/prepare, files: "{slice}.jsonl"}
"""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_bytes(PARAMS.encode())
    return path


def test_other_code_than_the_named_is_refused_by_line_with_the_way_out(params: Path) -> None:
    with pytest.raises(InputError, match=r"code\.prepare is 0123456789ab….*is [0-9a-f]{12}… \(.*params\.yaml:4\); `recompress data accept NAME`"):
        check_version(SettingsFile(params), "prepare")
    params.write_text(with_present_versions(params))
    check_version(SettingsFile(params), "prepare")


def test_a_project_that_names_no_code_is_not_asked_for_it(params: Path) -> None:
    params.write_text(PARAMS[PARAMS.index("datasets") :])
    check_version(SettingsFile(params), "prepare")
    assert with_present_versions(params) == params.read_text()


def test_nothing_but_the_versions_changes(params: Path) -> None:
    params.write_bytes(PARAMS.replace("\n", "\r\n").encode())
    text = with_present_versions(params)
    assert text.replace(version_of("prepare"), "0123456789abcdef0123456789abcdef").replace(version_of("pydocs"), "00") == params.read_bytes().decode()
    params.write_bytes(text.encode())
    assert versions_in(SettingsFile(params)) == {"pydocs": version_of("pydocs"), "prepare": version_of("prepare")}
