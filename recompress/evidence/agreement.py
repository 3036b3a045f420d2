"""Whether the documents of a bundle speak of the same thing: digests are taken of what is there, and every place that names one must name that one.

Records are compared as they are written, never as a later version would write them: what a version of years ago signed must verify with this one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

from pydantic import ValidationError

from recompress.evidence.attestation_agreement import result_rows, summary_rows
from recompress.evidence.broken import BundleBroken
from recompress.integrity.digest import FileEntry, sha256_json, sha256_manifest
from recompress.integrity.model_files import MODEL_FOLDER
from recompress.ledger import Entry, Head, LedgerBroken
from recompress.promotion.approved import approval_trouble
from recompress.promotion.pins import FACT, PIN_KINDS, kept_to_pin
from recompress.promotion.states import OPENERS, PLAN_KINDS, STEPS
from recompress.records import ApprovalRule, PromotionPlan


class Pair(NamedTuple):
    """Two values that must be one."""

    file: str
    what: str
    found: Any
    wanted: Any


class Documents:
    """The JSON documents of a bundle by name, with the ledger's records."""

    def __init__(self, by_name: dict[str, dict[str, Any]], chain: list[Entry]) -> None:
        self._by_name = by_name
        self.chain = chain

    def __getitem__(self, name: str) -> dict[str, Any]:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def plan(self) -> dict[str, Any]:
        return self["plan.json"]

    @cached_property
    def plan_sha256(self) -> str:
        return sha256_json(self.plan)

    @cached_property
    def entries(self) -> list[Entry]:
        """The records of the plan. Raises ``BundleBroken`` when it was not carried out, step by step."""
        return records_of(self.chain, self.plan_sha256)

    @cached_property
    def committed(self) -> dict[str, Any]:
        """The body of the record with which the promotion was over."""
        return self.entries[-1].body

    @cached_property
    def origin(self) -> list[Entry]:
        """The records of the promotion that made the version: this one, or the one that a rollback goes back to."""
        entries = self.entries
        while entries[0].kind == "rollback":
            judged = next(entry for entry in entries if entry.kind == "promotion-judged")
            entries = records_of(self.chain[: judged.sequence], str(judged.body.get("promoted_before")))  # an earlier one, so this comes to an end
        return entries

    @property
    def approver(self) -> str | None:
        return next((entry.actor for entry in reversed(self.entries) if entry.kind == "approval"), None)


def records_of(chain: list[Entry], plan: str) -> list[Entry]:
    """A plan's records, if they lead from its proposal to its end."""
    entries = [entry for entry in chain if entry.kind in PLAN_KINDS and entry.body.get("plan") == plan]
    state = "proposed" if entries and entries[0].kind in OPENERS and sha256_json(entries[0].body.get("content")) == plan else ""
    for entry in entries[1:]:
        state = STEPS.get(state, {}).get(entry.kind, "")
    if state != "committed":
        raise BundleBroken("ledger.jsonl", f"it does not say that plan {plan[:12]}… was proposed, judged, approved and carried out, in this order")
    return entries


def agree(documents: Documents, listing: dict[str, Any], head: Head, files: tuple[FileEntry, ...]) -> str:
    """Compare everything with everything, and give the line that says so. Raises ``BundleBroken`` that names the first document that says something else."""
    try:
        pairs = [
            *_plan(documents, listing, head),
            *_judgement(documents),
            *_trainings(documents),
            *_look(documents),
            *_provenance(documents, files),
            *_bill(documents, files),
            *_model(documents, files),
            *_for_others(documents, files),
        ]
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise BundleBroken("bundle.json", f"a document lacks what it should say: {type(error).__name__} {error}") from None
    for pair in pairs:
        if pair.found != pair.wanted:
            raise BundleBroken(pair.file, f"{pair.what} is {_short(pair.found)}, but should be {_short(pair.wanted)}")
    _check_approval(documents)
    _check_pin(documents)
    return f"plan, verdict, policy, recipe, data check, statement and bill agree in {len(pairs)} places"


def _plan(documents: Documents, listing: dict[str, Any], head: Head) -> Iterator[Pair]:
    plan, committed = documents.plan, documents.committed
    last = documents.entries[-1]
    yield Pair("plan.json", "the plan's digest", documents.plan_sha256, listing["plan"])
    yield Pair("ledger.jsonl", "its last record", last.sequence, head.sequence)
    yield Pair("bundle.json", "the head of the ledger", listing["ledger_head"], str(head))
    yield Pair("bundle.json", "the model", listing["model"], plan["model"])
    yield Pair("bundle.json", "the version", listing["version"], committed["version"])
    yield Pair("bundle.json", "the model's digest", listing["model_sha256"], plan["model_sha256"])
    yield Pair("ledger.jsonl", "the model that was promoted", committed["model_sha256"], plan["model_sha256"])
    intent = next(entry.body for entry in reversed(documents.entries) if entry.kind == "promotion-intent")
    yield Pair("ledger.jsonl", "the champion that was replaced", intent["expected"], plan["expected"])


