"""The encoders against the original open_clip models, for single items, in batches and during a recording."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from models import LAYOUTS, TEXTS, Pair, encoded, loaded, pictures, random_clip, saved
from safetensors.torch import load_file
from torch import Tensor

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, EMBEDDED_WEIGHTS, register_embedded, restore_token_table
from clipmapper.nn import TokenSubset, take
from explain.capture.recording import record

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- comparison with open_clip -----------------------------------------------------------------------------------


def assert_equals_open_clip(encoder: FrozenClip, model: Any, pixels: Tensor, texts: list[str]) -> None:
    padded = encoder.tokenizer(texts, context_length=encoder.text.context_length)
    with torch.no_grad():
        theirs = model.forward_intermediates(
            pixels,
            padded,
            image_indices=1,
            text_indices=1,
            normalize=False,
            normalize_intermediates=True,
            image_output_fmt="NLC",
            image_output_extra_tokens=True,
        )
        image_pooled, text_pooled = model.encode_image(pixels), model.encode_text(padded)
        image, text = encoder.vision(pixels), encoded(encoder, texts)
    classes, patches = theirs["image_intermediates_prefix"][-1], theirs["image_intermediates"][-1]
    torch.testing.assert_close(image.features, torch.cat([classes, patches], 1), **CLOSE)
    torch.testing.assert_close(encoder.vision.pooled(image), image_pooled, **CLOSE)
    assert image.valid.all()
    assert image.features.shape[1] == encoder.vision.token_count
    whole = theirs["text_intermediates"][-1][:, : text.features.shape[1]]
    torch.testing.assert_close(text.features[text.valid], whole[text.valid], **CLOSE)
    torch.testing.assert_close(encoder.text.pooled(text), text_pooled, **CLOSE)
    assert text.valid.sum(1).tolist() == [min(encoder.text.context_length, n) for n in lengths(encoder, texts)]


def lengths(encoder: FrozenClip, texts: list[str]) -> list[int]:
    return [len(encoder.tokenizer.encode(text)) + 2 for text in texts]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_equals_open_clip(layout: str, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs[layout]
    assert_equals_open_clip(encoder, model, pictures(3), [*TEXTS, "word " * 30])


@pytest.mark.parametrize("layout", ["custom-text", "own-attention"])
def test_the_layouts_have_the_classes_that_their_names_say(layout: str, pairs: dict[str, Pair]) -> None:
    model = pairs[layout][1]
    if layout == "custom-text":
        assert isinstance(model, open_clip.CustomTextCLIP)
    else:
        blocks = [*model.visual.transformer.resblocks, *model.transformer.resblocks]
        assert {type(block.attn).__module__ for block in blocks} == {"open_clip.transformer"}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_embedded_architecture_equals_open_clip(suffix: str, tmp_path: Path) -> None:
    register_embedded()
    model = random_clip(EMBEDDED_MODEL)
    encoder = loaded(EMBEDDED_MODEL, saved(model, tmp_path / f"weights{suffix}"))
    assert_equals_open_clip(encoder, model, pictures(2, size=60), TEXTS)
    assert encoder.vision.token_count == 37


def test_the_embedded_weights_equal_open_clip() -> None:
    encoder = load_encoder(EncoderConfig(model=EMBEDDED_MODEL, weights="embedded"))
    model = open_clip.create_model(EMBEDDED_MODEL).eval()
    model.load_state_dict(restore_token_table(load_file(EMBEDDED_WEIGHTS)))
    assert_equals_open_clip(encoder, model, pictures(2, size=60), TEXTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_shared_projection_maps_tokens_to_the_shared_space(layout: str, pairs: dict[str, Pair]) -> None:
    encoder = pairs[layout][0]
    for tower, tokens in ((encoder.vision, encoder.vision(pictures(2))), (encoder.text, encoded(encoder, TEXTS[:2]))):
        change = torch.randn_like(tokens.features)
        place = tokens.last if tower is encoder.text else torch.zeros(2, dtype=torch.long)
        moved = tower.pooled(replace(tokens, features=tokens.features + change)) - tower.pooled(tokens)
        torch.testing.assert_close(moved, change[torch.arange(2), place] @ tower.shared_projection, **CLOSE)


@pytest.mark.slow
def test_vit_b_32_equals_open_clip() -> None:
    name = "ViT-B-32-quickgelu"
    model = random_clip(name, std=0.02)
    encoder = FrozenClip(model, None, open_clip.get_tokenizer(name), name)
    assert_equals_open_clip(encoder, model, pictures(2, size=224), [*TEXTS, "very " * 90 + "long"])
    assert (encoder.vision.token_count, encoder.vision.width) == (50, 768)
    assert (encoder.text.context_length, encoder.text.width) == (77, 512)


# --- batches -----------------------------------------------------------------------------------------------------


def test_a_text_is_encoded_the_same_alone_and_in_any_batch(plain: Pair) -> None:
    encoder = plain[0]
    texts = [*TEXTS, "word " * 30]
    together = encoded(encoder, texts)
    order = [3, 1, 5, 0, 4, 2]
    shuffled = encoded(encoder, [texts[i] for i in order])
    torch.testing.assert_close(shuffled.features, together.features[order], **CLOSE)
    for i, text in enumerate(texts):
        alone = encoded(encoder, [text])
        assert alone.valid.all()
        torch.testing.assert_close(alone.features[0], together.features[i][together.valid[i]], **CLOSE)
        torch.testing.assert_close(encoder.text.pooled(alone)[0], encoder.text.pooled(together)[i], **CLOSE)


def test_ids_in_the_padding_of_a_text_change_nothing(plain: Pair) -> None:
    encoder = plain[0]
    batch = encoder.tokenize(TEXTS)
    before = encoder.text(batch.ids, batch.valid)
    filled = batch.ids.masked_fill(~batch.valid, 4321)
    after = encoder.text(filled, batch.valid)
    torch.testing.assert_close(after.features[after.valid], before.features[before.valid], rtol=0, atol=0)


def test_an_image_is_encoded_the_same_alone_and_in_any_batch(plain: Pair) -> None:
    encoder = plain[0]
    pixels = pictures(4)
    together = encoder.vision(pixels).features
    torch.testing.assert_close(encoder.vision(pixels.flip(0)).features, together.flip(0), **CLOSE)
    torch.testing.assert_close(encoder.vision(pixels[2:3]).features, together[2:3], **CLOSE)


@pytest.mark.parametrize("layout", ["plain", "own-attention", "layer-scale"])
def test_a_recorded_forward_pass_is_the_same_and_its_steps_reproduce_the_residual_stream(
    layout: str, pairs: dict[str, Pair]
) -> None:
    encoder = pairs[layout][0]
    keep = torch.tensor([[True] * 10, [True] * 4 + [False, True] * 3])
    subset, fast = TokenSubset.from_mask(keep), encoder.vision(pictures(2), TokenSubset.from_mask(keep))
    with record() as recorder:
        tokens = encoder.vision(pictures(2), subset)
        target = tokens.features[:, 0].square().sum(1)
        trace = recorder.trace(target, sizes={"image": 10}, valid=subset.valid)
    torch.testing.assert_close(tokens.features.detach(), fast.features, **CLOSE)
    assert [(step.query, step.key) for step in trace.steps] == [("image", "image")] * 2
    assert trace.inputs is not None
    x = trace.inputs["image"]
    torch.testing.assert_close(x, encoder.vision.visual.ln_pre(take(encoder.vision.embed(pictures(2)), subset.index)))
    for step, block in zip(trace.steps, encoder.vision.blocks, strict=True):
        torch.testing.assert_close(step.attention.sum(-1), torch.ones(2, 2, 10))
        assert not step.attention[1, :, :, 7:].any()  # seven tokens are kept
        torch.testing.assert_close(step.tensor("residual"), x, **CLOSE)
        x = x + step.tensor("output")
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    torch.testing.assert_close(encoder.vision.visual.ln_post(x), tokens.features.detach(), **CLOSE)


def test_recorded_gradients_of_the_inputs_equal_finite_differences(plain: Pair) -> None:
    encoder = copy.deepcopy(plain[0]).double()
    pixels = pictures(1).double()
    ids = encoder.tokenize(["a red circle"]).ids

    def score() -> Tensor:
        image, text = encoder.vision(pixels), encoder.text(ids, torch.ones_like(ids, dtype=torch.bool))
        return (encoder.vision.pooled(image) * encoder.text.pooled(text)).sum(1)

    with record() as recorder:
        trace = recorder.trace(score(), sizes={"image": 10, "text": 5})
    assert [step.query for step in trace.steps] == ["image", "image", "text", "text"]
    assert trace.inputs_grad is not None
    after_norm = torch.zeros(10, encoder.vision.width, dtype=torch.float64)
    encoder.vision.visual.ln_pre.register_forward_hook(lambda _, __, output: output + after_norm)
    places = {"image": after_norm, "text": encoder.text.text.positional_embedding}
    for modality, table in places.items():
        for token, channel in ((0, 1), (2, 5), (3, 20)):
            table[token, channel] += 1e-5
            above = score()
            table[token, channel] -= 2e-5
            slope = (above - score()) / 2e-5
            table[token, channel] += 1e-5
            torch.testing.assert_close(
                trace.inputs_grad[modality][:, token, channel], slope, rtol=1e-4, atol=1e-6, msg=f"{modality} {token}"
            )
