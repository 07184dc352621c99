"""The randomised layers, and the rank correlation."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from models import random_vqa, samples
from torch import nn

from clipmapper.errors import UserError
from perturbation.randomise.layers import layers_from_the_top, rank_correlation, redraw

Command = Callable[..., tuple[int, str, list[str]]]
NAMES = ("a", "b")


def parameters_of(parts: list[nn.Module | nn.Parameter]) -> list[nn.Parameter]:
    nested = [[part] if isinstance(part, nn.Parameter) else list(part.parameters()) for part in parts]
    return [parameter for each in nested for parameter in each]


@pytest.mark.parametrize(("name", "readout"), [("a", "cls"), ("a", "token"), ("b", "eot"), ("b", "token")])
def test_every_weight_that_affects_the_answer_is_in_exactly_one_layer(name: str, readout: str) -> None:
    model = random_vqa(name, readout, positions="learnt").requires_grad_(True)
    pixels, questions = samples(4)
    model(pixels, questions).sum().backward()
    layers = layers_from_the_top(model)
    listed = [parameter for parts in layers.values() for parameter in parameters_of(parts)]
    assert len({id(p) for p in listed}) == len(listed)
    missing = {n for n, p in model.named_parameters() if p.grad is not None} - {
        n for n, p in model.named_parameters() if any(p is other for other in listed)
    }
    assert not missing


@pytest.mark.parametrize(("name", "depth"), [("a", 3), ("b", 2)])
def test_layers_are_ordered_from_the_head_to_the_input(name: str, depth: int) -> None:
    model = random_vqa(name)
    layers = layers_from_the_top(model)
    mapper = [f"mapper {k}" for k in range(depth, 0, -1)]
    assert list(layers) == ["head", *mapper, "projections", "encoder 2", "encoder 1", "embeddings"]
    vision, text = model.encoder.vision, model.encoder.text
    assert layers["encoder 1"] == [vision.blocks[0], text.blocks[0]]
    assert layers["encoder 2"] == [vision.blocks[1], text.blocks[1], vision.visual.ln_post, text.text.ln_final]


def test_encoders_of_different_depth_are_aligned_at_the_last_block() -> None:
    model = random_vqa("b")
    model.encoder.text.blocks = model.encoder.text.blocks[1:]
    layers = layers_from_the_top(model)
    assert layers["encoder 2"][:2] == [model.encoder.vision.blocks[1], model.encoder.text.blocks[0]]
    assert layers["encoder 1"] == [model.encoder.vision.blocks[0]]


def test_redrawn_weights_keep_only_their_standard_deviation() -> None:
    parts: list[nn.Module | nn.Parameter] = [nn.Sequential(nn.LayerNorm(300), nn.Linear(300, 400))]
    norm, linear = parts[0].children()  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias):
            parameter.normal_()
        linear.weight.mul_(7).add_(5)
        linear.bias.fill_(3)
    spread, before = float(linear.weight.detach().std()), linear.weight.detach().clone()
    redraw(parts, torch.Generator().manual_seed(0))
    assert float(linear.weight.detach().std()) == pytest.approx(spread, rel=0.02)
    assert abs(float(linear.weight.detach().mean())) < 5 * spread / 120000**0.5
    assert abs(float(np.corrcoef(before.flatten(), linear.weight.detach().flatten())[0, 1])) < 0.02
    assert (norm.weight == 1).all()
    assert not norm.bias.any()
    assert not linear.bias.any()  # all entries were equal, so their standard deviation is 0
    again = deepcopy(parts)
    redraw(again, torch.Generator().manual_seed(1))
    assert not torch.equal(list(again[0].parameters())[2], linear.weight)


def test_rank_correlation_equals_a_slow_one() -> None:
    random = np.random.default_rng(0)
    eligible = random.random((50, 9)) < 0.8
    eligible[:, :3] = True
    first, second = random.normal(size=(50, 9)), random.integers(0, 4, (50, 9)).astype(float)
    first[:, 0], first[:, 1], second[:, 0], second[:, 1] = -9, 9, 0, 3
    first[::3] = first[::3].round()
    found = rank_correlation(first, np.where(eligible, second, np.nan), eligible)
    for b in range(50):
        ranks = [slow_ranks(scores[b][eligible[b]].tolist()) for scores in (first, second)]
        assert found[b] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert len(set(found.round(6))) > 40


def slow_ranks(values: list[float]) -> list[float]:
    """Rank values; the rank of equal values is the mean of their positions in sorted order."""
    ordered = sorted(values)
    return [float(np.mean([k for k, other in enumerate(ordered) if other == value])) for value in values]


def test_rank_correlation_of_known_orders() -> None:
    eligible = np.array([[True, True, True, False]] * 4)
    first = np.array([[1.0, 2, 3, 9], [1, 2, 3, 9], [1, 2, 3, 9], [5, 5, 5, 9]])
    second = np.array([[10.0, 20, 21, -9], [3, 2, 1, 0], [0, 0, 0, 1], [1, 2, 3, 4]])
    found = rank_correlation(first, second, eligible)
    assert found[:3].tolist() == pytest.approx([1, -1, 0], abs=1e-12)
    assert np.isnan(found[3])


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(UserError, match="token 0 of sample 0 is nan"):
        rank_correlation(np.array([[np.nan]]), np.array([[1.0]]), np.array([[True]]))
