"""How the matrix test runs each method on a tiny model: the settings, where the defaults do not fit one, and what it is given."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from recompress.methods.registry import Inputs, Method, get_method
from recompress.methods.runner import run_step
from recompress.models.checkpoint import Checkpoint, load, save
from recompress.models.number_head import put_in, take_out
from recompress.settings.base import Settings
from tests.six import LANGUAGE, benchmark_of, checkpoint_of, features_of, inputs_of

SHORT = {"epochs": 1, "learning_rate": 3e-3, "batch_size": 16, "precision": "fp32"}
FEW = {"calibration_examples": 16}
TOLD: dict[str, dict[str, Any]] = {
    "activation_svd": {"parameters": 0.5},
    "distill": {"epochs": 8},
    "distill_base": {"epochs": 2, "layers": 1},
    "factorize_embeddings": {"rank": 8},
    "fisher_svd": {"parameters": 0.5},
    "kv_cache": {"bits": 2, "group": 8, "residual": 4},
    "prune_structure": {"heads": 0.5, "neurons": 0.5, "repair": True},
    "search": {"candidates": 2, "trial_examples": 16},
    "signround": {"steps": 16},
    "svd": {"parameters": 0.5},
    "trim_vocabulary": {"min_count": 20},
}
"""Settings by method; the defaults where a method is not named."""


def settings_of(method: Method) -> Settings:
    fields = method.config.model_fields
    usual = {key: value for key, value in (SHORT | FEW).items() if key in fields}
    return method.config.model_validate(usual | TOLD.get(method.name, {}))


UNTIED = ("tie_embeddings",)
"""Methods that want a decoder with an output layer of its own."""


def make_source(family: str, folder: Path, **changes: Any) -> Path:
    """A model with random weights, saved."""
    save(checkpoint_of(family, **changes), folder)
    return folder


def make_packed(family: str, source: Path, folder: Path) -> Path:
    """The model in ``source`` in 4 bits, for methods that take packed weights."""
    inputs = inputs_of(family, folder.with_name(f"{folder.name}-work"))
    run_step("rtn", get_method("rtn").config(group_size=32, embeddings=True), source, folder, inputs)
    return folder


class Sources:
    """Models with random weights, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, family: str, form: str) -> Path:
        """``plain``; ``untied``, with an output layer of its own; or ``packed``."""
        place = self.folder / f"{form}-{family}"
        if place.exists():
            return place
        if form == "packed":
            return make_packed(family, self.of(family, "plain"), place)
        return make_source(family, place, **({"tie_word_embeddings": False} if form == "untied" else {}))


def inputs_for(method: Method, family: str, source: Path, workdir: Path) -> Inputs:
    """Everything that the method says it needs. The teacher is another model of the same family."""
    inputs = inputs_of(family, workdir)
    if "base" in method.needs:
        inputs = replace(inputs, base=source)
    if "teacher" not in method.needs:
        return inputs
    from recompress.methods.distillation.teacher import teacher_outputs

    save(_decided(checkpoint_of(family, seed=5)), workdir / "teacher")
    outputs = None if benchmark_of(family) == LANGUAGE else teacher_outputs(workdir / "teacher", inputs.train, workdir / "outputs")
    return replace(inputs, teacher=outputs, teacher_model=workdir / "teacher")


def _decided(teacher: Checkpoint) -> Checkpoint:
    """Random heads say next to nothing, and there would be nothing to learn from them."""
    standard = teacher.info.standard
    if standard is not None:
        take_out(teacher.torch_network, standard)
    for name, parameter in teacher.torch_network.named_parameters():
        if name.startswith(("classifier", "score")):
            parameter.data.mul_(10)
    if standard is not None:
        put_in(teacher.torch_network, standard)
    return teacher


def answers(directory: Path, family: str, batch_size: int = 32) -> list[Any]:
    """What the model in ``directory`` says to a few examples."""
    from recompress.runtimes import runtime_of

    checkpoint = load(directory)
    return list(runtime_of(checkpoint).logits(features_of(checkpoint, family), batch_size))


@contextmanager
def paddings_seen() -> Iterator[list[str]]:
    """Names of decoders that are given a batch in which something else than their config's padding token stands behind the mask."""
    import torch
    from transformers import GPT2Model, LlamaModel

    wrong: list[str] = []

    def look(network: Any, ids: Any = None, *given: Any, **named: Any) -> Any:
        ids, mask = named.pop("input_ids", ids), named.get("attention_mask")
        if not torch.compiler.is_exporting() and bool((ids[mask == 0] != network.config.pad_token_id).any()):
            wrong.append(type(network).__name__)
        return torch.nn.Module.__call__(network, ids, *given, **named)

    backbones: tuple[Any, ...] = (GPT2Model, LlamaModel)
    for backbone in backbones:
        backbone.__call__ = look
    try:
        yield wrong
    finally:
        for backbone in backbones:
            del backbone.__call__


def main(folder: Path) -> None:
    """Answer with every model below ``folder``, in this process, which has made none of them."""
    import numpy as np

    for directory in sorted(folder.glob("*/*/model")):
        np.savez(directory.parent / "again.npz", *answers(directory, directory.parent.name))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
