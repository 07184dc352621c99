"""The probes give accuracies near 1 for tokens that contain the attributes, and chance accuracies for random tokens."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clipmapper.data.shapes.render import draw_masks
from clipmapper.data.shapes.scene import COLORS, SHAPES, Scene, sample_scene, truth
from clipmapper.encoder.pretraining import probes
from clipmapper.encoder.pretraining.probes import _balanced_accuracy, _ridge, linear_probes, zero_shot
from clipmapper.encoder.pretraining.targets import ATTRIBUTES, RELATED, patch_targets

SCENES = 160


def fake_encoder() -> Any:
    """Return the attributes of an encoder that the probes need, with 6 × 6 patches of 10 pixels."""
    visual = SimpleNamespace(image_size=(60, 60), grid_size=(6, 6))
    return SimpleNamespace(vision=SimpleNamespace(visual=visual))


def informative_tokens(_: Any, scenes: list[Scene]) -> Tensor:
    """Return patch tokens that contain the targets of the patch and its nearest object in one-hot form, with noise."""
    maps = np.stack([np.asarray(draw_masks(scene, 60)) for scene in scenes])
    seen = [truth(scene) for scene in scenes]
    targets = patch_targets(seen, maps, 6, Random(0))
    widths = [len(values) for values in ATTRIBUTES.values()]
    tokens = torch.zeros(len(scenes), 37, sum(widths) + len(RELATED) + len(COLORS) + len(SHAPES))
    for row in targets.is_object.nonzero()[:, 0].tolist():
        b, patch = int(targets.image[row]), int(targets.patch[row])
        attributes = [torch.eye(w)[k] for w, k in zip(widths, targets.attributes[row].tolist(), strict=True)]
        near = probes._nearest(seen[b], maps[b], patch, 6)
        near_color = torch.eye(len(COLORS))[list(COLORS).index(near.color)]
        near_shape = torch.eye(len(SHAPES))[SHAPES.index(near.shape)]
        tokens[b, 1 + patch] = torch.cat([*attributes, targets.related[row], near_color, near_shape])
    return tokens + 0.01 * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(0))


def random_tokens(_: Any, scenes: list[Scene]) -> Tensor:
    return torch.randn(len(scenes), 37, 32, generator=torch.Generator().manual_seed(0))


def test_informative_tokens_give_high_accuracies() -> None:
    found = linear_probes(fake_encoder(), SCENES, 0, informative_tokens)
    assert set(found) == {f"probe {name}" for name in (*ATTRIBUTES, "nearest color", "nearest shape", "relations")}
    for name, value in found.items():
        assert value > 0.93, (name, value)


def test_random_tokens_give_chance_accuracies() -> None:
    found = linear_probes(fake_encoder(), SCENES, 0, random_tokens)
    chances = {"color": 1 / 12, "shape": 0.1, "size": 0.6, "place": 0.25, "nearest color": 1 / 12}
    for name, chance in {**chances, "nearest shape": 0.1, "relations": 0.5}.items():
        assert found[f"probe {name}"] == pytest.approx(chance, abs=0.13), name


def test_ridge_equals_the_augmented_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((60, 5)) * [1, 10, 0.1, 3, 1] + 4, rng.standard_normal((60, 3))
    held_out = np.arange(60) >= 40
    mean, std = x[:40].mean(0), x[:40].std(0, ddof=1)
    z = np.concatenate([(x - mean) / std, np.ones((60, 1))], 1)
    left = np.concatenate([z[:40], np.sqrt(probes._RIDGE) * np.eye(6)])
    weights = np.linalg.lstsq(left, np.concatenate([y[:40], np.zeros((6, 3))]), rcond=None)[0]
    found = _ridge(torch.tensor(x).float(), torch.tensor(y).float(), torch.tensor(held_out))
    np.testing.assert_allclose(found.numpy(), z[40:] @ weights, atol=1e-4)


def test_ridge_does_not_use_the_held_out_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 4, generator=generator), torch.randn(50, 2, generator=generator)
    held_out = torch.arange(50) >= 40
    other = torch.where(held_out[:, None], torch.randn(50, 2, generator=generator), y)
    torch.testing.assert_close(_ridge(x, y, held_out), _ridge(x, other, held_out))


def test_balanced_accuracy_of_perfect_opposite_and_constant_scores() -> None:
    related = (torch.rand(200, 5, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    held_out = torch.arange(200) >= 100
    true = related[held_out]
    assert _balanced_accuracy(true, related, held_out) == pytest.approx(1.0)
    assert _balanced_accuracy(1 - true, related, held_out) == pytest.approx(0.0)
    assert _balanced_accuracy(torch.zeros_like(true), related, held_out) == pytest.approx(0.5)


def test_zero_shot_classification_finds_the_attributes_in_the_image_embedding() -> None:
    """Use a fake encoder in whose shared space every word is an axis and an image is the sum of its words."""
    words = [value for values in ATTRIBUTES.values() for value in values]
    axes = torch.eye(len(words))

    def tokenize(texts: list[str]) -> Any:
        return SimpleNamespace(ids=texts, valid=None)

    def text(texts: list[str], _: None) -> Tensor:
        return torch.stack(
            [sum((axes[k] for k, w in enumerate(words) if f" {w} " in f" {t} "), axes[0] * 0) for t in texts]
        )

    text.pooled = lambda tokens: tokens  # type: ignore[attr-defined]

    def pooled(_: Any, scenes: list[Scene]) -> Tensor:
        rows = []
        for scene in scenes:
            s = truth(scene)[0]
            corner = f"{'bottom' if s.y >= 0.5 else 'top'} {'right' if s.x >= 0.5 else 'left'}"
            rows.append(axes[[words.index(w) for w in (s.color, s.shape, s.size, corner)]].sum(0))
        return torch.stack(rows)

    encoder: Any = SimpleNamespace(tokenize=tokenize, text=text)
    assert zero_shot(encoder, 60, 0, pooled) == {f"zero-shot {name}": 1.0 for name in ATTRIBUTES}
    torch.manual_seed(0)
    found = zero_shot(encoder, 200, 0, lambda _, scenes: torch.randn(len(scenes), len(words)))
    for name, chance in {"color": 1 / 12, "shape": 0.1, "size": 0.5, "place": 0.25}.items():
        assert found[f"zero-shot {name}"] == pytest.approx(chance, abs=0.1)


def test_the_nearest_object_has_the_smallest_distance() -> None:
    for i in range(20):
        scene = sample_scene(Random(f"nearest {i}"))
        seen, objects = truth(scene), np.asarray(draw_masks(scene, 60))
        for own in seen:
            patch = 6 * int(own.y * 6) + int(own.x * 6)
            cell = objects[10 * (patch // 6) :, 10 * (patch % 6) :][:10, :10]
            if (cell == own.index + 1).sum() > 60:
                rest = sorted((np.hypot(s.x - own.x, s.y - own.y), s.index) for s in seen if s is not own)
                assert probes._nearest(seen, objects, patch, 6).index == rest[0][1]
