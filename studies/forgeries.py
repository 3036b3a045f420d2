"""Random changes over what MLflow keeps, keys, versions and steps: is each found, by `audit verify` or by the next run, or is it harmless for a reason?

    python -m studies.forgeries --date 2026-11-30 --machine "2 cores of an AMD EPYC, no GPU"                      (300 changes, about five minutes)
    python -m studies.forgeries --changes 20 --seed 7 --date … --machine …

A small project (``tests/audit/small_project.py``: two promoted versions, a plan that waits, seven kinds of remembered steps, two bundles, both keys) is changed in
one place, looked at, and put back. Half of the changes go to rows of MLflow's database: any table that has rows, any column; text gets a letter changed, the value
of another row, or nothing; numbers are moved; rows are deleted. The rest go to files: keys, versions, results and artifacts of steps. A file has a bit flipped,
its end cut off, or is deleted, or another is laid beside it.

``HARMLESS`` lists, by place, what may go unnoticed, with the reason. A change that is neither found nor listed is a failure. Writes
``studies/results/forgeries.json`` and ``.md``.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from recompress.errors import RecompressError
from recompress.integrity.signing import public_pem
from recompress.promotion.states import plan_in
from studies.written import Results, arguments, write
from tasks.people.audit_queries import verify_all
from tasks.people.bundle import recall_dossier
from tasks.running.project import Project
from tasks.steps.judge import promoted_as
from tasks.tracking.registry import champion_of
from tests.audit.small_project import STEPS, key_of, open_run, small_project
from tests.promotion.stage import MODEL

SHOWN = "what MLflow's pages show of a run; every number that a verdict, a page or a bundle uses comes from results that the ledger has the digest of"
TIMES = "times, names and remarks that MLflow shows and nothing here reads"
LABELS = "what people read on MLflow's pages; nothing here reads it"
MLFLOWS = "MLflow's own: it finds what it looks for, or refuses, and then nothing is read at all"
HARMLESS = {
    **dict.fromkeys(("metrics", "latest_metrics", "params", "datasets", "inputs", "input_tags"), SHOWN),
    **dict.fromkeys(("alembic_version", "workspaces", "experiment_tags", "scheduler_leases"), MLFLOWS),
    "experiments": "where MLflow puts new runs, and under which name; a run that was made is found by its id, which the ledger has, and its bytes by their digest",
    **{
        f"runs.{c}": TIMES
        for c in ("name", "source_type", "source_name", "entry_point_name", "user_id", "start_time", "end_time", "source_version", "deleted_time")
    },
    "runs.status": "whether a run looks finished; the ledger knows which steps are",
    "runs of registering": "the run under which a version was uploaded: the version's files are found by their place and checked by the manifest in the ledger",
    "tags": LABELS,
    "tags of steps, deleted or renamed": "a result is found by the ledger's record, without its tag; under another name no step asks for it",
    **{f"registered_models.{c}": TIMES for c in ("creation_time", "last_updated_time", "description")},
    **{f"model_versions.{c}": TIMES for c in ("creation_time", "last_updated_time", "description", "user_id", "current_stage", "status_message", "run_link")},
    "model_versions.status": "MLflow's READY, which it says of any version; the manifest in the ledger says whether a version is whole",
    "registered_model_aliases of others": "an alias other than champion, which nothing here follows",
    "keys/recompress.pub.pem deleted": "the next bundle lays it there again from the private key; people who check have a copy of their own",
    "keys/model-signing.pub.pem deleted": "the next bundle lays it there again from the private key; each bundle holds it",
    "steps: another file beside it": "a result names its files one by one, and nothing reads what none names; in a folder that a result names it is found",
}
"""By table, table and column, or kind of file."""

COUNTING, WEIGHT = ("model_versions", "model_version_tags", "registered_model_aliases", "runs", "tags"), 4
"""Tables are drawn as often as each other, however many rows they have, and these so many times as often: they lead to what counts."""


KINDS = ("rows", "rows", "rows", "keys", "versions", "steps")
"""Each as often as it stands here, in every so many changes: what is drawn depends on what lies there, and no kind may be left out by chance."""


@dataclass(frozen=True)
class Change:
    """One change that was made. ``place`` is what ``HARMLESS`` goes by."""

    place: str
    how: str
    undo: Callable[[], None]


def database_of(root: Path) -> Path:
    return root / "mlflow" / "store" / "mlflow.db"


def change_row(root: Path, rng: random.Random) -> Change | None:
    """A cell or a row of MLflow's database; ``None`` where the database itself refuses the change."""
    file = database_of(root)
    pristine = sqlite3.connect(":memory:")
    live = sqlite3.connect(file)
    live.backup(pristine)
    tables = [name for (name,) in live.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name")]
    counts = {table: live.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
    table = rng.choice([table for table in tables if counts[table] for _ in range(WEIGHT if table in COUNTING else 1)])
    columns = [row[1] for row in live.execute(f"PRAGMA table_info({table})")]
    rowid = rng.choice([row[0] for row in live.execute(f"SELECT rowid FROM {table} ORDER BY rowid")])
    column = rng.choice(columns)
    (value,) = live.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
    others = [row[0] for row in live.execute(f"SELECT DISTINCT {column} FROM {table} WHERE {column} IS NOT ?", (value,)) if row[0] is not None]

    def undo() -> None:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            pristine.backup(connection)

    about = dict(zip(columns, live.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rowid,)).fetchone(), strict=True))
    try:
        with live:
            if rng.random() < 0.15:
                how = "row deleted"
                live.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
            else:
                fresh, how = _another(value, others, rng)
                live.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (fresh, rowid))
    except sqlite3.IntegrityError:
        return None
    finally:
        live.close()
    return Change(_place_of(table, column if how != "row deleted" else "", about), f"{table}{'' if how == 'row deleted' else '.' + column}: {how}", undo)


