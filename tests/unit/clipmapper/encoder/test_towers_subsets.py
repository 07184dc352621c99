"""Token subsets in the encoders, against a slow loop over all tokens in which the keys of removed tokens are masked."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import TEXTS, Pair, encoded, pictures
from torch import Tensor

from clipmapper.nn import TokenSubset

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def slow_blocks(blocks: Any, x: Tensor, allowed: Tensor) -> Tensor:
    """Run open_clip's blocks on all tokens [N, D] of one sample, head by head; token i attends where ``allowed[i]``."""
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
    """Compute all tokens of one image in float64, with the keys of removed tokens masked."""
    visual = copy.deepcopy(model.visual).double()
    grid = [
        torch.einsum("cij,dcij->d", pixels[:, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].double(), visual.conv1.weight)
        for i in range(3)
        for j in range(3)
    ]
    x = visual.ln_pre(torch.stack([visual.class_embedding, *grid]) + visual.positional_embedding)
    return visual.ln_post(slow_blocks(visual.transformer.resblocks, x, keep.expand(len(keep), -1)))


def slow_text(model: Any, ids: Tensor, keep: Tensor) -> Tensor:
    """Compute all tokens of one text in float64, causal and with the keys of removed tokens masked."""
    text = copy.deepcopy(getattr(model, "text", model)).double()
    n = len(ids)
    x = torch.stack([text.token_embedding.weight[i] + text.positional_embedding[k] for k, i in enumerate(ids)])
    allowed = torch.tensor([[k <= i and (k == i or bool(keep[k])) for k in range(n)] for i in range(n)])
    return text.ln_final(slow_blocks(text.transformer.resblocks, x, allowed))


@pytest.mark.parametrize("layout", ["plain", "own-attention", "custom-text", "layer-scale"])
def test_the_slow_loop_without_removal_equals_the_model(layout: str, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs[layout]
    pixels = pictures(1)
    ids = encoder.tokenize(["a red circle"]).ids
    slow = slow_image(model, pixels[0], torch.ones(10, dtype=torch.bool)).float()
    torch.testing.assert_close(slow, encoder.vision(pixels).features[0], **CLOSE)
    slow = slow_text(model, ids[0], torch.ones(5, dtype=torch.bool)).float()
    torch.testing.assert_close(slow, encoder.text(ids, torch.ones(1, 5, dtype=torch.bool)).features[0], **CLOSE)


subsets = st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=3)


@pytest.mark.parametrize("layout", ["plain", "own-attention", "layer-scale"])
def test_removing_patches_equals_masking_their_keys(layout: str, pairs: dict[str, Pair]) -> None:
    encoder, model = pairs[layout]

    @settings(max_examples=8, deadline=None)
    @given(subsets)
    def check(rows: list[list[bool]]) -> None:
        keep = torch.tensor([[True, *row] for row in rows])  # the class token is kept
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
def test_removing_sub_words_equals_masking_their_keys(layout: str, pairs: dict[str, Pair]) -> None:
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


def test_a_subset_of_all_tokens_is_the_whole_input(plain: Pair) -> None:
    encoder = plain[0]
    everything = TokenSubset.from_mask(torch.ones(2, 10, dtype=torch.bool))
    torch.testing.assert_close(
        encoder.vision(pictures(2), everything).features, encoder.vision(pictures(2)).features, **CLOSE
    )
    valid = encoder.tokenize(TEXTS).valid
    subset, whole = encoded(encoder, TEXTS, TokenSubset.from_mask(valid)), encoded(encoder, TEXTS)
    torch.testing.assert_close(subset.features[valid], whole.features[valid], **CLOSE)
