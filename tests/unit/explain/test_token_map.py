"""Token maps: compared with loops over single tokens, and properties that hold for every trace."""

import dataclasses

import pytest
import token_map_reference as reference
import torch
from explain_table import EXPLAINERS
from explain_traces import make_trace
from hypothesis import given, settings
from hypothesis import strategies as st
from mapped_traces import SHAPES, make_mapped_trace, sample_of

from explain import TokenMap, TraceError, explainers, interaction

REFERENCES = {
    "weighted": reference.weighted,
    "rollout": reference.rollout,
    "genatt": reference.genatt,
    "trans_att": reference.trans_att,
    "raw_attention": reference.raw_attention,
}
shapes = pytest.mark.parametrize("shape", SHAPES)
close = {"rtol": 1e-10, "atol": 1e-12}


@shapes
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", REFERENCES)
def test_the_map_equals_the_loops(name, shape, seed, padded):
    trace = make_mapped_trace(shape, seed, padded=padded)
    matrix = EXPLAINERS[name](trace).matrix
    assert matrix.shape == (trace.batch, trace.final.tokens, trace.tokens)
    for sample in range(trace.batch):
        alone, columns, rows = sample_of(trace, sample)
        expected = torch.tensor(REFERENCES[name](alone), dtype=torch.float64)
        torch.testing.assert_close(matrix[sample][rows][:, columns], expected, **close)
        others = torch.ones(trace.tokens, dtype=torch.bool)
        others[columns] = False
        assert matrix[sample][rows][:, others].abs().sum() == 0


@shapes
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_rows_and_weighted_sums_of_rows_equal_those_of_the_matrix(name, shape, padded):
    trace = make_mapped_trace(shape, 3, padded=padded)
    matrix = EXPLAINERS[name](trace).matrix
    assert bool(matrix.isfinite().all())
    for rows in (torch.tensor([0, 0]), torch.tensor([trace.final.tokens - 2, 1])):
        torch.testing.assert_close(EXPLAINERS[name](trace, rows), matrix[torch.arange(2), rows], **close)
    weights = torch.rand(2, trace.final.tokens, dtype=torch.float64)
    weights = weights / weights.sum(-1, keepdim=True)
    torch.testing.assert_close(EXPLAINERS[name](trace, weights), (weights[:, None] @ matrix)[:, 0], **close)


mapped = st.builds(
    make_mapped_trace, shape=st.sampled_from(sorted(SHAPES)), seed=st.integers(0, 2**31), padded=st.booleans()
)
MEANS = [
    explainers.Weighted(),
    explainers.Weighted("branch", "token"),
    explainers.Uniform(),
    explainers.Constant(),
]


@settings(max_examples=25, deadline=None)
@given(trace=mapped)
def test_rows_stay_means_of_the_input_after_every_step(trace):
    for end in range(1, len(trace.steps) + 1):
        part = dataclasses.replace(trace, steps=trace.steps[:end])
        valid = torch.ones(2, part.final.tokens, dtype=torch.bool) if part.final.valid is None else part.final.valid
        for explainer in (*MEANS, *([] if part.has_cross_attention else [explainers.Rollout()])):
            matrix = explainer(part).matrix
            assert matrix.min() >= 0
            total = matrix.sum(-1)[valid]
            torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


