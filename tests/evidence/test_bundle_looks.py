"""A bundle holds the look that its verdict was reached by, and every training of a recipe; what the ledger inside does not bear out is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recompress.evidence import BundleBroken, verify_bundle, write_bundle
from recompress.evidence.file_list import read_document
from recompress.records import Evaluation, Look, Training
from tests.evidence.bundles import PUBLIC
from tests.evidence.stories import KEY, Project, evaluation, make_dossier, make_plan
from tests.promotion.stage import MODEL, model_directory, sha

SPLIT = sha("split")


def pair(number: int) -> tuple[Evaluation, Evaluation]:
    return evaluation(f"int8 (training {number})", sha(f"again {number}"), 0.74, 400.0), evaluation(
        f"baseline (training {number})", sha(f"base {number}"), 0.75, 1600.0
    )


def promoted(
    root: Path, *, named: bool | str = True, taken: bool = True, late: bool = False, own: dict[str, Any] | None = None, mixed: bool = False, **change: Any
) -> tuple[Project, str]:
    """One promotion whose verdict names a look and two further trainings. ``change`` makes the ledger's look another one, ``own`` the verdict's as well;
    ``named`` may say that the finalists were named ``late``, on ``another split``, or as ``somebody else``. ``mixed`` calls a training by another model's digest.
    """
    project = Project(root)
    directory = model_directory(root / "model 1", 1)
    dossier = make_dossier(directory, None, str(directory))
    look = Look(
        key=sha("look"), model=MODEL, split=SPLIT, candidate_sha256=dossier.verdict.candidate_sha256, number=1, steps={"first": 1}, budget=0.05, level=0.02
    ).model_copy(update=own or {})
    trainings = tuple(
        Training(seed=n, candidate_sha256=c.model_sha256, baseline_sha256=b.model_sha256, candidate=0.74, baseline=0.75, evaluations=(c.digest, b.digest))
        for n, (c, b) in ((2, pair(2)), (3, pair(3)))
    )
    if mixed:
        trainings = (trainings[0].model_copy(update={"baseline_sha256": sha("a better one")}), trainings[1])
    verdict = dossier.verdict.model_copy(update={"look": look, "trainings": trainings})
    dossier = dossier.model_copy(update={"verdict": verdict, "trainings": (pair(2), pair(3))})
    finalist = sha("somebody") if named == "somebody else" else look.candidate_sha256
    content = {"finalists": [{"name": "int8", "sha256": finalist}], "others": {}, "selection": sha("selection")}
    naming = {"key": sha("named"), "model": MODEL, "split": sha("other split") if named == "another split" else SPLIT, "content": content}
    if named and named != "late":
        project.ledger.append("finalists-named", naming, actor="ada")
    record = {"key": look.key, "model": look.model, "split": SPLIT, "content": look.model_copy(update=change).as_json()}
    if taken and not late:
        project.ledger.append("test-look", record, actor="ada")
    if named == "late":
        project.ledger.append("finalists-named", naming, actor="ada")
    progress = project.promoter.propose(make_plan(dossier, directory, project.registry), dossier.verdict)
    if late:
        project.ledger.append("test-look", record, actor="ada")
    project.dossiers[progress.digest] = dossier
    project.promoter.promote(progress.digest, directory)
    return project, progress.digest


def bundle(project: Project, plan: str) -> Path:
    return write_bundle(project.root / "bundle", project.story(plan), project.version(), KEY)


def test_every_training_stands_in_it_and_the_look_is_the_ledgers(tmp_path: Path) -> None:
    place = bundle(*promoted(tmp_path))
    assert verify_bundle(place, PUBLIC).version == "1"
    inside = read_document(place, "trainings.json")
    assert inside == {str(n): {"candidate": pair(n)[0].as_json(), "baseline": pair(n)[1].as_json()} for n in (2, 3)}
    assert "| `trainings.json` |" in (place / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"named": False}, "that the candidate was named before it was looked at is False"),
        ({"named": "late"}, "that the candidate was named before it was looked at is False"),
        ({"named": "another split"}, "that the candidate was named before it was looked at is False"),
        ({"named": "somebody else"}, "that the candidate was named before it was looked at is False"),
        ({"taken": False}, "the look that the verdict was reached by is None"),
        ({"late": True}, "the look that the verdict was reached by is None"),
        ({"number": 7}, "the look that the verdict was reached by is {"),
    ],
)
def test_a_look_that_the_ledger_does_not_bear_out_makes_no_bundle(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    with pytest.raises(BundleBroken, match=f"^ledger.jsonl: {why}"):
        bundle(*promoted(tmp_path, **change))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"own": {"candidate_sha256": sha("somebody")}}, "the candidate of its look is"),
        ({"own": {"model": "another"}}, "the model of its look is another, but should be ner"),
    ],
)
def test_the_look_of_another_candidate_or_for_another_model_makes_no_bundle(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    """It stands in the ledger, was taken in time, and its finalist was named."""
    with pytest.raises(BundleBroken, match=f"^verdict.json: {why}"):
        bundle(*promoted(tmp_path, **change))


def test_a_training_whose_measures_are_those_of_another_model_makes_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleBroken, match=r"^trainings\.json: the baseline of training 2 is "):
        bundle(*promoted(tmp_path, mixed=True))


@pytest.mark.parametrize(
    ("trainings", "why"),
    [
        ((pair(2),), "lacks what it should say"),
        ((pair(3), pair(2)), "what was measured on the candidate of training 2"),
        ((pair(2), (pair(3)[0], evaluation("baseline (training 3)", sha("base 3"), 0.6, 1600.0))), "what was measured on the baseline of training 3"),
        ((pair(2), pair(3), pair(4)), "the number of trainings is 3, but should be 2"),
    ],
)
def test_trainings_that_are_not_those_of_the_verdict_make_no_bundle(tmp_path: Path, trainings: Any, why: str) -> None:
    project, plan = promoted(tmp_path)
    project.dossiers[plan] = project.dossiers[plan].model_copy(update={"trainings": trainings})
    with pytest.raises(BundleBroken, match=why):
        bundle(project, plan)
