"""Dual encoders, whose value is the similarity of an image and a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from explain.sample.hugging_face import image_options
from explain.sample.inputs import processed
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.base import Images, Scored, Texts, tokens_of


@dataclass(frozen=True, eq=False)
class DualScorer:
    """A pair of encoders; an image or a text that several pairs share is encoded once."""

    embed_images: Callable[[list[Any]], Tensor]  #: n images → [n, D]
    embed_texts: Callable[[list[Any]], Tensor]  #: n texts → [n, D]
    tokens: Mapping[str, str] = field(default_factory=dict)
    value: str = "similarity"
    answers: bool = False

    def ask(self, pairs: Sequence[Pair]) -> list[Any]:
        """Return None for each pair: a dual encoder has one similarity."""
        return [None] * len(pairs)

    @torch.inference_mode()
    def score(self, images: Images, texts: Texts, asked: Sequence[Any], say: bool) -> Scored:
        """Return the cosines of n images and their texts."""
        shown, image_of = _distinct(images, id)
        written, text_of = _distinct(texts, str)
        first, second = normalize(self.embed_images(shown), dim=-1), normalize(self.embed_texts(written), dim=-1)
        cosines = (first[image_of] * second[text_of]).sum(-1).double().cpu().numpy()
        return Scored([""] * len(asked), cosines)


def hugging_face_dual(model: Any, processor: Any) -> DualScorer:
    """Return the scorer of a CLIP, SigLIP or SigLIP 2 of ``transformers``."""
    longest = model.config.text_config.max_position_embeddings
    padding = "max_length" if model.config.model_type.startswith("siglip") else True

    def images(batch: list[Any]) -> Tensor:
        inputs = processed(model, processor, batch, None, **image_options(model, processor))
        found: Tensor = model.get_image_features(**inputs).pooler_output
        return found

    def texts(batch: list[Any]) -> Tensor:
        inputs = processed(model, processor, [], batch, padding=padding, truncation=True, max_length=longest)
        found: Tensor = model.get_text_features(**inputs).pooler_output
        return found

    return DualScorer(images, texts, tokens_of(processor.tokenizer))


def open_clip_dual(model: Any, processor: Any) -> DualScorer:
    """Return the scorer of an open_clip model; ``processor`` is the pair (preprocess, tokenizer)."""
    preprocess, tokenizer = processor
    weight = next(model.parameters())

    def images(batch: list[Any]) -> Tensor:
        pixels = torch.stack([preprocess(image) for image in batch])
        found: Tensor = model.encode_image(pixels.to(weight.device, weight.dtype))
        return found

    def texts(batch: list[Any]) -> Tensor:
        found: Tensor = model.encode_text(tokenizer(batch).to(weight.device))
        return found

    return DualScorer(images, texts)


def _distinct(values: Sequence[Any], key: Callable[[Any], Any]) -> tuple[list[Any], list[int]]:
    """Return the distinct values, and the place of each value among them."""
    places: dict[Any, int] = {}
    where = [places.setdefault(key(value), len(places)) for value in values]
    first = {place: value for value, place in zip(reversed(values), reversed(where), strict=True)}
    return [first[place] for place in range(len(places))], where
