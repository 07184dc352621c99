"""Attention: values and gradients of both code paths against a slow loop; and token subsets."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from clipmapper.nn import (
    Tokens,
    TokenSubset,
    attend,
    attention,
    attention_probabilities,
    merge_heads,
    split_heads,
    take,
)
from explain.capture.recording import record

sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 5))


def drawn(shape: tuple[int, int, int, int, int], seed: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Draw a query, key and value, and a mask with at least one key for every query."""
    batch, heads, queries, keys, width = shape
    g = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(batch, heads, n, width, generator=g, dtype=dtype) * 2 for n in (queries, keys, keys)]
    mask = torch.rand(batch, 1, queries, keys, generator=g) < 0.5
    mask.scatter_(3, torch.randint(keys, (batch, 1, queries, 1), generator=g), True)
    return [*tensors, mask]


def slow_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute outputs and probabilities one number at a time."""
    batch, heads, queries, width = query.shape
    out, probabilities = torch.zeros_like(query), query.new_zeros(batch, heads, queries, key.shape[2])
    for b in range(batch):
        for h in range(heads):
            for i in range(queries):
                allowed = [j for j in range(key.shape[2]) if mask is None or bool(mask[b, 0, i, j])]
                weights = [math.exp(float(query[b, h, i] @ key[b, h, j]) / math.sqrt(width)) for j in allowed]
                for j, weight in zip(allowed, weights, strict=True):
                    probabilities[b, h, i, j] = weight / sum(weights)
                    out[b, h, i] += weight / sum(weights) * value[b, h, j]
    return out, probabilities


@settings(max_examples=25, deadline=None)
@given(sizes, st.integers(0, 10**6), st.booleans())
def test_both_paths_equal_a_slow_loop(shape: tuple[int, int, int, int, int], seed: int, masked: bool) -> None:
    query, key, value, mask = drawn(shape, seed)
    used = mask if masked else None
    out, probabilities = slow_attention(query, key, value, used)
    torch.testing.assert_close(attention_probabilities(query, key, used), probabilities)
    torch.testing.assert_close(attention(query, key, value, used), out)
    torch.testing.assert_close(attention(query.requires_grad_(), key, value, used), out)


@pytest.mark.parametrize("masked", [False, True])
def test_the_fused_kernel_runs_if_no_gradient_is_needed(masked: bool) -> None:
    query, key, value, mask = drawn((2, 2, 4, 5, 8), 0)
    used = mask if masked else None
    with Fused() as fused:
        attention(query, key, value, used)
        with torch.no_grad():
            attention(query.requires_grad_(), key, value, used)
        assert len(fused.masks) == 2
        attention(query, key, value, used)
    assert len(fused.masks) == 2
    assert all(each is used for each in fused.masks)


class Fused(TorchFunctionMode):
    """Mode that records the mask of every call of PyTorch's fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor | None] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.scaled_dot_product_attention:
            self.masks.append(kwargs["attn_mask"])
        return func(*args, **(kwargs or {}))


@settings(max_examples=15, deadline=None)
@given(sizes, st.integers(0, 10**6), st.booleans())
def test_gradients_of_both_paths_agree(shape: tuple[int, int, int, int, int], seed: int, masked: bool) -> None:
    *tensors, mask = drawn(shape, seed)
    used = mask if masked else None
    each = torch.randn(tensors[0].shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    query, key, value = (tensor.requires_grad_() for tensor in tensors)
    fast = F.scaled_dot_product_attention(query, key, value, attn_mask=used)
    explicit = attention_probabilities(query, key, used) @ value
    torch.testing.assert_close(fast, explicit)
    ours = torch.autograd.grad(attention(query, key, value, used), (query, key, value), each, allow_unused=False)
    for out in (fast, explicit):
        torch.testing.assert_close(torch.autograd.grad(out, (query, key, value), each), ours)


def test_the_paths_agree_to_rounding_in_single_precision() -> None:
    query, key, value, mask = drawn((3, 4, 37, 50, 64), 1, torch.float32)
    for used in (None, mask):
        torch.testing.assert_close(
            attention(query, key, value, used),
            attention_probabilities(query, key, used) @ value,
            atol=1e-5,
            rtol=1e-5,
        )


def test_a_masked_key_changes_nothing_and_gets_no_probability() -> None:
    query, key, value, _ = drawn((2, 2, 3, 5, 4), 2)
    mask = torch.tensor([True, True, False, True, False])[None, None, None]
    before = attention(query, key, value, mask)
    key[:, :, [2, 4]] = 1e3
    value[:, :, [2, 4]] = -1e3
    torch.testing.assert_close(attention(query, key, value, mask), before, rtol=0, atol=0)
    assert not attention_probabilities(query, key, mask)[..., [2, 4]].any()


def test_attend_equals_torchs_multi_head_attention_and_returns_probabilities_during_a_recording() -> None:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).double().requires_grad_(False)
    theirs.in_proj_bias.normal_()
    theirs.out_proj.bias.normal_()
    x, context = torch.randn(2, 4, 12).double(), torch.randn(2, 6, 12).double()
    valid = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    expected, weights = theirs(x, context, context, key_padding_mask=~valid, average_attn_weights=False)
    q, k, v = (
        F.linear(source, w, b)
        for source, w, b in zip(
            (x, context, context), theirs.in_proj_weight.chunk(3), theirs.in_proj_bias.chunk(3), strict=True
        )
    )
    fast, nothing = attend(q, k, v, 3, theirs.out_proj, valid[:, None, None])
    with record():
        explicit, probabilities = attend(q, k, v, 3, theirs.out_proj, valid[:, None, None])
    assert nothing is None
    torch.testing.assert_close(fast, expected)
    torch.testing.assert_close(explicit, expected)
    torch.testing.assert_close(probabilities, weights)


def test_merging_heads_undoes_splitting_them() -> None:
    x = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 4, 3, 2)
    assert heads[1, 2, 0].tolist() == x[1, 0, 4:6].tolist()
    assert torch.equal(merge_heads(heads), x)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1)))
def test_a_subset_keeps_positions_in_order_with_padding_at_the_end(rows: list[list[bool]]) -> None:
    keep = torch.tensor([[True, *row] for row in rows])
    subset = TokenSubset.from_mask(keep)
    assert subset.index.shape == subset.valid.shape == (len(rows), int(keep.sum(1).max()))
    for row, index, valid in zip(keep, subset.index, subset.valid, strict=True):
        assert index[valid].tolist() == row.nonzero()[:, 0].tolist()
        assert valid.tolist() == sorted(valid.tolist(), reverse=True)


def test_the_subset_of_all_tokens_is_the_whole_batch() -> None:
    valid = torch.tensor([[True, True, True], [True, False, False]])
    subset = TokenSubset.all_of(valid)
    assert subset.index.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert torch.equal(subset.valid, valid)
    features = torch.randn(2, 3, 4)
    assert torch.equal(take(features, subset.index), features)
    assert Tokens(features, valid, subset.index).last.tolist() == [2, 0]


def test_take_selects_rows_and_to_moves_and_converts_tokens() -> None:
    features = torch.arange(12.0).view(2, 3, 2)
    assert take(features, torch.tensor([[2, 0], [1, 1]])).tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]
    tokens = Tokens(features, torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.long))
    moved = tokens.to("cpu", torch.float16)
    assert (moved.features.dtype, moved.valid.dtype, moved.index.dtype) == (torch.float16, torch.bool, torch.long)
    assert tokens.to("cpu").features.dtype == torch.float32
