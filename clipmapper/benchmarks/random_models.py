"""CLIPmapper with random weights at the benchmarks' sizes, and questions as long as VQAv2's."""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from clipmapper.config.groups import named_configs
from clipmapper.config.schema import EncoderConfig, MapperConfig
from clipmapper.encoder.load import FrozenClip, TextBatch, load_encoder
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded
from clipmapper.tasks.vqa.model import CLIPMapperVQA, build_vqa

LENGTHS = (
    7,
    8,
    8,
    9,
    9,
    10,
    11,
    13,
)  # text tokens of questions: VQAv2's questions have 6 words on average, plus the start and end token
SIZES = ("tiny", "vit_b_32")


def random_model(size: str, mapper: str = "b", device: torch.device | str = "cpu") -> CLIPMapperVQA:
    """Build CLIPmapper for VQA with random mapper weights.

    Args:
        size: ``tiny`` for the embedded encoder, the mapper's configured width and 35 answers; ``vit_b_32`` for a
            random ViT-B-32, width 768 and 3129 answers.
        mapper: Name of the mapper, a or b.
        device: Device of the model.
    """
    torch.manual_seed(0)
    if size == "tiny":
        encoder = load_encoder(EncoderConfig(model="shapes-tiny", weights="embedded"))
        answers = 35
    else:
        name = "ViT-B-32-quickgelu"
        clip: Any = open_clip.create_model(name)
        encoder = FrozenClip.of(clip, name)
        answers = 3129
    vqa = build_vqa(mapper_config(size, mapper), encoder, answers)
    model = CLIPMapperVQA(encoder, vqa, tuple(map(str, range(answers))))
    return model.eval().requires_grad_(False).to(device)


def random_clip(size: str, device: torch.device | str = "cpu") -> Any:
    """Return only the open_clip model of that size."""
    torch.manual_seed(0)
    register_embedded()
    name = EMBEDDED_MODEL if size == "tiny" else "ViT-B-32-quickgelu"
    return open_clip.create_model(name).eval().requires_grad_(False).to(device)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model."""
    return next(model.parameters()).device


def mapper_config(size: str, mapper: str) -> MapperConfig:
    """Return the mapper's config file with the width and number of heads of the size."""
    sizes = {} if size == "tiny" else {"width": 768, "heads": 12}
    return MapperConfig(**named_configs("mapper", [mapper], {mapper: sizes})[mapper])


def random_batch(model: CLIPMapperVQA, count: int) -> tuple[Tensor, TextBatch]:
    """Return noise as images, [count, 3, H, W], and random sub-words as questions, on the model's device."""
    draw = torch.Generator().manual_seed(0)
    size = model.encoder.vision.visual.image_size[0]
    lengths = torch.tensor([LENGTHS[k % len(LENGTHS)] for k in range(count)])
    valid = torch.arange(int(lengths.max())) < lengths[:, None]
    ids = torch.randint(300, 40000, valid.shape, generator=draw)
    tokenizer = model.encoder.tokenizer
    ids[:, 0] = tokenizer.sot_token_id
    ids.scatter_(1, lengths[:, None] - 1, tokenizer.eot_token_id)
    device = device_of(model)
    return torch.randn(count, 3, size, size, generator=draw).to(device), TextBatch(ids * valid, valid, 0).to(device)
