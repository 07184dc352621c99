"""A whole caption model with random weights, small enough for a test, and greedy decoding as slow as can be."""

from __future__ import annotations

from copy import deepcopy

import torch
from clip_models import pictures
from torch import Tensor
from vqa_models import LAYERS, random_encoder

from clipmapper.encoder.load import TextBatch
from clipmapper.nn.tokens import Tokens
from clipmapper.tasks.caption.model import CaptionMapper, CLIPMapperCaption
from clipmapper.tasks.caption.vocabulary import CaptionVocabulary
from configs import mapper_config

WORDS = ("a red circle left of the blue square", "two small stars on grey ground")
CAPTIONS = ["a red circle on the ground", "two stars", "a", "small blue square left of a red star of two"]


def vocabulary() -> CaptionVocabulary:
    encoder = random_encoder()
    return CaptionVocabulary({i for text in WORDS for i in encoder.tokenizer.encode(text)}, encoder.tokenizer)


def random_caption(
    name: str, positions: str = "none", readout: str = "cls", seed: int = 1, dtype: torch.dtype = torch.float64
) -> CLIPMapperCaption:
    """Frozen, in evaluation mode; weights large enough that every token bears on the next one."""
    config = mapper_config(name, layers=LAYERS[name], width=16, heads=4, readout=readout, positions=positions)
    encoder = deepcopy(random_encoder())
    vision, text, words = encoder.vision, encoder.text, vocabulary()
    torch.manual_seed(seed)
    caption = CaptionMapper(config, vision.width, text.width, vision.token_count, text.context_length, len(words))
    with torch.no_grad():
        for parameter in caption.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return CLIPMapperCaption(encoder, caption, words).eval().requires_grad_(False).to(dtype)


def image_tokens(model: CLIPMapperCaption, count: int, seed: int = 0) -> Tokens:
    return model.encoder.vision(pictures(count, seed=seed).to(next(model.parameters()).dtype))


def slow_greedy(model: CLIPMapperCaption, pixels: Tensor, max_length: int) -> list[int]:
    """One picture; the whole model anew for every token, without any cache."""
    ids = [model.vocabulary.start]
    while len(ids) <= max_length:
        batch = TextBatch(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool), 0)
        logits = model(pixels, batch)[0, -1].tolist()
        best = model.vocabulary.ids[logits.index(max(logits))]
        if best == model.vocabulary.end:
            break
        ids.append(best)
    return ids[1:]
