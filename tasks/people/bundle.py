"""Evidence: kept in MLflow before a promotion, written as a bundle after it, and made good where a crash came between.

What a verdict was reached on is kept first, under the digest of the plan; then the plan is carried out; then the bundle is written. Whoever comes next writes
the bundles that are missing.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError, IntegrityError, RecompressError
from recompress.evidence import Dossier, committed_plans, folder_name, tell, write_bundle
from recompress.evidence.cut import cut_file
from recompress.evidence.dossier import origin_of
from recompress.evidence.file_list import read_document
from recompress.evidence.layout import LIST
from recompress.integrity.digest import sha256_json
from recompress.integrity.file_lock import locked
from recompress.integrity.model_files import check_version
from recompress.ledger import Entry
from recompress.promotion.states import Progress
from recompress.records import DatasetRef, Evaluation, ModelRef, PromotionPlan, Verdict
from tasks.ledger.keys import own_key, own_model_key
from tasks.people.audit_keys import note_keys
from tasks.running.project import Project
from tasks.tracking.memory import Memory

if TYPE_CHECKING:
    from tasks.running.recompression import Recompression

log = logging.getLogger(__name__)
EVIDENCE = "evidence"
LIBRARIES = (
    *("torch", "transformers", "safetensors", "onnx", "onnxruntime", "onnxscript", "numpy", "pandas", "pyarrow", "scipy"),
    *("accelerate", "seqeval", "gguf", "xllamacpp", "onnxruntime-genai", "prefect", "mlflow", "dvc", "great-expectations"),
)


def keep_dossier(
    run: Recompression,
    plan: PromotionPlan,
    verdict: Verdict,
    evaluations: Sequence[Evaluation],
    data_check: Mapping[str, Any],
    dataset: DatasetRef,
    base: ModelRef,
    candidate: ModelRef,
    baseline_uri: str = "",
) -> None:
    """Keep what a plan stands on, once. Call it before the plan is proposed."""
    if run.memory.recall(_key(plan), EVIDENCE, run.say) is not None:
        return
    recipe, measured = run.plan.recipe, {evaluation.digest: evaluation for evaluation in evaluations}
    dossier = Dossier(
        verdict=verdict,
        policy=run.plan.policy.as_json(),
        policy_text=(run.root / recipe.policy).read_text(encoding="utf-8"),
        recipe=run.plan.as_json,
        recipe_text=run.plan.path.read_text(encoding="utf-8"),
        evaluations=tuple(e for e in evaluations if e.digest in verdict.evaluations.values()),
        trainings=tuple((measured[candidate], measured[baseline]) for candidate, baseline in (training.evaluations for training in verdict.trainings)),
        data_check=dict(data_check),
        base={"model": recipe.base.model, "revision": recipe.base.revision or "", "sha256": base.sha256},
        dataset=dataset.model_dump(mode="json", exclude={"uri"}) | {"unlabelled": list(dataset.unlabelled[1:]) if dataset.unlabelled else []},
        environment=environment(),
        candidate_uri=candidate.uri,
        baseline_uri=baseline_uri,
    )
    store_dossier(run, plan, dossier)


def store_dossier(run: Recompression, plan: PromotionPlan, dossier: Dossier) -> None:
    """Store it as a step is stored. Recipes that run at once in one project do this at the same time."""
    run.memory.keep(_key(plan), EVIDENCE, run.run_of(""), f"evidence/{plan.digest[:12]}", {"dossier": dossier.as_json()}, {})


class NoEvidence(IntegrityError):
    """What a plan stands on was deleted, or is not what it was."""


def recall_dossier(memory: Memory, plan: PromotionPlan) -> Dossier:
    """What was kept for a plan. Raises ``NoEvidence``, and ``ForgedStep`` where somebody laid other evidence in its place."""
    result = memory.recall(_key(plan), EVIDENCE, log.debug)
    if result is None and not memory.knows(_key(plan)):
        result = memory.store.recall_by_tag(_key(plan))  # from before the ledger knew the digests of steps; every part that counts has one in the plan
        if result is not None and not fits(result["dossier"], plan):
            raise NoEvidence(
                f"the evidence that MLflow keeps for plan {plan.digest[:12]}… is not what the plan was made on; run its recipe again to make it again"
            )
    if result is None:
        raise NoEvidence(f"the evidence for plan {plan.digest[:12]}… is not in the MLflow store any more; run its recipe again to make it again")
    return Dossier.model_validate(result["dossier"])


def fits(dossier: Mapping[str, Any], plan: PromotionPlan) -> bool:
    """Whether everything in a dossier, as it was written, that the plan or the verdict that it names has a digest of is that."""
    data_check = sha256_json(dossier["data_check"])
    named = {
        "verdict": (sha256_json(dossier["verdict"]), plan.verdict_sha256),
        "policy": (sha256_json(dossier["policy"]), plan.policy_sha256),
        "recipe": (sha256_json(dossier["recipe"]), plan.digests["recipe"]),
        "base": (dossier["base"].get("sha256"), plan.digests["base"]),
        "data": (dossier["data_check"].get("prepared_sha256"), plan.digests["data"]),
        "data check": (data_check, plan.facts.get("data_check", data_check)),
        "trainings": (
            [[sha256_json(evaluation) for evaluation in pair] for pair in dossier.get("trainings", ())],
            [list(training["evaluations"]) for training in dossier["verdict"].get("trainings", ())],
        ),
        "evaluations": ({sha256_json(evaluation) for evaluation in dossier["evaluations"]}, set(dossier["verdict"]["evaluations"].values())),
    }
    return all(found == wanted for found, wanted in named.values())


def heal(project: Project, say: Callable[[str], None] = log.warning) -> list[Path]:
    """Write every bundle that is missing or was cut short, and give their folders. What cannot be written is said, never raised: the promotion itself holds."""
    folders = []
    chain = project.ledger.entries()
    for progress in committed_plans(chain):
        folder = project.evidence / folder_name(chain, progress)
        cut = cut_file(folder) if folder.is_dir() else None
        if cut is not None:
            say(f"evidence/{folder.name} was cut short ({cut}); it is written anew")
        if cut is not None or not folder.is_dir():
            try:
                folders.append(make_bundle(project, chain, progress))
            except RecompressError as error:
                model, version = progress.plan.model, progress.said("promotion-committed")["version"]
                say(f"the evidence of {model} version {version} could not be written ({error}); `recompress audit bundle {model}@{version}` tries again")
    return folders


def make_bundle(project: Project, chain: list[Entry], progress: Progress) -> Path:
    """The bundle of a promotion that was carried out: the one that is there, or a new one, which is kept with the version's run as well.

    One that was cut short, as a power loss leaves it, is written anew; one that was altered is not, so that people see what somebody did to it.
    """
    target = project.evidence / folder_name(chain, progress)
    model, version = progress.plan.model, str(progress.said("promotion-committed")["version"])
    with locked(project.root / ".recompress" / "evidence.lock"):
        if target.is_dir() and cut_file(target) is None:
            check_named(target, progress)
            return target
        for left_over in project.evidence.glob(".*.partial-*"):  # by somebody who was killed: nobody else is at work here
            shutil.rmtree(left_over, ignore_errors=True)
        dossier = recall_dossier(project.memory, origin_of(chain, progress).plan)
        files = project.registry.fetch(model, version)
        story = tell(chain, progress.digest, files, dossier)
        signing, model_signing = own_key(project.root), own_model_key(project.root)
        note_keys(project.root, project.ledger)
        with _set_aside(target):
            write_bundle(target, story, files, signing, model_signing)
    with project.store.refusing():
        run = project.store.client.get_model_version(model, version).run_id
        if run:
            project.store.client.log_artifacts(run, str(target), f"evidence/{target.name}")
            project.store.flush(f"{project.store.client.get_run(run).info.artifact_uri}/evidence/{target.name}")
    return target


@contextmanager
def _set_aside(target: Path) -> Iterator[None]:
    """Take what is left of a bundle out of the way of a new one, and put it back where that cannot be written."""
    left = target.with_name(f".{target.name}.partial-cut")
    if not target.is_dir():
        yield
        return
    target.rename(left)
    try:
        yield
    except BaseException:
        left.rename(target)
        raise
    shutil.rmtree(left, ignore_errors=True)


def check_named(folder: Path, progress: Progress) -> None:
    """Raises ``IntegrityError`` when a bundle is the evidence of another promotion than the one that its folder is named for: each of them holds by itself."""
    document = read_document(folder, LIST)
    if document.get("plan") != progress.digest:
        raise IntegrityError(
            f"evidence/{folder.name} holds the evidence of {document.get('model')} version {document.get('version')}, plan {str(document.get('plan'))[:12]}…, and should hold that "
            f"of plan {progress.digest[:12]}…; move it away, and `recompress audit bundle` writes the right one"
        )


def export_bundle(project: Project, reference: str, target: Path | None, *, with_model: bool = False) -> Path:
    """The bundle of a version, as a folder of the project or packed into ``target``, a zip. Raises ``InputError`` for a version that was never promoted."""
    from recompress.audit import find_plan
    from recompress.evidence.archive import pack

    model, version = project.resolve(reference)
    chain = project.ledger.entries()
    folder = make_bundle(project, chain, find_plan(chain, model, version))
    if target is None:
        if with_model:
            raise InputError("the model's files go into an archive only; name one: --zip evidence.zip")
        return folder
    if target.exists():
        raise InputError(f"{target} exists already and is not overwritten; remove it or choose another name")
    with tempfile.TemporaryDirectory(prefix="recompress-export-") as place:
        copy = Path(place) / folder.name
        shutil.copytree(folder, copy)
        if with_model:
            files = project.registry.fetch(model, version)
            check_version(files, find_plan(chain, model, version).said("promotion-committed")["manifest_sha256"])
            shutil.copytree(files, copy / "model", ignore=shutil.ignore_patterns("registered_model_meta"))
        return pack(Path(place), target)


def environment() -> dict[str, str]:
    """Versions of Python and of the libraries that a model was made and measured with."""
    versions = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _key(plan: PromotionPlan) -> str:
    """Attempts at one plan stand on the same evidence."""
    return sha256_json({"step": "evidence", "plan": plan.model_copy(update={"attempt": 1}).digest})
