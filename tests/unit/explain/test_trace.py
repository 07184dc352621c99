"""Validation of traces and its messages, stages, and the views of a relevance map."""

import dataclasses

import pytest
import torch
from explain_table import EXPLAINERS
from explain_traces import SHAPES, make_trace

from explain import AttentionStep, AttentionTrace, Relevance, TraceError, explainers


def changed(index=1, shape="a", **values):
    """Return a trace in which one step has the given values."""
    trace = make_trace(shape)
    steps = list(trace.steps)
    steps[index] = dataclasses.replace(steps[index], **values)
    return dataclasses.replace(trace, steps=steps)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"attention": torch.rand(3, 2, 5, 4)},
            r"step 1 \(image attends to image\): attention: expected \[3, H, 5, 5\]",
        ),
        ({"attention": torch.rand(3, 5, 5)}, r"step 1 .*: attention: expected .*got \[3, 5, 5\]"),
        ({"attention_grad": torch.rand(3, 1, 5, 5)}, r"step 1 .*: attention_grad: expected \[3, 2, 5, 5\]"),
        ({"attention_relevance": torch.rand(2, 2, 5, 5)}, r"step 1 .*: attention_relevance: expected \[3, 2, 5, 5\]"),
        ({"residual_grad": torch.rand(3, 5, 7)}, r"step 1 .*: residual_grad: expected \[3, 5, 3\], got \[3, 5, 7\]"),
        ({"output": torch.rand(3, 4, 3)}, r"step 1 .*: output: expected \[3, 5, 3\], got \[3, 4, 3\]"),
        ({"output_grad": torch.full((3, 5, 3), torch.nan)}, r"step 1 .*: output_grad holds NaN or Inf"),
        ({"attention_grad": torch.full((3, 2, 5, 5), torch.inf)}, r"step 1 .*: attention_grad holds NaN or Inf"),
        ({"query": "sound", "key": "sound"}, r"step 1 .*: unknown modality 'sound'; this trace has 'image', 'text'"),
        ({"key": "joint"}, r"step 1 .*: 'joint' can attend only to 'joint'"),
    ],
)
def test_errors_name_the_invalid_step(values, message):
    with pytest.raises(TraceError, match=message):
        changed(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": []}, "at least one attention step"),
        ({"sizes": {"image": 5, "text": 0}}, "positive counts"),
        ({"sizes": {"image": 5, "joint": 4}}, "none called 'joint'"),
        ({"valid": torch.ones(3, 8, dtype=torch.bool)}, r"valid: expected \[3, 9\], got \[3, 8\]"),
        ({"valid": torch.ones(3, 9)}, "valid must be bool"),
        ({"inputs": {"image": torch.rand(3, 4, 2)}}, r"inputs\['image'\]: expected \[3, 5, D\], got \[3, 4, 2\]"),
        ({"inputs_grad": {"image": torch.full((3, 5, 2), torch.nan)}}, r"inputs_grad\['image'\] holds NaN"),
        ({"sample_ids": [1, 2]}, "sample_ids: expected 3 names, got 2"),
    ],
)
def test_errors_name_the_invalid_field_of_the_trace(values, message):
    with pytest.raises(TraceError, match=message):
        dataclasses.replace(make_trace("a"), **values)


def test_large_finite_numbers_are_accepted():
    huge = torch.full((3, 5, 3), 3e38)
    assert changed(residual=huge, residual_grad=huge, output=huge, output_grad=huge).batch == 3


@pytest.mark.parametrize(
    ("explainer", "field"),
    [
        (explainers.Weighted(), "residual_grad"),
        (explainers.Weighted("branch"), "output"),
        (explainers.Uniform(), "attention_grad"),
        (explainers.TransAtt(), "attention_relevance"),
    ],
)
def test_errors_name_the_missing_field(explainer, field):
    trace = changed(index=2, **{field: None})
    with pytest.raises(TraceError, match=rf"{type(explainer).__name__} needs {field}, which step 2 \(text attends"):
        explainer(trace)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["raw_attention", "attention_gradcam", "partial_lrp", "random", "input_x_gradient"])
def test_explainers_of_the_last_attentions_need_no_fields_of_other_steps(name, shape):
    explainer, trace = EXPLAINERS[name], make_trace(shape)
    assert explainer.last_only
    last = trace.last_steps()
    bare = [
        step if step in last else AttentionStep(query=step.query, key=step.key, attention=step.attention)
        for step in trace.steps
    ]
    assert torch.equal(explainer(dataclasses.replace(trace, steps=bare)).matrix, explainer(trace).matrix)
    assert torch.equal(explainer(dataclasses.replace(trace, steps=last)).matrix, explainer(trace).matrix)
    for field in set(explainer.needs) - {"inputs", "inputs_grad"}:
        broken = [dataclasses.replace(step, **{field: None}) for step in last]
        with pytest.raises(TraceError, match=rf"needs {field}, which step 0 "):
            explainer(dataclasses.replace(trace, steps=broken))


