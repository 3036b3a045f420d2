"""Would a test notice? The project is made wrong in many small ways, one at a time, and the tests that should see it are run.

    python -m studies.mutants --date 2026-11-29 --machine "2 cores of an AMD EPYC, no GPU"      (all that changed since the last time; from nothing about an hour)
    python -m studies.mutants --only 'gate/*' --again                                            (these, whatever is known of them)
    python -m studies.mutants --fast --dry                                                       (the part that runs with every change; writes nothing)

The mutants lie in ``studies/mutants/``, one list for each room (how they are written: ``studies.mutants_list``). First their tests are run on the project as it
is, and have to pass. Then each mutant's tests are run on a copy with its edit. Writes ``studies/results/mutants.json`` as it goes, and ``mutants.md``. Ends with
1 when a mutant survived that says no reason, was caught although it says one, or could not be tried.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from studies.mutants_list import Mutant, read_mutants
from studies.mutants_trial import CAUGHT, OUTCOMES, Job, copy_project, import_libraries, run_jobs

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "studies" / "results"
KEPT = RESULTS / "mutants.json"
PATIENCE, LEAST, FIRST = 5, 30, 3600
"""Seconds: a mutant may take so many times as long as its tests do without it, and at least, and the tests without one."""
COMMAND = "python -m studies.mutants"
Results = dict[str, dict[str, Any]]


def known() -> Results:
    """The results of earlier runs."""
    return json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}


def still_true(mutants: Sequence[Mutant]) -> Results:
    """Those of them that speak of the present code, tests and edits."""
    earlier = known()
    there = [(mutant.name, mutant, earlier[mutant.name]) for mutant in mutants if mutant.name in earlier]
    return {name: result for name, mutant, result in there if result["digest"] == _digest_of(mutant, result)}


def _digest_of(mutant: Mutant, result: dict[str, Any]) -> str:
    by = result["by"] if caught(result) else ""
    return mutant.digest(ROOT, by if (ROOT / by.split("::")[0]).is_file() else "")


def keep(results: Results) -> None:
    """Write these beside what is known: two runs over different mutants may go on at once."""
    KEPT.write_text(json.dumps(dict(sorted({**known(), **results}.items())), indent=1) + "\n", encoding="utf-8")


def caught(result: dict[str, Any]) -> bool:
    return str(result["result"]) == "caught"


def likely_first(mutant: Mutant, earlier: Results) -> list[str]:
    """Its tests, and before all others the one that caught it the last time: most often it does so again, within seconds."""
    test = earlier.get(mutant.name, {}).get("by", "").split("[")[0]  # of all its parameters, which may have changed
    file, _, name = test.partition("::")
    among = file in {one.split("::")[0] for one in mutant.tests} and (ROOT / file).is_file()
    return [*([test] if among and f"def {name}(" in (ROOT / file).read_text(encoding="utf-8") else []), *mutant.tests]


def check_unmutated(mutants: Sequence[Mutant], copies: Sequence[Path], seconds: dict[str, float]) -> None:
    """Fill ``seconds`` with how long each file of tests takes on the project as it is, where that is not known yet. Ends the study where one does not pass."""
    nodes: dict[str, set[str]] = {}
    for test in {test for mutant in mutants for test in mutant.tests}:
        nodes.setdefault(test.split("::")[0], set()).add(test)
    jobs = [Job(file, [file] if file in tests else sorted(tests), FIRST) for file, tests in sorted(nodes.items()) if file not in seconds]
    for outcome in run_jobs(jobs, copies, ROOT):
        if outcome.result != OUTCOMES[0]:
            raise SystemExit(f"{outcome.log[-3000:]}\n{outcome.key}: {outcome.result or 'failed'} without any mutant ({outcome.by}); mend that first")
        seconds[outcome.key] = outcome.seconds
        print(f"{outcome.seconds:6.1f} s  {outcome.key} passes unmutated", file=sys.stderr)


def try_mutants(mutants: Sequence[Mutant], workers: int, results: Results, *, write: bool, light: bool) -> None:
    """Fill ``results``, by the mutant's name, as outcomes come. Room by room, so that what ends the study early ends with whole rooms tried."""
    earlier = known()
    import_libraries(light=light)
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        copies = [Path(place) / f"copy{number}" for number in range(workers)]
        for copy in copies:
            copy_project(ROOT, copy)
        usual: dict[str, float] = {}
        done = 0
        for room in dict.fromkeys(mutant.room for mutant in mutants):
            inside = {mutant.name: mutant for mutant in mutants if mutant.room == room}
            check_unmutated(list(inside.values()), copies, usual)
            jobs = [_job(mutant, likely_first(mutant, earlier), usual) for mutant in inside.values()]
            for outcome in run_jobs(jobs, copies, ROOT):
                done += 1
                mutant = inside[outcome.key]
                result = OUTCOMES[CAUGHT] if outcome.result == "out of time" and mutant.loops else outcome.result
                entry: dict[str, Any] = {"file": mutant.file, "result": result, "by": outcome.by, "seconds": outcome.seconds}
                results[mutant.name] = entry | {"digest": _digest_of(mutant, entry)}
                print(f"{done:3d}/{len(mutants)} {outcome.seconds:6.1f} s  {result:9s}  {mutant.name}  {outcome.by}", file=sys.stderr)
                if result not in OUTCOMES.values() or result.startswith(("no ", "does")):
                    print(outcome.log[-3000:], file=sys.stderr)
                if write:
                    keep({mutant.name: results[mutant.name]})


