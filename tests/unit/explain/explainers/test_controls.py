"""The controls (weights of other samples, random order, input × gradient), and invalid options of explainers."""

import dataclasses
import itertools
import math

import explain_reference as reference
import pytest
import torch
from explain_table import BORROWED, EXPLAINERS
from explain_traces import SHAPES, make_trace, select, unpadded_sample

from explain import TraceError, explainers


def borrowed_matrix(name, trace, sample, others):
    """Return the reference map of one sample that uses the weights of the samples ``others`` of the trace."""
    alone, kept = unpadded_sample(trace, sample)
    found = BORROWED[name](alone, [unpadded_sample(trace, other)[0] for other in others])
    matrix = torch.eye(trace.tokens, dtype=torch.float64)
    matrix[kept[:, None], kept] = torch.tensor(found, dtype=torch.float64)
    return matrix


def is_close(one, other):
    return torch.allclose(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in BORROWED if EXPLAINERS[name].partners == 1])
def test_shuffled_uses_the_weights_of_one_sample_of_another_image(name, shape, padded):
    pictures = [7, 7, 8, 9]
    trace = make_trace(shape, seed=1, batch=4, padded=padded, picture_ids=pictures)
    matrix = EXPLAINERS[name](trace).matrix
    for sample, picture in enumerate(pictures):
        fits = [is_close(matrix[sample], borrowed_matrix(name, trace, sample, [other])) for other in range(4)]
        assert sum(fits) == 1
        assert pictures[fits.index(True)] != picture


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [name for name in BORROWED if EXPLAINERS[name].partners > 1])
def test_depth_matched_uses_the_mean_weights_of_all_samples_of_other_images(name, shape, padded):
    trace = make_trace(shape, seed=1, batch=4, padded=padded, picture_ids=[7, 7, 8, 9])
    matrix = EXPLAINERS[name](trace).matrix
    for sample, others in enumerate([[2, 3], [2, 3], [0, 1, 3], [0, 1, 2]]):
        torch.testing.assert_close(matrix[sample], borrowed_matrix(name, trace, sample, others), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", BORROWED)
def test_the_order_of_a_batch_does_not_matter(name):
    trace, order = make_trace("b", batch=5, picture_ids=[7, 7, 8, 9, 9]), [3, 0, 4, 2, 1]
    matrix = EXPLAINERS[name](trace).matrix
    torch.testing.assert_close(EXPLAINERS[name](select(trace, order)).matrix, matrix[order], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", BORROWED)
def test_given_weights_are_used_as_they_are(name):
    trace = make_trace("b")
    steps = len(trace.steps)
    bound = EXPLAINERS[name].with_weights(torch.full((3, steps), 0.7, dtype=torch.float64))
    torch.testing.assert_close(bound(trace).matrix, explainers.Constant(weight=0.7)(trace).matrix)
    assert bound.needs == ("attention_grad",)
    alone = EXPLAINERS[name].with_weights(torch.full((1, steps), 0.7, dtype=torch.float64))
    assert alone(select(trace, [1])).matrix.isfinite().all()  # no second sample is needed
    with pytest.raises(TraceError, match=rf"expected weights \[3, {steps}\], got \[1, {steps}\]"):
        alone(trace)


def test_own_weights_are_those_of_the_weighted_method():
    trace = make_trace("a", padded=True)
    weights = explainers.Shuffled().own_weights(trace)
    for sample in range(3):
        steps = [step for stage in reference.stages(unpadded_sample(trace, sample)[0]) for step in stage]
        expected = torch.tensor([reference.weights(s, "total", "matrix")[0][0] for s in steps], dtype=torch.float64)
        torch.testing.assert_close(weights[sample], expected)
    torch.testing.assert_close(
        explainers.Shuffled().with_weights(weights)(trace).matrix, explainers.Weighted()(trace).matrix
    )


def test_names_of_samples_and_images_fit_the_batch():
    with pytest.raises(TraceError, match="picture_ids: expected 3 names, got 2"):
        make_trace("a", picture_ids=[1, 2])


def test_constant_with_weight_one_half_equals_uniform():
    trace = make_trace("b")
    uniform, constant = explainers.Uniform()(trace), explainers.Constant(weight=0.5)(trace)
    assert torch.equal(uniform.matrix, constant.matrix)


def test_with_all_weight_on_the_skip_connection_the_map_stays_the_identity():
    matrix = explainers.Constant(weight=1)(make_trace("b")).matrix
    assert torch.equal(matrix, torch.eye(9, dtype=torch.float64).expand(3, 9, 9))


def test_random_depends_only_on_seed_sample_and_token():
    rows = torch.zeros(3, dtype=torch.long)
    scores = explainers.Random(seed=3)(make_trace("a", seed=0), rows=rows)
    again = explainers.Random(seed=3)(make_trace("b", seed=1), rows=rows)
    longer = explainers.Random(seed=3)(make_trace("a", sizes={"image": 5, "text": 7}), rows=rows)
    assert torch.equal(scores, again)
    assert torch.equal(scores, longer[:, :9])
    assert not torch.equal(scores, explainers.Random(seed=4)(make_trace("a"), rows=rows))
    assert len(set(scores.flatten().tolist())) == 27
    assert 0 <= scores.min() <= scores.max() < 1


def test_random_without_names_uses_the_position_in_the_batch():
    trace = make_trace("a")
    object.__setattr__(trace, "sample_ids", None)
    scores = explainers.Random()(trace, rows=torch.zeros(3, dtype=torch.long))
    assert len(set(scores.flatten().tolist())) == 27


def test_input_x_gradient_equals_the_formula_and_is_zero_at_padding():
    trace = make_trace("a", padded=True)
    relevance = explainers.InputXGradient()(trace)
    for sample in range(3):
        alone, kept = unpadded_sample(trace, sample)
        expected = torch.zeros(9, 9, dtype=torch.float64)
        expected[:, kept] = torch.tensor(reference.input_x_gradient(alone)[0], dtype=torch.float64)
        torch.testing.assert_close(relevance.matrix[sample], expected)


def test_input_x_gradient_names_the_missing_modality():
    trace = make_trace("a")
    del trace.inputs_grad["text"]
    with pytest.raises(TraceError, match="inputs_grad of 'text'"):
        explainers.InputXGradient()(trace)


def test_errors_for_unknown_options_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"residual_gradient='skip'.*total, branch"):
        explainers.Weighted(residual_gradient="skip")
    with pytest.raises(ValueError, match=r"importance='head'.*matrix, token"):
        explainers.Weighted(importance="head")
    with pytest.raises(ValueError, match="residual_gradient"):
        explainers.Shuffled(residual_gradient="skip")
    with pytest.raises(ValueError, match=r"weight=1\.5"):
        explainers.Constant(weight=1.5)


@pytest.mark.parametrize("padded", [False, True])
def test_integrated_gradients_of_a_sum_over_tokens_are_each_tokens_increase(padded):
    trace = make_trace("a", padded=padded)
    scores = explainers.IntegratedGradients(steps=64)(trace, rows=torch.zeros(3, dtype=torch.long))
    for b in range(3):
        for modality, x in trace.inputs.items():
            span = trace.span(modality)
            valid = torch.ones(len(x[b]), dtype=torch.bool) if trace.valid is None else trace.valid[b, span]
            mean = x[b][valid].mean(0) if valid.any() else torch.zeros_like(x[b, 0])
            increase = (x[b].tanh() - mean.tanh()).sum(-1) * valid
            torch.testing.assert_close(scores[b, span], increase, atol=1e-8, rtol=1e-8)


def test_integrated_gradients_need_at_least_one_step():
    with pytest.raises(ValueError, match="steps=0: must be 1 or more"):
        explainers.IntegratedGradients(steps=0)


@pytest.mark.parametrize("padded", [False, True])
def test_positional_text_orders_count_only_valid_tokens(padded):
    trace = make_trace("b", padded=padded)
    rows = torch.zeros(3, dtype=torch.long)
    first, last = explainers.FirstToLast()(trace, rows), explainers.LastToFirst()(trace, rows)
    for b in range(3):
        valid = torch.arange(5, 9) if trace.valid is None else 5 + trace.valid[b, 5:].nonzero()[:, 0]
        assert last[b, valid].tolist() == list(range(1, len(valid) + 1))
        assert first[b, valid].tolist() == list(range(len(valid), 0, -1))


@pytest.mark.parametrize("grid", [(1, 1), (3, 3), (2, 5), (4, 4)])
def test_centre_first_ranks_patches_by_their_distance_to_the_centre(grid):
    rows, cols = grid
    trace = make_trace("a", sizes={"image": rows * cols + 2, "text": 2})
    object.__setattr__(trace, "grid", grid)
    scores = explainers.CentreFirst()(trace, torch.zeros(3, dtype=torch.long))[1]
    distance = [math.dist((r, c), ((rows - 1) / 2, (cols - 1) / 2)) for r in range(rows) for c in range(cols)]
    found = scores[2 : 2 + rows * cols]
    for i, j in itertools.product(range(rows * cols), repeat=2):
        equal = math.isclose(distance[i], distance[j])
        assert (found[i] == found[j]) if equal else (found[i] > found[j]) == (distance[i] < distance[j])
    assert scores[:2].tolist() == scores[-2:].tolist() == [0, 0]


def test_centre_first_needs_a_grid_that_fits():
    trace = make_trace("a")
    with pytest.raises(TraceError, match="grid: 2 x 3 patches are more than the image tokens"):
        dataclasses.replace(trace, grid=(2, 3))
    with pytest.raises(TraceError, match="CentreFirst needs grid, which this trace lacks"):
        explainers.CentreFirst()(dataclasses.replace(trace, grid=None))
