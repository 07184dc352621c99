"""Loading encoders: one-line errors for unsupported models and files, and the fingerprint of an encoder."""

from __future__ import annotations

import copy
import pickle
import random
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from models import Pair, encoded, loaded, pictures, random_clip, refusal, register, saved
from openai_files import openai_archive
from safetensors.torch import save_file
from tiny_runs import Tiny

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.load import load_encoder, use
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL
from clipmapper.errors import UserError
from clipmapper.tasks import TASKS


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- unsupported models ------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "resnet": ({"layers": [1, 1, 1, 1], "head_width": 32, "image_size": 32}, {}, {}, "ModifiedResNet"),
    "attentional-pool": ({"attentional_pool": True, "attn_pooler_heads": 4}, {}, {}, "VisionTransformer"),
    "query-key-norm": ({"qk_norm": True}, {}, {}, "ln_q"),
    "cosine-attention": ({"scaled_cosine_attn": True}, {}, {}, "logit_scale"),
    "scaled-heads": ({}, {"scale_heads": True}, {}, "head_scale"),
    "inner-norm": ({}, {"scale_attn_inner": True}, {}, "ln_inner"),
    "norm-after-attention": ({"scale_attn": True}, {}, {}, "ln_attn"),
    "text-class-token": ({}, {"embed_cls": True}, {"custom_text": True}, "TextTransformer"),
    "not-causal": ({}, {"no_causal_mask": True}, {"custom_text": True}, "TextTransformer"),
    "first-token": ({}, {"pool_type": "first"}, {}, "CLIP"),
    "other-text-model": ({}, {"hf_model_name": "roberta-base"}, {}, "roberta-base"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_architectures_are_an_error(case: str, tmp_path: Path) -> None:
    vision, text, rest, word = REFUSED[case]
    name = register(tmp_path, f"test-refused-{case}", vision, text, **rest)
    (tmp_path / "weights.pt").write_bytes(b"never read")
    assert word in refusal(name, tmp_path / "weights.pt")


# --- loading errors ----------------------------------------------------------------------------------------------


def test_the_error_for_an_unknown_model_has_similar_names() -> None:
    assert "ViT-B-32" in refusal("ViT-B-23", "openai")
    assert EMBEDDED_MODEL in refusal("shapes-tyni", "embedded")
    assert "zzz" in refusal("zzz", "openai")
    assert refusal("", "openai")


def test_the_embedded_weights_fit_only_one_model() -> None:
    message = refusal("ViT-B-32-quickgelu", "embedded")
    assert EMBEDDED_MODEL in message
    assert "ViT-B-32-quickgelu" in message


def test_the_error_for_missing_weights_has_their_name(tmp_path: Path, plain: Pair) -> None:
    missing = tmp_path / "missing.pt"
    assert str(missing) in refusal(plain[0].name, missing)
    assert str(tmp_path) in refusal(plain[0].name, tmp_path)  # a folder
    assert "laion2b_s34b_b79k" in refusal("ViT-B-32", "lainon2b")


def broken_files(folder: Path, model: Any) -> dict[str, Path]:
    good = {suffix: saved(model, folder / f"good{suffix}").read_bytes() for suffix in (".pt", ".safetensors")}
    draw = random.Random(0)
    contents = {
        "empty": b"",
        "random": draw.randbytes(3000),
        "json": b'{"model": "ViT-B-32"}',
        "text": "weights é\n".encode(),
        "webpage": b"<!DOCTYPE html><html></html>",
    }
    files = {f"{name}{suffix}": content for name, content in contents.items() for suffix in good}
    for suffix, content in good.items():
        files[f"cut{suffix}"] = content[: len(content) // 2]
        files[f"started{suffix}"] = content[:40]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, value in {
        "empty-dict.pt": {},
        "list.pt": [torch.ones(2)],
        "tensor.pt": torch.ones(2),
        "numbers.pt": {1: 2, "a": 3},
        "nested.pt": {"state_dict": {}},
        "none.pt": None,
    }.items():
        torch.save(value, folder / name)
        files[name] = b""
    save_file({}, folder / "nothing.safetensors")
    return {name: folder / name for name in [*files, "nothing.safetensors"]}


def test_files_without_weights_are_an_error(tmp_path: Path, plain: Pair) -> None:
    encoder, model = plain
    for name, path in broken_files(tmp_path, model).items():
        message = refusal(encoder.name, path)
        assert str(path) in message, name
        assert encoder.name in message, name


@pytest.mark.filterwarnings("error")
def test_damaged_pickles_are_an_error(tmp_path: Path, plain: Pair) -> None:
    """Overwrite random bytes of a small PyTorch file; whatever the reader raises, the message is one line."""
    encoder = plain[0]
    path = tmp_path / "weights.pt"
    draw = random.Random(1)
    for zipped in (True, False):
        torch.save({"logit_scale": torch.ones(())}, path, _use_new_zipfile_serialization=zipped)
        good = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(good)
            for _ in range(4):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            path.write_bytes(bytes(damaged))
            assert str(path) in refusal(encoder.name, path)


def test_weights_of_another_model_are_an_error(tmp_path: Path, plain: Pair) -> None:
    encoder, model = plain
    others = {
        "wider": register(tmp_path, "test-wider", {"width": 48}, {}),
        "deeper": register(tmp_path, "test-deeper", {}, {"layers": 3}),
        "larger": register(
            tmp_path, "test-larger", {"image_size": 32}, {}
        ),  # open_clip could resize them, with wrong results
        "longer": register(tmp_path, "test-longer", {}, {"context_length": 20}),
    }
    for kind, other in others.items():
        for suffix in (".pt", ".safetensors"):
            path = saved(random_clip(other), tmp_path / f"{kind}{suffix}")
            assert encoder.name in refusal(encoder.name, path), (kind, suffix)
    state = model.state_dict()
    del state["visual.ln_post.bias"]
    torch.save(state, tmp_path / "lacking.pt")
    assert "visual.ln_post.bias" in refusal(encoder.name, tmp_path / "lacking.pt")


class Bomb:
    def __init__(self, touched: Path):
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


@pytest.mark.parametrize("how", ["plain pickle", "zipped", "legacy"])
def test_code_in_a_weights_file_does_not_run(how: str, tmp_path: Path, plain: Pair) -> None:
    path, touched = tmp_path / "weights.pt", tmp_path / "touched"
    content = {**plain[1].state_dict(), "visual.proj": Bomb(touched)}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(Bomb(touched)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zipped")
    assert plain[0].name in refusal(plain[0].name, path)
    assert not touched.exists()
    torch.load(path, weights_only=False) if how != "plain pickle" else pickle.loads(path.read_bytes())
    assert touched.exists()  # the file does contain code


def test_hub_weights_for_the_other_activation_are_an_error() -> None:
    assert "encoder.model=ViT-B-32-quickgelu" in refusal("ViT-B-32", "openai")


@pytest.fixture
def tags(monkeypatch: pytest.MonkeyPatch, plain: Pair, clip_folder: Path, tmp_path: Path) -> None:
    """Register hub tags of the plain model with a different normalisation, which are downloaded from the local disk."""
    entries = {
        tag: {"url": (clip_folder / file).as_uri(), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
        for tag, file in (("mine", "plain.safetensors"), ("gone", "gone.safetensors"))
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, plain[0].name, entries)
    monkeypatch.setenv("HOME", str(tmp_path))  # the folder of downloads


@pytest.mark.usefixtures("tags")
def test_hub_weights_have_their_own_preprocessing(plain: Pair) -> None:
    encoder, _ = plain
    downloaded = load_encoder(EncoderConfig(model=encoder.name, weights="mine"))
    torch.testing.assert_close(downloaded.vision(pictures(1)).features, encoder.vision(pictures(1)).features)
    assert "mean=(0.1, 0.2, 0.3)" in str(downloaded.preprocess)
    assert downloaded.fingerprint() != encoder.fingerprint()


@pytest.mark.usefixtures("tags")
def test_a_failed_download_is_reported_in_one_line(plain: Pair) -> None:
    message = refusal(plain[0].name, "gone")
    assert "No such file or directory" in message
    assert "cannot be downloaded" in message


def test_a_checkpoint_of_open_clips_own_training_is_read(tmp_path: Path, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs["plain"]
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    assert loaded(encoder.name, tmp_path / "epoch_3.pt").fingerprint() == encoder.fingerprint()
    name = pairs["custom-text"][0].name  # the same towers with other parameter names
    again = loaded(name, saved(model, tmp_path / "plain.pt"))
    texts = ["a red circle", "a"]
    assert torch.equal(encoded(again, texts).features, encoded(encoder, texts).features)


# --- values that are no numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e300])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", "archive", "hub"])
def test_weights_that_are_no_numbers_are_an_error(
    suffix: str, value: float, tmp_path: Path, plain: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, model = plain[0].name, copy.deepcopy(plain[1]).double()
    model.visual.ln_post.bias[3] = value  # 1e300 is infinite in float32
    path = tmp_path / f"weights{suffix if suffix.startswith('.') else '.pt'}"
    if suffix == "archive":
        openai_archive(model.state_dict(), path)
    else:
        saved(model, path, torch.float64)
    if suffix == "hub":
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {"mine": {"url": path.as_uri()}})
        monkeypatch.setenv("HOME", str(tmp_path))
    message = refusal(name, "mine" if suffix == "hub" else path)
    assert message.startswith(f"encoder.weights={'mine' if suffix == 'hub' else path}: 1 of the 32 values of ")
    assert "visual.ln_post.bias are NaN or infinite" in message


# --- fingerprint -------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_the_same_for_every_load_and_process(clip_folder: Path, plain: Pair) -> None:
    encoder = plain[0]
    assert loaded(encoder.name, clip_folder / "plain.safetensors").fingerprint() == encoder.fingerprint()
    assert " at 0x" not in str(
        encoder.preprocess
    )  # the fingerprint depends on its text, which must not contain memory addresses


def test_the_fingerprint_changes_with_every_weight_the_name_and_the_preprocessing(plain: Pair) -> None:
    encoder = copy.deepcopy(plain[0])
    seen = {encoder.fingerprint()}
    for parameter in encoder.parameters():
        flat = parameter.view(-1)
        flat[-1] += 1
        seen.add(encoder.fingerprint())
        flat[-1] -= 1
    encoder.name = "other"
    seen.add(encoder.fingerprint())
    encoder.preprocess = open_clip.transform.image_transform(24, is_train=False, mean=(0.5, 0.5, 0.5))
    seen.add(encoder.fingerprint())
    assert len(seen) == 3 + sum(1 for _ in encoder.parameters())


def test_the_config_sets_the_precision_of_products(tiny: Tiny) -> None:
    for given, convolutions in (("high", True), ("medium", True), ("highest", False)):
        use(tiny.config(f"trainer.float32_matmul={given}"))
        assert torch.get_float32_matmul_precision() == given
        assert torch.backends.cudnn.allow_tf32 == convolutions


@pytest.mark.parametrize("task", ["vqa", "caption"])
@pytest.mark.parametrize("names", [("ViT-B-32", "opennai"), ("ViT-Z-32", "openai"), ("ViT-B-32", "embedded")])
def test_a_wrong_name_is_an_error_before_any_data_is_read(
    task: str, names: tuple[str, str], tiny: Tiny, tmp_path: Path
) -> None:
    model, weights = names
    given = (f"task={task}", f"data.root={tmp_path / 'data'}", f"encoder.model={model}", f"encoder.weights={weights}")
    config = tiny.config(*given)
    with pytest.raises(UserError, match="ViT"):
        TASKS[task].data(config)
    assert not (tmp_path / "data").exists()
