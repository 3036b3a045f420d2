"""What a model of language writes: scored as the libraries' own defaults score it, beside the baseline token by token, and by how much repeats itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from recompress.benchmarks import Example, benchmark_of
from recompress.benchmarks.agreement import Common, Speaker, agreement, divergence
from recompress.benchmarks.overlap import grams, overlap
from recompress.benchmarks.text_generation import TextGeneration
from recompress.benchmarks.writing import Ended, Writing, of_row, prompts_fitted, write
from recompress.errors import DataRefused, InputError
from recompress.measure.quality import Beside, evaluate_quality
from recompress.methods.registry import get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, Info, load, save
from recompress.predict import Predictor, summary
from recompress.runtimes import runtime_of
from recompress.runtimes.generation import can_continue, continued
from recompress.runtimes.sampling import nucleus, sampler
from tests.six import DECODERS, checkpoint_of, inputs_of, texts

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTH = 48
ASKED = [Example((f"{example.words[0]} kula",), ("nyumba ya leo", "kazi"), example.slice) for example in texts(10, seed=4)]


def writing(**dials: Any) -> TextGeneration:
    return TextGeneration(Writing.model_validate_json(json.dumps({"tokens": 8} | dials)))


def model_of(benchmark: TextGeneration, family: str = "llama", noise: float = 0.0) -> Checkpoint:
    """Loud logits, so that no rounding changes what is written; with ``noise``, another model that is near."""
    checkpoint = checkpoint_of(family, tie_word_embeddings=False)
    with torch.no_grad():
        checkpoint.torch_network.get_output_embeddings().weight.mul_(8)
        if noise:
            torch.manual_seed(0)
            for parameter in checkpoint.torch_network.parameters():
                parameter.add_(noise * torch.randn_like(parameter))
    checkpoint.info = Info(benchmark=benchmark.name, labels=(), max_length=LENGTH, answering=benchmark.answering)
    return checkpoint


def speaker(checkpoint: Checkpoint) -> Speaker:
    return Speaker(runtime_of(checkpoint), checkpoint.tokenizer)


def read(benchmark: TextGeneration, checkpoint: Checkpoint, examples: list[Example]) -> list[tuple[str, ...]]:
    return benchmark.read(runtime_of(checkpoint), checkpoint.tokenizer, examples, LENGTH, "writing")


def test_scores_are_those_of_the_libraries() -> None:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu import sentence_chrf

    rights, written = ["The cat sat on the mat, twice.", "A cat sat."], "the cat sat upon a mat"
    found = overlap(rights, written, "unicode")
    assert found.chrf == pytest.approx(sentence_chrf(written, rights).score / 100)
    assert found.rouge_l == pytest.approx(RougeScorer(["rougeL"]).score_multi(rights, written)["rougeL"].fmeasure)
    assert found.exact == 0
    assert overlap(rights[::-1], written, "unicode") == found, "the nearest counts, wherever it stands"
    assert overlap(["A cat sat."], "a cat  sat", "unicode")[:2] == (1, 1.0)
    assert overlap(["дом ẹ̀kọ́ 今天"], "дом 今天", "unicode").rouge_l == pytest.approx(0.8), "letters of other scripts are letters"
    assert overlap([""], "", "squad") == (1, 1.0, 1.0, 1.0)
    assert overlap([""], "something", "squad") == (0, 0.0, 0.0, 0.0)


def test_repeats_are_counted_in_tokens() -> None:
    assert grams([1, 2, 1, 2, 1, 2], 2) == (5, 2)
    assert grams([1, 2, 1, 2, 1, 2], 4) == (3, 2)
    assert grams([1], 2) == (0, 0)


@pytest.mark.parametrize("family", DECODERS)
def test_counts_and_metrics_by_hand(family: str) -> None:
    benchmark = writing()
    checkpoint = model_of(benchmark, family)
    rows = read(benchmark, checkpoint, ASKED)
    runtime = can_continue(runtime_of(checkpoint))
    for row, example in zip(rows, ASKED, strict=True):
        done = continued(runtime, checkpoint.tokenizer(example.words[0])["input_ids"], 8, frozenset({0}))
        assert of_row(row).tokens == done.tokens
        assert (of_row(row).ended == Ended.BY_TOKEN) == done.stopped
    counts = benchmark.counts([example.labels for example in ASKED], rows, ())
    metrics = benchmark.metrics(counts.sum(axis=0), ())
    scores = [overlap(example.labels, row[0], "unicode") for example, row in zip(ASKED, rows, strict=True)]
    assert metrics["chrf"] == pytest.approx(np.mean([score.chrf for score in scores]), abs=1e-6)
    assert metrics["rouge_l"] == pytest.approx(np.mean([score.rouge_l for score in scores]), abs=1e-6)
    assert metrics["mean_tokens"] == np.mean([len(of_row(row).tokens) for row in rows])
    every = [grams(of_row(row).tokens, 2) for row in rows]
    assert metrics["distinct_2"] == pytest.approx(sum(different for _, different in every) / sum(total for total, _ in every))
    assert np.isnan(metrics["equal_tokens"])
    assert counts.shape[1] == len(benchmark.count_names(()))
    with pytest.raises(DataRefused, match="no record of a written text"):
        benchmark.counts([()], [("a", "1 x", "0", "references")], ())
    with pytest.raises(DataRefused, match="got 2"):
        benchmark.counts([()], [("a", "1")], ())


def test_a_text_ends_before_a_stop_string_and_at_a_stop_token() -> None:
    checkpoint = model_of(writing())
    whole = of_row(read(writing(tokens=12), checkpoint, ASKED[:1])[0])
    stop = checkpoint.tokenizer.decode(whole.tokens[3:4])
    cut = of_row(read(writing(tokens=12, stop=[stop]), checkpoint, ASKED[:1])[0])
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (whole.ended, cut.ended) == (Ended.CUT, Ended.BY_STRING)
    assert len(cut.tokens) <= 4
    last = whole.tokens[3]
    checkpoint.tokenizer.eos_token = checkpoint.tokenizer.convert_ids_to_tokens(last)
    ended = of_row(read(writing(tokens=12), checkpoint, ASKED[:1])[0])
    assert (ended.tokens, ended.ended) == (whole.tokens[: whole.tokens.index(last)], Ended.BY_TOKEN)


def test_questions_are_answered_and_plain_text_is_continued() -> None:
    about = Example(("Who won?", "The Broncos won."), ("4:Broncos", "0:The Broncos"))
    benchmark = writing().completed([about], ())
    assert benchmark.asked(about).words[0] == "The Broncos won.\n\nQuestion: Who won?\nAnswer:"
    assert benchmark.rights(about) == ["Broncos", "The Broncos"]
    assert benchmark.columns == ("question", "context")
    assert writing().completed(ASKED, ()).columns == ("text",)
    plain = Example(("one two three four",))
    benchmark = writing(beginning=3)
    assert (benchmark.asked(plain).words[0], benchmark.rights(plain)) == ("one two three", ["four"])
    assert benchmark.rights(Example(("one",))) == []
    counts = benchmark.counts([(), about.labels], [("four", "1 2", "0", "text:four"), ("broncos", "1", "1", "answers")], ())
    assert benchmark.metrics(counts.sum(axis=0), ())["exact_match"] == 1.0
    assert benchmark.as_learned(plain).words == ("one two three four",)
    with pytest.raises(DataRefused, match=r"the prompt asks for \{context\}, and the data has \{text\}"):
        writing(prompt="{context}?").asked(plain)
    with pytest.raises(ValidationError, match="should have {text}"):
        writing(prompt="nothing")


def test_a_prompt_leaves_room_for_what_is_written() -> None:
    benchmark = writing(prompt="begin {text} end")
    checkpoint = model_of(benchmark)
    [prompt] = prompts_fitted(checkpoint.tokenizer, [Example(("neno refu " * 50,), ("x",))], LENGTH, benchmark.dials)
    assert LENGTH - 8 - 3 <= len(prompt) <= LENGTH - 8
    assert checkpoint.tokenizer.decode(prompt).startswith("begin neno")
    assert checkpoint.tokenizer.decode(prompt).endswith(" end")
    with pytest.raises(DataRefused, match="48 tokens are to be written, and the model reads 48"):
        prompts_fitted(checkpoint.tokenizer, ASKED, LENGTH, writing(tokens=48).dials)
    assert len(prompts_fitted(checkpoint.tokenizer, [Example(("",), ("x",))], LENGTH, writing().dials)[0]) == 1


def test_a_chat_is_asked_in_the_models_own_form() -> None:
    checkpoint = model_of(writing())
    checkpoint.tokenizer.chat_template = "{% for m in messages %}{{ bos_token }}{{ m['content'] }}!{% endfor %}"
    asked = [prompts_fitted(checkpoint.tokenizer, ASKED[:2], LENGTH, writing(chat=chat).dials) for chat in (True, False)]
    assert [checkpoint.tokenizer.decode(prompt) for prompt in asked[0]] == [f"<end>{example.words[0]}!" for example in ASKED[:2]]
    assert [checkpoint.tokenizer.decode(prompt) for prompt in asked[1]] == [example.words[0] for example in ASKED[:2]]


def test_the_nucleus_is_the_likeliest_tokens_with_enough_shares() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.15, 0.25]))
    tokens, shares = nucleus(logits, 1.0, 0.7)
    assert tokens.tolist() == [1, 3]
    assert shares.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert nucleus(logits, 1.0, 1.0)[0].tolist() == [1, 3, 2, 0]
    assert nucleus(logits, 0.5, 1.0)[1].tolist() == pytest.approx((np.array([0.5, 0.25, 0.15, 0.1]) ** 2 / 0.345).tolist())


def test_tokens_are_drawn_by_their_shares_and_by_nothing_else() -> None:
    logits = np.log(np.array([0.1, 0.6, 0.3]))
    choose = sampler(1.0, 1.0, 0, [1, 2, 3])
    counts = np.bincount([choose(logits) for _ in range(4000)], minlength=3) / 4000
    assert counts.tolist() == pytest.approx([0.1, 0.6, 0.3], abs=0.03)
    one, other = (sampler(1.0, 1.0, 0, prompt) for prompt in ([1, 2, 3], [1, 2, 4]))
    assert [one(logits) for _ in range(40)] != [other(logits) for _ in range(40)], "two prompts are drawn for alike"
    checkpoint, dials = model_of(writing()), writing(temperature=2.0, seed=5).dials
    runtime = runtime_of(checkpoint)
    drawn = write(runtime, checkpoint.tokenizer, ASKED, LENGTH, dials, "")
    assert write(runtime, checkpoint.tokenizer, ASKED[::-1], LENGTH, dials, "")[::-1] == drawn, "what is drawn depends on the texts before it"
    assert write(runtime, checkpoint.tokenizer, ASKED, LENGTH, writing(temperature=2.0, seed=6).dials, "") != drawn
    assert write(runtime, checkpoint.tokenizer, ASKED, LENGTH, writing().dials, "") != drawn


def test_the_divergence_is_torchs() -> None:
    draw = np.random.default_rng(0)
    p, q = draw.normal(size=(5, 9)), draw.normal(size=(5, 9))
    expected = torch.nn.functional.kl_div(torch.tensor(q).log_softmax(1), torch.tensor(p).log_softmax(1), log_target=True, reduction="none").sum(1)
    np.testing.assert_allclose(divergence(p, q), expected.numpy(), rtol=1e-10)
    assert divergence(p, p).tolist() == [0.0] * 5


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.1])
def test_agreement_is_what_both_write_for_themselves(noise: float) -> None:
    """The first difference found by reading what the baseline wrote is that of two texts that were written apart."""
    benchmark = writing(tokens=16)
    baseline, other = model_of(benchmark), model_of(benchmark, noise=noise)
    theirs, written = (read(benchmark, model, ASKED) for model in (baseline, other))
    rows = benchmark.beside(speaker(other), speaker(baseline), ASKED, written, theirs, LENGTH, "")
    for row, own, wrote in zip(rows, map(of_row, written), map(of_row, theirs), strict=True):
        places, equal, first, alike, compared, seen, micronats = map(int, row[4:])
        behind = [own.tokens + (0,) * (own.ended == Ended.BY_TOKEN), wrote.tokens + (0,) * (wrote.ended == Ended.BY_TOKEN)]
        expected = next((i for i, (a, b) in enumerate(zip(*behind, strict=False)) if a != b), min(map(len, behind)))
        assert (places, compared, seen) == (len(behind[1]), 1, len(behind[1]))
        assert first == expected
        assert first <= equal <= places
        assert alike == (equal == places)
        assert (micronats == 0) == (noise == 0)
    metrics = benchmark.metrics(benchmark.counts([e.labels for e in ASKED], rows, ()).sum(axis=0), ())
    assert (metrics["equal_tokens"] == 1) == (noise < 0.1) or noise == 0.01
    itself = benchmark.with_itself(theirs)
    assert benchmark.beside(speaker(baseline), speaker(baseline), ASKED, theirs, theirs, LENGTH, "") == itself


def test_models_that_number_their_tokens_otherwise_are_compared_by_text(tmp_path: Path) -> None:
    benchmark = writing(tokens=12)
    baseline = model_of(benchmark)
    save(baseline, tmp_path / "source")
    inputs = replace(inputs_of("llama", tmp_path / "work"), benchmark=benchmark, train=[Example(("kula na",))], dev=texts(8))
    run_step("trim_vocabulary", get_method("trim_vocabulary").config(), tmp_path / "source", tmp_path / "trimmed", inputs)
    trimmed, common = load(tmp_path / "trimmed"), Common(baseline.tokenizer, load(tmp_path / "trimmed").tokenizer)
    assert 200 < len(common.number) < len(baseline.tokenizer)
    reads = []
    for example in ASKED:
        prompt = [token for token in baseline.tokenizer(example.words[0])["input_ids"] if token in common.number]
        wrote = continued(can_continue(runtime_of(baseline)), prompt, 12).tokens
        found = agreement(speaker(baseline), speaker(trimmed), common, (prompt, [common.number[token] for token in prompt]), wrote, ended=False)
        known = next((i for i, token in enumerate(wrote) if token not in common.number), len(wrote))
        assert found.read == min(12, known + 1)
        assert found.first >= min(known, 12), "where the token is there, it is the likeliest here too"
        assert found.equal <= min(known + 1, 12)
        reads.append(found.read)
    assert min(reads) < 12, "no token is missing, so that this shows little"


def test_a_directory_is_measured_beside_the_baseline_and_served_as_it_was_judged(tmp_path: Path) -> None:
    benchmark = writing().completed(ASKED, ())
    for name, noise in (("baseline", 0.0), ("other", 0.05)):
        save(model_of(benchmark, noise=noise), tmp_path / name)
    baseline = evaluate_quality(tmp_path / "baseline", ASKED, tmp_path / "b.parquet", beside=Beside(tmp_path / "baseline", None))
    other = evaluate_quality(tmp_path / "other", ASKED, tmp_path / "o.parquet", beside=Beside(tmp_path / "baseline", tmp_path / "b.parquet"))
    assert (baseline.metrics["equal_tokens"], baseline.metrics["kl_per_token"]) == (1.0, 0.0)
    assert 0 < other.metrics["equal_tokens"] < 1
    assert other.metrics["negative_kl_per_token"] == -other.metrics["kl_per_token"] < 0
    assert set(other.slices) == {"swa", "yor"}
    assert "equal_tokens" not in evaluate_quality(tmp_path / "other", ASKED, tmp_path / "alone.parquet").metrics
    import recompress

    rows_given = [(example.words[0], list(example.labels)) for example in ASKED]
    assert recompress.measure(tmp_path / "other", rows_given).metrics["chrf"] == pytest.approx(other.metrics["chrf"], abs=1e-9)
    assert "chrf" not in recompress.measure(tmp_path / "other", [text for text, _ in rows_given]).metrics
    predictor = Predictor(tmp_path / "other")
    assert isinstance(benchmark_of(predictor.info), TextGeneration)
    answers = predictor([example.words[0] for example in ASKED])
    rows = read(benchmark, load(tmp_path / "other"), ASKED)
    assert [answer["completion"] for answer in answers] == [row[0] for row in rows]
    assert summary(answers[0]) == answers[0]["completion"]
    with pytest.raises(InputError, match="this model is asked with a text alone"):
        predictor([{"question": "a", "context": "b"}])
