"""Tests of both mappers against slow reference loops that follow their description."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from schemas import mapper_config
from slow_mappers import SLOW
from torch import Tensor

from clipmapper.config.schema import MapperConfig
from clipmapper.mapper.build import Mapper, build_mapper
from clipmapper.nn import Tokens, TokenSubset, take
from explain.capture.recording import record

IMAGE_WIDTH, TEXT_WIDTH, PLACES = 10, 6, 9
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
NAMES, READOUTS = ("a", "b"), ("cls", "eot", "token")
LAYERS = {"a": 3, "b": 2}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def small_config(name: str, readout: str = "cls", positions: str = "none", **more: Any) -> MapperConfig:
    sizes = {"layers": LAYERS[name], "width": 16, "heads": 4}
    return mapper_config(name, **{**sizes, "readout": readout, "positions": positions, **more})


def built(config: MapperConfig, dtype: torch.dtype = torch.float64) -> Mapper:
    """Return a mapper with no weight equal to 0 or 1."""
    torch.manual_seed(3)
    mapper = build_mapper(config, IMAGE_WIDTH, TEXT_WIDTH, PLACES, PLACES)
    with torch.no_grad():
        for parameter in mapper.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return mapper.to(dtype).eval()


def tokens(lengths: list[int], width: int, seed: int, padded_to: int | None = None) -> Tokens:
    """Return random tokens with large values in the padding, so that any influence of it is noticed."""
    n = padded_to or max(lengths)
    features = torch.randn(len(lengths), n, width, generator=torch.Generator().manual_seed(seed)).double()
    valid = torch.arange(n) < torch.tensor(lengths)[:, None]
    index = torch.arange(n).expand(len(lengths), -1)
    return Tokens(features.masked_fill(~valid[..., None], 50.0), valid, index)


def batch_of_three() -> tuple[Tokens, Tokens]:
    return tokens([9, 5, 7], IMAGE_WIDTH, 0), tokens([3, 6, 2], TEXT_WIDTH, 1)


def item(x: Tokens, b: int) -> Tokens:
    """Return one sample without its padding."""
    n = int(x.valid[b].sum())
    return Tokens(x.features[b : b + 1, :n], x.valid[b : b + 1, :n], x.index[b : b + 1, :n])


@pytest.mark.parametrize("positions", ["none", "learnt"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("readout", ["cls", "token"])
@pytest.mark.parametrize("name", NAMES)
def test_a_padded_batch_equals_the_slow_loop_over_each_sample(
    name: str, readout: str, causal: bool, positions: str
) -> None:
    mapper = built(small_config(name, readout, positions))
    image, text = batch_of_three()
    with torch.no_grad():
        v, t = mapper(image, text, causal=causal)
        extra = int(readout == "token")
        for b in range(3):
            slow_v, slow_t = SLOW[name](mapper, item(image, b), item(text, b), causal)
            torch.testing.assert_close(v[b, : len(slow_v)], slow_v)
            torch.testing.assert_close(t[b, : len(slow_t)], slow_t)
            assert len(slow_v) == int(image.valid[b].sum()) + extra


# --- size --------------------------------------------------------------------------------------------------------


def block_weights(name: str, layers: int, width: int) -> tuple[int, int]:
    """Count the weights of all layers: those in matrices, and all of them (with biases and norms)."""
    with torch.device("meta"):
        mapper: Any = build_mapper(small_config(name, layers=layers, width=width, heads=4), 768, 512, 50, 77)
    parts = (mapper.attentions, mapper.feed_forwards) if name == "a" else (mapper.image_layers, mapper.text_layers)
    parameters = [parameter for part in parts for parameter in part.parameters()]
    total = sum(parameter.numel() for parameter in parameters)
    outside = [*mapper.project_image.parameters(), *mapper.project_text.parameters(), *mapper.read.parameters()]
    assert total + sum(parameter.numel() for parameter in outside) == sum(p.numel() for p in mapper.parameters())
    return sum(parameter.numel() for parameter in parameters if parameter.ndim == 2), total


@pytest.mark.parametrize("width", [128, 512, 768])
def test_both_mappers_have_96_d2_block_weights(width: int) -> None:
    (matrices_a, total_a), (matrices_b, total_b) = block_weights("a", 8, width), block_weights("b", 3, width)
    assert matrices_a == matrices_b == 96 * width**2
    for total in (total_a, total_b):
        assert abs(total / (96 * width**2) - 1) < 0.02
    assert abs(total_a / total_b - 1) < 0.02


def test_the_config_files_have_8_and_3_layers() -> None:
    folder = Path(__file__).resolve().parents[4] / "configs" / "mapper"
    for name, layers in (("a", 8), ("b", 3)):
        assert f"name: {name}\nlayers: {layers}\n" in (folder / f"{name}.yaml").read_text(encoding="utf-8")


# --- readout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["none", "learnt"])
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_readout_equals_the_token_of_the_full_forward_pass(name: str, readout: str, positions: str) -> None:
    mapper = built(small_config(name, readout, positions))
    image, text = batch_of_three()
    v, t = mapper(image, text)
    assert v.shape == (3, 9 + (readout == "token"), 16)
    assert t.shape == (3, 6, 16)
    expected = t[torch.arange(3), torch.tensor([2, 5, 1])] if readout == "eot" else v[:, 0]
    torch.testing.assert_close(mapper.readout(image, text), expected)
    with torch.no_grad():
        torch.testing.assert_close(mapper.readout(image, text), expected.detach())
    with record():
        torch.testing.assert_close(mapper.readout(image, text), expected)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_readout_equal_those_of_the_full_forward_pass(name: str, readout: str) -> None:
    mapper = built(small_config(name, readout, "learnt"))
    image, text = batch_of_three()
    v, t = mapper(image, text)
    picked = t[torch.arange(3), text.last] if readout == "eot" else v[:, 0]
    parameters = dict(mapper.named_parameters())
    slow = torch.autograd.grad(picked.square().sum(), list(parameters.values()), allow_unused=True)
    fast = torch.autograd.grad(mapper.readout(image, text).square().sum(), list(parameters.values()), allow_unused=True)
    for parameter, one, other in zip(parameters, slow, fast, strict=True):
        zero = torch.zeros(())
        assert (one is None or not one.any()) == (other is None or not other.any()), parameter
        torch.testing.assert_close(zero if one is None else one, zero if other is None else other, msg=parameter)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_readout_depends_on_both_modalities(name: str, readout: str) -> None:
    mapper = built(small_config(name, readout))
    image, text = batch_of_three()
    before = mapper.readout(image, text)
    for changed in (
        (replace(image, features=image.features + 0.1), text),
        (image, replace(text, features=text.features + 0.1)),
    ):
        assert ((mapper.readout(*changed) - before).abs().amax(1) > 1e-4).all()


# --- padding, positions, removal ---------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_padding_and_the_other_samples_of_a_batch_change_nothing(name: str, readout: str) -> None:
    mapper = built(small_config(name, readout))
    image, text = batch_of_three()
    together = mapper.readout(image, text)
    for b in range(3):
        torch.testing.assert_close(mapper.readout(item(image, b), item(text, b)), together[b : b + 1])
    order = torch.tensor([2, 0, 1])
    shuffled = [Tokens(x.features[order], x.valid[order], x.index[order]) for x in (image, text)]
    torch.testing.assert_close(mapper.readout(*shuffled), together[order])
    other = [replace(x, features=x.features.masked_fill(~x.valid[..., None], -7.0)) for x in (image, text)]
    torch.testing.assert_close(mapper.readout(*other), together, rtol=0, atol=0)


@pytest.mark.parametrize("positions", ["none", "learnt"])
@pytest.mark.parametrize("name", NAMES)
def test_deleting_tokens_equals_masking_them_and_the_others_keep_their_positions(name: str, positions: str) -> None:
    mapper = built(small_config(name, positions=positions))
    image, text = batch_of_three()
    keep = image.valid & torch.tensor([True, False, True, True, False, False, True, True, False])
    subset = TokenSubset.from_mask(keep)
    fewer = Tokens(take(image.features, subset.index), subset.valid, subset.index)
    expected_v, expected_t = mapper(replace(image, valid=keep), text)
    v, t = mapper(fewer, text)
    torch.testing.assert_close(t[text.valid], expected_t[text.valid])
    torch.testing.assert_close(v[subset.valid], take(expected_v, subset.index)[subset.valid])
    renumbered = replace(fewer, index=torch.arange(subset.index.shape[1]).expand_as(subset.index))
    assert torch.equal(mapper(renumbered, text)[1], t) == (positions == "none")


def test_learnt_positions_are_added_by_index_in_each_modality() -> None:
    mapper: Any = built(small_config("a", positions="learnt"))
    image, text = batch_of_three()
    for projection, x in ((mapper.project_image, image), (mapper.project_text, text)):
        added = projection(x) - projection.linear(x.features)
        torch.testing.assert_close(added, projection.positions.weight[x.index])
        assert len(projection.positions.weight.unique(dim=0)) == PLACES


# --- causal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("positions", ["none", "learnt"])
@pytest.mark.parametrize("readout", ["cls", "token"])
@pytest.mark.parametrize("name", NAMES)
def test_a_later_text_token_changes_no_earlier_token_and_no_image_token(
    name: str, readout: str, positions: str
) -> None:
    mapper = built(small_config(name, readout, positions))
    image, text = tokens([9, 5], IMAGE_WIDTH, 0), tokens([6, 6], TEXT_WIDTH, 1)
    v, t = mapper(image, text, causal=True)
    for place in range(6):
        features = text.features.clone()
        features[:, place] += 1
        changed_v, changed_t = mapper(image, replace(text, features=features), causal=True)
        torch.testing.assert_close(changed_v[image_mask(image, readout)], v[image_mask(image, readout)])
        torch.testing.assert_close(changed_t[:, :place], t[:, :place])
        assert ((changed_t[:, place:] - t[:, place:]).abs().amax(2) > 1e-6).all()
    changed = replace(image, features=image.features + 0.1)
    assert ((mapper(changed, text, causal=True)[1] - t).abs().amax(2) > 1e-6).all()  # the text does read the image


def image_mask(image: Tokens, readout: str) -> Tensor:
    first = image.valid.new_ones(len(image.valid), int(readout == "token"))
    return torch.cat([first, image.valid], 1)


# --- dropout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_dropout_acts_only_in_training_mode(name: str) -> None:
    mapper = built(small_config(name, dropout=0.5))
    image, text = batch_of_three()
    without = built(small_config(name))
    torch.testing.assert_close(mapper.readout(image, text), without.readout(image, text))
    mapper.train()
    assert not torch.allclose(mapper.readout(image, text), without.readout(image, text))


def test_in_causal_mode_the_second_attention_of_the_image_branch_is_recorded_as_image_to_image() -> None:
    mapper = built(small_config("b"))
    image, text = batch_of_three()
    with record() as recorder:
        _, t = mapper(image, text, causal=True)
        trace = recorder.trace(t[:, 1].sum(1), sizes={"image": 9, "text": 6})
    layer = [("image", "image"), ("text", "text"), ("image", "image"), ("text", "image")]
    assert [(step.query, step.key) for step in trace.steps] == layer * 2
    assert [len(stage) for stage in trace.stages()] == [1, 1, 2] * 2
    for step in trace.steps:
        if step.query == step.key == "text":
            assert not step.attention.triu(1).any()
