"""Text that a student writes while it learns: how it is drawn, what of it counts, and the first steps by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recompress.errors import InputError
from recompress.methods.chain import check_chain
from recompress.methods.distillation import closeness
from recompress.methods.distillation.distill import Distill
from recompress.methods.distillation.on_policy import WRITTEN, OnPolicy, continued
from recompress.methods.registry import Inputs, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, save
from recompress.training.trainer import step_seed
from tests.by_hand import FEW_STEPS, Tensors, features_by_hand, padded, still, train_by_hand
from tests.methods.distillation.test_first_steps import same, softened
from tests.six import DECODERS, KIN, checkpoint_of, each, inputs_of

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = FEW_STEPS | {"epochs": 2}


def lesson(family: str, folder: Path) -> tuple[Checkpoint, Inputs]:
    teacher = still(family, seed=3)
    save(teacher, folder / "teacher")
    return teacher, replace(inputs_of(family, folder / "work", 24, seed=4), teacher_model=folder / "teacher")


def batch_of(student: Checkpoint, inputs: Inputs) -> Tensors:
    return padded(features_by_hand(student, inputs)[:3])


def by_hand(network: Any, begun: Tensor, length: int, tokens: int | None = None) -> Tensor:
    """Everything is read again for each token, without a cache."""
    ids = begun
    with torch.no_grad():
        while ids.shape[1] < length:
            shares = network(input_ids=ids).logits[:, -1, :tokens].softmax(-1)
            ids = torch.cat([ids, torch.multinomial(shares, 1)], dim=1)
    return ids


@pytest.mark.parametrize("family", each((*DECODERS, *KIN)))
def test_what_is_written_is_what_a_loop_without_a_cache_draws(family: str) -> None:
    """Without dropout, which the network has and trains with."""
    student = checkpoint_of(family, seed=1)
    begun = torch.tensor([[5, 9, 2], [7, 1, 3]])
    student.torch_network.train()
    torch.manual_seed(7)
    written = continued(student.torch_network, begun, 12)
    assert student.torch_network.training
    torch.manual_seed(7)
    assert written.equal(by_hand(student.torch_network.eval(), begun, 12))
    assert not written.requires_grad


def test_tokens_are_drawn_by_their_shares_and_none_of_the_rows_that_no_token_has() -> None:
    """One token behind one beginning, often: the shares are those of the softmax, among the first rows."""
    network: Any = still("llama", seed=1).torch_network
    begun = torch.tensor([[5, 9, 2]]).expand(4000, -1)
    torch.manual_seed(0)
    drawn = continued(network, begun, 4, tokens=40)[:, 3]
    with torch.no_grad():
        shares = network(input_ids=begun[:1]).logits[0, -1, :40].softmax(-1)
    counts = torch.bincount(drawn, minlength=len(shares)) / len(drawn)
    assert int(drawn.max()) < 40
    assert float((counts - shares).abs().max()) < 4 * float((shares * (1 - shares) / len(drawn)).sqrt().max())


def test_beginnings_and_padding_stay_and_only_what_was_written_counts(tmp_path: Path) -> None:
    student = still("llama", seed=1)
    features = features_by_hand(student, lesson("llama", tmp_path)[1])[:3]
    features[1] = {name: row[:9] for name, row in features[1].items()}
    features[1]["labels"][-1] = -100
    batch = padded(features)
    torch.manual_seed(3)
    own = OnPolicy(1.0).rewritten(student.torch_network, batch, 5)
    assert own["input_ids"][:, :5].equal(batch["input_ids"][:, :5])
    assert own["input_ids"][1, 9:].equal(batch["input_ids"][1, 9:])
    assert not own["input_ids"].equal(batch["input_ids"])
    for row, length in enumerate((len(features[0]["input_ids"]), 9, len(features[2]["input_ids"]))):
        expected = [-100] * 4 + own["input_ids"][row, 5:length].tolist()
        assert own["labels"][row].tolist() == expected + [-100] * (own["labels"].shape[1] - len(expected))


def test_the_share_of_batches_and_the_length_of_beginnings_are_drawn(tmp_path: Path) -> None:
    student = still("llama", seed=1)
    batch, begun = batch_of(student, lesson("llama", tmp_path)[1]), set()
    assert all(OnPolicy(0.0)(student.torch_network, batch) is batch for _ in range(5))

    class Seen(OnPolicy):
        def rewritten(self, network: Any, given: Tensors, length: int) -> Tensors:
            begun.add(length)
            return given | {WRITTEN: given["labels"]}

    torch.manual_seed(1)
    marked = sum(WRITTEN in Seen(0.25)(student.torch_network, batch) for _ in range(2000))
    assert 440 < marked < 560
    assert begun == set(range(4, 12)), "between a quarter and three quarters of 16 tokens"


@pytest.mark.parametrize("hard", [0.0, 0.4])
def test_the_first_steps_by_hand(hard: float, tmp_path: Path) -> None:
    """Drawn from (seed, step); the teacher reads what the student wrote; labels count for given text alone."""
    teacher, inputs = lesson("llama", tmp_path)
    config = Distill(**FEW_STEPS, temperature=1.5, on_policy=0.6, hard_labels=hard)
    student = still("llama", seed=1)
    features, step, written = features_by_hand(student, inputs), iter(range(100)), []

    def loss(output: Any, theta: Tensors, batch: Tensors, chosen: list[int]) -> Tensor:
        now = still("llama", seed=1).torch_network.eval()
        now.load_state_dict({name: tensor.detach() for name, tensor in theta.items()}, strict=False)
        torch.manual_seed(step_seed(inputs.seed, next(step), 0))
        ids, labels, length = batch["input_ids"], batch["labels"], batch["input_ids"].shape[1]
        written.append(float(torch.rand(())) < 0.6)
        begun = 0
        if written[-1]:
            begun = int(torch.randint(length // 4, 3 * length // 4, ()))
            ids = by_hand(now, ids[:, :begun], length, len(student.tokenizer))
        logits = torch.func.functional_call(student.torch_network, theta, kwargs={"input_ids": ids, "attention_mask": batch["attention_mask"]}).logits
        with torch.no_grad():
            asked = teacher.torch_network(input_ids=ids, attention_mask=batch["attention_mask"]).logits
        counts = (labels != -100) & (torch.arange(length) >= begun - 1)
        soft = (1 - hard) * softened(logits, asked, 1.5)[counts].mean()
        return soft if written[-1] or not hard else soft + hard * torch.nn.functional.cross_entropy(logits[counts], labels[counts])

    expected = train_by_hand(student, inputs, config, features=features, loss=loss)
    assert {*written} == {True, False}
    same(get_method("distill").run(still("llama", seed=1), config, inputs), expected)


def test_the_step_says_how_near_it_is_where_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, inputs = lesson("llama", tmp_path)
    save(still("llama", seed=1), tmp_path / "source")
    config = Distill(**QUICK, temperature=1.0, on_policy=0.5)
    report = run_step("distill", config, tmp_path / "source", tmp_path / "made", inputs)
    [claim] = [one for one in report.claims if "what the student writes" in one["what"]]
    assert claim["measured"] < claim["asked"]
    start, probe = still("llama", seed=1), inputs.train[:4]
    live = closeness.LiveTeacher(still("llama", seed=3).torch_network, None, answers_tokens=True)
    assert closeness.prove_writing(start, start, config, probe, live).kept
    assert not closeness.prove_writing(still("llama", seed=3), start, config, probe, live).kept, "one that went away from its teacher"


def test_without_it_a_step_is_written_as_it_was_before() -> None:
    assert "on_policy" not in Distill().model_dump()
    assert Distill(on_policy=0.5).model_dump()["on_policy"] == 0.5


@pytest.mark.parametrize(
    ("benchmark", "dials", "said"),
    [
        ("text-classification", {"on_policy": 0.5}, "on_policy is 0.5, and a model for text-classification writes nothing"),
        ("language-modelling", {"on_policy": 0.5, "hard_labels": 1.0}, "nobody but the teacher can say what should follow"),
        ("language-modelling", {"on_policy": 0.5, "answers": 0.0, "hidden": 1.0}, "nobody but the teacher can say what should follow"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(benchmark: str, dials: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_chain([("distill", Distill(**dials))], benchmark, None)
