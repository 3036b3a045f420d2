"""Packed weights as compressed-tensors stores them (``pack-quantized``): what plain ``from_pretrained`` reads where that library is installed, and vLLM serves.

Codes and scales are those of the model that was judged (``recompress.export.packed_schemes``): when they are written, the library turns each matrix into floats, and
these have to be the very numbers that it stood for. Token embeddings, and an output layer that is tied to them, are written in floats: the library packs embeddings,
but transformers (5.23) reads none that are packed, and vLLM none that an output layer is tied to.
GPT-2 is refused: its layers are ``Conv1D``, which the library does not take for linear layers.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recompress.errors import InputError, IntegrityError
from recompress.export.format import Format, Reader, copy_text_files, edit_config
from recompress.export.transformers_folder import ODD, asking, read_back
from recompress.models.checkpoint import WEIGHTS_FILE, Info, load
from recompress.models.files import distinct_tensors, first_line, quiet_transformers, read_config, read_tensors
from recompress.runtimes.asking import logits_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from recompress.export.packed_schemes import Scheme

METHOD, LAYOUT = "compressed-tensors", "pack-quantized"
WAY_OUT = "end the variant with onnx_nbits or gguf_nbits"
USAGE = """With transformers, and `pip install compressed-tensors`:

```python
from transformers import {auto_class}, AutoTokenizer

model, tokenizer = {auto_class}.from_pretrained("FOLDER"), AutoTokenizer.from_pretrained("FOLDER")
```

