"""A whole CLIPmapper with random weights, small enough for a test."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from clip_models import loaded, pictures, random_model, register, saved
from torch import Tensor

from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA, VQAMapper
from configs import mapper_config

ANSWERS = ("no", "yes", "0", "1", "red")
LAYERS = {"a": 3, "b": 2}
QUESTIONS = ["is there a red circle?", "", "how many?", "what color is the thing left of it?", "yes"]


@cache
def random_encoder() -> FrozenClip:
    """9 patches, 2 layers on each side."""
    folder = Path(mkdtemp(prefix="random-encoder-"))
    name = register(folder, "test-under-vqa", {}, {})
    return loaded(name, saved(random_model(name), folder / "weights.safetensors"))


def random_vqa(
    name: str, readout: str = "cls", positions: str = "none", seed: int = 1, dtype: torch.dtype = torch.float32
) -> CLIPMapperVQA:
    """Frozen, in evaluation mode; mapper weights large enough that every token bears on the answer."""
    config = mapper_config(name, layers=LAYERS[name], width=16, heads=4, readout=readout, positions=positions)
    encoder = deepcopy(random_encoder())
    vision, text = encoder.vision, encoder.text
    torch.manual_seed(seed)
    vqa = VQAMapper(config, vision.width, text.width, vision.token_count, text.context_length, len(ANSWERS))
    with torch.no_grad():
        for parameter in vqa.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return CLIPMapperVQA(encoder, vqa, ANSWERS).eval().requires_grad_(False).to(dtype)


def samples(count: int = 5, seed: int = 0) -> tuple[Tensor, TextBatch]:
    """Pictures and questions of different lengths, one of them empty."""
    questions = [QUESTIONS[k % len(QUESTIONS)] for k in range(count)]
    return pictures(count, seed=seed), random_encoder().tokenize(questions)
