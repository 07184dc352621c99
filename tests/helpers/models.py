"""Small models with random weights for tests: open_clip models as files, complete CLIPmappers, caption checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from schemas import mapper_config
from torch import Tensor, nn

from clipmapper.checkpoint import card
from clipmapper.config.schema import EncoderConfig
from clipmapper.data.datasets import load_captions
from clipmapper.encoder.load import FrozenClip, TextBatch, load_encoder
from clipmapper.errors import UserError
from clipmapper.nn import Tokens, TokenSubset
from clipmapper.tasks.caption.data import captions_of
from clipmapper.tasks.caption.model import CaptionMapper, CLIPMapperCaption, build_caption
from clipmapper.tasks.caption.vocabulary import CaptionVocabulary, build_vocabulary
from clipmapper.tasks.vqa.model import CLIPMapperVQA, VQAMapper

if TYPE_CHECKING:
    from tiny_runs import Tiny

# open_clip models

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
    """Register a model with open_clip and return its name."""
    config = {"embed_dim": 20, "vision_cfg": VISION | vision, "text_cfg": TEXT | text, **settings}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    open_clip.add_model_config(path)
    return name


@contextmanager
def without_initial_weights() -> Iterator[None]:
    """Create models without initializing their weights, so that a weight that is not loaded later makes a test fail."""
    names = ("kaiming_uniform_", "xavier_uniform_", "uniform_", "normal_")
    patches = [patch.object(nn.init, name, lambda tensor, *_, **__: tensor) for name in names]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def random_clip(name: str, seed: int = 0, std: float = 0.3) -> Any:
    """Return an open_clip model with random weights, none of which is 0 or 1, in evaluation mode."""
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
    """Save a model's weights as ``.safetensors`` or as a PyTorch state dict, depending on the suffix of ``path``."""
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
    """Return the message of the ``UserError`` that loading raises, and check that it is one line."""
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


# CLIPmappers for VQA

ANSWERS = ("no", "yes", "0", "1", "red")
LAYERS = {"a": 3, "b": 2}
QUESTIONS = ["is there a red circle?", "", "how many?", "what color is the thing left of it?", "yes"]


@cache
def random_encoder() -> FrozenClip:
    """Return an encoder with 9 patches, and with 2 layers in each tower."""
    folder = Path(mkdtemp(prefix="random-encoder-"))
    name = register(folder, "test-under-vqa", {}, {})
    return loaded(name, saved(random_clip(name), folder / "weights.safetensors"))


def random_vqa(
    name: str, readout: str = "cls", positions: str = "none", seed: int = 1, dtype: torch.dtype = torch.float32
) -> CLIPMapperVQA:
    """Return a frozen VQA model with mapper weights that are large enough for every token to affect the answer."""
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
    """Return images, and questions of different lengths, one of which is empty."""
    questions = [QUESTIONS[k % len(QUESTIONS)] for k in range(count)]
    return pictures(count, seed=seed), random_encoder().tokenize(questions)


# CLIPmappers for captions

WORDS = ("a red circle left of the blue square", "two small stars on grey ground")
CAPTIONS = ["a red circle on the ground", "two stars", "a", "small blue square left of a red star of two"]


def caption_vocabulary() -> CaptionVocabulary:
    encoder = random_encoder()
    return CaptionVocabulary({i for text in WORDS for i in encoder.tokenizer.encode(text)}, encoder.tokenizer)


def random_caption(
    name: str, positions: str = "none", readout: str = "cls", seed: int = 1, dtype: torch.dtype = torch.float64
) -> CLIPMapperCaption:
    """Return a frozen caption model with weights that are large enough for every token to affect the next one."""
    config = mapper_config(name, layers=LAYERS[name], width=16, heads=4, readout=readout, positions=positions)
    encoder = deepcopy(random_encoder())
    vision, text, words = encoder.vision, encoder.text, caption_vocabulary()
    torch.manual_seed(seed)
    caption = CaptionMapper(config, vision.width, text.width, vision.token_count, text.context_length, len(words))
    with torch.no_grad():
        for parameter in caption.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return CLIPMapperCaption(encoder, caption, words).eval().requires_grad_(False).to(dtype)


def image_tokens(model: CLIPMapperCaption, count: int, seed: int = 0) -> Tokens:
    return model.encoder.vision(pictures(count, seed=seed).to(next(model.parameters()).dtype))


def slow_greedy(model: CLIPMapperCaption, pixels: Tensor, max_length: int) -> list[int]:
    """Decode a caption of one image greedily, with the whole model for every token and without any cache."""
    ids = [model.vocabulary.start]
    while len(ids) <= max_length:
        batch = TextBatch(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool), 0)
        logits = model(pixels, batch)[0, -1].tolist()
        best = model.vocabulary.ids[logits.index(max(logits))]
        if best == model.vocabulary.end:
            break
        ids.append(best)
    return ids[1:]


# A caption checkpoint on the tests' tiny data

CAPTION_TASK = ("task=caption", "task.max_length=12", "task.vocabulary=all")
TEST_IMAGES = 10


def write_untrained(tiny: Tiny, folder: Path) -> Path:
    """Write a checkpoint of an untrained caption model.

    Any sub-word can follow any other, so that words have several sub-words. The weights are large enough for every
    token to affect the next one.
    """
    config = tiny.config(*CAPTION_TASK)
    encoder = load_encoder(config.encoder)
    captions = captions_of(load_captions(config.data).train.images)
    vocabulary = build_vocabulary("all", (encoder.tokenizer.encode(text) for text in captions), encoder.tokenizer)
    torch.manual_seed(3)
    model = build_caption(config.mapper, encoder, len(vocabulary))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    path = folder / "untrained.ckpt"
    about = card(config, encoder) | {"tokens": list(vocabulary.ids)}
    torch.save({"clipmapper": about, "state_dict": weights}, path)
    return path


def says(patch: pytest.MonkeyPatch, tiny: Tiny, captions: Sequence[str]) -> None:
    """Make the model generate the given captions in turn, whatever the images are."""
    tokenizer = load_encoder(tiny.config(*CAPTION_TASK).encoder).tokenizer
    number = count()

    def spoken(_: object, image: object, max_length: int) -> list[list[int]]:
        size = len(image.features)  # type: ignore[attr-defined]
        return [tokenizer.encode(captions[next(number) % len(captions)])[:max_length] for _ in range(size)]

    patch.setattr("clipmapper.tasks.caption.trained.greedy", spoken)


def words_of(ids: list[int], decoder: Any) -> list[list[int]]:
    """Return the positions of each word's sub-words, according to CLIP's mark of the end of a word."""
    words: list[list[int]] = [[]]
    for place, number in enumerate(ids):
        words[-1].append(place)
        if decoder[number].endswith("</w>"):
            words.append([])
    return [word for word in words if word]
