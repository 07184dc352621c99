"""The encoders against untouched open_clip and against a slow loop over all tokens; loading, and what it refuses."""

from __future__ import annotations

import copy
import pickle
import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from clip_models import TEXTS, loaded, picture, pictures, random_model, register, saved, without_initial_weights
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipmapper.config import EncoderConfig
from clipmapper.encoder.embedded import (
    EMBEDDED_MODEL,
    EMBEDDED_WEIGHTS,
    TOKEN_STD,
    register_embedded,
    restore_token_table,
    seeded_token_table,
    shorten_token_table,
)
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.errors import UserError
from clipmapper.tokens import Tokens, TokenSubset
from explain.recording import record

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
LAYOUTS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}, {}),
    "quick-gelu": ({}, {}, {"quick_gelu": True}),
    "custom-text": ({}, {}, {"custom_text": True}),
    "own-attention": ({"block_type": "custom"}, {"block_type": "custom"}, {}),
    "own-attention-custom-text": ({"block_type": "custom"}, {"scale_fc": True}, {"custom_text": True}),
    "layer-scale": (
        {"ls_init_value": 0.1, "no_ln_pre": True, "pos_embed_type": "sin_cos_2d", "patch_dropout": 0.5},
        {"ls_init_value": 0.1, "proj_bias": True},
        {},
    ),
    "no-projection": ({"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}}, {"proj_type": "none"}, {}),
}
Pair = tuple[FrozenClip, Any]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def pairs(folder: Path) -> dict[str, Pair]:
    """Every layout: our encoder, loaded from a file, and open_clip's own model."""
    found: dict[str, Pair] = {}
    for number, (layout, (vision, text, rest)) in enumerate(LAYOUTS.items()):
        name = register(folder, f"test-{layout}", vision, text, **rest)
        model = random_model(name, seed=number)
        suffix = ".pt" if number % 2 else ".safetensors"
        found[layout] = loaded(name, saved(model, folder / f"{layout}{suffix}")), model
    return found


@pytest.fixture(scope="module")
def plain(pairs: dict[str, Pair]) -> Pair:
    return pairs["plain"]


def encoded(encoder: FrozenClip, texts: list[str], subset: TokenSubset | None = None) -> Tokens:
    batch = encoder.tokenize(texts)
    return encoder.text(batch.ids, batch.valid, subset)


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
    model = random_model(EMBEDDED_MODEL)
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
    model = random_model(name, std=0.02)
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


@cache
def bpe() -> Any:
    return open_clip.get_tokenizer("ViT-B-32")


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


# --- what cannot be run ------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = {
    "resnet": ({"layers": [1, 1, 1, 1], "head_width": 32, "image_size": 32}, {}, {}, "ModifiedResNet"),
    "attentional-pool": ({"attentional_pool": True, "attn_pooler_heads": 4}, {}, {}, "VisionTransformer"),
    "average-pool": ({"pool_type": "avg"}, {}, {}, "VisionTransformer"),
    "norm-after-pool": ({"final_ln_after_pool": True}, {}, {}, "VisionTransformer"),
    "query-key-norm": ({"qk_norm": True}, {}, {}, "ln_q"),
    "cosine-attention": ({"scaled_cosine_attn": True}, {}, {}, "logit_scale"),
    "scaled-heads": ({}, {"scale_heads": True}, {}, "head_scale"),
    "inner-norm": ({}, {"scale_attn_inner": True}, {}, "ln_inner"),
    "norm-after-attention": ({"scale_attn": True}, {}, {}, "ln_attn"),
    "text-class-token": ({}, {"embed_cls": True}, {"custom_text": True}, "TextTransformer"),
    "not-causal": ({}, {"no_causal_mask": True}, {"custom_text": True}, "TextTransformer"),
    "first-token": ({}, {"pool_type": "first"}, {}, "CLIP"),
    "last-token-custom-text": ({}, {"pool_type": "last"}, {"custom_text": True}, "TextTransformer"),
    "other-tokenizer": ({}, {"hf_tokenizer_name": "bert-base-uncased"}, {}, "BPE"),
    "other-text-model": ({}, {"hf_model_name": "roberta-base"}, {}, "BPE"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_architectures_that_would_be_run_wrongly_are_refused(case: str, tmp_path: Path) -> None:
    vision, text, rest, word = REFUSED[case]
    name = register(tmp_path, f"test-refused-{case}", vision, text, **rest)
    (tmp_path / "weights.pt").write_bytes(b"never read")
    assert word in refusal(name, tmp_path / "weights.pt")


# --- errors of loading -------------------------------------------------------------------------------------------


def refusal(name: str, weights: Path | str) -> str:
    """The one-line message of the ``UserError``."""
    with pytest.raises(UserError) as caught, without_initial_weights():
        load_encoder(EncoderConfig(model=name, weights=str(weights)))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 800
    return message


def test_an_unknown_model_is_answered_with_close_names() -> None:
    assert "ViT-B-32" in refusal("ViT-B-23", "openai")
    assert EMBEDDED_MODEL in refusal("shapes-tyni", "embedded")
    assert "zzz" in refusal("zzz", "openai")
    assert refusal("", "openai")


def test_the_embedded_weights_fit_one_model() -> None:
    message = refusal("ViT-B-32-quickgelu", "embedded")
    assert EMBEDDED_MODEL in message
    assert "ViT-B-32-quickgelu" in message


def test_weights_that_are_not_there_are_named(tmp_path: Path, plain: Pair) -> None:
    missing = tmp_path / "missing.pt"
    assert str(missing) in refusal(plain[0].name, missing)
    assert str(tmp_path) in refusal(plain[0].name, tmp_path)  # a folder
    assert "laion2b_s34b_b79k" in refusal("ViT-B-32", "lainon2b")


def broken_files(folder: Path, model: Any) -> dict[str, Path]:
    good = {suffix: saved(model, folder / f"good{suffix}").read_bytes() for suffix in (".pt", ".safetensors")}
    draw = random.Random(0)
    contents = {
        "empty": b"",
        "random": draw.randbytes(3000),
        "json": b'{"model": "ViT-B-32"}',
        "text": "weights é\n".encode(),
        "webpage": b"<!DOCTYPE html><html></html>",
    }
    files = {f"{name}{suffix}": content for name, content in contents.items() for suffix in good}
    for suffix, content in good.items():
        files[f"cut{suffix}"] = content[: len(content) // 2]
        files[f"started{suffix}"] = content[:40]
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for name, value in {
        "empty-dict.pt": {},
        "list.pt": [torch.ones(2)],
        "tensor.pt": torch.ones(2),
        "numbers.pt": {1: 2, "a": 3},
        "nested.pt": {"state_dict": {}},
        "none.pt": None,
    }.items():
        torch.save(value, folder / name)
        files[name] = b""
    save_file({}, folder / "nothing.safetensors")
    return {name: folder / name for name in [*files, "nothing.safetensors"]}


def test_files_that_hold_no_weights_are_refused(tmp_path: Path, plain: Pair) -> None:
    encoder, model = plain
    for name, path in broken_files(tmp_path, model).items():
        message = refusal(encoder.name, path)
        assert str(path) in message, name
        assert encoder.name in message, name


@pytest.mark.filterwarnings("error")
def test_damaged_pickles_of_any_kind_are_refused(tmp_path: Path, plain: Pair) -> None:
    """Bytes overwritten in a small PyTorch file: whatever the reader raises, the answer is one line."""
    encoder = plain[0]
    path = tmp_path / "weights.pt"
    draw = random.Random(1)
    for zipped in (True, False):
        torch.save({"logit_scale": torch.ones(())}, path, _use_new_zipfile_serialization=zipped)
        good = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(good)
            for _ in range(4):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            path.write_bytes(bytes(damaged))
            assert str(path) in refusal(encoder.name, path)


def test_weights_of_another_model_are_refused(tmp_path: Path, plain: Pair) -> None:
    encoder, model = plain
    others = {
        "wider": register(tmp_path, "test-wider", {"width": 48}, {}),
        "deeper": register(tmp_path, "test-deeper", {}, {"layers": 3}),
        "larger": register(tmp_path, "test-larger", {"image_size": 32}, {}),  # could be resized to fit, wrongly
        "longer": register(tmp_path, "test-longer", {}, {"context_length": 20}),
    }
    for kind, other in others.items():
        for suffix in (".pt", ".safetensors"):
            path = saved(random_model(other), tmp_path / f"{kind}{suffix}")
            assert encoder.name in refusal(encoder.name, path), (kind, suffix)
    state = model.state_dict()
    del state["visual.ln_post.bias"]
    torch.save(state, tmp_path / "lacking.pt")
    assert "visual.ln_post.bias" in refusal(encoder.name, tmp_path / "lacking.pt")


class Bomb:
    def __init__(self, touched: Path):
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


@pytest.mark.parametrize("how", ["plain pickle", "zipped", "legacy"])
def test_code_in_a_weights_file_does_not_run(how: str, tmp_path: Path, plain: Pair) -> None:
    path, touched = tmp_path / "weights.pt", tmp_path / "touched"
    content = {**plain[1].state_dict(), "visual.proj": Bomb(touched)}
    if how == "plain pickle":
        path.write_bytes(pickle.dumps(Bomb(touched)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zipped")
    assert plain[0].name in refusal(plain[0].name, path)
    assert not touched.exists()
    torch.load(path, weights_only=False) if how != "plain pickle" else pickle.loads(path.read_bytes())
    assert touched.exists()  # the file does hold code


def test_hub_weights_for_the_other_activation_are_refused() -> None:
    assert "encoder.model=ViT-B-32-quickgelu" in refusal("ViT-B-32", "openai")


@pytest.fixture
def tag(monkeypatch: pytest.MonkeyPatch, plain: Pair) -> str:
    """A hub tag of the plain model, with a normalisation of its own."""
    entry = {"url": "https://example.org/weights.safetensors", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, plain[0].name, {"mine": entry})
    return "mine"


def test_hub_weights_bring_their_own_preprocessing(
    tag: str, folder: Path, plain: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _ = plain
    monkeypatch.setattr(open_clip.factory, "download_pretrained", lambda *_, **__: str(folder / "plain.safetensors"))
    fetched = load_encoder(EncoderConfig(model=encoder.name, weights=tag))
    torch.testing.assert_close(fetched.vision(pictures(1)).features, encoder.vision(pictures(1)).features)
    assert "mean=(0.1, 0.2, 0.3)" in str(fetched.preprocess)
    assert fetched.fingerprint() != encoder.fingerprint()


def test_a_failing_download_is_told_in_one_line(tag: str, plain: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", fails)
    message = refusal(plain[0].name, tag)
    assert "no network at all" in message
    assert "cannot be fetched" in message


def test_a_checkpoint_of_open_clips_own_training_is_read(tmp_path: Path, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs["plain"]
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "epoch_3.pt")
    assert loaded(encoder.name, tmp_path / "epoch_3.pt").fingerprint() == encoder.fingerprint()
    name = pairs["custom-text"][0].name  # the same towers, laid out in another way
    again = loaded(name, saved(model, tmp_path / "plain.pt"))
    texts = ["a red circle", "a"]
    assert torch.equal(encoded(again, texts).features, encoded(encoder, texts).features)


# --- fingerprint -------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_stable_across_loads_and_processes(folder: Path, plain: Pair) -> None:
    encoder = plain[0]
    assert loaded(encoder.name, folder / "plain.safetensors").fingerprint() == encoder.fingerprint()
    assert " at 0x" not in str(encoder.preprocess)  # it takes part as text, which must not hold addresses


def test_the_fingerprint_changes_with_every_weight_the_name_and_the_preprocessing(plain: Pair) -> None:
    encoder = copy.deepcopy(plain[0])
    seen = {encoder.fingerprint()}
    for parameter in encoder.parameters():
        flat = parameter.view(-1)
        flat[-1] += 1
        seen.add(encoder.fingerprint())
        flat[-1] -= 1
    encoder.name = "other"
    seen.add(encoder.fingerprint())
    encoder.preprocess = open_clip.transform.image_transform(24, is_train=False, mean=(0.5, 0.5, 0.5))
    seen.add(encoder.fingerprint())
    assert len(seen) == 3 + sum(1 for _ in encoder.parameters())


# --- the embedded model's token table ----------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 99), min_size=1), st.integers(0, 10**6))
def test_shortening_a_token_table_keeps_the_trained_rows(trained: set[int], seed: int) -> None:
    ids = torch.tensor(sorted(trained, key=lambda i: (i * 7 + seed) % 101))
    whole = {"token_embedding.weight": torch.randn(100, 6), "ln_final.bias": torch.randn(3)}
    short = shorten_token_table(whole, ids)
    assert sum(t.numel() for n, t in short.items() if n.startswith("token_embedding")) == len(ids) * 7
    restored = restore_token_table(short, tokens=100)
    assert restored.keys() == whole.keys()
    assert torch.equal(restored["ln_final.bias"], whole["ln_final.bias"])
    table = restored["token_embedding.weight"]
    assert torch.equal(table[ids], whole["token_embedding.weight"][ids])
    others = [i for i in range(100) if i not in trained]
    assert torch.equal(table[others], seeded_token_table(100, 6)[others])


def test_untrained_rows_are_the_same_everywhere_and_all_distinct() -> None:
    table = seeded_token_table(49408, 128)
    assert torch.equal(table, seeded_token_table(49408, 128))
    assert len(table.unique(dim=0)) == 49408
    assert abs(float(table.std()) - TOKEN_STD) < 1e-4
    torch.testing.assert_close(table[0, :3], torch.tensor([0.0, 0.0, 0.0]), atol=1, rtol=0)


def test_a_whole_table_stays_as_it_is() -> None:
    state = {"token_embedding.weight": torch.randn(5, 2)}
    assert restore_token_table(state) is state


def test_a_short_file_loads_as_the_whole_one(tmp_path: Path) -> None:
    register_embedded()
    model = random_model(EMBEDDED_MODEL)
    used = model_ids(["a red circle"])
    table = seeded_token_table(49408, 128)
    table[used] = model.token_embedding.weight[used]
    model.token_embedding.weight.copy_(table)
    whole = loaded(EMBEDDED_MODEL, saved(model, tmp_path / "whole.safetensors"))
    short_state = shorten_token_table(load_file(tmp_path / "whole.safetensors"), used)
    save_file(short_state, tmp_path / "short.safetensors")
    short = loaded(EMBEDDED_MODEL, tmp_path / "short.safetensors")
    assert (tmp_path / "short.safetensors").stat().st_size * 3 < (tmp_path / "whole.safetensors").stat().st_size
    assert short.fingerprint() == whole.fingerprint()
    save_file(short_state | {"token_embedding.ids": used + 49408}, tmp_path / "outside.safetensors")
    assert EMBEDDED_MODEL in refusal(EMBEDDED_MODEL, tmp_path / "outside.safetensors")


def model_ids(texts: list[str]) -> Tensor:
    return torch.tensor(sorted({i for text in texts for i in bpe().encode(text)} | {49406, 49407}))