plain = st.builds(
    make_trace,
    shape=st.sampled_from(["a", "b", "joint_first", "mixed"]),
    seed=st.integers(0, 2**31),
    padded=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(trace=plain, data=st.data())
def test_an_identity_map_changes_nothing(trace, data):
    modality, place = data.draw(st.sampled_from(["image", "text"])), data.draw(st.integers(0, len(trace.steps)))
    size = trace.sizes[modality]
    valid = trace.valid_tokens(modality)
    step = TokenMap(
        modality=modality, weights=torch.eye(size, dtype=torch.float64).repeat(trace.batch, 1, 1), valid=valid
    )
    steps = list(trace.steps)
    if not (0 < place < len(steps) and steps[place - 1].stage == steps[place].stage):  # not inside a stage
        steps.insert(place, step)
    other = dataclasses.replace(trace, steps=steps)
    of_valid = torch.ones(trace.batch, trace.tokens, dtype=torch.bool) if trace.valid is None else trace.valid
    for name, explainer in EXPLAINERS.items():
        found, expected = explainer(other).matrix[of_valid], explainer(trace).matrix[of_valid]
        torch.testing.assert_close(found, expected, **close, msg=name)


@settings(max_examples=25, deadline=None)
@given(trace=plain, data=st.data())
def test_a_permutation_permutes(trace, data):
    """If a modality's tokens are permuted before the first step, its rows are permuted and no number changes."""
    modality = data.draw(st.sampled_from(["image", "text"]))
    order = torch.tensor(data.draw(st.permutations(range(trace.sizes[modality]))))
    span = trace.span(modality)
    joint = torch.arange(trace.tokens)
    joint[span] = order + span.start
    orders = {m: torch.arange(n) for m, n in trace.sizes.items()} | {modality: order, "joint": joint}

    def permuted(step):
        s, q = orders[step.query], orders[step.key]
        return dataclasses.replace(
            step, **{n: x[:, :, s][:, :, :, q] if x.ndim == 4 else x[:, s] for n, x in step.tensors()}
        )

    weights = torch.eye(len(order), dtype=torch.float64)[order].repeat(trace.batch, 1, 1)
    valid = None if trace.valid is None else trace.valid[:, span][:, order]
    first = TokenMap(modality=modality, weights=weights, valid=valid)
    other = dataclasses.replace(trace, steps=[first, *map(permuted, trace.steps)])
    of_valid = torch.ones(trace.batch, trace.tokens, dtype=torch.bool) if trace.valid is None else trace.valid
    for name, explainer in EXPLAINERS.items():
        found, expected = explainer(other).matrix, explainer(trace).matrix[:, joint]
        torch.testing.assert_close(found[of_valid[:, joint]], expected[of_valid[:, joint]], **close, msg=name)
    for pair in (("image", "text"), ("text", "image")):
        torch.testing.assert_close(interaction(other, *pair), interaction(trace, *pair), rtol=1e-9, atol=1e-11)


def test_a_relevance_map_has_rows_after_the_maps_and_columns_of_the_input():
    trace = make_mapped_trace("joint")
    relevance = explainers.Weighted()(trace)
    assert relevance.matrix.shape == (2, 10, 9)
    torch.testing.assert_close(relevance.block("text", "image"), relevance.matrix[:, 6:, :5])
    assert repr(trace.steps[1]) == "TokenMap(image from image: weights [2, 3, 5])"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modality": "sound"}, "unknown modality 'sound'"),
        ({"modality": "joint"}, "replaces the tokens of one modality"),
        ({"weights": torch.ones(2, 3, 4, dtype=torch.float64) / 4}, r"weights: expected \[2, n, 5\], got \[2, 3, 4\]"),
        ({"weights": torch.ones(2, 3, 5, dtype=torch.float64)}, "non-negative and sum to 1"),
        ({"valid": torch.ones(2, 4, dtype=torch.bool)}, r"valid: expected \[2, 3\]"),
        ({"weights": torch.full((2, 3, 5), torch.nan, dtype=torch.float64)}, "sum to 1"),
    ],
)
def test_a_map_that_does_not_fit_is_refused_by_name(values, message):
    trace = make_mapped_trace("joint")
    steps = [trace.steps[0], dataclasses.replace(trace.steps[1], **values), *trace.steps[2:]]
    with pytest.raises(TraceError, match=r"step 1 \(token map of .*" + message):
        dataclasses.replace(trace, steps=steps)


def test_a_token_made_of_padding_is_refused():
    trace = make_mapped_trace("joint", padded=True)
    weights = torch.full((2, 3, 5), 0.2, dtype=torch.float64)
    steps = [trace.steps[0], dataclasses.replace(trace.steps[1], weights=weights), *trace.steps[2:]]
    with pytest.raises(TraceError, match=r"step 1 .*: a valid token is made of a padded token"):
        dataclasses.replace(trace, steps=steps)


def test_the_next_step_must_fit_the_tokens_after_the_map():
    trace = make_mapped_trace("joint")
    with pytest.raises(TraceError, match=r"step 2 \(joint attends to joint\): attention: expected \[2, H, 9, 9\]"):
        dataclasses.replace(trace, steps=[step for step in trace.steps if not isinstance(step, TokenMap)])


def test_rows_are_checked_against_the_tokens_after_the_maps():
    trace = make_mapped_trace("cross")  # nine input tokens, four at the end
    with pytest.raises(TraceError, match=r"rows must be in 0\.\.3"):
        explainers.Uniform()(trace, torch.tensor([0, 4]))
    with pytest.raises(TraceError, match=r"rows: expected \[2, 4\]"):
        explainers.Uniform()(trace, torch.ones(2, 9))
