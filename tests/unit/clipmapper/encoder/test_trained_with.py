"""Activation and preprocessing of local weights: read, given by the config, or assumed with a warning."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from models import TEXT, VISION, pictures, random_clip, refusal, register, saved
from openai_files import openai_archive

from clipmapper.config.schema import EncoderConfig, OpenClipConfig, TrainedWithConfig
from clipmapper.config.values import check_values
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.encoder.trained_with import BESIDE, _warn
from clipmapper.errors import UserError

PREPROCESSING = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "interpolation": "bilinear", "resize_mode": "squash"}
CONFIG = {
    "model_cfg": {"embed_dim": 20, "vision_cfg": VISION, "text_cfg": TEXT, "quick_gelu": True},
    "preprocess_cfg": PREPROCESSING,
}
NAME = "test-beside"


@pytest.fixture
def weights(tmp_path: Path) -> Iterator[Path]:
    """Weights of a model that is registered with GELU, without anything beside the file."""
    register(tmp_path, NAME, {}, {})
    folder = tmp_path / "model"
    folder.mkdir()
    _warn.cache_clear()
    yield saved(random_clip(NAME), folder / "weights.safetensors")
    _warn.cache_clear()


def beside(weights: Path, content: Any) -> Path:
    path = weights.parent / BESIDE
    path.write_bytes(content) if isinstance(content, bytes) else path.write_text(json.dumps(content), "utf-8")
    return path


def encoder(weights: Path, **given: Any) -> FrozenClip:
    return load_encoder(EncoderConfig(NAME, str(weights), **given))


def warned(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the warnings since the last call; other tests may have let libraries log to stderr too."""
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


def has_quick_gelu(of: FrozenClip) -> bool:
    found = {repr(block.mlp.gelu) for tower in (of.vision, of.text) for block in tower.blocks}
    assert len(found) == 1
    return found == {"QuickGELU()"}


