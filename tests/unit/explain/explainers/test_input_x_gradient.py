"""Input × gradient of every model: the products do not cancel, so that the scores are not rounding noise."""

import pytest
import torch
from traced_models import MODELS

from explain import Needs, explainers

pytest.importorskip("transformers")

EXPLAINER = explainers.InputXGradient()
models = pytest.mark.parametrize("name", MODELS)


@models
@pytest.mark.parametrize("modality", ["image", "text"])
def test_products_of_a_token_do_not_cancel(name, modality):
    """A layer norm directly after the recorded embeddings would ignore their length, so that Σ_c E · ∂y/∂E is 0."""
    _, trace_of = MODELS[name](torch.float32)
    trace = trace_of(Needs.of([EXPLAINER])).trace
    products = trace.inputs[modality] * trace.inputs_grad[modality]
    products = products[trace.valid_tokens(modality)]
    products = products[products.abs().sum(1) > 0]  # y does not depend on the others
    assert len(products) > 0
    assert (products.sum(1).abs() / products.abs().sum(1)).median() > 1e-5


@models
def test_the_top_patches_are_those_of_the_same_model_in_float64(name):
    tops = []
    for dtype in (torch.float32, torch.float64):
        _, trace_of = MODELS[name](dtype)
        traced = trace_of(Needs.of([EXPLAINER]))
        tops.append(traced.explain(EXPLAINER)["image"].topk(3).indices)
    assert torch.equal(*tops)
