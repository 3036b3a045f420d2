"""Quantization-aware training for int8 graphs: weights and inputs of all products are rounded in training exactly as the file rounds them when it is served.

    loss = w * cross-entropy of the labels + (1 - w) * T^2 * KL(softmax(baseline / T) || softmax(network / T))        network: as its int8 graph computes

Training rounds as ``recompress.methods.quantization.int8_in_training`` says: a scale for each output of a matrix, the range of each input as it comes. The file is
written by ``dynamic_int8``, whose rounding of the trained weights gives the codes that were trained with: it has the same bytes and nodes, and other codes.
Weights that are zero stay zero.
Source: Jacob et al. 2018, arXiv:1712.05877, section 3 (training with rounded weights and activations); Zafrir et al. 2019 (Q8BERT), arXiv:1910.06188 (all products
of an encoder and its embeddings in 8 bits while it is fine-tuned); Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2 (soft labels).
The result is an ONNX graph: the step leaves the torch runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from recompress.errors import InputError
from recompress.methods.distillation.losses import distillation_loss
from recompress.methods.probe import probe_features
from recompress.methods.quantization.dynamic_int8 import DynamicInt8, quantize_dynamic_int8
from recompress.methods.quantization.int8 import Int8, check, int8_claims, reduces
from recompress.methods.quantization.int8_in_training import as_int8, codes_of, matrix_steps
from recompress.methods.registry import Claim, Inputs, method
from recompress.methods.training_step import train_in_step
from recompress.models.architecture import is_linear
from recompress.models.checkpoint import Checkpoint
from recompress.models.files import distinct_tensors, read_tensors
from recompress.models.onnx_graph import read_graph
from recompress.models.surgery import weight_of
from recompress.runtimes import runtime_of
from recompress.training.losses import ONE_LABEL, Losses, losses_of, mean_loss
from recompress.training.settings import Precision, Schedule

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRAINED = "trained.safetensors"
CLOSE = 0.05
"""How far the answers of the graph may lie from those of the network that was trained, relative to these. Sums in another order move an input that lies between two
codes to the other one, and the layers above pass that on: 1e-7 on three narrow layers, 0.01 to 0.02 on six of 384 channels, where unrounded inputs give 0.05."""


class QatInt8(Int8, Schedule):
    """What is stored in 8 bits, and how long, how fast and from what to learn."""

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Passes over the training examples."""
    precision: Precision = "fp32"
    """``fp32`` computes as the graph does; ``bf16`` and ``auto`` train faster where the processor has instructions for it, and round once more than the graph."""
    hard_labels: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the labels' own cross-entropy in the loss, in [0, 1]; the rest is what the baseline says. 1 learns from the labels alone, 0 from the baseline alone."""
    temperature: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Softens what the baseline and the network say: the higher, the more the unlikely labels count."""


def check_tables(config: QatInt8) -> None:
    """Raises ``InputError`` for tables in 4 bits, which are not trained with, and where the result would be wrong on this processor."""
    if config.embeddings == "int4":
        raise InputError("qat_int8 trains with tables in 8 bits; set embeddings to true or false, or take finetune and dynamic_int8: {embeddings: int4}")
    check(config)


def objective_of(config: QatInt8, losses: Losses = ONE_LABEL) -> Callable[[Tensor, dict[str, Tensor]], Tensor]:
    """``objective(logits, batch)``: the formula, where batches carry ``teacher`` unless labels alone count."""

    def objective(logits: Tensor, batch: dict[str, Tensor]) -> Tensor:
        hard = config.hard_labels
        soft = distillation_loss(logits.float(), batch["teacher"], temperature=config.temperature, losses=losses) if hard < 1 else logits.new_zeros(())
        return (1 - hard) * soft + (hard * mean_loss(losses, logits, batch["labels"]) if hard > 0 else 0)

    return objective


def graph_codes(path: Path) -> set[tuple[tuple[int, ...], bytes]]:
    """The matrices of 8-bit codes in a graph, by shape and bytes."""
    import onnx

    matrices = [tensor for tensor in read_graph(path).graph.initializer if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2]
    return {(tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes()) for tensor in matrices}


def codes_in(network: PreTrainedModel, codes: set[tuple[tuple[int, ...], bytes]], config: QatInt8) -> float:
    """The share of the network's matrices whose codes are among ``codes``, turned as graphs hold them."""
    hits = []
    for module in network.modules():
        if is_linear(module):
            weight = weight_of(module)
            turned = codes_of(weight, matrix_steps(weight, per_channel=config.per_channel, reduced=reduces(config))).T.to(torch.int8).contiguous()
            hits.append((tuple(turned.shape), turned.numpy().tobytes()) in codes)
    return sum(hits) / len(hits)


