"""The base model of a new project: found, pinned, and asked what the dials of its training have to know."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recompress.errors import InputError
from recompress.integrity.digest import sha256_file
from recompress.models.architecture import architecture_named
from recompress.models.base import GGUF, WEIGHTS, find_base, pinned_file
from recompress.models.files import read_tensors
from recompress.models.pretrained import check_base_config, own_tokenizer

FULL_COMMIT = 40


@dataclass(frozen=True)
class PinnedBase:
    """A base model as a recipe names it."""

    model: str
    revision: str | None
    sha256: str
    directory: Path
    layers: int
    width: int
    """Numbers in a hidden state."""
    positions: int
    """Most tokens that it can take."""
    causal: bool

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text, special ones included, sorted."""
        tokenizer = own_tokenizer(self.directory)
        tokenizer.model_max_length = 1 << 30  # it would warn of each text that is longer
        return sorted(map(len, tokenizer(texts, verbose=False)["input_ids"]))


def pin_base(model: str, folder: Path, here: Path) -> PinnedBase:
    """The base that ``--base`` names: ``package://package/folder``, a folder or a GGUF file (seen from ``here``), a hub id, or ``owner/name@commit``.

    A folder or file inside the project's is named from there, and another one by its whole path. Raises ``InputError``, and ``IntegrityError`` for weights that are cut off.
    """
    revision = None
    path = Path(model).expanduser()
    if (here / path).is_dir() or (path.suffix == GGUF and (here / path).is_file()):
        place = (here / path).resolve()
        model = place.relative_to(folder.resolve()).as_posix() if place.is_relative_to(folder.resolve()) else place.as_posix()
        directory = find_base(place.as_posix(), root=here)
    elif model.startswith("package://"):
        directory = find_base(model, root=here)
    else:
        model, _, revision = model.partition("@")
        revision = revision or _commit_of(model)
        if len(revision) != FULL_COMMIT:
            raise InputError(
                f"--base {model}@{revision}: a hub id is pinned by its full commit of {FULL_COMMIT} hex digits, or leave @… out for the present one"
            )
        directory = find_base(model, revision=revision, root=here)
    config = _config(directory, model)
    read_tensors(directory / WEIGHTS)
    own_tokenizer(directory)
    architecture = architecture_named(str(config.get("model_type")))
    pinned = PinnedBase(
        model=model,
        revision=revision,
        sha256=sha256_file(pinned_file(model, directory, root=folder)),
        directory=directory,
        layers=int(_first(config, "num_hidden_layers", "n_layers", "n_layer")),
        width=int(_first(config, "hidden_size", "dim", "n_embd")),
        positions=int(_first(config, "max_position_embeddings", "n_positions"))
        - (int(config.get("pad_token_id") or 0) + 1) * architecture.positions_follow_padding,
        causal=architecture.causal,
    )
    check_base_config(directory, pinned.positions)
    return pinned


def _commit_of(model: str) -> str:
    """The commit that a hub's main branch stands at now."""
    import httpx2 as httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        commit = HfApi().model_info(model, timeout=20).sha
    except (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError) as error:
        raise InputError(
            f"base model {model!r} is no folder here, and the hub does not know it or cannot be reached ({str(error).strip().splitlines()[0][:120]}); "
            "give a folder, package://package/folder, or owner/name@commit of a model that is in the local cache"
        ) from None
    return str(commit)


def _config(directory: Path, model: str) -> dict[str, Any]:
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"base model {model!r} has no config.json that can be read ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"base model {model!r} has no config.json that can be read (it holds {type(config).__name__}, not an object)")
    return config


def _first(config: dict[str, Any], *names: str) -> int:
    value = next((config[name] for name in names if config.get(name) is not None), None)
    if not isinstance(value, int):
        raise InputError(f"the base's config.json says none of {', '.join(names)}, so the dials of its training cannot be chosen")
    return value
