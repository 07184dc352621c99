"""Properties that hold for every trace, tested on traces drawn by hypothesis."""

import dataclasses

import pytest
import torch
from explain_traces import CASES, SHAPES, make_trace
from hypothesis import given, settings
from hypothesis import strategies as st

from explain import explainers

traces = st.builds(
    make_trace,
    shape=st.sampled_from(sorted(SHAPES)),
    seed=st.integers(0, 2**31),
    batch=st.integers(2, 3),
    padded=st.booleans(),
    case=st.sampled_from(CASES),
    sizes=st.fixed_dictionaries({"image": st.integers(1, 5), "text": st.integers(1, 4)}),
)
WEIGHTED = {
    "total": explainers.Weighted(),
    "branch_token": explainers.Weighted("branch", "token"),
    "uniform": explainers.Uniform(),
    "constant": explainers.Constant(),
    "shuffled": explainers.Shuffled(),
    "depth_matched": explainers.DepthMatched(),
}


def scaled(trace, scale):
    """Return the trace with all gradients multiplied by ``scale``."""
    grads = ("attention_grad", "residual_grad", "output_grad")
    steps = [dataclasses.replace(s, **{name: getattr(s, name) * scale for name in grads}) for s in trace.steps]
    return dataclasses.replace(trace, steps=steps)


@pytest.mark.parametrize("name", WEIGHTED)
@settings(max_examples=25, deadline=None)
@given(trace=traces)
def test_rows_are_non_negative_and_sum_to_one_after_every_step(name, trace):
    for end in range(1, len(trace.steps) + 1):
        matrix = WEIGHTED[name](dataclasses.replace(trace, steps=trace.steps[:end])).matrix
        assert matrix.min() >= 0
        torch.testing.assert_close(matrix.sum(-1), torch.ones_like(matrix[:, 0]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", WEIGHTED)
@settings(max_examples=25, deadline=None)
@given(trace=traces, exponent=st.sampled_from([-30, -15, 0, 6]))
def test_the_scale_of_the_explained_scalar_does_not_matter(name, trace, exponent):
    small = WEIGHTED[name](scaled(trace, 10.0**exponent)).matrix
    torch.testing.assert_close(small, WEIGHTED[name](trace).matrix, rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(trace=traces, data=st.data())
def test_a_single_row_equals_the_row_of_the_map(trace, data):
    rows = torch.tensor(
        data.draw(st.lists(st.integers(0, trace.tokens - 1), min_size=trace.batch, max_size=trace.batch))
    )
    for explainer in (*WEIGHTED.values(), explainers.GenAtt(), explainers.Rollout(), explainers.TransAtt()):
        torch.testing.assert_close(explainer(trace, rows=rows), explainer(trace).row(rows), rtol=1e-9, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(trace=traces)
def test_rows_of_rollout_of_self_attention_sum_to_one(trace):
    steps = [step for step in trace.steps if not step.is_cross]
    matrix = explainers.Rollout()(dataclasses.replace(trace, steps=steps)).matrix
    torch.testing.assert_close(matrix.sum(-1), torch.ones_like(matrix[:, 0]), rtol=0, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(trace=traces)
def test_every_explainer_gives_finite_numbers_for_every_trace(trace):
    for name in explainers.__all__:
        assert bool(getattr(explainers, name)()(trace).matrix.isfinite().all())
