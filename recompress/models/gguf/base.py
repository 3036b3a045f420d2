"""A GGUF file becomes the folder of a base model: config, weights in 32-bit floats as the file's codes stand for them, and its tokenizer.

The folder is made once for a file (its digest) and a version of this code, next to others of its kind, and is found again afterwards: the same file gives the same
bytes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from recompress.errors import InputError, IntegrityError
from recompress.integrity.atomic_directory import new_directory
from recompress.integrity.digest import sha256_file
from recompress.integrity.fingerprint import code_fingerprint
from recompress.models.files import distinct_tensors, write_config
from recompress.models.gguf.reading import GgufFile, read_gguf
from recompress.models.gguf.shape import config_of
from recompress.models.gguf.tensors import places, put_at
from recompress.models.gguf.tokens import tokenizer_of
from recompress.models.tokenizer import save_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"


def folder_of(path: Path, home: Path) -> Path:
    """The folder below ``home`` that holds what the file at ``path`` does. Raises ``IntegrityError`` for a file that is cut off or broken, and ``InputError``
    for one that holds something else than is known here; each in one line that names the file."""
    folder = home / f"{sha256_file(path)[:24]}-{code_fingerprint(__name__)[:12]}"
    if folder.is_dir():
        return folder
    try:
        file = read_gguf(path)
        network, tokenizer = network_of(file), tokenizer_of(file.values)
    except (InputError, IntegrityError) as error:
        raise type(error)(str(error) if str(path) in str(error) else f"{path} cannot be a base: {error}") from None
    log.info("%s: turned into floats once, in %s", path, folder)
    try:
        with new_directory(folder) as partial:
            _write(network, tokenizer, partial)
    except InputError:
        if not folder.is_dir():  # somebody else made the same at the same time
            raise
    return folder


def network_of(file: GgufFile) -> PreTrainedModel:
    """The network that a file describes, with its numbers. Raises ``InputError`` for tensors that are missing, too many, or of another shape than it says."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    config = config_of(file.values, file.shapes)
    with torch.random.fork_rng(devices=[]), no_init_weights():
        network: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    network.tie_weights()
    wanted = {place.name: place for place in places(network)}
    for what, names in (("lacks", wanted.keys() - file.tensors.keys()), ("holds", file.tensors.keys() - wanted.keys())):
        if names:
            more = f" and {len(names) - 1} more tensors" if len(names) > 1 else ""
            raise InputError(f"it {what} {min(names)}{more}, which a {config.model_type} {'has' if what == 'lacks' else 'of this shape has no place for'}")
    for name, place in wanted.items():
        numbers = torch.from_numpy(file.tensors[name].numbers().copy())
        if not numbers.isfinite().all():
            raise InputError(f"its tensor {name} holds numbers that are not finite")
        put_at(place, numbers)
    return network.eval()


def _write(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    from safetensors.torch import save_file

    write_config(network, folder)
    save_file(distinct_tensors(network), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / "config.json").stat().st_mode)
    save_tokenizer(tokenizer, folder)
