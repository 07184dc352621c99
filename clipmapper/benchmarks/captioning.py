"""What decoding costs with keys and values kept, against the whole text and image anew for every token."""

from __future__ import annotations

import torch

from clipmapper.benchmarks.random_models import random_model
from clipmapper.benchmarks.timing import side_by_side
from clipmapper.captioning.decoding import greedy
from clipmapper.captioning.model import CLIPMapperCaption
from clipmapper.captioning.vocabulary import CaptionVocabulary
from clipmapper.checkpoint import build_caption
from clipmapper.config import MapperConfig
from clipmapper.tokens import Tokens

BATCH, LENGTH, ROUNDS = 32, 20, 2
CLASSES = 10_000  # about what COCO's training captions hold


def captioning(size: str, mapper: str) -> dict[str, float]:
    """The ratio of times for 32 captions of 20 tokens; the image's frozen tokens are there in both ways."""
    model = random_caption_model(size, mapper)
    vision = model.encoder.vision
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(BATCH, vision.token_count, vision.width, generator=draw)
    index = torch.arange(vision.token_count).expand(BATCH, -1)
    image = Tokens(features, torch.ones_like(index, dtype=torch.bool), index)
    ways = {
        "kept": lambda: greedy(model, image, LENGTH),
        "anew": lambda: greedy_without_caches(model, image, LENGTH),
    }
    seconds = side_by_side(ways, ROUNDS)
    label = f"{size}, mapper {mapper}: {BATCH} captions of {LENGTH} tokens"
    return {f"{label}, without caches, times decoding with them": seconds["anew"] / seconds["kept"]}


def random_caption_model(size: str, mapper: str) -> CLIPMapperCaption:
    """Random weights at a size of :func:`random_model`; it never ends a caption by itself."""
    encoder = random_model(size, mapper).encoder
    width, heads = (128, 4) if size == "tiny" else (768, 12)
    vocabulary = CaptionVocabulary(range(CLASSES), encoder.tokenizer)
    config = MapperConfig(name=mapper, layers={"a": 8, "b": 3}[mapper], width=width, heads=heads)
    caption = build_caption(config, encoder, len(vocabulary))
    model = CLIPMapperCaption(encoder, caption, vocabulary).eval().requires_grad_(False)
    head: torch.nn.Linear = caption.head[1]  # type: ignore[assignment]
    head.bias[vocabulary.ids.index(vocabulary.end)] = -1e9
    return model


@torch.inference_mode()
def greedy_without_caches(model: CLIPMapperCaption, image: Tokens, max_length: int) -> list[list[int]]:
    """The same captions, with everything computed again at every token."""
    of_class = torch.tensor(model.vocabulary.ids)
    ids = torch.full((len(image.features), 1), model.vocabulary.start)
    for _ in range(max_length):
        text = model.encoder.text(ids, torch.ones_like(ids, dtype=torch.bool))
        best = of_class[model.caption(image, text)[:, -1].argmax(1)]
        ids = torch.cat([ids, best[:, None]], 1)
    return ids[:, 1:].tolist()
