"""Pre-training of the embedded encoder: targets, losses, switches, and the weights that leave it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from schemas import values
from torch.nn import functional as F

from clipmapper.config.schema import EncoderConfig, PretrainConfig
from clipmapper.data.shapes.render import draw_masks
from clipmapper.data.shapes.scene import COLORS, SHAPES, SIZES, sample_scene, truth
from clipmapper.encoder.embedded import EMBEDDED_MODEL, register_embedded, restore_token_table, seeded_token_table
from clipmapper.encoder.load import load_encoder
from clipmapper.encoder.pretraining.pool import CAPTION_KINDS, Pool, draw_pool, sample_batch, turn_array
from clipmapper.encoder.pretraining.run import PIXELS, save
from clipmapper.encoder.pretraining.targets import (
    ABSENT,
    ATTRIBUTES,
    RELATED,
    attribute_prompts,
    patch_targets,
    relation_prompts,
)
from clipmapper.encoder.pretraining.train import Pretraining, Words, pretrain

SWITCHES: list[dict[str, Any]] = [
    {"caption_weight": 0.0},
    {"patch_weight": 0.0},
    {"prompt_weight": 0.0},
    {"twins": False},
    {"caption_kinds": False},
]


@cache
def pool() -> Pool:
    return draw_pool(64, PIXELS, 0, 1)


def settings(**changes: Any) -> PretrainConfig:
    return PretrainConfig(**{**values("pretrain_clip"), "steps": 2, "batch_size": 16, "warmup_steps": 2, **changes})


def train(**changes: Any) -> tuple[Pretraining, list[dict[str, float]]]:
    parts: list[dict[str, float]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return pretrain(settings(**changes), pool(), lambda step, part, model: parts.append(part)), parts
    finally:
        torch.set_num_threads(threads)


@cache
def trained() -> tuple[Pretraining, list[dict[str, float]]]:
    return train(steps=14, lr=3e-3)


def test_a_pool_is_the_same_for_a_seed_whatever_the_number_of_workers() -> None:
    one, two, other = draw_pool(8, PIXELS, 0, 1), draw_pool(8, PIXELS, 0, 2), draw_pool(8, PIXELS, 1, 1)
    assert one.scenes == two.scenes == pool().scenes[:8]
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.maps, two.maps)
    assert (one.images != other.images).any((1, 2, 3)).all()


def test_a_batch_with_twins_holds_each_scene_beside_its_twin_turned_the_same_way() -> None:
    batch = sample_batch(pool(), 16, True, CAPTION_KINDS, Random(0))
    assert len(batch.images) == len(batch.captions) == len(batch.seen) == 16
    for k in range(0, 16, 2):
        found = [
            (pair, turn, mirrored)
            for pair in range(32)
            for turn in range(4)
            for mirrored in (False, True)
            if all(
                np.array_equal(batch.images[k + j], turn_array(pool().images[2 * pair + j], turn, mirrored))
                and np.array_equal(batch.maps[k + j], turn_array(pool().maps[2 * pair + j], turn, mirrored))
                for j in (0, 1)
            )
        ]
        assert len({pair for pair, _, _ in found}) == 1


def test_without_twins_a_batch_holds_no_scene_twice() -> None:
    batch = sample_batch(pool(), 32, False, 1, Random(0))
    origin = [_pair_of(image) for image in batch.images]
    assert len(set(origin)) == 32


def _pair_of(image: np.ndarray) -> int:
    histograms = np.sort(pool().images.reshape(64, -1), 1)
    (places,) = np.nonzero((histograms == np.sort(image.ravel())).all(1))
    return int(places[0]) // 2


@pytest.mark.parametrize("twins", [True, False])
def test_the_objects_of_a_batch_lie_where_its_maps_say(twins: bool) -> None:
    batch = sample_batch(pool(), 16, twins, CAPTION_KINDS, Random(1))
    for seen, objects in zip(batch.seen, batch.maps, strict=True):
        for s in seen:
            rows, columns = np.nonzero(objects == s.index + 1)
            assert abs((columns.mean() + 0.5) / PIXELS - s.x) < 0.1  # moons and hearts are lopsided
            assert abs((rows.mean() + 0.5) / PIXELS - s.y) < 0.1


def slow_patch(objects: np.ndarray, patch: int, index: int) -> float:
    """The share of a 10 × 10 patch that belongs to an object; index 0 is any object."""
    top, left = 10 * (patch // 6), 10 * (patch % 6)
    count = 0
    for row in range(top, top + 10):
        for column in range(left, left + 10):
            count += objects[row, column] == index if index else objects[row, column] > 0
    return count / 100


def test_patch_targets_equal_a_slow_loop() -> None:
    scenes = [sample_scene(Random(f"patches {i}"), 1, 4) for i in range(6)]
    maps = np.stack([np.asarray(draw_masks(scene, 60)) for scene in scenes])
    maps[0, np.arange(60) % 4 > 0] = 0  # thin objects, which cover no patch well
    seen = [truth(scene) for scene in scenes]
    targets = patch_targets(seen, maps, 6, Random(0))
    found: dict[tuple[int, int, tuple[int, ...]], list[float]] = {}
    background = []
    for b, patch, attributes, related, is_object in zip(
        *(t.tolist() for t in (targets.image, targets.patch, targets.attributes, targets.related, targets.is_object)),
        strict=True,
    ):
        if is_object:
            found[b, patch, tuple(attributes)] = related
        else:
            background.append((b, patch))
            assert attributes == [ABSENT, len(SHAPES), ABSENT, ABSENT]
    expected = {}
    for b, objects in enumerate(maps):
        for s in seen[b]:
            shares = [slow_patch(objects, patch, s.index + 1) for patch in range(36)]
            for patch, share in enumerate(shares):
                if share > min(0.3, 0.8 * max(shares)):
                    expected[b, patch, slow_attributes(s)] = slow_related(s, seen[b])
    assert found == expected
    assert len(background) == len(set(background)) == 12
    assert all(slow_patch(maps[b], patch, 0) == 0 for b, patch in background)


def slow_attributes(s: Any) -> tuple[int, ...]:
    corner = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}[(s.x >= 0.5, s.y >= 0.5)]
    return list(COLORS).index(s.color), SHAPES.index(s.shape), SIZES.index(s.size), corner


def slow_related(s: Any, scene: Any) -> list[float]:
    tests = {
        "left of": lambda o: o.x - s.x > 0.03,
        "right of": lambda o: s.x - o.x > 0.03,
        "above": lambda o: o.y - s.y > 0.03,
        "below": lambda o: s.y - o.y > 0.03,
    }
    return [
        float(any(o is not s and tests[relation](o) and neighbour in (o.color, o.shape) for o in scene))
        for relation, neighbour in RELATED
    ]


def test_prompts_are_in_the_order_of_the_targets() -> None:
    values = [value for attribute in ATTRIBUTES.values() for value in attribute]
    prompts = attribute_prompts(Random(0))
    assert len(prompts) == len(values)
    assert all(f" {value}" in f" {prompt}" for value, prompt in zip(values, prompts, strict=True))
    words = {"left of": "left of", "right of": "right of", "above": "above over higher", "below": "below under lower"}
    for (relation, neighbour), prompt in zip(RELATED, relation_prompts(Random(0)), strict=True):
        assert any(word in prompt for word in ([relation] if "of" in relation else words[relation].split()))
        assert f"the {neighbour}" in prompt


def test_words_are_clips_own_tokens() -> None:
    words, tokenizer = Words(), open_clip.get_tokenizer(EMBEDDED_MODEL)
    texts = ["a small red circle", "two crosses and a red moon", "what color is the thing?", "a small red circle"]
    for text in texts:
        ids = [words.used[row] for row in words.rows(text)]
        whole = tokenizer([text])[0].tolist()
        assert ids == whole[: len(ids)]
        assert not any(whole[len(ids) :])
    assert len(set(words.used)) == len(words.used)


def test_the_losses_fall_in_a_few_steps() -> None:
    _, parts = trained()
    losses = [name for name in parts[0] if not name.startswith("acc/")]
    assert len(losses) == 5
    for name in losses:
        first, last = (float(np.mean([part[name] for part in some])) for some in (parts[:3], parts[-3:]))
        assert last < first, name
    total = [sum(part[name] for name in losses) for part in parts]
    assert np.mean(total[-3:]) < 0.9 * np.mean(total[:3])


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    (a, _), (b, _), (c, _) = train(), train(), train(seed=1)
    for name, tensor in a.weights().items():
        assert torch.equal(tensor, b.weights()[name]), name
    assert not torch.equal(a.clip.visual.proj, c.clip.visual.proj)


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: next(iter(switch)))
def test_every_switch_runs_and_takes_its_part_out(switch: dict[str, Any]) -> None:
    name = next(iter(switch)).removesuffix("_weight")
    _, parts = train(steps=1, batch_size=8, **switch)
    left = {part.split()[0] for part in parts[0] if not part.startswith("acc/")}
    gone = {"caption": "captions", "patch": "patches", "prompt": "prompts"}.get(name)
    assert left == {"captions", "patches", "prompts"} - {gone}
    assert all(np.isfinite(list(parts[0].values())))


def test_one_kind_of_captions_lists_all_objects() -> None:
    batch = sample_batch(pool(), 32, True, 1, Random(0))
    for seen, text in zip(batch.seen, batch.captions, strict=True):
        assert all(s.color in text and s.shape in text for s in seen)


def whole_model(weights: dict[str, torch.Tensor]) -> Any:
    register_embedded()
    model = open_clip.create_model(EMBEDDED_MODEL)
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def test_tokens_and_embeddings_equal_open_clips_own() -> None:
    model = trained()[0].eval()
    whole = whole_model(model.weights())
    texts = ["a small red circle", "the object left of the blue thing", "moon"]
    expected = whole.encode_text(open_clip.get_tokenizer(EMBEDDED_MODEL)(texts), normalize=True)
    torch.testing.assert_close(model.text_embeddings(texts), expected, atol=1e-5, rtol=0)
    images = torch.from_numpy(pool().images[:5])
    mean, std = (torch.tensor(whole.visual.preprocess_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    pixels = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    tokens = model.image_tokens(images)
    torch.testing.assert_close(tokens[:, 0] @ whole.visual.proj, whole.encode_image(pixels), atol=1e-5, rtol=0)
    patches = whole.visual.forward_intermediates(
        pixels, indices=1, intermediates_only=True, normalize_intermediates=True, output_fmt="NLC"
    )["image_intermediates"][-1]
    torch.testing.assert_close(tokens[:, 1:], patches, atol=1e-5, rtol=0)


def test_only_the_words_met_differ_from_the_seeded_table() -> None:
    model = trained()[0]
    table = model.weights()["token_embedding.weight"]
    changed = (table != seeded_token_table(*table.shape)).any(1).nonzero()[:, 0].tolist()
    assert set(changed) <= set(model.words.used)
    assert len(changed) > 40


@torch.no_grad()
def test_saved_weights_load_as_the_frozen_encoder(tmp_path: Path) -> None:
    model = trained()[0]
    save(model, tmp_path)
    path = tmp_path / f"{EMBEDDED_MODEL}.safetensors"
    assert path.stat().st_size < 4_000_000
    encoder = load_encoder(EncoderConfig(model=EMBEDDED_MODEL, weights=str(path)))
    for name, tensor in whole_model(model.weights()).state_dict().items():
        loaded = encoder.text.text.state_dict()[name]
        torch.testing.assert_close(loaded, tensor, atol=1e-3, rtol=1e-3)
    texts = ["a small red circle", "an unseen zebra"]
    batch = encoder.tokenize(texts)
    own = F.normalize(encoder.text.pooled(encoder.text(batch.ids, batch.valid)), dim=-1)
    expected = whole_model(model.weights()).encode_text(open_clip.get_tokenizer(EMBEDDED_MODEL)(texts), normalize=True)
    torch.testing.assert_close(own, expected, atol=5e-3, rtol=0)


def test_a_table_that_was_not_shortened_stays_as_it_is() -> None:
    weights = trained()[0].weights()
    assert restore_token_table(weights) is weights
