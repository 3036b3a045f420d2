"""What is saved is what is loaded, in this process and in another; whatever is not whole is refused."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForTokenClassification, AutoTokenizer

from recompress.architecture import layers_of
from recompress.benchmarks import get_benchmark
from recompress.checkpoint import Checkpoint, from_base, load, read_info, save
from recompress.digest import sha256_directory
from recompress.errors import InputError, IntegrityError, StorageError
from recompress.runtimes import runtime_of
from recompress.stored import distinct_tensors
from recompress.surgery import keep_heads, keep_neurons
from tests.families import FAMILIES, TAGS, checkpoint_of, config_of, features_of, network_of, saved, sentences, tokenizer_of

BENCHMARKS = ("token-classification", "text-classification")


def outputs(checkpoint: Checkpoint) -> list[np.ndarray]:
    return runtime_of(checkpoint).logits(features_of(checkpoint))


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def odd(family: str) -> Checkpoint:
    """A shape that no config can say: other heads and neurons in each layer."""
    checkpoint = checkpoint_of(family)
    for layer in layers_of(checkpoint.torch_network):
        keep_heads(layer, range(1 + layer.index))
        keep_neurons(layer, range(10 + 7 * layer.index))
    return checkpoint


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_saved_model_is_the_same_model(family: str, benchmark: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family, benchmark)
    save(checkpoint, tmp_path / "model")
    found = load(tmp_path / "model")
    assert same(outputs(checkpoint), outputs(found))
    assert found.info == checkpoint.info
    assert found.tokenizer.get_vocab() == checkpoint.tokenizer.get_vocab()
    assert {name for name in os.listdir(tmp_path / "model")} == {  # noqa: C416, PTH208
        "config.json",
        "model.safetensors",
        "recompress.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_transformers_loads_what_a_config_can_say(family: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(family)
    save(checkpoint, tmp_path / "model")
    network = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    text = "kamuni lo wa, ŋuri 😀 2026"
    assert tokenizer(text)["input_ids"] == checkpoint.tokenizer(text)["input_ids"]
    assert network.config.id2label == dict(enumerate(["LABEL_0", "LABEL_1", "LABEL_2"]))
    assert same(outputs(checkpoint), outputs(Checkpoint(network, tokenizer, checkpoint.info)))


@pytest.mark.parametrize("family", FAMILIES)
def test_odd_shapes_come_back_through_load(family: str, tmp_path: Path) -> None:
    checkpoint = odd(family)
    save(checkpoint, tmp_path / "model")
    found = load(tmp_path / "model")
    assert same(outputs(checkpoint), outputs(found))
    assert found.info.heads == (1, 2, 3)
    assert found.info.neurons == (10, 17, 24)
    save(found, tmp_path / "again")
    assert sha256_directory(tmp_path / "again") == sha256_directory(tmp_path / "model")


def test_a_new_process_gives_the_same_outputs(tmp_path: Path) -> None:
    expected = {}
    for family in FAMILIES:
        checkpoint = odd(family)
        save(checkpoint, tmp_path / family)
        expected[family] = [logits.tobytes().hex() for logits in outputs(checkpoint)]
    code = (
        "import sys, json, torch; from pathlib import Path; from recompress.checkpoint import load; from recompress.runtimes import runtime_of\n"
        "from tests.families import FAMILIES, features_of\n"
        "found = {f: load(Path(sys.argv[1]) / f) for f in FAMILIES}\n"
        "print(json.dumps({f: [x.tobytes().hex() for x in runtime_of(c).logits(features_of(c))] for f, c in found.items()}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert json.loads(done.stdout) == expected


def test_saving_twice_gives_the_same_bytes_and_names_no_path(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(checkpoint_of("roberta"), tmp_path / name)
    assert sha256_directory(tmp_path / "a") == sha256_directory(tmp_path / "b")
    assert not any(str(tmp_path).encode() in file.read_bytes() for file in (tmp_path / "a").iterdir())
    assert {file.stat().st_mode for file in (tmp_path / "a").iterdir()} == {(tmp_path / "a" / "config.json").stat().st_mode}


def test_other_precisions_are_stored_in_32_bits(tmp_path: Path) -> None:
    checkpoint = checkpoint_of("bert")
    checkpoint.torch_network.bfloat16()
    save(checkpoint, tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.float32}


def test_tied_weights_are_stored_once() -> None:
    network = network_of(AutoConfig.for_model("gpt2", vocab_size=50, n_embd=32, n_layer=2, n_head=2), AutoModelForCausalLM)
    names = distinct_tensors(network).keys()
    assert "transformer.wte.weight" in names
    assert "lm_head.weight" not in names


def test_an_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    saved("bert", tmp_path / "model")
    before = sha256_directory(tmp_path / "model")
    with pytest.raises(InputError, match="exists already"):
        save(checkpoint_of("bert", seed=1), tmp_path / "model")
    assert sha256_directory(tmp_path / "model") == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "x.pkl", "sub/model.ckpt"])
def test_pickles_are_refused(name: str, tmp_path: Path) -> None:
    model = saved("bert", tmp_path / "model")
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"\x80\x04")
    with pytest.raises(IntegrityError, match=f"{name} may be a pickle"):
        load(model)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved("distilbert", tmp_path_factory.mktemp("whole") / "model")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.9999))
def test_weights_that_are_cut_off_anywhere_are_refused(share: float, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    broken = tmp_path_factory.mktemp("cut") / "model"
    shutil.copytree(whole, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: int(share * weights.stat().st_size)])
    with pytest.raises(IntegrityError, match=r"model\.safetensors is cut off or broken") as caught:
        load(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "recompress.json", "tokenizer.json", "tokenizer_config.json"])
def test_a_missing_file_is_named(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(InputError, match=name):
        load(tmp_path / "model")


@pytest.mark.parametrize("name", ["config.json", "recompress.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"model_type": 3}', "null", '{"benchmark": 1}'])
def test_broken_json_is_one_line(name: str, text: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    (tmp_path / "model" / name).write_text(text)
    if name == "tokenizer_config.json" and text.startswith("{") and text != "{":
        return  # an object without known keys says nothing wrong
    with pytest.raises((IntegrityError, InputError)) as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "albert"}, "architecture 'albert' is not known"),
        ("config.json", {"model_type": "made-up", "auto_map": {"AutoConfig": "evil.Config"}}, "architecture 'made-up' is not known"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "quantized already"),
        ("config.json", {"dim": 48, "n_heads": 4}, "is stored as"),
        ("config.json", {"n_layers": 4}, "is missing"),
        ("config.json", {"n_layers": 2}, "is not expected"),
        ("config.json", {"vocab_size": 7}, "is stored as"),
        ("recompress.json", {"labels": ["O"]}, "other labels"),
        ("recompress.json", {"heads": [1, 2, 3]}, "other labels or shapes"),
        ("recompress.json", {"benchmark": "token-clasification"}, "did you mean 'token-classification'"),
        ("recompress.json", {"evil": 1}, "recompress.json is broken: evil"),
    ],
)
def test_files_that_contradict_each_other_are_refused(file: str, changes: dict[str, Any], message: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    edit(tmp_path / "model" / file, **changes)
    with pytest.raises((InputError, IntegrityError), match=message) as caught:
        load(tmp_path / "model")
    assert "\n" not in str(caught.value)


def test_a_renamed_tensor_is_refused(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "model")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    tensors["classifier.weights"] = tensors.pop("classifier.weight")
    save_file(tensors, tmp_path / "model" / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"classifier\.weight is missing"):
        load(tmp_path / "model")


@pytest.mark.parametrize(("code", "message"), [(errno.ENOSPC, "no space left"), (errno.EROFS, "cannot be written")])
@pytest.mark.parametrize("hidden", [False, True])
def test_a_full_or_read_only_disk_leaves_nothing(code: int, message: str, hidden: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError(f"I/O error: {os.strerror(code)} (os error {code})") if hidden else OSError(code, os.strerror(code))

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(StorageError, match=message):
        save(checkpoint_of("bert"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_at_any_moment_of_saving_leaves_no_half_model(tmp_path: Path) -> None:
    """The child kills itself before its n-th write, flush or rename; whatever ``load`` then accepts is the whole model."""
    checkpoint = checkpoint_of("bert")
    expected = outputs(checkpoint)
    finished = False
    for moment in range(40):
        parent = tmp_path / str(moment)
        parent.mkdir()
        child = os.fork()
        if child == 0:
            _save_and_die(checkpoint, parent / "model", moment)
        _, status = os.waitpid(child, 0)
        finished = not os.WIFSIGNALED(status)
        for path in [*parent.iterdir(), parent / "model"]:
            try:
                found = load(path)
            except (InputError, IntegrityError):
                continue
            assert same(outputs(found), expected)
        if finished:
            assert same(outputs(load(parent / "model")), expected)
            break
    assert finished
    assert moment > 8


def _save_and_die(checkpoint: Checkpoint, target: Path, moment: int) -> None:
    left = moment

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        writes = event == "open" and isinstance(args[1], str) and "w" in args[1]
        if writes or event in ("os.rename", "os.mkdir", "os.chmod") or (event == "open" and isinstance(args[2], int) and str(target.parent) in str(args[0])):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    sys.addaudithook(watch)
    save(checkpoint, target)
    os._exit(0)


def base_of(family: str, directory: Path, auto_model: Any, labels: int = 3) -> Path:
    """What somebody else published: transformers' own files, with another head or none."""
    tokenizer = tokenizer_of(family)
    network = network_of(config_of(family, len(tokenizer), labels), auto_model, seed=5)
    network.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


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


