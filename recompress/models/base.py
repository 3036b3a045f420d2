"""Find a base model and prove that it is the one that the recipe means.

``package://package/folder`` looks inside an installed Python package, without importing it; a folder is a folder; anything else is a hub id, which needs
a full commit as its revision. A name that ends in ``.gguf`` is a file, in a package or here, and is turned into a folder once. Whatever is found is compared with
the recipe's sha256 of ``model.safetensors``, or of the GGUF file, before it is used.
"""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

from recompress.errors import InputError, IntegrityError
from recompress.integrity.digest import sha256_file
from recompress.models.files import check_whole
from recompress.models.hub import snapshot

WEIGHTS = "model.safetensors"
GGUF = ".gguf"
MADE = Path(".recompress", "bases")
"""Where the folders lie that GGUF files were turned into, below the project's folder."""
HUB_FILES = ["*.json", "*.txt", "*.model", WEIGHTS]
"""What is fetched from a hub: never a pickle, never code."""


def find_base(model: str, *, revision: str | None = None, sha256: str | None = None, root: Path) -> Path:
    """The folder of a base model; of a GGUF file, what it was turned into. Raises ``InputError`` when it cannot be found and ``IntegrityError`` when its weights
    are not the pinned ones."""
    if model.endswith(GGUF):
        file = gguf_file(model, root=root)
        check_file(file, model, sha256)
        return _from_gguf(file, root)
    if model.startswith("package://"):
        directory = _in_package(model)
    elif (root / model).is_dir():
        directory = root / model
    elif model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise InputError(f"base model {model!r} is not a folder here; give a folder, package://package/folder, a hub id (owner/name) or models:/name@alias")
    else:
        directory = _from_hub(model, revision)
    check_base(directory, model, sha256)
    return directory


def check_base(directory: Path, model: str, sha256: str | None) -> None:
    """Raises ``InputError`` without safetensors weights in one whole file and ``IntegrityError`` when their sha256 is not the expected one."""
    weights = directory / WEIGHTS
    check_whole(directory, f"base model {model!r}")
    if not weights.is_file():
        pickles = sorted(file.name for file in directory.glob("pytorch_model*.bin"))
        hint = f"it holds {pickles[0]}, a pickle, which can run code when it is read; convert it once, or" if pickles else "it has none;"
        raise InputError(f"base model {model!r} needs {WEIGHTS}: {hint} choose a revision that has safetensors")
    check_file(weights, model, sha256)


def check_file(weights: Path, model: str, sha256: str | None) -> None:
    """Raises ``IntegrityError`` when the sha256 of the file that a pin is the digest of is not the expected one."""
    if sha256 is not None and (digest := sha256_file(weights)) != sha256:
        raise IntegrityError(
            f"base model {model!r}: {weights.name} has sha256 {digest}, the recipe says {sha256}; if the new one is meant, write it in the recipe"
        )


def pinned_file(model: str, directory: Path, *, root: Path) -> Path:
    """The file that a pin of ``model``, found in ``directory``, is the digest of."""
    return gguf_file(model, root=root) if model.endswith(GGUF) else directory / WEIGHTS


def gguf_file(model: str, *, root: Path) -> Path:
    """The GGUF file that a base model is. Raises ``InputError`` when it cannot be found."""
    path = _in_package(model) if model.startswith("package://") else root / model
    if not path.is_file():
        raise InputError(f"base model {model!r}: there is no such file; give a GGUF file here, or package://package/file.gguf")
    return path


def _from_gguf(file: Path, root: Path) -> Path:
    from recompress.models.gguf.base import folder_of

    return folder_of(file, root / MADE)


OTHER_HEADS = ("lm_head.", "cls.")
"""Of a language model's own task, which a model that classifies does not keep."""


def numbers_of(directory: Path, *, heads: bool) -> int:
    """How many numbers the weights of a base hold, read from the headers of its files; ``heads``: with those of the head that it was pretrained with."""
    from safetensors import safe_open

    numbers = 0
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            names = [name for name in file.keys() if heads or not name.startswith(OTHER_HEADS)]  # noqa: SIM118 - it is no dict
            numbers += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return numbers


def architecture_in(directory: Path) -> str | None:
    """What the config of a base calls its architecture, read without torch; ``None`` where it cannot be read: whoever opens such a base says why."""
    try:
        return str(json.loads((directory / "config.json").read_bytes())["model_type"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _in_package(model: str) -> Path:
    package, _, folder = model.removeprefix("package://").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"base model {model!r}: the package {package!r} is not installed; pip install {package.replace('_', '-')}")
    home = Path(next(iter(spec.submodule_search_locations))).resolve()
    directory = (home / folder).resolve()
    if not directory.is_relative_to(home) or not (directory.is_file() if folder.endswith(GGUF) else directory.is_dir()):
        raise InputError(f"base model {model!r}: the package {package!r} holds no {'file' if folder.endswith(GGUF) else 'folder'} {folder!r}")
    return directory


def _from_hub(model: str, revision: str | None) -> Path:
    if revision is None:
        raise InputError(f"base model {model!r} comes from a hub, so it needs base.revision: the full commit, because names and branches move")
    return snapshot("model", model, revision, HUB_FILES, f"base model {model!r}", "or copy the model here and name its folder, or use package://…")