def _place_of(table: str, column: str, about: dict[str, Any]) -> str:
    if table == "registered_model_aliases" and about["alias"] != "champion":
        return "registered_model_aliases of others"
    if table == "runs" and str(about["name"]).startswith("register "):
        return "runs of registering"
    if table == "tags" and str(about["key"]).startswith("step."):
        return "tags of steps, another result" if column == "value" else "tags of steps, deleted or renamed"
    if f"{table}.{column}" in HARMLESS:
        return f"{table}.{column}"
    return table if table in HARMLESS else f"{table}.{column or '(row)'}"


def _another(value: Any, others: list[Any], rng: random.Random) -> tuple[Any, str]:
    """Another value of the same kind, and how it came about."""
    if others and rng.random() < 0.4:
        return rng.choice(others), "the value of another row"
    if isinstance(value, int | float):
        return value + rng.choice((-1, 1)), "moved by one"
    text = str(value or "")
    if not text or rng.random() < 0.2:
        return None if text else "x", "emptied" if text else "filled"
    at = rng.randrange(len(text))
    letter = rng.choice([c for c in "0123456789abcdef" if c != text[at]])
    return text[:at] + letter + text[at + 1 :], "a letter changed"


def change_file(root: Path, rng: random.Random, kind: str) -> Change:
    """A file of ``keys``, ``versions`` or ``steps``."""
    artifacts = root / "mlflow" / "store" / "artifacts"
    files = {
        "keys": lambda: sorted((root / "keys").iterdir()),
        "versions": lambda: sorted(path for path in artifacts.rglob("version/**/*") if path.is_file()),
        "steps": lambda: sorted(path for path in artifacts.rglob("*") if path.is_file() and {"steps", "evidence"} & set(path.relative_to(artifacts).parts)),
    }[kind]()
    if kind == "steps":
        files = [path for path in files if path.name == "step.json" or path.name == "predictions"]
    file = rng.choice(files)
    data, mode = file.read_bytes(), file.stat().st_mode
    how = rng.choice(("a bit flipped", "end cut off", "deleted", "another file beside it", "replaced by its neighbour"))
    beside = file.with_name("recompress-more.pub.pem" if kind == "keys" else "more.json")

    def undo() -> None:
        beside.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        file.chmod(mode)

    if how == "a bit flipped" and data:
        at = rng.randrange(len(data))
        file.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
    elif how == "another file beside it":
        beside.write_text(public_pem(Ed25519PrivateKey.generate()) if kind == "keys" else "{}")
    elif how == "replaced by its neighbour":
        file.write_bytes(rng.choice([path for path in files if path.read_bytes() != data]).read_bytes())
    elif how == "deleted":
        file.unlink()
    else:
        how = "end cut off" if data else "filled"
        file.write_bytes(data[: rng.randrange(len(data))] if data else b"x")
    place = f"{kind}: {how}" if kind != "keys" else f"keys/{file.name} {how}"
    return Change(place, f"{kind}/{file.name}: {how}", undo)


def look(root: Path) -> list[str]:
    """Everything that `audit verify` and the next run say against it; nothing is written but what ``restoring`` puts back."""
    return [*(f"audit verify: {line}" for line in _asked(lambda: _audit(root))), *(f"next run: {line}" for line in _asked(lambda: _next_run(root)))]


