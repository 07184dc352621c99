"""Every LRP rule compared with loops over plain numbers; conservation; what is refused; and no side effects."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import lrp_reference as slow
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from explain import TraceError
from explain.lrp import lrp
from explain.lrp.rules import safe_divide

SEEDS = range(5)
CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def draw(seed: int, *shape: int, zeros: float = 0.2) -> Tensor:
    """Draw normal numbers, some of which are set to 0."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x.masked_fill(torch.rand(*shape, generator=generator) < zeros, 0)


def relevances(function: Callable[..., Tensor], r: Tensor | int, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Return the relevance of each input, and check that the value is the same as without LRP.

    ``r`` is the relevance of the result, or a seed that draws it.
    """
    leaves = [one.clone().requires_grad_() for one in inputs]
    with lrp():
        value = function(*leaves)
    assert torch.equal(value, function(*leaves))
    assert value.dtype == function(*leaves).dtype
    r = draw(r, *value.shape) if isinstance(r, int) else r
    return torch.autograd.grad(value, leaves, r)


def arrays(*tensors: Tensor) -> list[Any]:
    return [tensor.numpy() for tensor in tensors]


# --- the rules ---------------------------------------------------------------------------------------------------


def test_safe_division_adds_epsilon_for_both_signs_and_gives_zero_at_zero() -> None:
    b = torch.tensor([2.0, -2.0, 1e-9, -3e-9, -1e-9, 0.0, -0.0], dtype=torch.float64)
    expected = torch.tensor([3 / (2 + 1e-9), -3 / (2 - 1e-9), 1.5e9, -1.5e9, 3e9, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(safe_divide(torch.tensor(3.0, dtype=torch.float64), b), expected)
    for dtype in (torch.float16, torch.bfloat16):
        assert safe_divide(torch.ones(7, dtype=dtype), b.to(dtype))[-2:].tolist() == [0, 0]


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": lambda x, w: F.linear(x, w),
    "by keyword": lambda x, w: F.linear(input=x, weight=w, bias=None),
    "bias": lambda x, w: F.linear(x, w, torch.full((len(w),), 0.7, dtype=torch.float64)),
    "trainable": lambda x, w: F.linear(x, nn.Parameter(w), nn.Parameter(w.sum(1))),
    "matmul": lambda x, w: x @ w.T,
    "trainable matmul": lambda x, w: torch.matmul(x, nn.Parameter(w.T)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_linear_equals_loops(seed: int, form: str) -> None:
    x, w, r = draw(seed, 2, 3, 4), draw(seed + 50, 5, 4), draw(seed + 90, 2, 3, 5)
    (found,) = relevances(lambda x: FORMS[form](x, w), r, x)
    for b in range(2):
        torch.testing.assert_close(found[b], torch.from_numpy(slow.linear(*arrays(x[b], w, r[b]))), **CLOSE)


@pytest.mark.parametrize("seed", SEEDS)
def test_matmul_equals_loops_and_broadcasts(seed: int) -> None:
    x, y, r = draw(seed, 2, 3, 4, 5), draw(seed + 50, 2, 1, 5, 3), draw(seed + 90, 2, 3, 4, 3)
    of_x, of_y = relevances(lambda x, y: x @ y, r, x, y)
    expected_x, expected_y = torch.zeros_like(x), torch.zeros_like(y)
    for b, h in itertools.product(range(2), range(3)):
        one, other = slow.matmul(*arrays(x[b, h], y[b, 0], r[b, h]))
        expected_x[b, h] = torch.from_numpy(one)
        expected_y[b, 0] += torch.from_numpy(other)
    torch.testing.assert_close(of_x, expected_x, **CLOSE)
    torch.testing.assert_close(of_y, expected_y, **CLOSE)
    flat = x.flatten(0, 1), y.expand(2, 3, 5, 3).flatten(0, 1), r.flatten(0, 1)
    by_bmm = relevances(torch.bmm, flat[2], *flat[:2])
    torch.testing.assert_close(by_bmm[0], of_x.flatten(0, 1))
    with_mm = relevances(torch.mm, r[1, 2], x[1, 2], y[1, 0])
    torch.testing.assert_close(with_mm[0], of_x[1, 2])


@pytest.mark.parametrize("seed", SEEDS)
def test_matmul_with_a_constant_gives_all_relevance_to_the_other_operand(seed: int) -> None:
    x, y, r = draw(seed, 2, 4, 5), draw(seed + 50, 2, 5, 3), draw(seed + 90, 2, 4, 3)
    both = relevances(lambda x, y: x @ y, r, x, y)
    torch.testing.assert_close(relevances(lambda x: x @ y, r, x)[0], 2 * both[0], **CLOSE)
    torch.testing.assert_close(relevances(lambda y: x @ y, r, y)[0], 2 * both[1], **CLOSE)
    torch.testing.assert_close(relevances(lambda y: nn.Parameter(x) @ y, r, y)[0], 2 * both[1], **CLOSE)


PRODUCTS = [((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (2, 1, 4)), ((2, 3, 1), (3, 4))]


@pytest.mark.parametrize(("shape_x", "shape_y"), PRODUCTS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_product_of_entries_equals_products_of_matrices_of_one_entry(
    seed: int, shape_x: tuple[int, ...], shape_y: tuple[int, ...]
) -> None:
    x, y, r = draw(seed, *shape_x), draw(seed + 50, *shape_y), draw(seed + 90, 2, 3, 4)
    both = relevances(lambda x, y: x * y, r, x, y)
    expected = torch.zeros(2, 2, 3, 4, dtype=torch.float64)
    whole = x.expand(2, 3, 4), y.expand(2, 3, 4)
    for at in itertools.product(range(2), range(3), range(4)):
        for side, value in enumerate(slow.matmul(*(np.array([[float(one[at])]]) for one in (*whole, r)))):
            expected[(side, *at)] = float(value[0, 0])
    for found, side in zip(both, expected, strict=True):
        torch.testing.assert_close(found, side.sum_to_size(found.shape), **CLOSE)


SUMS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {  # with their weights [out, in] of 2 × 4 entries
    "mean": (lambda x: x.mean(1), torch.full((1, 8), 1 / 8)),
    "sum": (lambda x: x.sum(dim=1), torch.ones(1, 8)),
    "average pool": (
        lambda x: F.avg_pool2d(x.view(3, 1, 2, 4), 2).flatten(1),
        torch.tensor([[1.0, 1, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 0, 0, 1, 1]]) / 4,
    ),
    "interpolation": (  # each of two columns is the mean of four
        lambda x: F.interpolate(x.view(3, 1, 8), size=2, mode="area").flatten(1),
        torch.tensor([[1.0] * 4 + [0] * 4, [0] * 4 + [1] * 4]) / 4,
    ),
}


@pytest.mark.parametrize("name", SUMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_weighted_sum_equals_a_product_with_its_matrix(seed: int, name: str) -> None:
    function, weights = SUMS[name]
    x = draw(seed, 3, 8)
    (found,) = relevances(function, draw(seed + 50, *function(x).shape), x)
    r = draw(seed + 50, *function(x).shape).view(3, -1)
    expected = 2 * slow.matmul(*arrays(x, weights.double().T, r))[0]  # the matrix takes no half of it
    torch.testing.assert_close(found, torch.from_numpy(expected), **CLOSE)


SHAPES = [((3, 4, 2), (3, 4, 2)), ((3, 4, 2), (3, 1, 2)), ((3, 4, 2), (4, 2)), ((3, 1, 2), (3, 4, 1)), ((3,), (3,))]


@pytest.mark.parametrize(("shape_a", "shape_b"), SHAPES)
@pytest.mark.parametrize("seed", SEEDS)
def test_add_equals_loops_over_each_sample(seed: int, shape_a: tuple[int, ...], shape_b: tuple[int, ...]) -> None:
    a, b = draw(seed, *shape_a), draw(seed + 50, *shape_b)
    whole = torch.broadcast_shapes(shape_a, shape_b)
    r = draw(seed + 90, *whole)
    of_a, of_b = relevances(lambda a, b: a + b, r, a, b)
    pairs = [slow.add(*arrays(a.expand(whole)[i], b.expand(whole)[i], r[i])) for i in range(whole[0])]
    for found, side in ((of_a, 0), (of_b, 1)):
        expected = torch.stack([torch.as_tensor(pair[side]) for pair in pairs]).sum_to_size(found.shape)
        torch.testing.assert_close(found, expected, **CLOSE)


def test_a_sum_shares_a_relevance_that_is_smaller_than_epsilon() -> None:
    """Packed patches are summed one by one, and a patch may have very little of a relevance of 1."""
    a, b, r = (draw(seed, 2, 3, 4, zeros=0) for seed in range(3))
    for tiny, whole in zip(relevances(torch.add, 1e-12 * r, a, b), relevances(torch.add, r, a, b), strict=True):
        torch.testing.assert_close(tiny, 1e-12 * whole, rtol=1e-9, atol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tensor_used_twice_follows_the_clone_rule(seed: int) -> None:
    x, r, w = draw(seed, 2, 3, zeros=0), draw(seed + 50, 2, 6), draw(seed + 90, 3, 3)
    (found,) = relevances(lambda x: torch.cat([x.tanh(), x @ w], 1), r, x)
    for b in range(2):
        ways = r[b : b + 1, :3].numpy(), slow.linear(*arrays(x[b : b + 1], w.T, r[b : b + 1, 3:]))
        expected = torch.from_numpy(slow.clone(x[b : b + 1].numpy(), *ways))
        torch.testing.assert_close(found[b : b + 1], expected, rtol=1e-6, atol=1e-9)


M = draw(7, 3, 4) + 0.1
IDENTITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "softmax in another precision": lambda x: F.softmax(x, dim=-1, dtype=torch.float32).to(x.dtype),
    "layer norm": lambda x: F.layer_norm(x, (4,), nn.Parameter(M[0]), nn.Parameter(M[1])),
    "normalise": lambda x: F.normalize(x, dim=-1),
    "gelu": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "relu": F.relu,
    "silu": F.silu,
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "negative": lambda x: -x,
    "times a constant": lambda x: 3 * x * M,
    "times a parameter": lambda x: nn.Parameter(M) * x,
    "divided": lambda x: x / 3 / M,
    "plus a constant": lambda x: 1 + x + M,
    "plus a parameter": lambda x: x + nn.Parameter(M),
    "from parameters alone": lambda x: x + (nn.Parameter(M) ** 2).exp() + F.embedding(torch.arange(3), nn.Parameter(M)),
    "minus": lambda x: 2 - (x - M - 1),
    "quick gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "rms norm": lambda x: F.rms_norm(x, (4,), nn.Parameter(M[0])),
    "rms norm in steps": lambda x: nn.Parameter(M[0]) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)),
    "detached factor": lambda x: x * x.detach().exp(),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identities_pass_all_relevance_on(name: str) -> None:
    r = draw(1, 2, 3, 4)
    (found,) = relevances(IDENTITIES[name], r, draw(0, 2, 3, 4))
    torch.testing.assert_close(found, r, rtol=1e-6 if "precision" in name else 0, atol=1e-7 * ("precision" in name))


def test_dropout_in_training_also_passes_on_the_relevance_of_dropped_entries() -> None:
    x, r = draw(0, 2, 50).requires_grad_(), draw(1, 2, 50)
    with lrp():
        value = F.dropout(x, 0.5)
    assert (value == 0).sum() > 30
    assert torch.equal(torch.autograd.grad(value, x, r)[0], r)


def test_relevance_of_a_broadcast_operand_is_summed() -> None:
    r = draw(1, 2, 3, 4)
    (found,) = relevances(lambda x: x * M + M, r, draw(0, 2, 1, 4))
    torch.testing.assert_close(found, r.sum(1, keepdim=True))


MASK, INDEX = M > 0, torch.tensor([[2, 0], [1, 1]])
MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "transpose": lambda x: x.transpose(1, 2).mT.permute(1, 0, 2),
    "T": lambda x: x[0].T,
    "reshape": lambda x: x.reshape(2, 12).view(2, 3, 4).flatten(1).unflatten(1, (4, 3)),
    "chunk": lambda x: torch.cat(x.chunk(2, -1)[::-1], -1) + 0,
    "split": lambda x: torch.stack([*x.split(1, 1), M[:1].expand(2, 1, 4)]),
    "unpacked": lambda x: torch.cat(list(x.unbind(0))),
    "iterated": lambda x: torch.cat([row[:2] for row in x]),
    "expand": lambda x: x[:, None].expand(2, 5, 3, 4).contiguous(),
    "repeat": lambda x: x.repeat(2, 1, 1).repeat_interleave(2, 1),
    "gather": lambda x: x.gather(1, INDEX[..., None].expand(2, 2, 4)),
    "index_select": lambda x: x.index_select(1, INDEX[1]),
    "getitem": lambda x: x[torch.arange(2), INDEX[0], 1:],
    "squeeze": lambda x: x.unsqueeze(1).squeeze(1).clone(),
    "assigned": lambda x: _assigned(x),
    "index_put": lambda x: x.index_put((INDEX[1], INDEX[0]), x[0, :2]),
    "masked_scatter": lambda x: x[:1].masked_scatter(MASK, x[1:]),
    "masked": lambda x: x.masked_fill(~MASK, float("-inf")).masked_fill(~MASK, 0),
    "where": lambda x: torch.where(MASK, x, -1.0),
    "cast": lambda x: x.float().to(torch.float64).type_as(x),
    "pad": lambda x: F.pad(x, (1, 2)),
    "roll": lambda x: x.roll(1, 1).flip(0),
}


def _assigned(x: Tensor) -> Tensor:
    whole, constant = x.clone(), torch.zeros(2, 4, dtype=x.dtype)
    whole[0, 1:] = x[1, :2].flip(0)
    constant[1] = x[0, 0]
    return torch.cat([whole[0], constant])


@pytest.mark.parametrize("name", MOVES)
def test_relevance_follows_moved_entries(name: str) -> None:
    x = draw(0, 2, 3, 4).float().double()
    (found,) = relevances(MOVES[name], 1, x)
    leaf = x.clone().requires_grad_()
    value = MOVES[name](leaf)
    torch.testing.assert_close(found, torch.autograd.grad(value, leaf, draw(1, *value.shape))[0], rtol=1e-6, atol=1e-7)


# --- conservation ------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), m=st.integers(1, 4))
def test_products_conserve_relevance_except_where_they_are_zero(seed: int, n: int, m: int) -> None:
    x, w, y = (draw(seed + i, *shape).mul(4).round() / 4 for i, shape in enumerate([(2, n, 3), (m, 3), (2, 3, m)]))
    r, one_sample = draw(seed + 3, 2, n, m), (1, 2)
    z = x.clamp(min=0) @ w.T.clamp(min=0) + x.clamp(max=0) @ w.T.clamp(max=0)
    (found,) = relevances(lambda x: F.linear(x, w), r, x)
    torch.testing.assert_close(found.sum(one_sample), r.masked_fill(z == 0, 0).sum(one_sample), rtol=0, atol=1e-6)
    for half in relevances(lambda x, y: x @ y, r, x, y):
        expected = r.masked_fill(x @ y == 0, 0).sum(one_sample) / 2
        torch.testing.assert_close(half.sum(one_sample), expected, rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 4), m=st.integers(1, 4))
def test_a_sum_conserves_relevance_in_every_sample_and_no_part_exceeds_it(seed: int, n: int, m: int) -> None:
    a, b, r = (draw(seed + i, 2, n, m, zeros=0) for i in range(3))
    of_a, of_b = (part.sum((1, 2)) for part in relevances(lambda a, b: a + b, r, a, b))
    assume(min(of_a.abs().min(), of_b.abs().min()) > 1e-3)  # otherwise the added 1e-9 matters
    total = r.sum((1, 2))
    torch.testing.assert_close(of_a + of_b, total, rtol=1e-5, atol=1e-5)
    for part in (of_a, of_b):
        assert (part * total > 0).all()
        assert (part.abs() < total.abs()).all()


# --- what is refused ---------------------------------------------------------------------------------------------


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


W = draw(3, 4, 4)
ATTENTION = nn.MultiheadAttention(4, 2, batch_first=True).double()
REFUSED: dict[str, Callable[[Tensor], Any]] = {
    "torch.nn.functional.scaled_dot_product_attention: run the model with explicit attention": lambda x: (
        F.scaled_dot_product_attention(x, x, x)
    ),
    "torch.nn.functional.multi_head_attention_forward: run the model with explicit attention": lambda x: (
        ATTENTION.train()(x, x, x)[0]
    ),
    "torch.Tensor.pow|torch.Tensor.__pow__": lambda x: x**2,
    "torch.Tensor.exp": lambda x: x.exp(),
    "torch.Tensor.max": lambda x: x.max(1).values,
    "torch.Tensor.sub": lambda x: x - x.tanh(),
    "torch.Tensor.__rtruediv__": lambda x: 1 / x,
    "torch.div": lambda x: torch.div(M, x),
    "torch.add": lambda x: torch.add(x, x.tanh(), alpha=2),
    "torch.Tensor.index_put": lambda x: x.index_put((INDEX[1],), M, accumulate=True),
    "torch.nn.functional.interpolate": lambda x: F.interpolate(x[None], scale_factor=2, mode="bicubic"),
    "torch.functional.einsum": lambda x: torch.einsum("bij,jk->bik", x, W),
    "torch.nn.functional.linear": lambda x: F.linear(x, W + x[0, 0]),
    "torch.nn.functional.linear with": lambda x: F.linear(W, x[0]),
    "torch.nn.functional.conv1d|torch.conv1d": lambda x: F.conv1d(x, W[:3, :3, None]),
    "torch.nn.functional.layer_norm": lambda x: F.layer_norm(x, (4,), x[0, 0]),
    "torch.Tensor.matmul": lambda x: x @ W[0],
    "aten.exp": lambda x: torch.ops.aten.exp(x),
    "computed outside lrp": lambda x: Doubled.apply(x).tanh(),
    "torch.Tensor.add_": lambda x: x.tanh().add_(1),
    "torch.Tensor.mul_": lambda x: torch.ones_like(x).mul_(x),
    "in place: torch.nn.functional.relu": lambda x: F.relu(x.tanh(), inplace=True),
    "in place: torch.nn.functional.dropout": lambda x: F.dropout(x.tanh(), 0.5, True, True),
    "torch.Tensor.tanh got": lambda x: _written(x).tanh(),
}


def _propagated(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    value = function(x)
    torch.autograd.grad(value, x, torch.ones_like(value))


def _written(x: Tensor) -> Tensor:
    constant = torch.ones_like(x)
    constant.mul_(x)
    return constant


@pytest.mark.parametrize("message", REFUSED)
def test_a_function_without_a_rule_is_refused_by_name_and_leaves_no_mode_active(message: str) -> None:
    x = draw(0, 2, 3, 4).requires_grad_()
    with pytest.raises(TraceError, match=message), lrp():
        _propagated(REFUSED[message], x)
    assert torch.overrides._get_current_function_mode_stack() == []
    (gradient,) = torch.autograd.grad((x**2).sum(), x)
    torch.testing.assert_close(gradient, 2 * x.detach())


def test_a_function_without_a_rule_may_compute_what_the_explained_logit_ignores() -> None:
    x, r = draw(0, 2, 3, 4), draw(1, 2, 3, 4)
    with lrp():
        leaf = x.requires_grad_()
        used, ignored = leaf.tanh(), leaf.exp().softmax(-1)
    assert torch.equal(torch.autograd.grad(used, leaf, r)[0], r)
    with pytest.raises(TraceError, match=r"no rule for torch\.Tensor\.exp"):
        torch.autograd.grad(ignored, leaf, r)


def test_a_tensor_computed_outside_is_refused() -> None:
    before = draw(0, 2, 3).requires_grad_().exp()
    with lrp():
        assert before.shape == (2, 3)
        with pytest.raises(TraceError, match=r"torch.Tensor.tanh .* run the whole model inside lrp"):
            before.tanh()


def test_relevance_has_no_derivative() -> None:
    x = draw(0, 2, 3).requires_grad_()
    with lrp():
        value = (x @ draw(1, 3, 3) + x).tanh()
    start = torch.ones_like(value).requires_grad_()
    (relevance,) = torch.autograd.grad(value, x, start, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        relevance.sum().backward()


# --- what LRP does not affect ------------------------------------------------------------------------------------


def test_tensors_without_relevance_can_be_used_freely() -> None:
    weight = nn.Parameter(M.clone())
    x = draw(0, 2, 3, 4).requires_grad_()
    with lrp():
        constant = torch.ones(3).cumsum(0).add_(1)
        assert constant.tolist() == [2, 3, 4]
        assert not weight.exp().sum().requires_grad
        assert not x.detach().exp().requires_grad
        assert (x.argmax(-1) == x.detach().argmax(-1)).all()
        assert (x > 0).any()
        assert x.requires_grad
        assert weight.requires_grad
        assert isinstance(repr(x), str)
    assert (weight.exp()).requires_grad


def test_grad_modes_set_inside_take_effect() -> None:
    weight, x = nn.Parameter(M.clone()), draw(0, 2, 3, 4).requires_grad_()
    with lrp():
        with torch.no_grad():
            assert not torch.is_grad_enabled()
            assert not (x * x + weight).requires_grad
        assert torch.is_grad_enabled()
        torch.set_grad_enabled(False)
        assert not torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        assert (x + weight).requires_grad


def test_the_backward_pass_can_run_inside_or_after_and_several_times() -> None:
    x, w = draw(0, 2, 3, 4).requires_grad_(), draw(1, 4, 4)

    def value() -> Tensor:
        return (x @ w + x).softmax(-1) @ x.mT

    ones = torch.ones(2, 3, 3, dtype=torch.float64)
    with lrp():
        inside = torch.autograd.grad(value(), x, ones)[0]
        kept = value()
    with lrp(), lrp():
        nested = value()
    for after in (kept, kept, nested):
        assert torch.equal(torch.autograd.grad(after, x, ones, retain_graph=True)[0], inside)
    with lrp():
        torch.autograd.backward(kept, ones, retain_graph=True)
        assert x.grad is not None
        assert torch.equal(x.grad, inside)
        x.grad = None
        kept.backward(ones)
    assert torch.equal(x.grad, inside)
    assert not torch.allclose(torch.autograd.grad(value(), x, ones)[0], inside)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_equals_double_precision_up_to_rounding(dtype: torch.dtype) -> None:
    x, w, r = (draw(seed, 2, 4, 4, zeros=0).abs().to(dtype) for seed in (0, 1, 2))
    low = relevances(lambda x: (F.linear(x, w[0]) + x).softmax(-1) @ w, r, x)[0]
    high = relevances(lambda x: (F.linear(x, w[0].double()) + x).softmax(-1) @ w.double(), r.double(), x.double())[0]
    assert low.dtype == dtype
    torch.testing.assert_close(low.double(), high, rtol=0.1, atol=0.02)
