"""The encoders against untouched open_clip and against a slow loop over all tokens."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import LAYOUTS, TEXTS, Pair, bpe, encoded, loaded, picture, pictures, random_clip, saved
from safetensors.torch import load_file
from torch import Tensor

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.embedded import EMBEDDED_MODEL, EMBEDDED_WEIGHTS, register_embedded, restore_token_table
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.nn.tokens import TokenSubset
from explain.capture.recording import record

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# --- the same numbers as open_clip -------------------------------------------------------------------------------


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
def test_the_layouts_are_what_they_are_called(layout: str, pairs: dict[str, Pair]) -> None:
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


def test_the_shipped_weights_equal_open_clip() -> None:
    encoder = load_encoder(EncoderConfig(model=EMBEDDED_MODEL, weights="embedded"))
    model = open_clip.create_model(EMBEDDED_MODEL).eval()
    model.load_state_dict(restore_token_table(load_file(EMBEDDED_WEIGHTS)))
    assert_equals_open_clip(encoder, model, pictures(2, size=60), TEXTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_shared_projection_is_how_tokens_reach_the_shared_space(layout: str, pairs: dict[str, Pair]) -> None:
    encoder = pairs[layout][0]
    for tower, tokens in ((encoder.vision, encoder.vision(pictures(2))), (encoder.text, encoded(encoder, TEXTS[:2]))):
        change = torch.randn_like(tokens.features)
        place = tokens.last if tower is encoder.text else torch.zeros(2, dtype=torch.long)
        moved = tower.pooled(replace(tokens, features=tokens.features + change)) - tower.pooled(tokens)
        torch.testing.assert_close(moved, change[torch.arange(2), place] @ tower.shared_projection, **CLOSE)


def test_vit_b_32_equals_open_clip_from_either_kind_of_file(tmp_path: Path) -> None:
    name = "ViT-B-32-quickgelu"
    model = random_clip(name, std=0.02)
    path = saved(model, tmp_path / "weights.safetensors")
    encoder = loaded(name, path)
    assert_equals_open_clip(encoder, model, pictures(2, size=224), [*TEXTS, "very " * 90 + "long"])
    assert (encoder.vision.token_count, encoder.vision.width) == (50, 768)
    assert (encoder.text.context_length, encoder.text.width) == (77, 512)
    path.unlink()
    path = saved(model, tmp_path / "weights.pt")
    again = loaded(name, path)
    path.unlink()
    assert again.fingerprint() == encoder.fingerprint()


def test_single_pictures_and_texts_are_read_as_open_clip_reads_them(plain: Pair) -> None:
    encoder, model = plain
    images = [picture(50, 30), picture(24, 24), picture(10, 90), picture(33, 47, "L").convert("RGB")]
    config = open_clip.transform.PreprocessCfg(**model.visual.preprocess_cfg)
    theirs = open_clip.transform.image_transform_v2(config, is_train=False)
    pixels = encoder.pixels(images)
    assert pixels.shape == (4, 3, 24, 24)
    assert torch.equal(pixels, torch.stack([theirs(image) for image in images]))


# --- frozen ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_can_be_trained_and_training_mode_is_never_entered(layout: str, pairs: dict[str, Pair]) -> None:
    encoder = pairs[layout][0]
    around = torch.nn.Sequential(encoder)
    around.train()
    assert around.training
    assert not any(module.training for module in encoder.modules())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.vision(pictures(1)).features.requires_grad
    assert not encoded(encoder, ["a"]).features.requires_grad


# --- texts at their true length ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_tokens_are_those_of_open_clip_less_the_padding(texts: list[str]) -> None:
    tokenizer, batch = tokenized(texts)
    padded = tokenizer(texts, context_length=12)
    for text, row, ids, valid in zip(texts, padded, batch.ids, batch.valid, strict=True):
        length = int(valid.sum())
        assert valid.tolist() == sorted(valid.tolist(), reverse=True)
        assert ids[:length].tolist() == row[:length].tolist()
        assert not ids[length:].any()
        assert not row[length:].any()
        assert length == min(12, len(tokenizer.encode(text)) + 2)
        assert ids[0] == tokenizer.sot_token_id
        assert ids[length - 1] == tokenizer.eot_token_id
    assert batch.truncated == sum(len(tokenizer.encode(text)) + 2 > 12 for text in texts)


def tokenized(texts: list[str]) -> tuple[Any, Any]:
    """CLIP's tokenizer and the batch, without an encoder's weights."""
    encoder = FrozenClip.__new__(FrozenClip)
    torch.nn.Module.__init__(encoder)
    encoder.tokenizer = bpe()
    encoder.text = torch.nn.Module()
    encoder.text.context_length = 12  # type: ignore[assignment]
    return encoder.tokenizer, encoder.tokenize(texts)


def test_a_text_of_exactly_the_context_is_not_cut(plain: Pair) -> None:
    encoder = plain[0]
    batch = encoder.tokenize(["red " * 10, "red " * 11, "red"])
    assert batch.valid.sum(1).tolist() == [12, 12, 3]
    assert batch.truncated == 1
    assert batch.ids[0].tolist() == batch.ids[1].tolist()


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


def test_what_stands_in_the_padding_of_a_text_changes_nothing(plain: Pair) -> None:
    encoder = plain[0]
    batch = encoder.tokenize(TEXTS)
    before = encoder.text(batch.ids, batch.valid)
    filled = batch.ids.masked_fill(~batch.valid, 4321)
    after = encoder.text(filled, batch.valid)
    torch.testing.assert_close(after.features[after.valid], before.features[before.valid], rtol=0, atol=0)


def test_a_picture_is_encoded_the_same_alone_and_in_any_batch(plain: Pair) -> None:
    encoder = plain[0]
    pixels = pictures(4)
    together = encoder.vision(pixels).features
    torch.testing.assert_close(encoder.vision(pixels.flip(0)).features, together.flip(0), **CLOSE)
    torch.testing.assert_close(encoder.vision(pixels[2:3]).features, together[2:3], **CLOSE)


# --- tokens left out ---------------------------------------------------------------------------------------------


def slow_blocks(blocks: Any, x: Tensor, allowed: Tensor) -> Tensor:
    """All tokens [N, D] of one sample through open_clip's blocks, head by head; token i may read where allowed[i]."""
    for block in blocks:
        h, attn = block.ln_1(x), block.attn
        q, k, v = (h @ w.T + b for w, b in zip(attn.in_proj_weight.chunk(3), attn.in_proj_bias.chunk(3), strict=True))
        width = x.shape[1] // attn.num_heads
        heads = []
        for head in range(attn.num_heads):
            part = slice(head * width, (head + 1) * width)
            scores = (q[:, part] @ k[:, part].T / width**0.5).masked_fill(~allowed, -float("inf"))
            heads.append(scores.softmax(1) @ v[:, part])
        x = x + block.ls_1(attn.out_proj(torch.cat(heads, 1)))
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return x


