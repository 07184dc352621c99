"""The names that other projects may import, and the examples of the contract, word for word."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

import explain
from clipmapper.metrics.vqa import normalize_answer, vqa_accuracy
from explain import AttentionStep, AttentionTrace, explainers

NAMES = {
    "explain": (
        *("AttentionStep", "AttentionTrace", "Explainer", "Recorder", "Relevance", "TraceError"),
        *("active_recorder", "record", "interaction", "mutual_interaction", "explainers", "targets"),
    ),
    "explain.explainers": (
        *("Weighted", "Uniform", "Constant", "Shuffled", "RawAttention", "Rollout", "GenAtt", "AttentionGradCAM"),
        "DepthMatched",
        *("TransAtt", "PartialLRP", "Random", "InputXGradient", "IntegratedGradients"),
        *("FirstToLast", "LastToFirst", "CentreFirst"),
    ),
    "explain.targets": ("predicted", "given", "margin"),
    "clipmapper.metrics.vqa": ("normalize_answer", "vqa_accuracy"),
}
IMAGE, TEXT, BATCH, HEADS, WIDTH = 5, 4, 3, 2, 8


@pytest.mark.parametrize(("module", "name"), [(module, name) for module in NAMES for name in NAMES[module]])
def test_a_name_can_be_imported_from_its_module(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


def test_the_names_of_explain_are_in_its_all() -> None:
    assert set(explain.__all__) >= set(NAMES["explain"])
    assert set(explainers.__all__) >= set(NAMES["explain.explainers"])


def step(query: str, key: str, stage: int) -> AttentionStep:
    """Return the step of the contract's example, word for word, with random tensors."""
    sizes = {"image": IMAGE, "text": TEXT, "joint": IMAGE + TEXT}
    n_query, n_key = sizes[query], sizes[key]
    A = torch.rand(BATCH, HEADS, n_query, n_key).softmax(-1)
    gA = torch.randn_like(A)
    X, gX, Y, gY = (torch.randn(BATCH, n_query, WIDTH) for _ in range(4))
    return AttentionStep(
        query=query, key=key,
        attention=A, attention_grad=gA,
        residual=X, residual_grad=gX,
        output=Y, output_grad=gY,
        stage=stage,
    )  # fmt: skip


def trace(valid: torch.Tensor | None = None, **more: Any) -> AttentionTrace:
    torch.manual_seed(0)
    steps = [step("image", "image", 0), step("text", "text", 0), step("image", "text", 1), step("text", "image", 1)]
    return AttentionTrace(sizes={"image": IMAGE, "text": TEXT}, steps=steps, valid=valid, **more)


def test_the_contracts_example() -> None:
    traced = trace(valid=None)
    relevance = explainers.Weighted(residual_gradient="total")(traced)
    assert relevance.matrix.shape == (BATCH, IMAGE + TEXT, IMAGE + TEXT)
    assert relevance.block("text", "image").shape == (BATCH, TEXT, IMAGE)
    torch.testing.assert_close(relevance.block("text", "image"), relevance.matrix[:, IMAGE:, :IMAGE])
    idx = torch.tensor([0, 3, IMAGE + 1])
    scores = explainers.Weighted()(traced, rows=idx)
    assert scores.shape == (BATCH, IMAGE + TEXT)
    torch.testing.assert_close(scores, relevance.matrix[torch.arange(BATCH), idx])


def test_a_joint_trace_and_padding() -> None:
    torch.manual_seed(0)
    valid = torch.ones(BATCH, IMAGE + TEXT, dtype=torch.bool)
    valid[0, -1] = False
    joint = AttentionTrace(sizes={"image": IMAGE, "text": TEXT}, steps=[step("joint", "joint", 0)], valid=valid)
    relevance = explainers.Uniform()(joint)
    assert relevance.matrix.shape == (BATCH, IMAGE + TEXT, IMAGE + TEXT)
    assert relevance.matrix[0, :-1, -1].abs().max() == 0  # a padding token contributes nothing to the others


@pytest.mark.parametrize(
    "name",
    ["Weighted", "Uniform", "Constant", "Shuffled", "RawAttention", "Rollout", "GenAtt", "AttentionGradCAM", "Random"],
)
def test_an_explainer_needs_only_the_fields_of_the_contract(name: str) -> None:
    relevance = getattr(explainers, name)()(trace(sample_ids=[7, 8, 9]))
    assert relevance.matrix.shape == (BATCH, IMAGE + TEXT, IMAGE + TEXT)
    assert relevance.matrix.isfinite().all()


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("TransAtt", "attention_relevance"), ("PartialLRP", "attention_relevance"), ("InputXGradient", "inputs")],
)
def test_a_missing_field_is_named_in_the_error(name: str, lacks: str) -> None:
    with pytest.raises(explain.TraceError, match=lacks):
        getattr(explainers, name)()(trace())


def test_the_official_normalisation_and_accuracy() -> None:
    assert normalize_answer("A red, white kite.") == "red white kite"
    answers = [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number}
        for number, answer in enumerate(["kite"] * 2 + ["a kite."] + ["bird"] * 7, 1)
    ]
    assert vqa_accuracy("kite", answers) == pytest.approx(0.6 + 0.3)  # mean of min(agreeing others / 3, 1)
    assert vqa_accuracy("bird", answers) == 1.0
    assert vqa_accuracy("dog", answers) == 0.0
