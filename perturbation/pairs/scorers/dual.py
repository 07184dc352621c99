"""Dual encoders, whose value is the similarity of an image and a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from clipmapper.encoder.towers import VisionTower
from clipmapper.nn import TokenSubset
from explain.sample.hugging_face import image_options
from explain.sample.inputs import processed
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.base import Images, PartOfImage, Scored, Texts, tokens_of


class Encoder:
    """One of the two encoders: equal inputs of a batch are encoded once, and complete ones once for all batches.

    Args:
        embed: Encodes n inputs, [n, D].
        key: Returns what equal inputs have in common. It may be their identity, because complete inputs are kept alive.
    """

    def __init__(self, embed: Callable[[list[Any]], Tensor], key: Callable[[Any], Any]) -> None:
        self.embed, self.key = embed, key
        self._complete: dict[Any, Any] = {}
        self._kept: dict[Any, Tensor] = {}

    def keep(self, complete: Sequence[Any]) -> None:
        """Forget what was kept, and keep the embeddings of these inputs from now on."""
        self._complete = {self.key(value): value for value in complete}
        self._kept = {}

    def __call__(self, values: Sequence[Any]) -> Tensor:
        """Return the normalised embeddings of n inputs, [n, D]."""
        keys = [self.key(value) for value in values]
        new = {key: value for key, value in zip(keys, values, strict=True) if key not in self._kept}
        found = dict(self._kept)
        if new:
            found |= zip(new, normalize(self.embed([*new.values()]), dim=-1), strict=True)
        self._kept |= {key: found[key].clone() for key in new if key in self._complete}
        return torch.stack([found[key] for key in keys])


@dataclass(frozen=True, eq=False)
class DualScorer:
    """A pair of encoders; an image or a text that several pairs share is encoded once."""

    images: Encoder
    texts: Encoder
    tokens: Mapping[str, str] = field(default_factory=dict)
    value: str = "similarity"
    answers: bool = False
    drops: bool = False

    def ask(self, pairs: Sequence[Pair]) -> list[Any]:
        """Return None for each pair: a dual encoder has one similarity."""
        return [None] * len(pairs)

    def text(self, asked: Any) -> str:
        """Return no text."""
        return ""

    def keep(self, pairs: Sequence[Pair]) -> None:
        """Keep the embeddings of these complete images and texts, until the next call."""
        self.images.keep([pair.image for pair in pairs])
        self.texts.keep([pair.text for pair in pairs])

    @torch.inference_mode()
    def score(self, images: Images, texts: Texts, asked: Sequence[Any], say: bool) -> Scored:
        """Return the cosines of n images and their texts."""
        cosines = (self.images(images) * self.texts(texts)).sum(-1).double().cpu().numpy()
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

    return DualScorer(Encoder(images, id), Encoder(texts, str), tokens_of(processor.tokenizer))


def open_clip_dual(model: Any, processor: Any) -> DualScorer:
    """Return the scorer of an open_clip model; ``processor`` is the pair (preprocess, tokenizer)."""
    preprocess, tokenizer = processor
    weight = next(model.parameters())

    def images(batch: list[Any]) -> Tensor:
        parts = [each if isinstance(each, PartOfImage) else None for each in batch]
        whole = [each if part is None else part.image for each, part in zip(batch, parts, strict=True)]
        pixels = torch.stack([preprocess(image) for image in whole]).to(weight.device, weight.dtype)
        if any(parts):
            tower = VisionTower(model.visual)
            kept = torch.ones(len(batch), tower.token_count, dtype=torch.bool)  # the class token comes first
            for row, part in enumerate(parts):
                if part is not None:
                    kept[row, 1:] = torch.tensor(part.kept)
            return tower.pooled(tower(pixels, TokenSubset.from_mask(kept.to(weight.device))))
        found: Tensor = model.encode_image(pixels)
        return found

    def texts(batch: list[Any]) -> Tensor:
        found: Tensor = model.encode_text(tokenizer(batch).to(weight.device))
        return found

    return DualScorer(Encoder(images, id), Encoder(texts, str), drops=True)
