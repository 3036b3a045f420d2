"""transformers' ``Trainer``, told what this project needs: draws that follow from (seed, step), sealed checkpoints, an end at the first NaN, and silence."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from recompress.errors import StorageError, TrainingDiverged
from recompress.runtimes.asking import by_unit, logits_of
from recompress.training.batches import EpochOrder, collate
from recompress.training.callbacks import SaveInTime, step_at
from recompress.training.losses import ONE_LABEL, Losses, mean_loss
from recompress.training.resume import PREFIX, keep_only, seal
from recompress.training.settings import Schedule

Batch = dict[str, Tensor]
Objective = Callable[[Tensor, Batch], Tensor]
"""``objective(logits, batch)`` gives the loss of one batch; ``logits`` is ``[batch, units, labels]``."""
Rewrite = Callable[[nn.Module, Batch], Batch]
"""``rewrite(network, batch)`` gives the batch that a network learns from; it may draw from torch's generator, and read nothing but the network and the batch."""

CURVES = 100
"""Points of a curve in a whole training."""
UNDECAYED = ("scale", "scales")
"""Last names of parameters that are steps and no weights: decay would draw every step towards 0, and the codes of all weights to the ends of their range."""


def cross_entropy(logits: Float[Tensor, "batch units labels"], labels: Int[Tensor, "batch units"]) -> Float[Tensor, ""]:
    """Mean cross-entropy over the units that carry a label; 0 where none does."""
    return mean_loss(ONE_LABEL, logits, labels)


def label_loss(logits: Tensor, batch: Batch, losses: Losses = ONE_LABEL) -> Tensor:
    """What the labels of a batch cost; ``losses`` are those of the model's head."""
    return mean_loss(losses, logits, batch["labels"])


def rate_at(step: int, warmup: int, steps: int) -> float:
    """The share of the highest learning rate at a step counted from 0: linearly up to 1 in ``warmup`` steps, then linearly down. No step is without effect."""
    return (step + 1) / warmup if step < warmup else (steps - step) / max(1, steps - warmup)


def step_seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def arguments(schedule: Schedule, *, seed: int, folder: Path, precision: str, metric: str, dev_batch: int) -> TrainingArguments:
    """``Trainer``'s arguments: evaluate and keep a checkpoint after each epoch, report to nobody."""
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=schedule.epochs,
        per_device_train_batch_size=schedule.batch_size,
        per_device_eval_batch_size=dev_batch,
        learning_rate=schedule.learning_rate,
        weight_decay=schedule.weight_decay,
        warmup_steps=schedule.warmup,  # a share of all steps
        max_grad_norm=schedule.gradient_clip,
        bf16=precision == "bf16",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model=metric,
        greater_is_better=True,
        logging_steps=1 / CURVES,  # of all steps
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        disable_tqdm=True,
        report_to=[],
    )


class SteadyTrainer(Trainer):  # type: ignore[misc]
    """A ``Trainer`` whose result depends on what it was given and on nothing that happened while it ran."""

    def __init__(
        self,
        network: nn.Module,
        args: TrainingArguments,
        *,
        schedule: Schedule,
        train: Sequence[dict[str, Any]],
        dev: Sequence[dict[str, Any]],
        pad_token_id: int,
        objective: Objective | None,
        rewrite: Rewrite | None,
        losses: Losses,
        standard: tuple[float, float] | None,
        judge: Callable[[Any], dict[str, float]],
        reduce: Callable[[Tensor, Tensor], Tensor] | None,
        callbacks: list[TrainerCallback],
        counts_from: float,
        minutes: float,
    ) -> None:
        self.order = EpochOrder([len(f["input_ids"]) for f in train], args.train_batch_size, args.seed, group_by_length=schedule.group_by_length)
        self.label_loss = functools.partial(label_loss, losses=losses)
        self.objective, self.rewrite = objective or self.label_loss, rewrite
        self.counts_from = counts_from
        self.standard = standard
        super().__init__(
            model=network,
            args=args,
            train_dataset=train,
            eval_dataset=dev,
            data_collator=functools.partial(collate, pad_token_id=pad_token_id),
            compute_metrics=judge,
            preprocess_logits_for_metrics=reduce,
            callbacks=callbacks,
        )
        self.loss_is_scaled_for_ga = False
        self.remove_callback(PrinterCallback)
        self.add_callback(SaveInTime(minutes))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self.order

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """transformers' own schedule begins at 0, so that its first step, which may be the only one, changes nothing."""
        warmup = self.args.get_warmup_steps(num_training_steps)
        schedule = LambdaLR(optimizer or self.optimizer, lambda step: rate_at(step, warmup, num_training_steps))
        self.lr_scheduler, self._created_lr_scheduler = schedule, True
        return schedule

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return [name for name in super().get_decay_parameter_names(model) if name.rpartition(".")[2] not in UNDECAYED]

    def training_step(self, model: nn.Module, inputs: Batch, num_items_in_batch: Any = None) -> Tensor:
        """One step, its dropout drawn from (seed, step, process), so that a resumed training needs no random state and draws the same."""
        torch.manual_seed(step_seed(self.args.seed, self.state.global_step, self.args.process_index))
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise TrainingDiverged(
                f"the loss became {loss.item()} at step {self.state.global_step + 1} of {self.state.max_steps}; "
                f"lower learning_rate ({self.args.learning_rate:g}) or raise warmup, and look for broken examples"
            )
        return loss

    def compute_loss(self, model: nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if self.rewrite is not None and model.training:
            inputs = self.rewrite(model, inputs)
        logits = logits_of(model, inputs)
        if self.standard is not None:  # labels and teachers speak in the data's unit
            logits = logits.float() * self.standard[1] + self.standard[0]
        units = by_unit(model, logits, inputs["attention_mask"])
        loss = self.objective(units, inputs) if model.training else self.label_loss(units, inputs)
        return (loss, {"logits": logits}) if return_outputs else loss

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        if self.state.global_step < step_at(self.counts_from, self.state.max_steps):
            return False
        return bool(super()._determine_best_metric(metrics, trial))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The weights and nothing else: what a network looks like is the caller's knowledge, and a pickle of the arguments is nobody's."""
        if self.args.should_save:
            Path(output_dir or self.args.output_dir).mkdir(parents=True, exist_ok=True)
            save_model(self.model, str(Path(output_dir or self.args.output_dir) / "model.safetensors"))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, seal it, and remove all others but the best. Raises ``StorageError`` when it cannot be written, and leaves no half of it."""
        folder = Path(self.args.output_dir)
        place = folder / f"{PREFIX}{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                seal(place)
                keep_only(folder, {self.state.global_step, self.state.best_global_step or 0})
        except Exception as error:  # torch and safetensors raise errors of their own when a disk is full
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            free = _free(folder)
            shutil.rmtree(place, ignore_errors=True)
            raise StorageError(f"no training checkpoint can be written to {folder} ({reason}); {free} is free there, make space or allow writing") from error

    def _save_rng_state(self, output_dir: str) -> None:
        """Nothing to keep: see ``training_step``."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Nothing to restore: see ``training_step``."""


def _free(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder).free / 1e6:,.0f} MB"
    except OSError:
        return "nothing"