def _judgement(documents: Documents) -> Iterator[Pair]:
    origin = documents.origin[0].body["content"]
    verdict = documents["verdict.json"]
    yield Pair("verdict.json", "its digest", sha256_json(verdict), origin["verdict_sha256"])
    yield Pair("verdict.json", "that it passed", verdict["passed"], True)
    yield Pair("verdict.json", "the candidate", verdict["candidate_sha256"], documents.plan["model_sha256"])
    yield Pair("verdict.json", "the data", verdict["dataset_sha256"], origin["digests"]["data"])
    yield Pair("verdict.json", "the policy", verdict["policy_sha256"], origin["policy_sha256"])
    yield Pair("policy.json", "its digest", sha256_json(documents["policy.json"]), origin["policy_sha256"])
    yield Pair("recipe.json", "its digest", sha256_json(documents["recipe.json"]), origin["digests"]["recipe"])
    yield Pair("data-check.json", "the data", documents["data-check.json"]["prepared_sha256"], origin["digests"]["data"])
    if "data_check" in origin["facts"]:
        yield Pair("data-check.json", "its digest", sha256_json(documents["data-check.json"]), origin["facts"]["data_check"])
    evaluations = documents["evaluations.json"]
    yield Pair("evaluations.json", "what was measured", {role: sha256_json(evaluation) for role, evaluation in evaluations.items()}, verdict["evaluations"])
    for role in evaluations:
        yield Pair("evaluations.json", f"the {role}", evaluations[role]["model_sha256"], verdict[f"{role}_sha256"])
    judged = next(entry.body for entry in documents.origin if entry.kind == "promotion-judged")
    yield Pair("ledger.jsonl", "the verdict that let the plan go on", judged["verdict"], origin["verdict_sha256"])


def _trainings(documents: Documents) -> Iterator[Pair]:
    """What was measured on further trainings; bundles from before they were kept hold none of it."""
    if "trainings.json" not in documents:
        return
    name, trainings = "trainings.json", documents["trainings.json"]
    for number, wanted in enumerate(documents["verdict.json"].get("trainings", ()), start=2):
        for role, digest in zip(("candidate", "baseline"), wanted["evaluations"], strict=True):
            yield Pair(name, f"what was measured on the {role} of training {number}", sha256_json(trainings[str(number)][role]), digest)
            yield Pair(name, f"the {role} of training {number}", trainings[str(number)][role]["model_sha256"], wanted[f"{role}_sha256"])
    yield Pair(name, "the number of trainings", len(trainings), len(documents["verdict.json"].get("trainings", ())))


def _look(documents: Documents) -> Iterator[Pair]:
    """The look at the test split that the verdict was reached by: its finalists were named in the ledger, then it was taken, and then the plan was made."""
    look = documents["verdict.json"].get("look")
    if look is None:  # a verdict from before looks were counted
        return
    proposed = documents.origin[0].sequence
    taken = [e for e in documents.chain if e.kind == "test-look" and e.body["key"] == look["key"] and e.sequence < proposed]
    yield Pair("ledger.jsonl", "the look that the verdict was reached by", taken[0].body["content"] if taken else None, look)
    yield Pair("verdict.json", "the candidate of its look", look["candidate_sha256"], documents["verdict.json"]["candidate_sha256"])
    yield Pair("verdict.json", "the model of its look", look["model"], documents.plan["model"])
    before = taken[0].sequence if taken else 0
    named = [e.body for e in documents.chain if e.kind == "finalists-named" and e.sequence < before and e.body["split"] == look["split"]]
    among = any(finalist["sha256"] == look["candidate_sha256"] for body in named for finalist in body["content"]["finalists"])
    yield Pair("ledger.jsonl", "that the candidate was named before it was looked at", among, True)


def _provenance(documents: Documents, files: tuple[FileEntry, ...]) -> Iterator[Pair]:
    name, statement = "statement.json", documents["statement.json"]
    origin = documents.origin[0].body["content"]
    definition, details = statement["predicate"]["buildDefinition"], statement["predicate"]["runDetails"]
    yield Pair(name, "the files", {s["name"]: s["digest"] for s in statement["subject"]}, {file.path: {"sha256": file.sha256} for file in files})
    named = {d["name"]: d["digest"]["sha256"] for d in definition["resolvedDependencies"]}
    yield Pair(name, "what it was made from", named, origin["digests"] | {"policy": origin["policy_sha256"]})
    yield Pair(name, "the recipe", definition["externalParameters"]["recipe"], documents["recipe.json"])
    yield Pair(name, "the policy", definition["externalParameters"]["policy"], documents["policy.json"])
    yield Pair(name, "the facts", definition["internalParameters"]["facts"], origin["facts"])
    yield Pair(name, "the plan that made it", details["metadata"]["invocationId"], documents.origin[0].body["plan"])
    products = {product["name"]: product["digest"]["sha256"] for product in details["byproducts"]}
    wanted = {"verdict": origin["verdict_sha256"], "plan": documents.plan_sha256, "ledger": documents.chain[-1].hash}
    yield Pair(name, "the by-products", products, wanted | {f"evaluation/{role}": sha for role, sha in documents["verdict.json"]["evaluations"].items()})