def slow_image(model: Any, pixels: Tensor, keep: Tensor) -> Tensor:
    """Every token of one picture, computed in float64 with the keys that were left out masked."""
    visual = copy.deepcopy(model.visual).double()
    grid = [
        torch.einsum("cij,dcij->d", pixels[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].double(), visual.conv1.weight)
        for i in range(3)
        for j in range(3)
    ]
    x = visual.ln_pre(torch.stack([visual.class_embedding, *grid]) + visual.positional_embedding)
    return visual.ln_post(slow_blocks(visual.transformer.resblocks, x, keep.expand(len(keep), -1)))


def slow_text(model: Any, ids: Tensor, keep: Tensor) -> Tensor:
    """Every token of one text at its true length, in float64, causal, with the keys that were left out masked."""
    text = copy.deepcopy(getattr(model, "text", model)).double()
    n = len(ids)
    x = torch.stack([text.token_embedding.weight[i] + text.positional_embedding[k] for k, i in enumerate(ids)])
    allowed = torch.tensor([[k <= i and (k == i or bool(keep[k])) for k in range(n)] for i in range(n)])
    return text.ln_final(slow_blocks(text.transformer.resblocks, x, allowed))


@pytest.mark.parametrize("layout", ["plain", "own-attention", "custom-text", "layer-scale"])
def test_the_slow_loop_without_removal_is_the_model(layout: str, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs[layout]
    pixels = pictures(1)
    ids = encoder.tokenize(["a red circle"]).ids
    slow = slow_image(model, pixels[0], torch.ones(10, dtype=torch.bool)).float()
    torch.testing.assert_close(slow, encoder.vision(pixels).features[0], **CLOSE)
    slow = slow_text(model, ids[0], torch.ones(5, dtype=torch.bool)).float()
    torch.testing.assert_close(slow, encoder.text(ids, torch.ones(1, 5, dtype=torch.bool)).features[0], **CLOSE)


subsets = st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=3)


