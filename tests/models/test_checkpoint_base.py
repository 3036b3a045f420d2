"""A base model gets a fresh head and keeps all else; what cannot be one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForMaskedLM, AutoModelForTokenClassification

from recompress.errors import InputError, IntegrityError
from recompress.models.architecture import layers_of
from recompress.models.checkpoint import Checkpoint, save
from recompress.models.pretrained import from_base
from tests.checkpoints import BENCHMARKS, base_of, odd, outputs, same
from tests.families import FAMILIES, TAGS


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_keeps_its_encoder_and_gets_a_fresh_head(family: str, tmp_path: Path) -> None:
    base = base_of(family, tmp_path / "base", AutoModelForMaskedLM)
    first = from_base(base, "token-classification", TAGS, 32, seed=0)
    again = from_base(base, "token-classification", TAGS, 32, seed=0)
    other = from_base(base, "token-classification", TAGS, 32, seed=1)
    assert same(outputs(first), outputs(again))
    assert not same(outputs(first), outputs(other))
    with safe_open(base / "model.safetensors", "pt") as stored:
        for name, tensor in first.torch_network.base_model.state_dict().items():
            assert torch.equal(tensor, stored.get_tensor(f"{first.torch_network.base_model_prefix}.{name}"))
    assert first.torch_network.config.id2label == dict(enumerate(TAGS))
    assert first.info.labels == TAGS


@pytest.mark.parametrize("family", FAMILIES)
def test_an_old_head_of_the_same_size_is_not_taken_over(family: str, tmp_path: Path) -> None:
    base = base_of(family, tmp_path / "base", AutoModelForTokenClassification, labels=3)
    fresh = from_base(base, "token-classification", TAGS, 32, seed=0).torch_network
    with safe_open(base / "model.safetensors", "pt") as stored:
        assert not torch.equal(fresh.classifier.weight, stored.get_tensor("classifier.weight"))
    assert fresh.classifier.weight.std() < 0.05


def test_making_a_head_leaves_the_random_state_alone(tmp_path: Path) -> None:
    base = base_of("bert", tmp_path / "base", AutoModelForMaskedLM)
    state = torch.random.get_rng_state()
    from_base(base, "text-classification", ("a", "b"), 32, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_a_model_of_this_project_is_a_base_too_whatever_its_shape(benchmark: str, tmp_path: Path) -> None:
    checkpoint = odd("roberta")
    save(checkpoint, tmp_path / "base")
    fresh = from_base(tmp_path / "base", benchmark, ("O", "B-X"), 32, seed=0)
    assert [layer.heads for layer in layers_of(fresh.torch_network)] == [1, 2, 3]
    assert outputs(Checkpoint(fresh.network, fresh.tokenizer, checkpoint.info))[0].shape[-1] == 2


def test_what_a_base_cannot_be(tmp_path: Path) -> None:
    base = base_of("roberta", tmp_path / "base", AutoModelForMaskedLM)
    with pytest.raises(InputError, match="max_length is between 3 and the 62 positions"):
        from_base(base, "token-classification", TAGS, 63, seed=0)
    with pytest.raises(InputError, match="labels are distinct"):
        from_base(base, "token-classification", ("O", "O"), 32, seed=0)
    weights = (base / "model.safetensors").read_bytes()
    (base / "model.safetensors").write_bytes(weights[:-7])
    with pytest.raises(IntegrityError, match="cut off or broken"):
        from_base(base, "token-classification", TAGS, 32, seed=0)
    (base / "model.safetensors").rename(base / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickled weights are not read"):
        from_base(base, "token-classification", TAGS, 32, seed=0)
    tensors = {name: tensor for name, tensor in load_file_bytes(weights).items() if "layer.1.output" not in name}
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks encoder.layer.1.output.LayerNorm.bias and 3 more"):
        from_base(base, "token-classification", TAGS, 32, seed=0)
    (base / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json"):
        from_base(base, "token-classification", TAGS, 32, seed=0)


def load_file_bytes(data: bytes) -> dict[str, torch.Tensor]:
    from safetensors.torch import load as read

    return dict(read(data))