def test_words_that_are_given_one_by_one_get_their_space_back(tmp_path: Path) -> None:
    """A byte-level tokenizer without ``add_prefix_space`` would glue all words of a tagged sentence together."""
    base = base_of("roberta", tmp_path / "base", AutoModelForMaskedLM)
    said = json.loads((base / "tokenizer.json").read_text())
    said["pre_tokenizer"]["add_prefix_space"] = False
    (base / "tokenizer.json").write_text(json.dumps(said))
    words = ["ka", "muni", "lo"]
    tokenizer = from_base(base, "token-classification", TAGS, 32, seed=0).tokenizer
    assert tokenizer(words, is_split_into_words=True)["input_ids"] == tokenizer(" ka muni lo")["input_ids"]
    assert get_benchmark("token-classification").encode(tokenizer, [], TAGS, 32) == []


def test_baked_in_padding_and_truncation_are_dropped(tmp_path: Path) -> None:
    base = base_of("bert", tmp_path / "base", AutoModelForMaskedLM)
    said = json.loads((base / "tokenizer.json").read_text())
    said["padding"] = {"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
    said["truncation"] = {"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    (base / "tokenizer.json").write_text(json.dumps(said))
    save(from_base(base, "token-classification", TAGS, 32, seed=0), tmp_path / "model")
    tokenizer = load(tmp_path / "model").tokenizer
    assert len(tokenizer("ka")["input_ids"]) == 3
    assert len(tokenizer.backend_tokenizer.encode(" ".join(["ka"] * 30)).ids) == 32


def test_info_of_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no recompress\.json"):
        read_info(tmp_path)


def test_a_sentencepiece_model_is_read_as_its_own_library_reads_it(tmp_path: Path) -> None:
    """Some multilingual encoders come with ``sentencepiece.bpe.model`` and no ``tokenizer.json``."""
    import sentencepiece

    written = io.BytesIO()
    text = (" ".join(words) for words in sentences(300))
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=text, model_writer=written, vocab_size=110, hard_vocab_limit=False, minloglevel=2)
    base = base_of("xlm-roberta", tmp_path / "base", AutoModelForMaskedLM)
    (base / "tokenizer.json").unlink()
    (base / "sentencepiece.bpe.model").write_bytes(written.getvalue())
    special = {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "cls_token": "<s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
        "mask_token": "<mask>",
    }
    (base / "tokenizer_config.json").write_text(json.dumps(special | {"tokenizer_class": "XLMRobertaTokenizer"}))
    tokenizer = from_base(base, "token-classification", TAGS, 32, seed=0).tokenizer
    reference = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    for words in sentences(20, seed=4):
        pieces = tokenizer.convert_ids_to_tokens(tokenizer(" ".join(words))["input_ids"])
        assert pieces == ["<s>", *reference.encode(" ".join(words), out_type=str), "</s>"]


def test_reading_a_tokenizer_needs_no_torch(whole: Path) -> None:
    code = "import sys; from pathlib import Path; from recompress.tokenizer import load_tokenizer as f; f(Path(sys.argv[1])); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code, str(whole)], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