@pytest.mark.parametrize("layout", ["plain", "own-attention", "layer-scale"])
def test_patches_left_out_are_as_good_as_masked_keys(layout: str, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs[layout]

    @settings(max_examples=8, deadline=None)
    @given(subsets)
    def check(rows: list[list[bool]]) -> None:
        keep = torch.tensor([[True, *row] for row in rows])  # the class token stays
        pixels = pictures(len(rows))
        subset = TokenSubset.from_mask(keep)
        tokens = encoder.vision(pixels, subset)
        assert torch.equal(tokens.index, subset.index)
        assert torch.equal(tokens.valid, subset.valid)
        for b in range(len(rows)):
            expected = slow_image(model, pixels[b], keep[b])[keep[b]].float()
            torch.testing.assert_close(tokens.features[b][tokens.valid[b]], expected, **CLOSE)

    check()


@pytest.mark.parametrize("layout", ["plain", "own-attention", "custom-text"])
def test_words_left_out_are_as_good_as_masked_keys(layout: str, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs[layout]
    batch = encoder.tokenize(TEXTS[:3])

    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=3, max_size=3))
    def check(rows: list[list[bool]]) -> None:
        keep = torch.tensor(rows)[:, : batch.ids.shape[1]]
        keep[:, 0] = True
        keep[torch.arange(3), batch.valid.sum(1) - 1] = True
        keep &= batch.valid
        tokens = encoder.text(batch.ids, batch.valid, TokenSubset.from_mask(keep))
        assert tokens.features.shape[1] == int(keep.sum(1).max())
        for b in range(3):
            n = int(batch.valid[b].sum())
            expected = slow_text(model, batch.ids[b, :n], keep[b, :n])[keep[b, :n]].float()
            torch.testing.assert_close(tokens.features[b][tokens.valid[b]], expected, **CLOSE)
            assert int(tokens.index[b, tokens.last[b]]) == n - 1

    check()


def test_leaving_nothing_out_is_the_whole_input(plain: Pair) -> None:
    encoder = plain[0]
    everything = TokenSubset.from_mask(torch.ones(2, 10, dtype=torch.bool))
    torch.testing.assert_close(
        encoder.vision(pictures(2), everything).features, encoder.vision(pictures(2)).features, **CLOSE
    )
    valid = encoder.tokenize(TEXTS).valid
    subset, whole = encoded(encoder, TEXTS, TokenSubset.from_mask(valid)), encoded(encoder, TEXTS)
    torch.testing.assert_close(subset.features[valid], whole.features[valid], **CLOSE)


# --- recording ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["plain", "own-attention", "layer-scale"])
def test_a_recorded_forward_is_the_same_and_its_steps_rebuild_the_residual_stream(
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
    x = encoder.vision.visual.ln_pre(trace.inputs["image"])
    for step, block in zip(trace.steps, encoder.vision.blocks, strict=True):
        torch.testing.assert_close(step.attention.sum(-1), torch.ones(2, 2, 10))
        assert not step.attention[1, :, :, 7:].any()  # seven tokens stay
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
    places = {"image": encoder.vision.visual.positional_embedding, "text": encoder.text.text.positional_embedding}
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