With vLLM, which was not asked when this folder was written: `vllm serve FOLDER --dtype float16`. Scales have 11 binary digits, all of which float16 keeps, and
bfloat16 does not.
"""


def _check(directory: Path, info: Info) -> None:
    if find_spec("compressed_tensors") is None:
        raise InputError("compressed-tensors is not installed; pip install 'recompress[compressed-tensors]'")
    if info.runtime != "packed":
        other = "transformers" if info.runtime == "torch" else info.runtime
        raise InputError(
            f"{directory} is on the {info.runtime} runtime and holds no packed weights; export it --to {other}, or end the variant with gptq or awq"
        )
    for name, what in ODD.items():
        if getattr(info, name):
            raise InputError(
                f"a config of transformers cannot say the {what} of {directory}, so from_pretrained would read another model; end the variant with onnx_nbits"
            )
    if read_config(directory).model_type == "gpt2":
        raise InputError(f"{directory} is a gpt2, whose layers are Conv1D, and compressed-tensors reads Linear layers only; {WAY_OUT}")
    marks = (".first.weight", ".first.codes", ".second.weight", ".second.codes")
    if factored := next((name for name in read_tensors(directory / WEIGHTS_FILE) if name.endswith(marks)), None):
        raise InputError(f"{directory} holds factors ({factored}), for which transformers has no place; end the variant with onnx_nbits")


def _write(directory: Path, info: Info, target: Path) -> None:
    from safetensors.torch import save_file

    from recompress.export.packed_schemes import schemes_of

    network = load(directory).torch_network
    schemes = schemes_of(network)
    copy_text_files(directory, info, target)
    edit_config(target, {"quantization_config": _settings(network, schemes)})
    save_file(_tensors(network, schemes), target / WEIGHTS_FILE, metadata={"format": "pt"})
    (target / WEIGHTS_FILE).chmod((directory / WEIGHTS_FILE).stat().st_mode)  # safetensors makes a file that only its owner may read
    with _quiet_library():
        _check_grid(network, schemes, read_tensors(target / WEIGHTS_FILE))


def _settings(network: PreTrainedModel, schemes: Mapping[str, Scheme]) -> dict[str, Any]:
    """What the config says of the weights: one group for each scheme, its layers by name where there are several."""
    from recompress.models.architecture import is_linear
    from recompress.models.packed import PackedLinear

    linears = [name for name, module in network.named_modules() if is_linear(module) or isinstance(module, PackedLinear)]
    kinds = list(dict.fromkeys(schemes.values()))
    groups = {}
    for number, kind in enumerate(kinds):
        targets = ["Linear"] if len(kinds) == 1 else [name for name, scheme in schemes.items() if scheme == kind]
        groups[f"group_{number}"] = {"targets": targets, "weights": _weights(kind), "input_activations": None, "output_activations": None, "format": LAYOUT}
    zeros = {} if all(kind.symmetric for kind in kinds) else {"dequantize": True}  # without it transformers (5.23) does not unpack zero points
    return {
        "quant_method": METHOD,
        "format": LAYOUT,
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": [name for name in linears if name not in schemes],
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
        **zeros,
    }


def _weights(scheme: Scheme) -> dict[str, Any]:
    strategy = "channel" if scheme.group_size is None else "group"
    steps = {"num_bits": scheme.bits, "type": "int", "symmetric": scheme.symmetric, "strategy": strategy, "group_size": scheme.group_size}
    return steps | {"dynamic": False, "actorder": None}


def _tensors(network: PreTrainedModel, schemes: Mapping[str, Scheme]) -> dict[str, Tensor]:
    """All tensors of the file; packed matrices without a scheme in floats."""
    from recompress.export.packed_schemes import coded, folded_norms, steps_of
    from recompress.models.packed import Packed

    packed: dict[str, Any] = {name: module for name, module in network.named_modules() if isinstance(module, Packed)}
    norms, tensors = folded_norms(network), {}
    for name, tensor in distinct_tensors(network).items():
        path, _, end = name.rpartition(".")
        if path not in packed or end == "bias":
            tensors[name] = norms.get(name, tensor)
        elif end == "codes":
            matrix = packed[path]
            parts = coded(matrix, schemes[path]) if path in schemes else {"weight": steps_of(matrix)}
            tensors |= {f"{path}.{part}": stored for part, stored in parts.items()}
    return tensors


def _check_grid(network: PreTrainedModel, schemes: Mapping[str, Scheme], stored: Mapping[str, Tensor]) -> None:
    """Raises ``IntegrityError`` where the library turns a matrix into other numbers than those it stood for, to the last bit."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationScheme

    from recompress.export.packed_schemes import ENDS, steps_of

    library = BaseCompressor.get_value_from_registry(LAYOUT)
    for path, scheme in schemes.items():
        matrix: Any = network.get_submodule(path)
        parts = {end: stored[f"{path}.{end}"] for end in ENDS if f"{path}.{end}" in stored}
        parts["weight_scale"] = parts["weight_scale"].float()  # as a network in 32-bit floats takes them
        theirs = library.decompress(parts, QuantizationScheme(targets=["Linear"], weights=_weights(scheme)))["weight"]
        if not theirs.equal(steps_of(matrix)):
            raise IntegrityError(f"compressed-tensors reads other numbers in {path} than were packed; {WAY_OUT}")


def _reader(target: Path, info: Info) -> Reader:
    import torch

    with _quiet_library():
        try:
            network = read_back(target, info, WAY_OUT)
            with torch.inference_mode():
                logits_of(network, {"input_ids": torch.zeros((1, 2), dtype=torch.int64)})  # codes become floats when it is asked first
        except (RuntimeError, ValueError, ImportError) as error:
            raise IntegrityError(f"transformers cannot read what was written: {first_line(error)}; {WAY_OUT}") from None
    return asking(network)


@contextmanager
def _quiet_library() -> Iterator[None]:
    """The library draws bars while it packs and reads."""
    with quiet_transformers():
        import_module("compressed_tensors")  # before the next line: its log keeps for good what errors are written to when it is imported
        with redirect_stderr(io.StringIO()):
            yield


def _notes(directory: Path, target: Path) -> list[str]:
    """What is stored otherwise than in the model that was judged."""
    from recompress.export.packed_notes import notes_of

    return notes_of(directory, target)


FORMAT = Format(_check, _write, _reader, close=lambda _: 1e-5, usage=USAGE, notes=_notes)
