"""LRP in float64 through models of other precisions: relevance is that of a float64 model, the model is unchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lrp_reference as slow
import pytest
import torch
from adapter_checks import breaking
from models import random_vqa, samples
from torch import Tensor, nn
from torch.nn import functional as F
from traced_models import MODELS

from clipmapper.encoder.load import TextBatch
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import Needs, explainers, targets
from explain.explainers.base.explainer import Precision
from explain.lrp import lrp
from explain.lrp.precision import chosen_precision, in_float64
from explain.trace import AttentionTrace

pytest.importorskip("transformers")

models = pytest.mark.parametrize("name", MODELS)


def needs(precision: Precision = "auto") -> Needs:
    return Needs.of([explainers.TransAtt(precision)])


def relevances(trace: AttentionTrace) -> list[Tensor]:
    return [step.tensor("attention_relevance") for step in trace.steps]


def assert_close(found: Tensor, expected: Tensor, bound: float = 1e-9) -> None:
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=bound * float(expected.abs().max()))


# --- whole models ------------------------------------------------------------------------------------------------


@models
def test_a_float32_model_has_the_relevance_and_maps_of_its_float64_copy(name: str) -> None:
    single, double = (MODELS[name](dtype)[1](needs()).trace for dtype in (torch.float32, torch.float64))
    for found, expected in zip(relevances(single), relevances(double), strict=True):
        assert_close(found, expected)
    for explainer in (explainers.TransAtt(), explainers.PartialLRP()):
        assert_close(explainer(single).matrix.double(), explainer(double).matrix, 1e-6)


@pytest.mark.parametrize("mapper", ["a", "b"])
def test_autocast_does_not_change_the_relevance(mapper: str) -> None:
    model, given, options = random_vqa(mapper), samples(2), {"target": targets.given([1, 4]), "needs": needs()}
    plain = trace_vqa(model, *given, **options).trace
    with torch.autocast("cpu", torch.bfloat16):
        cast = trace_vqa(model, *given, **options).trace
    assert cast.steps[-1].attention.dtype == torch.bfloat16
    for found, expected in zip(relevances(cast), relevances(plain), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("mapper", ["a", "b"])
def test_a_sample_alone_has_the_relevance_that_it_has_in_a_padded_batch(mapper: str) -> None:
    model = random_vqa(mapper)
    pixels, questions = samples(4)
    answers = model(pixels, questions).argmax(1)
    whole = trace_vqa(model, pixels, questions, lambda y: y[torch.arange(4), answers], needs()).trace
    for b in range(4):
        length = int(questions.valid[b].sum())
        text = TextBatch(questions.ids[b : b + 1, :length], questions.valid[b : b + 1, :length], 0)
        alone = trace_vqa(model, pixels[b : b + 1], text, lambda y, b=b: y[:, answers[b]], needs()).trace
        for found, padded in zip(relevances(alone), relevances(whole), strict=True):
            assert_close(found[0], padded[b, :, : found.shape[2], : found.shape[3]])


@pytest.mark.parametrize("fails", [False, True])
@models
def test_nothing_is_left_on_the_model(name: str, fails: bool) -> None:
    model, trace_of = MODELS[name](torch.float32)
    before = {key: (tensor, tensor.clone()) for key, tensor in _tensors(model).items()}
    if fails:
        last = [module for module in model.modules() if isinstance(module, nn.LayerNorm)][-1]
        with breaking(last), pytest.raises(RuntimeError, match="broken"):
            trace_of(needs())
    else:
        trace_of(needs())
    for key, tensor in _tensors(model).items():
        same, value = before[key]
        assert tensor is same
        assert tensor.dtype == value.dtype
        assert torch.equal(tensor, value)
    assert torch.overrides._get_current_function_mode_stack() == []


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())


def test_relevance_of_a_trainable_model_is_that_of_the_frozen_one() -> None:
    model = random_vqa("b")
    found = [relevances(trace_vqa(model.requires_grad_(on), *samples(2), needs=needs()).trace) for on in (False, True)]
    for frozen, trainable in zip(*found, strict=True):
        assert torch.equal(frozen, trainable)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_precision_of_the_model_is_used_when_it_is_asked_for() -> None:
    model, given = random_vqa("b"), samples(2)
    for dtype in (torch.float32, torch.bfloat16):
        trace = trace_vqa(model.to(dtype), given[0].to(dtype), given[1], needs=needs("model")).trace
        assert {relevance.dtype for relevance in relevances(trace)} == {dtype}


# --- the choice --------------------------------------------------------------------------------------------------


def test_auto_is_float64_below_one_gigabyte() -> None:
    small, large = (nn.Linear(width, 1000, bias=False, device="meta") for width in (249_999, 250_000))
    assert [chosen_precision(model, precision) for model in (small, large) for precision in (None, "auto")] == [
        *("float64", "float64"),
        *("model", "model"),
    ]
    assert chosen_precision(large, "float64") == "float64"
    assert chosen_precision(small, "model") == "model"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(["model"], "model"), (["model", "auto"], "auto"), (["float64", "model"], "float64"), (["auto"], "auto")],
)
def test_explainers_that_share_a_pass_get_the_highest_precision(asked: list[Precision], expected: str) -> None:
    assert Needs.of([explainers.Weighted(), *map(explainers.PartialLRP, asked)]).precision == expected
    assert Needs.of([explainers.Weighted()]).precision is None


@pytest.mark.parametrize("explainer", [explainers.TransAtt, explainers.PartialLRP])
def test_an_unknown_precision_is_refused(explainer: Any) -> None:
    with pytest.raises(ValueError, match="precision='double': choose one of auto, float64, model"):
        explainer("double")


# --- the mode ----------------------------------------------------------------------------------------------------

X, W = (torch.randn(4, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda x, w: x @ w + 1,
    "parameter": lambda x, w: F.linear(x, nn.Parameter(w)),
    "list": lambda x, w: torch.cat([x, w]),
    "data type": lambda x, w: x.softmax(-1, dtype=torch.float32),
    "type of another tensor": lambda x, w: (x @ w).to(w.dtype).type_as(w),
    "conversion": lambda x, w: (x @ w).float().half().to(torch.bfloat16),
    "new tensor": lambda x, w: (x @ w) * torch.ones(4, dtype=torch.float16),
    "leaf": lambda x, w: (x @ w).detach().requires_grad_() @ w,
    "constant written in place": lambda x, w: (x @ w).masked_fill(torch.zeros(4, 4).fill_diagonal_(1) > 0, 0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_computes_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with in_float64():
        found = FUNCTIONS[name](X, W)
    assert X.dtype == W.dtype == torch.float32
    for method in ("float", "half"):
        monkeypatch.setattr(Tensor, method, Tensor.double)
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch, "bfloat16", torch.float64)
    expected = FUNCTIONS[name](X.double(), W.double())
    assert torch.equal(found, expected)
    assert found.dtype == torch.float64


def test_relevance_of_a_float32_leaf_is_that_of_float64_rules() -> None:
    leaf, weight = X.clone().requires_grad_(), nn.Parameter(W.clone())
    with lrp(), in_float64():
        value = F.linear(leaf, weight)
    assert value.dtype == torch.float64
    (found,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    expected = slow.linear(X.double().numpy(), W.double().numpy(), torch.ones(4, 4).double().numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected).float())
