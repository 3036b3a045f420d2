"""What git pins in this project, and that it is what its stages make."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recompress.data.version import version_of, versions_in
from recompress.settings.file import SettingsFile
from tasks.data.bring import adopt, bring, status
from tasks.data.fetch import other_versions
from tasks.data.pins import locked_inputs, locked_outputs, locked_version, tracked


def test_the_pins_of_this_project(root: Path) -> None:
    pins = tracked(root)
    named = pins["data"]
    assert (named.md5, named.files, named.size) == ("efc5ece5a81b90d2fe482ba8c5edda33.dir", 60, 31_357_289)
    assert named.url == "https://github.com/masakhane-io/masakhane-ner"
    assert named.origin.startswith("https://github.com/masakhane-io/masakhane-ner at ba5843cd08aa")
    assert pins.keys() == {"data", "raw/afrisenti", "raw/lafand", "raw/wikitext2", "raw/xquad"}
    for row in status(root):
        assert "not pinned" not in row["detail"], row


def test_dvc_lock_was_made_with_the_code_that_is_here(root: Path) -> None:
    """Else ``recompress data accept NAME`` has to be run again for each data set."""
    lock = root / "dvc.lock"
    assert versions_in(SettingsFile(root / "params.yaml")) == {stage: version_of(stage) for stage in ("pydocs", "prepare")}
    assert locked_version(lock, "collect_pydocs", "pydocs") == version_of("pydocs")
    for name in ("pydocs", "docstrings", "masakhaner2", "afrisenti", "lafand", "wikitext2", "xquad"):
        assert locked_version(lock, f"prepare@{name}", "prepare") == version_of("prepare"), f"code was changed since {name} was prepared"


def test_no_stage_depends_on_a_file_of_the_package(root: Path) -> None:
    for name in ("pydocs", "docstrings", "masakhaner2", "afrisenti", "lafand", "wikitext2", "xquad"):
        assert [path for path in locked_inputs(root / "dvc.lock", f"prepare@{name}") if path.startswith("recompress")] == []


def test_no_stage_writes_what_a_task_writes(root: Path) -> None:
    written = set(locked_outputs(root / "dvc.lock"))
    assert all(path.startswith(("collected/", "prepared/")) for path in written)
    assert not {path for path in written for own in ("reports", "mlflow", ".recompress", "ledger") if path.startswith(own)}


def test_other_versions_than_the_pinned_are_named(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("# exact\npytest==0.0.1\nnot-installed-anywhere==1.0\n")
    assert "pytest" in other_versions(tmp_path)
    assert "not-installed" not in other_versions(tmp_path)
    assert other_versions(tmp_path / "nowhere") == ""


@pytest.mark.long
def test_pydocs_is_what_these_packages_say(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quickstart's data set follows from the pinned versions alone: made here again, it has the pinned bytes."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore"):
        shutil.copyfile(root / name, project / name)
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    monkeypatch.delenv("RECOMPRESS_DATA_MIRROR", raising=False)
    dataset = bring(project, "pydocs").dataset
    assert len(dataset.labels) == 9
    assert 1500 <= dataset.rows["test"] <= 2000
    assert bring(project, "docstrings").dataset.rows["test"] == 800, "the same texts as text alone"


@pytest.mark.long
@pytest.mark.slow
def test_real_data_is_adopted_and_prepared_to_its_pins(root: Path, tmp_path: Path, mirror: Path) -> None:
    project = tmp_path / "project"
    (project / "raw").mkdir(parents=True)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvcignore", "data.dvc", "raw/afrisenti.dvc", "raw/lafand.dvc", "raw/wikitext2.dvc", "raw/xquad.dvc"):
        shutil.copyfile(root / name, project / name)
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    for name in ("masakhaner2", "afrisenti", "lafand", "wikitext2", "xquad"):
        assert adopt(project, mirror / name) == name
        assert bring(project, name).dataset.rows["train"] > 500
