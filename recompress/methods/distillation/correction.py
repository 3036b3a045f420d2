"""Teacher correction: before it teaches, the teacher is lightly fine-tuned on the text that it will teach with, which is not the text that it learned from.

The corrected teacher lies in the step's folder under a name that follows from all that it depends on; killed and called again, the step finds it there, or
goes on with its training. The teacher that it came from stays as it is.

Source: Sreenivas et al. 2024 (Minitron), arXiv:2408.11796, section 3 (teacher correction).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from recompress.benchmarks import Example
from recompress.errors import DataRefused, EffectMissing
from recompress.integrity.digest import sha256_bytes, sha256_json
from recompress.methods.distillation.dials import Correction
from recompress.methods.registry import Inputs
from recompress.models.checkpoint import Checkpoint, save
from recompress.models.heads import head_of
from recompress.training.run import train, weights_sha256


def corrected(teacher: Checkpoint, sha256: str, config: Correction, text: Sequence[Example], inputs: Inputs) -> Path:
    """The model directory of the corrected teacher. ``sha256`` names the teacher that is given, which is trained in place.

    Raises ``DataRefused`` when its benchmark has labels and no example of the text has any, ``EffectMissing`` when
    the training changed nothing, and what ``train`` raises.
    """
    able = text if head_of(teacher.info.benchmark).pretrained else [example for example in text if example.labels]
    if not able:
        raise DataRefused("teacher_correction needs examples with labels, and the text has none; set labelled to true, or leave teacher_correction out")
    depends_on = {
        "teacher": sha256,
        "text": sha256_bytes(json.dumps([[example.words, example.labels, example.slice] for example in able], ensure_ascii=False).encode()),
        "config": config.model_dump(mode="json"),
        "seed": inputs.seed,
    }
    folder = inputs.workdir / f"teacher-{sha256_json(depends_on)[:24]}"
    if not folder.exists():
        work, before = inputs.workdir / "correction", weights_sha256(teacher.torch_network)
        better = train(teacher, able, inputs.dev, config, inputs.seed, work, label=f"{inputs.label or 'distill'}: teacher")
        if weights_sha256(better.torch_network) == before:  # as one lone step does, in which the learning rate only begins to rise
            raise EffectMissing("teacher_correction changed nothing of the teacher; give it more text, more epochs, a smaller batch_size or no warmup")
        save(better, folder)
        shutil.rmtree(work)
    return folder
