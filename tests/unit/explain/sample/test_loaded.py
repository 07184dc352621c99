"""Loading of a folder of ``transformers``: damaged files and wrong values are errors in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample_models
import torch
from safetensors.torch import load_file, save_file

from explain.sample.loaded import loaded

pytest.importorskip("transformers")
IMAGES, WEIGHTS = "processor_config.json", "model.safetensors"
NORM = "text_model.encoder.layers.0.layer_norm1.bias"
NAN = float("nan")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    for part in sample_models.clip():
        part.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "clip"))


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        loaded(str(folder), None)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(folder))
    assert str(folder) in message
    return message


def test_a_good_folder_loads(folder: Path) -> None:
    model, processor = loaded(str(folder), None)
    assert not model.training
    assert processor.image_processor.resample == 3


WRONG: list[tuple[str, Any]] = [
    *(
        (key, value)
        for key in ("image_mean", "image_std")
        for value in ("abc", [0.5, 0.5], None, [NAN] * 3, [1e308] * 3)
    ),
    *(("image_std", value) for value in ([0, 0, 0], -1, [0.5, 0.5, -0.5])),
    *(("rescale_factor", value) for value in (None, "x", NAN, 0)),
    *(("resample", value) for value in (99, -1)),
    *(("size", value) for value in ("x", {"wheels": 3}, {"height": 32}, None, {"height": 32, "width": "a"})),
    *(("size", {"shortest_edge": value}) for value in (0, -3, 1.5, 10**9)),
    *(("crop_size", value) for value in (None, {"height": 0, "width": 32}, {"height": -1, "width": 3})),
    *(("crop_size", value) for value in ({"shortest_edge": 32}, {"height": 32, "width": 10**6})),
    *((key, [0.5] * 4) for key in ("image_mean", "image_std")),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_wrong_settings_of_the_preprocessing(key: str, value: Any, folder: Path) -> None:
    content = json.loads((folder / IMAGES).read_text("utf-8"))
    assert key in content["image_processor"]
    content["image_processor"][key] = value
    (folder / IMAGES).write_text(json.dumps(content), "utf-8")
    assert key in refused(folder)


@pytest.mark.parametrize("file", [IMAGES, "config.json", "tokenizer.json", "tokenizer_config.json", WEIGHTS])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_damaged_files(file: str, content: bytes, folder: Path) -> None:
    (folder / file).write_bytes(content)
    refused(folder)


@pytest.mark.parametrize("name", ["Nope", 3, "AutoConfig", "__name__"])
def test_what_is_no_model(name: Any, folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**content, "architectures": [name]}), "utf-8")
    assert f"transformers has no model {name}" in refused(folder)


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS, {"format": "pt"})


def test_missing_weights_would_be_random(folder: Path) -> None:
    changed(folder, lambda state: state.pop(NORM))
    assert f"lack the weights {NORM}" in refused(folder)


@pytest.mark.parametrize("value", [NAN, float("inf"), -float("inf")])
def test_weights_that_are_no_numbers(value: float, folder: Path) -> None:
    changed(folder, lambda state: state[NORM][0].fill_(value))
    assert f"{NORM} contain NaN or infinite values" in refused(folder)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def load(name: str) -> None:
        raise ImportError("Package `num2words` is required.\nInstall it.")

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", load)
    with pytest.raises(ValueError, match=r"^cannot load 'x': Package `num2words` is required\. Install it\.$"):
        loaded(object(), "x")