def _bill(documents: Documents, files: tuple[FileEntry, ...]) -> Iterator[Pair]:
    name, component = "bom.cdx.json", documents["bom.cdx.json"]["metadata"]["component"]
    origin = documents.origin[0].body["content"]
    listed = {file["name"]: file["hashes"][0]["content"] for file in component["components"]}
    yield Pair(name, "the model's files", listed, {file.path.removeprefix(f"{MODEL_FOLDER}/"): file.sha256 for file in files if _of_model(file)})
    properties = {p["name"].removeprefix("recompress:"): p["value"] for p in component["properties"]}
    wanted = {
        "model_sha256": documents.plan["model_sha256"],
        "manifest_sha256": documents.committed["manifest_sha256"],
        "plan_sha256": documents.plan_sha256,
        "verdict_sha256": origin["verdict_sha256"],
        "policy_sha256": origin["policy_sha256"],
        "recipe_sha256": origin["digests"]["recipe"],
        "code_sha256": origin["digests"]["code"],
        "ledger_head": str(documents.chain[-1].head),
    }
    yield Pair(name, "the digests", {key: properties.get(key) for key in wanted}, wanted)
    yield Pair(name, "the version", (component["name"], component["version"]), (documents.plan["model"], documents.committed["version"]))
    digests = {
        c["bom-ref"]: p["value"] for c in documents["bom.cdx.json"]["components"] for p in c.get("properties", ()) if p["name"].endswith("directory_sha256")
    }
    yield Pair(name, "data and base", digests, {key: origin["digests"][key] for key in ("data", "base")})


def _model(documents: Documents, files: tuple[FileEntry, ...]) -> Iterator[Pair]:
    inside = [FileEntry(file.path.removeprefix(f"{MODEL_FOLDER}/"), file.size, file.sha256) for file in files if _of_model(file)]
    yield Pair("model-manifest.json", "the model's digest", sha256_manifest(inside), documents.plan["model_sha256"])


def _for_others(documents: Documents, files: tuple[FileEntry, ...]) -> Iterator[Pair]:
    """The test result and the verification summary, which bundles of earlier versions do not hold."""
    if "test-result.json" not in documents:
        return
    inputs = {name: documents[name] for name in ("statement.dsse.json", "test-result.dsse.json")}
    policy, time = documents.origin[0].body["content"]["policy_sha256"], documents.chain[-1].time
    yield from (Pair(*row) for row in result_rows(documents["test-result.json"], documents["verdict.json"], files))
    yield from (Pair(*row) for row in summary_rows(documents["verification-summary.json"], inputs, documents.committed, time, policy, files))


def _check_approval(documents: Documents) -> None:
    """Where the plan's rule asks for a person, the record of one, in time; where it knows people's keys, the signature too."""
    rule = ApprovalRule(**{name: value for name, value in documents.plan["approval"].items() if name in ApprovalRule.model_fields})
    trouble = approval_trouble(rule, str(documents.plan["author"]), documents.plan_sha256, documents.entries)
    if trouble is not None:
        raise BundleBroken("ledger.jsonl", trouble)


def _check_pin(documents: Documents) -> None:
    """What was pinned for the model, by those who might; and the plan, and the one that made the version, kept to it."""
    try:
        for entries in (documents.entries, documents.origin):
            content = entries[0].body["content"]
            if any(entry.kind in PIN_KINDS for entry in documents.chain) or FACT in content.get("facts", {}):
                intent = next(entry for entry in reversed(entries) if entry.kind == "promotion-intent")
                for trouble in kept_to_pin(documents.chain, PromotionPlan.model_validate(content), intent.sequence):
                    raise BundleBroken("ledger.jsonl", trouble)
    except LedgerBroken as error:
        raise BundleBroken("ledger.jsonl", str(error)) from None
    except ValidationError:
        raise BundleBroken(
            "plan.json", "it says more than this version knows, so it cannot be held against what is pinned; use the version that wrote it"
        ) from None


def _of_model(file: FileEntry) -> bool:
    return file.path.startswith(f"{MODEL_FOLDER}/")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