def _job(mutant: Mutant, tests: Sequence[str], usual: dict[str, float]) -> Job:
    limit = LEAST + PATIENCE * sum(usual[file] for file in {test.split("::")[0] for test in mutant.tests})
    return Job(mutant.name, tests, limit, mutant.file, mutant.applied_to((ROOT / mutant.file).read_text(encoding="utf-8")))


def table(mutants: Sequence[Mutant], results: Results, date: str, machine: str) -> str:
    """The page: a line for each room, and every mutant that is not caught with its reason."""
    rooms: dict[str, list[Mutant]] = {}
    for mutant in mutants:
        if mutant.name in results:
            rooms.setdefault(mutant.room, []).append(mutant)
    tried = [mutant for room in rooms.values() for mutant in room]
    total = sum(caught(results[mutant.name]) for mutant in tried)
    lines = ["# Mutants: what the tests notice", "", f"`{COMMAND}`, {date}, {machine}.", ""]
    lines += [
        f"{total} of {len(tried)} mutants are caught ({100 * total / max(len(tried), 1):.1f} %). The edits, and what each makes wrong: `studies/mutants/`.",
        "",
    ]
    if len(tried) < len(mutants):
        lines += [f"{len(mutants) - len(tried)} more were not tried since their code or tests changed: the command at the head tries them.", ""]
    lines += ["| room | mutants | caught |", "|---|---|---|"]
    lines += [f"| {room} | {len(inside)} | {sum(caught(results[m.name]) for m in inside)} |" for room, inside in sorted(rooms.items())]
    left = [mutant for mutant in tried if not caught(results[mutant.name])]
    if left:
        lines += ["", "## Not caught", "", "| mutant | file | what is wrong then | result | reason |", "|---|---|---|---|---|"]
        lines += [f"| {m.name} | `{m.file}` | {m.why} | {results[m.name]['result']} | {m.survives or 'none yet'} |" for m in left]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["*"], help="names, as ROOM/MODULE/NAME with * and ?")
    parser.add_argument("--fast", action="store_true", help="only those of the part for every change")
    parser.add_argument("--again", action="store_true", help="those too of which a result is known")
    parser.add_argument("--dry", action="store_true", help="write no results, and use none")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default="")
    options = parser.parse_args()
    mutants = read_mutants()
    results = {} if options.dry else still_true(mutants)
    chosen = [mutant for mutant in mutants if any(fnmatch(mutant.name, pattern) for pattern in options.only) and (mutant.fast or not options.fast)]
    if not chosen:
        raise SystemExit(f"no mutant is called {' or '.join(options.only)}")
    to_try = [mutant for mutant in chosen if options.again or mutant.name not in results]
    if to_try:
        try_mutants(to_try, options.workers, results, write=not options.dry, light=options.fast)
    if not options.dry:
        results, names = still_true(mutants), {mutant.name for mutant in mutants}
        # those too that are to be tried again: what caught them is tried first
        there = {name: result for name, result in sorted(known().items()) if name in names}
        KEPT.write_text(json.dumps(there, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "mutants.md").write_text(table(mutants, results, options.date, options.machine), encoding="utf-8")
    tried = [mutant for mutant in chosen if mutant.name in results]  # and not those whose tests were changed meanwhile
    wrong = [mutant.name for mutant in tried if caught(results[mutant.name]) == bool(mutant.survives)]
    print(f"{sum(caught(results[mutant.name]) for mutant in tried)} of {len(chosen)} caught")
    if wrong:
        raise SystemExit(f"not as they should be: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
