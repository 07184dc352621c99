"""The token subsets that a batch is read on, asked for by name and read all at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipmapper.errors import UserError
from perturbation.measures import eraser
from perturbation.removal.engine import Engine, Modality, Whole
from perturbation.removal.order import Direction, kept_masks

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Name = tuple[str, ...]


class TokenScores(NamedTuple):
    """One modality's tokens: the patches, or the text stream with its padding."""

    removable: Mask  #: [B, n]
    scores: Mapping[str, Array]  #: [B, n], by explainer


class Answers(NamedTuple):
    """What the model says: the preferred answer's index and the probability of the answer asked about, [B, M] each."""

    preferred: NDArray[np.intp]
    probability: Array


def check_scores_of(tokens: TokenScores, modality: str, samples: Sequence[str]) -> None:
    """Raises ``UserError`` naming explainer and sample where a removable token's score is NaN or infinite.

    ``samples``: how the message calls them.
    """
    for name, scores in tokens.scores.items():
        broken = np.argwhere(tokens.removable & ~np.isfinite(scores))
        if len(broken):
            sample, token = broken[0]
            raise UserError(
                f"explainer={name}: {modality} token {token} of {samples[sample]} scores {scores[sample, token]}, "
                "which cannot be ranked; leave this explainer out, or mend it"
            )


def curve_masks(tokens: TokenScores, steps: Sequence[float], directions: Sequence[str]) -> Iterator[tuple[Name, Mask]]:
    """("curve", explainer, direction) → kept masks [B, S, n]."""
    for name, scores in tokens.scores.items():
        for direction in directions:
            yield ("curve", name, direction), kept_masks(scores, tokens.removable, steps, cast(Direction, direction))


def eraser_masks(tokens: TokenScores, shares: Sequence[float]) -> Iterator[tuple[Name, Mask]]:
    """("without_top" or "only_top", explainer) → kept masks [B, F, n] (``measures.eraser.eraser_masks``)."""
    for name, scores in tokens.scores.items():
        masks = eraser.eraser_masks(scores, tokens.removable, shares)
        yield ("without_top", name), masks.without_top
        yield ("only_top", name), masks.only_top


def single_masks(removable: Mask) -> Mask:
    """Kept masks [B, n, n], the i-th without token i; all of them where token i is not removable."""
    return ~(np.eye(removable.shape[1], dtype=np.bool_) & removable[:, None, :])


def read_masks(
    engine: Engine, whole: Whole, modality: Modality, asked: Tensor, masks: Mapping[Name, Mask]
) -> dict[Name, Answers]:
    """Reads every mask [B, M, n] in one pass, each distinct subset of a sample once."""
    kept = _over_stream(whole, modality, torch.from_numpy(np.concatenate(list(masks.values()), axis=1)))
    reading = engine.read(whole, modality, kept, asked)
    preferred, probability = reading.answers.cpu().numpy(), reading.probability.double().cpu().numpy()
    ends = np.cumsum([mask.shape[1] for mask in masks.values()])
    places = [slice(end - mask.shape[1], end) for mask, end in zip(masks.values(), ends, strict=True)]
    return {
        name: Answers(preferred[:, place], probability[:, place]) for name, place in zip(masks, places, strict=True)
    }


def _over_stream(whole: Whole, modality: Modality, kept: Tensor) -> Tensor:
    """As the engine takes masks: with the class token before the patches, and without the text's padding."""
    kept = kept.to(whole.pixels.device)
    if modality == "image":
        return torch.cat([kept.new_ones(*kept.shape[:2], 1), kept], 2)
    return kept & whole.questions.valid[:, None, :]
