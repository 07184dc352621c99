"""Encoders of every family on a GPU: the tokens of a CPU, in every precision. Skipped where there is no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from folder_models import FAMILIES, write_family
from models import pictures

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.load import load_encoder
from clipmapper.features.at_once import images_at_once
from clipmapper.nn import TokenSubset

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


def config_of(folder: Path, precision: str = "float32") -> EncoderConfig:
    return EncoderConfig(str(folder), None, "float32", None, precision)


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.05), ("float16", 0.01)])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_a_cpu(family: str, precision: str, tolerance: float, tmp_path: Path) -> None:
    encoder = load_encoder(config_of(write_family(tmp_path / family, family), precision))
    kept = torch.ones(2, encoder.vision.token_count, dtype=torch.bool)
    kept[0, encoder.vision.first] = False
    found = {}
    for device in ("cpu", "cuda"):
        encoder.to(device)
        text = encoder.tokenize(["what is the red circle", "a"]).to(torch.device(device))
        image = encoder.vision(pictures(2).to(device), TokenSubset.from_mask(kept.to(device)))
        found[device] = [
            image.features[image.valid],
            encoder.text(text.ids, text.valid).features[text.valid],
            encoder.sub_words(text),
        ]
    for a, b in zip(found["cpu"], found["cuda"], strict=True):
        difference = (a.float() - b.float().cpu()).norm() / a.float().norm()
        assert difference < tolerance


def test_the_number_of_images_at_once_fits_the_gpu(tmp_path: Path) -> None:
    vision = load_encoder(config_of(write_family(tmp_path / "siglip", "siglip"))).vision
    assert 8 <= images_at_once(None, vision, torch.device("cuda")) <= 512
