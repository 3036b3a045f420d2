"""``train``: a checkpoint and labelled examples in, a trained checkpoint out; killed and called again, it goes on where it was and ends with the same weights.

Checkpoints are kept after each epoch and every few minutes in ``workdir``; the weights that were best on dev are the result. On one machine with one number
of threads, the same checkpoint, examples, schedule and seed give the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from recompress.benchmarks import Example, ReadsOn, benchmark_of, learned_as
from recompress.errors import EffectMissing
from recompress.integrity.digest import sha256_bytes
from recompress.models.number_head import standard_of, standardised
from recompress.models.padding import padding_of
from recompress.training.judge import Features, dev_metrics, taught, token_costs, training_features
from recompress.training.precision import choose_precision
from recompress.training.resume import PREFIX, best_step, newest, open_folder, state_of
from recompress.training.settings import Schedule

if TYPE_CHECKING:
    from torch import nn
    from transformers import TrainerCallback

    from recompress.models.checkpoint import Checkpoint
    from recompress.training.trainer import Objective, Rewrite

log = logging.getLogger(__name__)
Curve = Callable[[int, Mapping[str, float]], None]
CHECKPOINT_MINUTES = 5.0


def train(
    checkpoint: Checkpoint,
    examples: Sequence[Example],
    dev: Sequence[Example],
    schedule: Schedule,
    seed: int,
    workdir: Path,
    *,
    curve: Curve | None = None,
    label: str = "training",
    soft_labels: Sequence[Float[np.ndarray, "units labels"]] | None = None,
    objective: Objective | None = None,
    rewrite: Rewrite | None = None,
    depends_on: Mapping[str, Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    hold: bool = False,
    counts_from: float = 0.0,
    minutes: float = CHECKPOINT_MINUTES,
) -> Checkpoint:
    """Train the network of ``checkpoint`` in place and give it back with the weights that were best on dev. Weights that are zero train like others, unless
    ``hold`` says that they were pruned and stay zero. Weights of before ``counts_from``, a share of all steps, are never the best.

    ``curve(step, point)`` gets losses and dev metrics; after a kill, the steps since the last checkpoint come again. ``soft_labels`` are a teacher's logits for
    each example, which batches carry for ``objective`` to use; ``rewrite`` may give the network another batch to learn from; ``callbacks`` look on or change the network between steps, and may read nothing but the network
    and the step; ``depends_on`` is what else the result depends on, as plain JSON. ``workdir`` keeps training checkpoints, one
    every ``minutes`` and one after each epoch; it belongs to this training alone and may be removed when the result is safe.

    Raises ``DataRefused`` for empty splits or unknown labels, ``InputError`` for a model that cannot be trained, ``TrainingDiverged`` when the loss is no
    number, ``EffectMissing`` when no weight moved, and ``StorageError`` when ``workdir`` cannot be written.
    """
    network, benchmark = checkpoint.torch_network, benchmark_of(checkpoint.info)
    features, dev_features, dev = training_features(checkpoint, examples, dev, label)
    fresh = benchmark.head.answer == "number" and checkpoint.info.standard is None
    if fresh:  # a head that has learned nothing knows no unit yet
        numbers = [number for feature in features for [number] in feature["labels"] if not math.isnan(number)]
        checkpoint.info = replace(checkpoint.info, standard=standard_of(numbers))
    with standardised(network, checkpoint.info.standard, fresh=fresh):
        return _train(
            checkpoint,
            (features, dev_features, dev),
            schedule,
            seed,
            workdir,
            curve=curve,
            label=label,
            teaching=taught(benchmark, features, soft_labels, examples) if soft_labels is not None else None,
            objective=objective,
            rewrite=rewrite,
            depends_on=depends_on,
            callbacks=callbacks,
            hold=hold,
            counts_from=counts_from,
            minutes=minutes,
        )


def _train(
    checkpoint: Checkpoint,
    data: tuple[Features, Features, list[Example]],
    schedule: Schedule,
    seed: int,
    workdir: Path,
    *,
    curve: Curve | None,
    label: str,
    teaching: Features | None,
    objective: Objective | None,
    rewrite: Rewrite | None,
    depends_on: Mapping[str, Any] | None,
    callbacks: Sequence[TrainerCallback],
    hold: bool,
    counts_from: float,
    minutes: float,
) -> Checkpoint:
    """``train`` on features, of a network whose answers are standardised, where they are numbers; ``teaching`` are features that carry what a teacher said."""
    from recompress.training.callbacks import StopEarly, Watch
    from recompress.training.losses import losses_of
    from recompress.training.trainer import SteadyTrainer, arguments
    from recompress.training.zeros import hold_zeros

    (features, dev_features, dev), network, benchmark = data, checkpoint.torch_network, learned_as(benchmark_of(checkpoint.info))
    reads_on = isinstance(benchmark, ReadsOn)
    precision = choose_precision(schedule.precision)
    dials = {**schedule.model_dump(mode="json"), "precision": precision, "seed": seed, "hold": hold, "counts_from": counts_from, **(depends_on or {})}
    metric = f"eval_{benchmark.primary}"
    dev_batch = schedule.batch_size if reads_on else max(schedule.batch_size, 32)  # a vocabulary of logits for each token: no more than training holds
    args = arguments(schedule, seed=seed % 2**32, folder=workdir, precision=precision, metric=metric, dev_batch=dev_batch)
    with args.main_process_first(desc="opening the folder of checkpoints"):
        stamp = _stamp(network, features, dev_features, dials)
        resumed = open_folder(workdir, stamp)
    features = teaching or features
    watch, early = Watch(label, curve), StopEarly(metric, schedule.patience or schedule.epochs, counts_from)
    usual_cache = getattr(network.config, "use_cache", None)  # Trainer switches it off in the config, which is stored
    trainer = SteadyTrainer(
        network,
        args,
        schedule=schedule,
        train=features,
        dev=dev_features,
        pad_token_id=padding_of(network),
        objective=objective,
        rewrite=rewrite,
        losses=losses_of(checkpoint.info),
        standard=checkpoint.info.standard,
        judge=lambda predicted: dev_metrics(benchmark, checkpoint.info.labels, dev, dev_features, predicted.predictions),
        reduce=token_costs if reads_on else None,
        callbacks=[watch, early, *callbacks],
        counts_from=counts_from,
        minutes=minutes,
    )
    if resumed is None or not _is_over(state_of(resumed), early):
        try:
            with hold_zeros(network) if hold else nullcontext():
                trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        finally:
            watch.close()
    checkpoint.network = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).to("cpu").eval()
    if usual_cache is not None:
        checkpoint.network.config.use_cache = usual_cache
    with args.main_process_first(desc="reading the best weights"):
        _load_best(checkpoint.network, workdir, label)
    if weights_sha256(checkpoint.network) == stamp["weights"]:
        raise EffectMissing(f"{label}: no weight moved in training; raise learning_rate ({schedule.learning_rate:g}), and look for examples without labels")
    return checkpoint


def weights_sha256(network: nn.Module) -> str:
    """The digest of a network's weights: names, shapes, types and bytes."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _stamp(network: nn.Module, features: Sequence[Any], dev_features: Sequence[Any], dials: dict[str, Any]) -> dict[str, Any]:
    """What a training's result depends on; a folder with another stamp is not resumed."""
    return {
        "weights": weights_sha256(network),
        "train": sha256_bytes(json.dumps(features).encode()),
        "dev": sha256_bytes(json.dumps(dev_features).encode()),
        "dials": dials,
        "versions": [importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")],
    }


def _is_over(state: dict[str, Any], early: Any) -> bool:
    """Whether the training was killed after its last step, or after it had stopped early."""
    return bool(state["global_step"] >= state["max_steps"] or early.is_reached(state["log_history"], state["max_steps"]))


def _load_best(network: nn.Module, workdir: Path, label: str) -> None:
    """From the checkpoints and never from memory: a training that was killed after its last step has nothing in memory but the first weights."""
    from safetensors.torch import load_model

    last = newest(workdir)
    if last is None:
        return
    best = best_step(last)
    load_model(network, (workdir / f"{PREFIX}{best}" if best is not None else last) / "model.safetensors")
    if best is None:
        log.warning("%s: the dev metric was never a number, so the last weights are kept", label)
    else:
        log.info("%s: best on dev after step %d (%s)", label, best, _score(last, best))


def _score(last: Path | None, best: int) -> str:
    value = state_of(last).get("best_metric", math.nan) if last else math.nan
    return f"{value:.4f}"
