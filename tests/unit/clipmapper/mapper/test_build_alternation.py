"""Tests that a new mapper A attends within a modality and across modalities, block by block in turn."""

from __future__ import annotations

import pytest
import torch
from schemas import mapper_config
from torch import Tensor

from clipmapper.mapper.build import QUERY_GAIN, alternate_modalities, build_mapper, start_aligned
from clipmapper.mapper.single_stream import SingleStream
from clipmapper.nn import Tokens
from explain.capture.recording import record


def _tokens(features: Tensor) -> Tokens:
    batch, count, _ = features.shape
    valid = torch.ones(batch, count, dtype=torch.bool)
    valid[0, -1] = False
    return Tokens(features, valid, torch.arange(count).expand(batch, count))


def _initialised(seed: int) -> tuple[SingleStream, Tokens, Tokens]:
    """Return an initialised mapper A, and image and text tokens that vary around two different means."""
    torch.manual_seed(seed)
    mapper = build_mapper(mapper_config("a", layers=4, width=64, heads=2), 32, 32, 12, 9)
    assert isinstance(mapper, SingleStream)
    image = _tokens(torch.randn(20, 12, 32) + 3 * torch.randn(32))
    text = _tokens(torch.randn(20, 9, 32) + 3 * torch.randn(32))
    start_aligned(mapper, torch.randn(32, 64), torch.randn(32, 64))
    alternate_modalities(mapper, image, text)
    return mapper, image, text


@pytest.mark.parametrize("seed", [0, 1])
def test_modality_means_are_opposite_and_as_long_as_their_tokens_vary(seed: int) -> None:
    mapper, image, text = _initialised(seed)
    means, spreads = [], []
    for projection, tokens in ((mapper.project_image, image), (mapper.project_text, text)):
        x = projection(tokens)[tokens.valid]
        means.append(x.mean(0))
        spreads.append((x - x.mean(0)).norm(dim=1).mean())
    for mean, spread in zip(means, spreads, strict=True):
        torch.testing.assert_close(mean.norm(), spread)
    cosine: Tensor = torch.nn.functional.cosine_similarity(means[0], means[1], dim=0)
    assert cosine.item() == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_attend_within_and_across_modalities_in_turn(seed: int) -> None:
    mapper, image, text = _initialised(seed)
    for name, weight in mapper.named_parameters():  # blocks add nothing, so that every block sees the input tokens
        if name.endswith(("out.weight", "outer.weight")):
            torch.nn.init.zeros_(weight)
    with record() as recorder:
        v, t = mapper(
            Tokens(recorder.inputs("image", image.features), image.valid, image.index),
            Tokens(recorder.inputs("text", text.features), text.valid, text.index),
        )
        trace = recorder.trace(v.sum((1, 2)) + t.sum((1, 2)), {"image": 12, "text": 9})
    for place, step in enumerate(trace.steps):
        probabilities = step.attention.mean((0, 1))
        within = torch.stack([probabilities[:12, :12].sum(1).mean() / 12, probabilities[12:, 12:].sum(1).mean() / 9])
        across = torch.stack([probabilities[:12, 12:].sum(1).mean() / 9, probabilities[12:, :12].sum(1).mean() / 12])
        assert bool((across > within).all() if place % 2 else (within > across).all())


def test_query_weights_are_orthogonal_times_the_gain() -> None:
    mapper, _, _ = _initialised(0)
    for name, weight in mapper.named_parameters():
        if name.endswith("query.weight"):
            torch.testing.assert_close(weight @ weight.T, QUERY_GAIN**2 * torch.eye(64), atol=1e-4, rtol=0)