def distance(these: list[np.ndarray], those: list[np.ndarray]) -> float:
    """||these - those|| / ||those||, all answers together."""
    one, other = (np.concatenate([np.asarray(answer).ravel() for answer in answers]) for answers in (these, those))
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def prove(before: Checkpoint, after: Checkpoint, config: QatInt8, inputs: Inputs) -> list[Claim]:
    """What all int8 graphs promise; the codes of the file are those that were trained with, and not those from before; and the graph answers as the network that
    was trained, nearer than without rounded inputs."""
    assert isinstance(after.network, Path)
    codes = graph_codes(after.network)
    unmoved = codes_in(before.torch_network, codes, config)
    size = [*int8_claims(before, after, config)]
    features = probe_features(before, inputs)
    graph = runtime_of(after).logits(features)
    network = before.torch_network
    network.load_state_dict(read_tensors(inputs.workdir / TRAINED), strict=False)
    reduced, answers = reduces(config), {}
    for rounds in (False, True):
        with as_int8(network, per_channel=config.per_channel, reduced=reduced, embeddings=bool(config.embeddings), inputs=rounds):
            answers[rounds] = runtime_of(before).logits(features, 1)  # one by one, as the graph is asked
    away = distance(graph, answers[True])
    return [
        *size,
        Claim("share of matrices with the codes that were trained with", 1, codes_in(network, codes, config)),
        Claim("share of matrices with the codes from before", 0, unmoved, 0.5),
        Claim("distance of the answers from those of the network that was trained", 0, away, CLOSE),
        Claim("the same, below that from weights rounded alone", distance(graph, answers[False]), away, bound="at most"),
    ]


@method(
    "qat_int8",
    QatInt8,
    family="quantization",
    prove=prove,
    check=check_tables,
    needs=("training", "teacher"),
    gives="onnx",
    source="Jacob et al. 2018, arXiv:1712.05877, section 3; Zafrir et al. 2019, arXiv:1910.06188; Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2",
    shrinks="bytes, to about a quarter",
    speeds_up="CPUs with VNNI, about three times",
)
def train_qat_int8(checkpoint: Checkpoint, config: QatInt8, inputs: Inputs) -> Checkpoint:
    """Training with weights and inputs rounded to 8 bits, with labels and from the baseline's answers; runs on ONNX Runtime.

    Raises ``InputError`` where the baseline's answers are asked for and there are none, ``IntegrityError`` when they belong to other examples.
    """
    from safetensors.torch import save_file

    soft_labels, depends_on = None, {}
    if config.hard_labels < 1:
        if inputs.teacher is None:
            raise InputError(f"hard_labels is {config.hard_labels:g}, so that qat_int8 needs the outputs of a teacher, and was given none; set it to 1")
        inputs.teacher.check_belongs_to([*inputs.train, *inputs.unlabelled], checkpoint.info.labels)
        soft_labels = [inputs.teacher[i] for i in range(len(inputs.train))]
        depends_on = {"teacher": inputs.teacher.sha256}
    network = checkpoint.torch_network
    with as_int8(network, per_channel=config.per_channel, reduced=reduces(config), embeddings=bool(config.embeddings)):
        trained = train_in_step(
            checkpoint,
            config,
            inputs,
            "qat_int8",
            depends_on=depends_on,
            soft_labels=soft_labels,
            objective=objective_of(config, losses_of(checkpoint.info)),
            hold=False,
        )
    save_file(distinct_tensors(trained.torch_network), inputs.workdir / TRAINED)
    graph = DynamicInt8(per_channel=config.per_channel, embeddings=bool(config.embeddings), reduce_range=reduces(config))
    return quantize_dynamic_int8(trained, graph, inputs)
