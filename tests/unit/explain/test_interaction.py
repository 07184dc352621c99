"""Modality interaction (Huang et al. 2023, Eq. 16-19), compared with the formulas written as loops."""

import dataclasses

import explain_reference as reference
import pytest
import torch
from explain_traces import CASES, SHAPES, make_trace, unpadded_sample

from explain import TraceError, explainers, interaction, mutual_interaction


def expected_interaction(trace, sample, query, key):
    alone, _ = unpadded_sample(trace, sample)
    values = reference.interaction(alone, query, key, lambda step: reference.weights(step, "total", "matrix"))
    valid = torch.ones(trace.batch, trace.tokens, dtype=torch.bool) if trace.valid is None else trace.valid
    kept = [valid[sample, trace.span(m)].nonzero()[:, 0] for m in (query, key)]
    matrix = torch.zeros(trace.sizes[query], trace.sizes[key], dtype=torch.float64)
    matrix[kept[0][:, None], kept[1]] = torch.tensor(values, dtype=torch.float64)
    return matrix


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_interaction_equals_the_formulas(shape, case, padded):
    trace = make_trace(shape, seed=2, padded=padded, case=case)
    to_text, to_image = interaction(trace, "image", "text"), interaction(trace, "text", "image")
    for sample in range(3):
        for found, pair in ((to_text, ("image", "text")), (to_image, ("text", "image"))):
            torch.testing.assert_close(found[sample], expected_interaction(trace, sample, *pair))
    torch.testing.assert_close(mutual_interaction(trace, "image", "text"), to_text * to_image.mT)


def test_the_relevance_map_can_use_another_explainer():
    trace = make_trace("b")
    uniform = interaction(trace, "image", "text", explainers.Uniform())
    assert uniform.shape == (3, 5, 4)
    assert not torch.allclose(uniform, interaction(trace, "image", "text"))


def test_errors_name_the_cause():
    trace = make_trace("b")
    with pytest.raises(TraceError, match="two different modalities"):
        interaction(trace, "image", "image")
    with pytest.raises(TraceError, match="two different modalities"):
        interaction(trace, "joint", "text")
    with pytest.raises(TraceError, match="unknown modality 'sound'"):
        interaction(trace, "image", "sound")
    bare = [dataclasses.replace(step, attention_grad=None) for step in trace.steps]
    with pytest.raises(TraceError, match="interaction needs attention_grad"):
        interaction(dataclasses.replace(trace, steps=bare), "image", "text")
