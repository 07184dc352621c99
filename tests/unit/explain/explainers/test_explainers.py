"""Each explainer compared with its formulas written as loops, on single samples without padding."""

import dataclasses

import pytest
import torch
from explain_table import EXPLAINERS, REFERENCES
from explain_traces import CASES, SHAPES, make_trace, select, unpadded_sample

from explain import explainers

pytestmark = pytest.mark.parametrize("shape", SHAPES)


def expected_matrix(name, trace, sample):
    """Return the reference map of one sample, with its padded tokens inserted again.

    The columns of padded tokens are zero except on the diagonal, and their rows are unit rows.
    """
    alone, kept = unpadded_sample(trace, sample)
    matrix = torch.eye(trace.tokens, dtype=torch.float64)
    matrix[kept[:, None], kept] = torch.tensor(REFERENCES[name](alone), dtype=torch.float64)
    return matrix


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("seed", "case"), [*((0, case) for case in CASES), (1, "plain"), (2, "plain")])
@pytest.mark.parametrize("name", REFERENCES)
def test_the_map_equals_the_formulas(name, shape, seed, case, padded):
    trace = make_trace(shape, seed, padded=padded, case=case)
    matrix = EXPLAINERS[name](trace).matrix
    for sample in range(trace.batch):
        torch.testing.assert_close(matrix[sample], expected_matrix(name, trace, sample), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("case", "padded"), [("no_importance", False), ("no_evidence", True)])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_single_row_equals_the_row_of_the_matrix(name, shape, case, padded):
    trace = make_trace(shape, seed=3, padded=padded, case=case)
    matrix = EXPLAINERS[name](trace).matrix
    for rows in ([0, 0, 0], [8, 3, 5], [6, 1, 2]):
        index = torch.tensor(rows)
        scores = EXPLAINERS[name](trace, rows=index)
        assert scores.shape == (3, 9)
        torch.testing.assert_close(scores, matrix[torch.arange(3), index], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_single_precision_agrees_with_double(name, shape):
    single = EXPLAINERS[name](make_trace(shape, seed=4, padded=True, dtype=torch.float32)).matrix
    double = EXPLAINERS[name](make_trace(shape, seed=4, padded=True)).matrix
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-3, atol=1e-5)


def test_half_precision_traces_are_explained_in_single_precision(shape):
    trace = make_trace(shape, seed=4, dtype=torch.bfloat16)
    matrix = explainers.Weighted()(trace).matrix
    assert matrix.dtype == torch.float32
    torch.testing.assert_close(matrix.sum(-1), torch.ones(3, 9), rtol=0, atol=1e-5)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", [name for name in EXPLAINERS if not EXPLAINERS[name].partners])
def test_a_samples_map_does_not_depend_on_the_batch(name, shape, padded):
    trace = make_trace(shape, seed=5, padded=padded)
    matrix = EXPLAINERS[name](trace).matrix
    for samples in ([1], [2, 0, 1]):
        part = EXPLAINERS[name](select(trace, samples)).matrix
        torch.testing.assert_close(part, matrix[samples], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_padded_tokens_get_no_relevance_and_change_nothing(name, shape):
    trace = make_trace(shape, seed=6, padded=True)
    other = make_trace(shape, seed=7, padded=True)
    garbled = _with_padding_of(trace, other)
    matrix = EXPLAINERS[name](trace).matrix
    torch.testing.assert_close(EXPLAINERS[name](garbled).matrix, matrix, rtol=1e-12, atol=1e-14)
    from_valid_to_padded = trace.valid[:, :, None] & ~trace.valid[:, None, :]
    assert matrix[from_valid_to_padded].abs().sum() == 0


def _with_padding_of(trace, other):
    """Return ``trace`` with the entries of its padded tokens replaced by those of another trace."""

    def mix(step, name, there):
        own, queries = getattr(step, name), trace.valid[:, trace.span(step.query)]
        keys = trace.valid[:, trace.span(step.key)]
        seen = (queries[:, :, None] & keys[:, None, :])[:, None] if own.ndim == 4 else queries[:, :, None]
        return own.where(seen, getattr(there, name))

    names = [f.name for f in dataclasses.fields(trace.steps[0]) if f.name not in ("query", "key", "stage")]
    steps = [
        dataclasses.replace(step, **{name: mix(step, name, there) for name in names})
        for step, there in zip(trace.steps, other.steps, strict=True)
    ]
    return dataclasses.replace(trace, steps=steps)


@pytest.mark.parametrize("name", ["weighted", "weighted_branch_token", "uniform", "constant", "genatt", "trans_att"])
def test_without_gradients_the_map_stays_the_identity(name, shape):
    matrix = EXPLAINERS[name](make_trace(shape, case="zero_gradients")).matrix
    torch.testing.assert_close(matrix, torch.eye(9, dtype=torch.float64).expand(3, 9, 9), rtol=0, atol=1e-15)


def test_modalities_can_have_another_order_and_size(shape):
    trace = make_trace(shape, seed=8, sizes={"text": 2, "image": 3})
    relevance = explainers.Weighted()(trace)
    torch.testing.assert_close(relevance.block("text", "image"), relevance.matrix[:, :2, 2:5], rtol=0, atol=0)