def test_errors_name_missing_inputs():
    with pytest.raises(TraceError, match="InputXGradient needs inputs, which this trace lacks"):
        explainers.InputXGradient()(dataclasses.replace(make_trace("a"), inputs=None))


def test_branch_gradient_needs_no_total_gradient():
    trace = make_trace("a")
    bare = [dataclasses.replace(step, residual_grad=None) for step in trace.steps]
    branch = explainers.Weighted("branch")
    assert torch.equal(branch(dataclasses.replace(trace, steps=bare)).matrix, branch(trace).matrix)


def test_explainers_without_gradients_need_only_attention():
    step = AttentionStep(query="joint", key="joint", attention=torch.full((1, 2, 3, 3), 1 / 3))
    trace = AttentionTrace({"image": 2, "text": 1}, [step])
    for explainer in (explainers.RawAttention(), explainers.Rollout(), explainers.Random()):
        assert explainer(trace).matrix.shape == (1, 3, 3)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([0, 1]), r"rows: expected \[3\], got \[2\]"),
        (torch.tensor([0.0, 1.0, 2.0]), "rows must be integers"),
        (torch.tensor([0, 9, 2]), r"rows must be in 0\.\.8"),
        (torch.tensor([0, -1, 2]), r"rows must be in 0\.\.8"),
    ],
)
def test_invalid_rows_are_refused(rows, message):
    with pytest.raises(TraceError, match=message):
        explainers.Weighted()(make_trace("a"), rows=rows)


def test_neighbours_with_one_number_form_a_stage_and_none_is_a_separate_stage():
    trace = make_trace("b")
    assert [len(stage) for stage in trace.stages()] == [1, 1, 1, 1, 2, 2, 2, 2]
    alone = dataclasses.replace(trace, steps=[dataclasses.replace(step, stage=None) for step in trace.steps])
    assert [len(stage) for stage in alone.stages()] == [1] * 12


def test_parallel_steps_read_the_map_before_their_stage():
    trace = make_trace("b")
    together = explainers.Weighted()(trace).matrix
    one_by_one = [dataclasses.replace(step, stage=None) for step in trace.steps]
    assert not torch.allclose(together, explainers.Weighted()(dataclasses.replace(trace, steps=one_by_one)).matrix)
    swapped = list(trace.steps)
    swapped[6], swapped[7] = swapped[7], swapped[6]
    torch.testing.assert_close(explainers.Weighted()(dataclasses.replace(trace, steps=swapped)).matrix, together)


@pytest.mark.parametrize(("shape", "index"), [("a", 5), ("b", 5)])
def test_parallel_steps_cannot_write_the_same_rows(shape, index):
    before = make_trace(shape).steps[index - 1]
    with pytest.raises(TraceError, match="different query modalities"):
        changed(index, shape, stage=before.stage, query=before.query, key=before.key, **_tensors(before))


def _tensors(step):
    values = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def test_blocks_and_rows_of_the_map():
    matrix = torch.arange(50.0).view(2, 5, 5)
    relevance = Relevance(matrix, {"image": 3, "text": 2})
    assert torch.equal(relevance.block("text", "image"), matrix[:, 3:, :3])
    assert torch.equal(relevance.block("joint", "text"), matrix[:, :, 3:])
    assert torch.equal(relevance.row(torch.tensor([4, 0])), torch.stack([matrix[0, 4], matrix[1, 0]]))
    with pytest.raises(TraceError, match="unknown modality 'sound'"):
        relevance.block("sound", "image")


@pytest.mark.parametrize("shape", SHAPES)
def test_reprs_of_traces_steps_and_maps_are_short(shape):
    trace = make_trace(shape, padded=True, batch=20)
    lines = repr(trace).splitlines()
    assert len(lines) <= 3
    assert max(map(len, lines)) <= 150
    sizes = "3 image, 4 text, 2 answer" if shape == "chain" else "5 image, 4 text"
    for word in ("batch of 20", sizes, f"{len(trace.steps)} steps", "attention_relevance", "valid"):
        assert word in repr(trace)
    bare = dataclasses.replace(trace, steps=[dataclasses.replace(trace.steps[0], output=None)], scalar=None)
    assert "output," not in repr(bare)
    assert "scalar" not in repr(bare)
    for step in trace.steps:
        assert f"{step.query} attends to {step.key}: attention {list(step.attention.shape)}" in repr(step)
        assert len(repr(step)) <= 200
    assert repr(explainers.Weighted()(trace)) == f"Relevance(matrix [20, 9, 9]; tokens: {sizes})"
