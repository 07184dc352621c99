"""LRP relevance of the adapters' traces, compared with loops over the model's weights; explainers that use it."""

import adapter_lrp_reference as slow
import explain_reference
import pytest
import torch
from adapter_checks import counted_backward
from adapter_models import TEXTS, images, lxmert_inputs, tiny_clip, tiny_lxmert, tiny_vilt, vilt_inputs
from explain_traces import unpadded_sample

from explain import Needs, explainers
from explain.adapters import trace_lxmert, trace_open_clip, trace_vilt

pytest.importorskip("open_clip")
pytest.importorskip("transformers")

ALL = Needs.everything(lrp=True)
ANSWERS = torch.tensor([3, 1])


def chosen(logits):
    return logits[torch.arange(2), ANSWERS]


def traced_clip(needs, **options):
    return trace_open_clip(tiny_clip(**options), images(), TEXTS, needs=needs)


TRACED = {
    "open_clip": traced_clip,
    "open_clip_custom_text": lambda needs: traced_clip(needs, kind="CustomTextCLIP"),
    "vilt": lambda needs: trace_vilt(tiny_vilt(), vilt_inputs(), chosen, needs=needs),
    "lxmert": lambda needs: trace_lxmert(tiny_lxmert(), lxmert_inputs(), chosen, needs=needs),
}
adapters = pytest.mark.parametrize("name", TRACED)


def relevance_by_loops(name, trace, sample):
    """Return Rel_A of one sample's steps, without the sample's padding."""
    one, _ = unpadded_sample(trace, sample)
    entering = {}
    for step in one.steps:
        entering.setdefault(step.query, step.residual[0].numpy())
    answer = int(ANSWERS[sample])
    if name.startswith("open_clip"):
        model = tiny_clip(kind="CustomTextCLIP" if "custom" in name else "CLIP")
        return slow.clip(model, entering["image"], entering["text"], len(entering["text"]) - 1)
    if name == "vilt":
        return slow.vilt(tiny_vilt(), entering["joint"], answer)
    return slow.lxmert(tiny_lxmert(), entering["text"], entering["image"], answer)


@adapters
def test_relevance_of_attention_equals_a_pass_in_loops(name):
    trace = TRACED[name](ALL).trace
    for sample in range(2):
        expected = relevance_by_loops(name, trace, sample)
        steps = unpadded_sample(trace, sample)[0].steps
        assert max(abs(maps).max() for maps in expected) > 1e-3
        for step, maps in zip(steps, expected, strict=True):
            torch.testing.assert_close(step.attention_relevance[0], torch.from_numpy(maps), rtol=1e-6, atol=1e-9)


def test_relevance_does_not_depend_on_whether_the_model_is_frozen():
    """ViLT resizes a view of its position embeddings, a function of parameters alone that LRP has no rule for."""
    model = tiny_vilt()
    traces = [trace_vilt(model.requires_grad_(on), vilt_inputs(), chosen, needs=ALL).trace for on in (False, True)]
    for frozen, trainable in zip(*(trace.steps for trace in traces), strict=True):
        torch.testing.assert_close(frozen.attention_relevance, trainable.attention_relevance)


@adapters
@pytest.mark.parametrize("explainer", [explainers.TransAtt(), explainers.PartialLRP()])
def test_explanations_equal_the_formulas_with_relevance_from_loops(name, explainer):
    traced = TRACED[name](Needs.of([explainer]))
    whole = TRACED[name](ALL).trace
    for sample in range(2):
        one, kept = unpadded_sample(whole, sample)
        for step, maps in zip(one.steps, relevance_by_loops(name, whole, sample), strict=True):
            object.__setattr__(step, "attention_relevance", torch.from_numpy(maps)[None])
        if isinstance(explainer, explainers.TransAtt):
            matrix = explain_reference.trans_att(one)
        else:
            matrix = explain_reference.last(one, lambda s: s.over_heads(lambda h, i, j: s.relA[h][i][j]))
        found = traced.explain(explainer)
        for modality, rows in traced.readout.items():
            row = torch.zeros(whole.tokens, dtype=torch.float64)
            row[kept] = torch.tensor(matrix[int((kept == rows[sample]).nonzero())], dtype=torch.float64)
            expected = traced.scores(row[None], modality)[0]
            torch.testing.assert_close(found[modality][sample], expected, rtol=1e-6, atol=1e-9)


@adapters
def test_partial_lrp_alone_runs_no_ordinary_backward_pass(name):
    needs = Needs.of([explainers.PartialLRP()])
    with counted_backward() as passes:
        trace = TRACED[name](needs).trace
    kinds = {"open_clip": 2, "open_clip_custom_text": 2, "vilt": 1, "lxmert": 4}[name]
    assert passes == [kinds]
    assert [[field for field, _ in step.tensors()] for step in trace.steps] == [
        ["attention", "attention_relevance"]
    ] * kinds
    last = TRACED[name](ALL).trace.last_steps()
    for step, expected in zip(trace.steps, last, strict=True):
        torch.testing.assert_close(step.attention_relevance, expected.attention_relevance, rtol=1e-9, atol=1e-12)