def _asked(ask: Callable[[], Iterator[str]]) -> Iterator[str]:
    try:
        yield from ask()
    except RecompressError as error:
        yield str(error)
    except Exception as error:  # MLflow's own words; a person would see them, but they are counted apart
        yield f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"


def _audit(root: Path) -> Iterator[str]:
    for trouble in verify_all(Project(root)).troubles:
        yield f"{trouble.kind} {trouble.where}: {trouble.detail}"


def _next_run(root: Path) -> Iterator[str]:
    project, run = Project(root), open_run(root)
    run.memory.store.close_abandoned_runs()
    project.promoter.settle(MODEL)
    heard = list[str]()
    for step in STEPS:
        run.memory.recall(key_of(step), step, heard.append)
    yield from heard
    champion = champion_of(project.store, MODEL)
    if champion is None:
        yield "nothing is champion"
    else:
        promoted_as(project.ledger, MODEL, champion.version)
    for entry in project.ledger.entries("promotion-proposed"):
        recall_dossier(project.memory, plan_in(entry))


@contextlib.contextmanager
def restoring(root: Path) -> Iterator[None]:
    """The ledger as it was, in place: what the next run writes of a moved alias does not stay."""
    file, memory = root / "ledger" / "ledger.db", sqlite3.connect(":memory:")
    with contextlib.closing(sqlite3.connect(file)) as live:
        live.backup(memory)
    try:
        yield
    finally:
        with contextlib.closing(sqlite3.connect(file)) as live:
            memory.backup(live)
        memory.close()


def changes(root: Path, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """That many changes, one after the other, each put back before the next: where, how, and what was said."""
    rng, turn = random.Random(seed), list[str]()
    while count:
        turn = turn or rng.sample(KINDS, len(KINDS))
        kind = turn.pop()
        change = change_row(root, rng) if kind == "rows" else change_file(root, rng, kind)
        if change is None:
            continue
        count -= 1
        try:
            with restoring(root):
                lines = look(root)
        finally:
            change.undo()
        yield {"kind": kind, "place": change.place, "how": change.how, "found": lines[:3], "harmless": None if lines else HARMLESS.get(change.place)}


def page(results: Results) -> str:
    rows = results["rows"]
    missed = [row for row in rows if not row["found"] and not row["harmless"]]
    lines = [
        "# Random changes: found, or harmless for a reason",
        "",
        f"`python -m studies.forgeries --changes {results['changes']} --seed {results['seed']}`, {results['date']}, {results['machine']}.",
        "",
    ]
    lines += ["| what was changed | changes | found by `audit verify` | only by the next run | harmless | missed |", "|---|---:|---:|---:|---:|---:|"]
    for kind in ("rows", "keys", "versions", "steps"):
        mine = [row for row in rows if row["kind"] == kind]
        audit = sum(any(line.startswith("audit") for line in row["found"]) for row in mine)
        later = sum(bool(row["found"]) for row in mine) - audit
        harmless = sum(bool(row["harmless"]) for row in mine)
        lines.append(f"| {kind} | {len(mine)} | {audit} | {later} | {harmless} | {len([row for row in missed if row['kind'] == kind])} |")
    lines += ["", "Harmless, and why:", "", "| place | changes that nobody noticed | reason |", "|---|---:|---|"]
    seen = Counter(row["place"] for row in rows if row["harmless"])
    lines += [f"| {place} | {seen[place]} | {reason} |" for place, reason in HARMLESS.items() if seen[place]]
    lines += ["", "Listed as harmless, and not met this time: " + (", ".join(place for place in HARMLESS if not seen[place]) or "none") + "."]
    lines += ["", *(f"- MISSED {row['how']}" for row in missed)]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    told = arguments(__doc__, changes=300, seed=0)
    with tempfile.TemporaryDirectory(prefix="recompress-forgeries-") as folder:
        root = small_project(Path(folder).resolve() / "project")
        if said := look(root):
            sys.exit(f"before anything was changed: {said}")
        rows = []
        for row in changes(root, told.changes, told.seed):
            rows.append({**row, "found": [line.replace(folder, "…") for line in row["found"]]})
            print(len(rows), row["place"], "|", row["how"], "|", row["found"][:1] or row["harmless"] or "MISSED", flush=True)
        if said := look(root):
            sys.exit(f"something was not put back: {said}")
    write("forgeries", told, {"changes": told.changes, "seed": told.seed, "rows": rows}, page)
    if missed := [row for row in rows if not row["found"] and not row["harmless"]]:
        sys.exit(f"{len(missed)} changes were neither found nor harmless")


if __name__ == "__main__":
    main()
