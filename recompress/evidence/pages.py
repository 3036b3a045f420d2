"""What people read in a bundle: the model card, the gate's report, and how to check it all. Markdown, made of the same records as everything else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite

from recompress.evidence.dossier import Story
from recompress.evidence.foreign import without_recompress
from recompress.records import Evaluation, Finding, Loss, Verdict

HOW = """# Evidence: {name}

What version {version} of `{model}` was made from, how it was judged, who agreed, and the ledger up to its promotion.

Check it anywhere, with nothing but this folder and the project's public key:

    recompress audit verify THIS-FOLDER --key recompress.pub.pem

With the model's files as well: `--model FOLDER`. Every file here is listed with its sha256 in `bundle.json`, which `bundle.sig.json` signs.

| file | what it is |
|---|---|
{files}

{foreign}"""
FILES = {
    "statement.json": "in-toto statement with SLSA provenance: files, data, base, code, recipe, environment",
    "statement.dsse.json": "the same, signed, as in-toto tools read it",
    "statement.sigstore.json": "the same, signed, as Sigstore's tools read it",
    "test-result.json": "the gate's verdict as an in-toto test result",
    "test-result.dsse.json": "the same, signed",
    "test-result.sigstore.json": "the same as a Sigstore bundle",
    "verification-summary.json": "the promotion as a SLSA verification summary; its level is this project's own, no level of SLSA",
    "verification-summary.dsse.json": "the same, signed",
    "verification-summary.sigstore.json": "the same as a Sigstore bundle",
    "bom.cdx.json": "CycloneDX 1.6 bill of materials with its model card",
    "model-card.md": "the model card, for people",
    "gate-report.md": "what the gate found, for people",
    "verdict.json": "what the gate found, to the last digit",
    "evaluations.json": "everything that was measured on the candidate, the baseline and the champion",
    "trainings.json": "the same of each further training of candidate and baseline, where the policy asks for several",
    "policy.json": "the policy that judged, defaults included",
    "policy.yaml": "the policy as a person wrote it",
    "recipe.json": "the recipe, defaults included",
    "recipe.yaml": "the recipe as a person wrote it",
    "data-check.json": "what was checked of the data and what was found",
    "plan.json": "what was proposed, and what people approved",
    "model-manifest.json": "the version's files: path, size, sha256",
    "ledger.jsonl": "every record of the ledger up to this promotion",
    "ledger-head.json": "its end, signed",
    "model.sig": "OpenSSF model signature over the model directory",
    "model-signing.pub.pem": "the public key of that signature",
}


def readme(story: Story, files: Iterable[str]) -> str:
    names = set(files)
    rows = "\n".join(f"| `{name}` | {FILES[name]} |" for name in FILES if name in names)
    return HOW.format(name=story.name, version=story.version, model=story.plan.model, files=rows, foreign=without_recompress(names))


def model_card(story: Story) -> str:
    """Who made it from what, what it was measured to do, and who let it go."""
    plan, origin, dossier = story.plan, story.origin.plan, story.dossier
    candidate, baseline = dossier.evaluation("candidate"), dossier.evaluation("baseline")
    facts = origin.facts
    sources = [
        ("Benchmark", str(dossier.recipe.get("benchmark", ""))),
        ("Made from", f"{facts.get('base_model', '')} {facts.get('base_revision', '')}".strip()),
        ("Steps", facts.get("steps", "")),
        ("Data", f"{facts.get('dataset', '')}, md5 (DVC) {facts.get('data_md5', '')}"),
        ("Data sha256", origin.digests["data"]),
        ("Base sha256", origin.digests["base"]),
        ("Recipe sha256", origin.digests["recipe"]),
        ("Code", f"git {facts.get('git_commit', 'unknown')}, sha256 {origin.digests['code']}"),
        ("Model sha256", plan.model_sha256),
    ]
    decided = [
        ("Policy sha256", str(origin.policy_sha256)),
        ("Verdict sha256", str(origin.verdict_sha256)),
        ("Proposed by", plan.author),
        ("Approved by", story.approval.actor if story.approval else "nobody was asked"),
        ("Instead of", f"version {plan.expected.version}" if plan.expected else "nothing: the first"),
        ("Champion since", story.committed.time),
        ("Ledger head", str(story.head)),
    ]
    if plan.kind == "rollback":
        decided.append(("Rolled back because", plan.reason))
    lines = [f"# {plan.model}, version {story.version}: {origin.candidate}", "", *_pairs("What it was made from", sources), *_pairs("Who decided", decided)]
    if candidate is not None:
        lines += ["## What it was measured to do", "", *_measured(candidate, baseline, dossier.verdict.metric), ""]
        machine = ", ".join(f"{name} {value}" for name, value in sorted(candidate.machine.items()))
        lines += [f"Speeds and memory hold for this machine: {machine or 'not recorded'}.", ""]
    lines += ["## Limits", "", "It was judged on the data named above and on no other; outside of it, and of its languages and labels, nothing is known.", ""]
    return "\n".join(lines)


def gate_report(verdict: Verdict) -> str:
    """The verdict as a table of what was checked."""
    head = [f"# The gate about {verdict.candidate}: {'passed' if verdict.passed else 'refused'}", ""]
    facts = [
        ("Metric", f"{verdict.metric} {_number(verdict.score)}"),
        ("Candidate sha256", verdict.candidate_sha256),
        ("Baseline sha256", verdict.baseline_sha256),
        ("Champion sha256", verdict.champion_sha256 or "none: the first promotion"),
        ("Data sha256", verdict.dataset_sha256),
        ("Policy sha256", verdict.policy_sha256),
        ("Spent of the loss budget", f"{_number(verdict.spent_loss)} before, {_number(verdict.spent_loss_after)} after"),
    ]
    return "\n".join([*head, *_pairs("What was judged", facts), *_findings(verdict.findings), *_losses(verdict.losses)])


def _findings(findings: Sequence[Finding]) -> list[str]:
    rows = [
        f"| {f.check} | {'passed' if f.passed else f'refused: {f.reason}'} | {_number(f.measured)} | {_number(f.limit)} | {_cell(f.detail)} |" for f in findings
    ]
    return ["## What was checked", "", "| check | | measured | limit | |", "|---|---|---|---|---|", *rows, ""]


def _losses(losses: Sequence[Loss]) -> list[str]:
    rows = [
        f"| {loss.against} | {loss.slice or 'all'} | {loss.examples:,} | {loss.candidate:.4f} | {loss.other:.4f} | {loss.loss:+.4f} | {loss.upper:.4f} | "
        f"{loss.margin:.4f} | {loss.p_adjusted:.4g} | {loss.smallest_detectable:.4f} |"
        for loss in losses
    ]
    title = "| against | slice | examples | candidate | other | loss | at most | margin | p (Holm) | smallest detectable |"
    return ["## Losses", "", title, "|---|---|---|---|---|---|---|---|---|---|", *rows, ""] if rows else []


def _measured(candidate: Evaluation, baseline: Evaluation | None, metric: str) -> list[str]:
    names = sorted(candidate.metrics, key=lambda name: (name != metric, name))
    rows = [f"| {name} | {_number(candidate.metrics[name])} | {_number(baseline.metrics.get(name)) if baseline else '–'} |" for name in names]
    parts = [f"| {metric} in {part} | {_number(values.get(metric))} | {_of(baseline, part, metric)} |" for part, values in sorted(candidate.slices.items())]
    return ["| | this model | uncompressed |", "|---|---|---|", *rows, *parts]


def _of(baseline: Evaluation | None, part: str, metric: str) -> str:
    return _number(baseline.slices.get(part, {}).get(metric)) if baseline else "–"


def _pairs(title: str, pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [f"## {title}", "", "| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in pairs if value), ""]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if not isfinite(value):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4f}"
