"""Random open_clip models, small enough for a test, as files that ``load_encoder`` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.errors import UserError
from clipmapper.nn.tokens import Tokens, TokenSubset

VISION = {"image_size": 24, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16}
TEXT = {"context_length": 12, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 2}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {}),
    "quick-gelu": ({}, {}, {"quick_gelu": True}),
    "custom-text": ({}, {}, {"custom_text": True}),
    "own-attention": ({"block_type": "custom"}, {"block_type": "custom"}, {}),
    "own-attention-custom-text": ({"block_type": "custom"}, {"scale_fc": True}, {"custom_text": True}),
    "layer-scale": (
        {"ls_init_value": 0.1, "no_ln_pre": True, "pos_embed_type": "sin_cos_2d", "patch_dropout": 0.5},
        {"ls_init_value": 0.1, "proj_bias": True},
        {},
    ),
    "no-projection": ({"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}}, {"proj_type": "none"}, {}),
}
Pair = tuple[FrozenClip, Any]
TEXTS = ["a red circle", "", "Is the small café's sign left of the big one?", "yes", "☃ and 🎉 naïve"]


def register(folder: Path, name: str, vision: dict[str, Any], text: dict[str, Any], **settings: Any) -> str:
    """Makes open_clip know a model; returns its name."""
    config = {"embed_dim": 20, "vision_cfg": VISION | vision, "text_cfg": TEXT | text, **settings}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return name


@contextmanager
def without_initial_weights() -> Iterator[None]:
    """Models start with whatever lies in memory: a weight that isn't filled afterwards can't go unnoticed."""
    names = ("kaiming_uniform_", "xavier_uniform_", "uniform_", "normal_")
    patches = [patch.object(nn.init, name, lambda tensor, *_, **__: tensor) for name in names]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def random_model(name: str, seed: int = 0, std: float = 0.3) -> Any:
    """An open_clip model none of whose weights is 0 or 1, in evaluation mode."""
    with without_initial_weights():
        model = open_clip.create_model(name)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0, std / max(1, tensor.shape[-1] / 32) ** 0.5 if tensor.ndim > 1 else std, generator=draw)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight += 1
    return model.eval().requires_grad_(False)


def saved(model: Any, path: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The model's weights as ``.safetensors``, or as a PyTorch state dict."""
    state = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


def loaded(name: str, path: Path) -> FrozenClip:
    with without_initial_weights():
        return load_encoder(EncoderConfig(model=name, weights=str(path)))


def pictures(count: int, size: int = 24, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    return Image.effect_noise((width, height), 90).convert(mode)


def refusal(name: str, weights: Path | str) -> str:
    """The one-line message of the ``UserError``."""
    with pytest.raises(UserError) as caught, without_initial_weights():
        load_encoder(EncoderConfig(model=name, weights=str(weights)))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    return message


def encoded(encoder: FrozenClip, texts: list[str], subset: TokenSubset | None = None) -> Tokens:
    batch = encoder.tokenize(texts)
    return encoder.text(batch.ids, batch.valid, subset)


@cache
def bpe() -> Any:
    return open_clip.get_tokenizer("ViT-B-32")
