"""CLIPScore and RefCLIPScore (Hessel et al. 2021, Eq. 1 and 2) in plain Python, one caption at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from PIL import Image

from clipmapper.encoder.load import FrozenClip


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def slow_scores(
    image: Sequence[float], caption: Sequence[float], references: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """Return both scores of the embeddings."""
    fit = 2.5 * max(cosine(image, caption), 0)
    closest = max(0.0, *(cosine(caption, reference) for reference in references))
    return fit, 2 * fit * closest / (fit + closest) if fit + closest else 0.0


@torch.no_grad()
def slow_clip_scores(
    encoder: FrozenClip, picture: Image.Image, caption: str, references: Sequence[str]
) -> tuple[float, float]:
    """Return both scores of a caption with its image and its references, each encoded separately."""

    def embedding(text: str) -> list[float]:
        batch = encoder.tokenize([f"A photo depicts {text}"])
        return encoder.text.pooled(encoder.text(batch.ids, batch.valid))[0].tolist()

    image = encoder.vision.pooled(encoder.vision(encoder.pixels([picture])))[0].tolist()
    return slow_scores(image, embedding(caption), [embedding(reference) for reference in references])