def test_the_file_of_the_hub_beside_the_weights_is_read(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside(weights, CONFIG)
    found = encoder(weights)
    assert has_quick_gelu(found)
    settings = found.vision.visual.preprocess_cfg
    assert {key: settings[key] for key in PREPROCESSING} == PREPROCESSING | {
        key: tuple(PREPROCESSING[key]) for key in ("mean", "std")
    }
    assert "Resize(size=(24, 24), interpolation=bilinear" in str(found.preprocess)
    assert "mean=(0.1, 0.2, 0.3)" in str(found.preprocess)
    assert warned(capsys) == []


def test_short_files_of_the_hub_mean_open_clips_defaults(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files without interpolation, resize mode and activation are common."""
    short = {**CONFIG["model_cfg"]}
    del short["quick_gelu"]
    beside(weights, {"model_cfg": short, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "size": 24}})
    found = encoder(weights)
    assert not has_quick_gelu(found)
    assert found.vision.visual.preprocess_cfg["resize_mode"] == "shortest"
    assert "bicubic" in str(found.preprocess)
    assert warned(capsys) == []


def test_what_is_not_known_is_assumed_with_a_warning(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not has_quick_gelu(encoder(weights))
    encoder(weights)  # warned about once
    (line,) = warned(capsys)
    assert line.startswith(f"warning: encoder.weights={weights}: ")
    assert "encoder.quick_gelu=false, encoder.mean=[0.48145466,0.4578275,0.40821073]" in line
    assert "encoder.interpolation=bicubic, encoder.resize_mode=shortest" in line
    encoder(weights, mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5])
    (line,) = warned(capsys)
    assert "encoder.quick_gelu=false, encoder.interpolation=bicubic" in line
    assert "encoder.mean" not in line


GIVEN: dict[str, Any] = {"quick_gelu": False, "interpolation": "bicubic", "resize_mode": "longest"} | {
    key: [0.7, 0.8, 0.9] for key in ("mean", "std")
}


def test_the_config_comes_first(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert GIVEN.keys() == {field.name for field in fields(TrainedWithConfig)}
    alone = encoder(weights, **GIVEN)
    beside(weights, CONFIG)
    both = encoder(weights, **GIVEN)
    assert warned(capsys) == []
    for found in (alone, both):
        assert not has_quick_gelu(found)
        assert "mean=(0.7, 0.8, 0.9), std=(0.7, 0.8, 0.9)" in str(found.preprocess)
        assert "ResizeKeepRatio" in str(found.preprocess)
    assert alone.fingerprint() == both.fingerprint()


def test_each_setting_is_part_of_the_fingerprint(weights: Path) -> None:
    changes = [{key: not value if value is False else value} for key, value in GIVEN.items()]
    changes[1] = {"interpolation": "bilinear"}
    seen = {encoder(weights, **change).fingerprint() for change in [{}, *changes]}
    assert len(seen) == 1 + len(GIVEN)
    # the values that are assumed, when they are given: the same encoder
    assert encoder(weights, quick_gelu=False, resize_mode="shortest").fingerprint() in seen


def test_an_archive_of_openai_is_known_to_have_quick_gelu(weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = openai_archive(random_clip(NAME).state_dict(), weights.parent / "ViT.pt")
    found = encoder(path)
    assert has_quick_gelu(found)
    assert "mean=(0.48145466" in str(found.preprocess)
    assert not has_quick_gelu(encoder(path, quick_gelu=False))
    assert warned(capsys) == []


def test_the_activation_changes_the_features(weights: Path) -> None:
    pixels = pictures(2)
    first, second = (encoder(weights, quick_gelu=quick).vision(pixels).features for quick in (False, True))
    assert not torch.allclose(first, second, atol=1e-3)


def without(part: str, key: str | None = None) -> Any:
    content: dict[str, Any] = json.loads(json.dumps(CONFIG))
    del (content if key is None else content[part])[key or part]
    return content


def other(part: str, **values: Any) -> Any:
    return {**CONFIG, part: {**CONFIG[part], **values}}


BAD: dict[str, tuple[Any, str]] = {
    "empty": (b"", "JSON"),
    "cut": (json.dumps(CONFIG).encode()[:80], "JSON"),
    "bytes": (b"\xff\xfe\x00", "JSON"),
    "list": ([], "object"),
    "null": (None, "object"),
    "no-model": (without("model_cfg"), "model_cfg: Field required"),
    "no-preprocessing": (without("preprocess_cfg"), "preprocess_cfg: Field required"),
    "no-mean": (without("preprocess_cfg", "mean"), "preprocess_cfg.mean: Field required"),
    "no-std": (without("preprocess_cfg", "std"), "preprocess_cfg.std: Field required"),
    "no-width": (without("model_cfg", "embed_dim"), "model_cfg.embed_dim: Field required"),
    "no-vision": (without("model_cfg", "vision_cfg"), "model_cfg.vision_cfg: Field required"),
    "no-text": (without("model_cfg", "text_cfg"), "model_cfg.text_cfg: Field required"),
    "mean-number": (other("preprocess_cfg", mean=0.5), "preprocess_cfg.mean"),
    "mean-two": (other("preprocess_cfg", mean=[0.5, 0.5]), "preprocess_cfg.mean"),
    "mean-text": (other("preprocess_cfg", mean=["a", "b", "c"]), "preprocess_cfg.mean.0"),
    "mean-bool": (other("preprocess_cfg", mean=[True, True, True]), "preprocess_cfg.mean.0"),
    "mean-nan": (other("preprocess_cfg", mean=[float("nan"), 0, 0]), "preprocess_cfg.mean.0"),
    "mean-null": (other("preprocess_cfg", mean=None), "preprocess_cfg.mean"),
    "std-zero": (other("preprocess_cfg", std=[0.5, 0, 0.5]), "preprocess_cfg.std.1"),
    "std-infinite": (other("preprocess_cfg", std=[0.5, 0.5, float("inf")]), "preprocess_cfg.std.2"),
    "interpolation": (other("preprocess_cfg", interpolation="cubist"), "preprocess_cfg.interpolation"),
    "resize-mode": (other("preprocess_cfg", resize_mode="smallest"), "preprocess_cfg.resize_mode"),
    "grey": (other("preprocess_cfg", mode="L"), "preprocess_cfg.mode"),
    "activation": (other("model_cfg", quick_gelu="yes"), "model_cfg.quick_gelu"),
    "heads": (other("model_cfg", vision_cfg={**VISION, "head_width": 8}), "vision_cfg.head_width is 8"),
    "text-heads": (other("model_cfg", text_cfg={**TEXT, "heads": 2}), "text_cfg.heads is 2"),
    "image-size": (other("model_cfg", vision_cfg={**VISION, "image_size": 32}), "vision_cfg.image_size is 32"),
    "epsilon": (other("model_cfg", vision_cfg={**VISION, "norm_kwargs": {"eps": 1e-3}}), "vision_cfg.norm_kwargs"),
    "width": (other("model_cfg", embed_dim=21), "model_cfg.embed_dim is 21"),
    "unknown-part": (other("model_cfg", vision_cfg={**VISION, "wheels": 4}), "vision_cfg"),
    "large": (b" " * (1 << 20) + json.dumps(CONFIG).encode(), "bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_beside_the_weights_is_an_error(case: str, weights: Path) -> None:
    content, words = BAD[case]
    path = beside(weights, content)
    message = refusal(NAME, weights)
    assert message.startswith(f"{path}: ")
    assert words in message


BAD_VALUES: list[tuple[str, Any]] = [
    *((key, value) for key in ("mean", "std") for value in ([], [0.5], [0.5] * 4, [0.5, 0.5, float("nan")])),
    *(("std", [0.5, 0.5, value]) for value in (0.0, -1.0, float("inf"))),
    *((key, value) for key in ("interpolation", "resize_mode") for value in ("", "none", "Bicubic")),
]


@pytest.mark.parametrize("make", [EncoderConfig, OpenClipConfig])
@pytest.mark.parametrize(("key", "value"), BAD_VALUES)
def test_bad_values_in_the_config_are_an_error(make: type[Any], key: str, value: Any) -> None:
    section = "encoder" if make is EncoderConfig else "model"

    def checked() -> None:
        check_values(make, {key: value}, prefix=f"{section}.")
        make(**{key: value})

    with pytest.raises(UserError, match=rf"^{section}\.{key}\b"):
        checked()


def test_the_activation_of_the_embedded_encoder_cannot_be_changed() -> None:
    with pytest.raises(
        UserError, match=r"^encoder\.quick_gelu=true: the embedded encoder was trained with GELU; leave"
    ):
        load_encoder(EncoderConfig("shapes-tiny", "embedded", "float32", 8, quick_gelu=True))
    load_encoder(EncoderConfig("shapes-tiny", "embedded", "float32", 8, quick_gelu=False))
