"""The union of what explainers need, and a check by counting that a recording does nothing more."""

import dataclasses

import pytest
import torch
from adapter_checks import counted_backward, graph
from explain_table import EXPLAINERS
from tiny_attention import SIZES, TinyModel, embeddings

from explain import Needs, TraceError, explainers, record
from explain.capture.needs import EVERYTHING
from explain.capture.passes import capture
from explain.targets import predicted

STEPS, STREAMS = ["attention", "attention_grad"], ["residual", "residual_grad", "output", "output_grad"]


def needs(*names):
    return Needs.of(EXPLAINERS[name] for name in names)


MODEL = TinyModel()


def run(recorder):
    """Return the logits of the tiny model, which has five steps: image, text, two cross-attentions and a joint one."""
    return MODEL(*embeddings())


def trace_of(needs):
    return capture(MODEL, run, predicted, needs, lambda: (SIZES, None, (1, 2)))[0]


def field_names(trace):
    """Return the names of the tensors of each step."""
    return [[name for name, _ in step.tensors()] for step in trace.steps]


def test_needs_are_the_union():
    assert needs() == Needs()
    assert needs("rollout") | needs("attention_gradcam") == needs("rollout", "attention_gradcam")
    both = needs("rollout", "attention_gradcam")
    assert both == Needs(every=frozenset({"attention"}), last=frozenset({"attention_grad"}))
    assert both.of_step(last=True) == {"attention", "attention_grad"}
    assert both.of_step(last=False) == {"attention"}
    assert needs("random", "input_x_gradient", "integrated_gradients") == Needs(
        trace=frozenset({"inputs", "inputs_grad", "scalar"})
    )
    assert needs("weighted").every == {"attention", "attention_grad", *STREAMS}
    assert needs("weighted_branch").every == needs("weighted").every - {"residual_grad"}


def test_errors_name_an_unknown_field():
    class Wrong(explainers.Weighted):
        def __init__(self):
            self.needs = ("attention", "attentions")

    with pytest.raises(TraceError, match="needs: attentions is not a field of a trace or of its steps"):
        Needs.of([Wrong()])


@pytest.mark.parametrize(
    ("names", "steps", "differentiated"),
    [
        (["rollout"], [["attention"]] * 5, []),
        (["raw_attention"], [["attention"]], []),
        (["random"], [["attention"]], []),
        (["integrated_gradients"], [["attention"]], []),
        (["attention_gradcam"], [STEPS], [1]),
        (["raw_attention", "attention_gradcam"], [STEPS], [1]),
        (["rollout", "attention_gradcam"], [["attention"]] * 4 + [STEPS], [1]),
        (["genatt"], [STEPS] * 5, [5]),
        (["weighted"], [[*STEPS, *STREAMS]] * 5, [15]),
        (["weighted_branch"], [[*STEPS, "residual", "output", "output_grad"]] * 5, [10]),
        (["input_x_gradient"], [["attention"]], [2]),
        (["genatt", "input_x_gradient"], [STEPS] * 5, [7]),
        (["partial_lrp"], [["attention", "attention_relevance"]], [1]),
        (["rollout", "partial_lrp"], [["attention"]] * 4 + [["attention", "attention_relevance"]], [1]),
        (["trans_att"], [[*STEPS, "attention_relevance"]] * 5, [5, 5]),
        (["trans_att", "attention_gradcam"], [[*STEPS, "attention_relevance"]] * 5, [5, 5]),
    ],
)
def test_only_what_is_needed_is_recorded_and_differentiated(names, steps, differentiated):
    """``differentiated`` is the number of tensors in each backward pass, with the LRP pass first."""
    with counted_backward() as passes:
        trace = trace_of(needs(*names))
    assert field_names(trace) == [
        sorted(fields, key=[*STEPS, "attention_relevance", *STREAMS].index) for fields in steps
    ]
    assert passes == differentiated
    assert (trace.inputs is not None) == any(name in ("input_x_gradient", "integrated_gradients") for name in names)
    assert (trace.inputs_grad is not None) == ("input_x_gradient" in names)
    assert (trace.scalar is not None) == ("integrated_gradients" in names)
    for name in names:
        assert EXPLAINERS[name](trace, rows=torch.tensor([0, 3])).isfinite().all()


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_trace_of_only_what_is_needed_gives_the_same_map(name):
    whole, lean = trace_of(Needs.everything(lrp=True)), trace_of(needs(name))
    assert torch.equal(EXPLAINERS[name](lean).matrix, EXPLAINERS[name](whole).matrix)


def test_all_explainers_together_share_a_trace():
    whole, shared = trace_of(Needs.everything(lrp=True)), trace_of(needs(*EXPLAINERS))
    assert field_names(shared) == field_names(whole)
    for explainer in EXPLAINERS.values():
        assert torch.equal(explainer(shared).matrix, explainer(whole).matrix)


@pytest.mark.parametrize("name", ["rollout", "raw_attention", "random", "integrated_gradients"])
def test_without_needed_gradients_there_is_no_graph(name):
    with record(needs=needs(name)) as recorder:
        logits = run(recorder)
        assert not torch.is_grad_enabled()
        assert logits.grad_fn is None
        assert recorder.live() == []
    assert torch.is_grad_enabled()


def test_live_tensors_are_those_that_will_be_differentiated():
    counts = {}
    for name in ("weighted", "genatt", "attention_gradcam"):
        with record(needs=needs(name)) as recorder:
            logits = run(recorder)
            counts[name] = len(recorder.live())
            assert graph(logits)["SoftmaxBackward0"] == 5
    assert counts == {"weighted": 15, "genatt": 5, "attention_gradcam": 1}


def test_everything_includes_all_fields_except_lrp_relevance():
    fields = {field.name for field in dataclasses.fields(trace_of(EVERYTHING).steps[0])}
    assert set(EVERYTHING.every) == fields - {"query", "key", "stage", "attention_relevance"}
    assert Needs.everything(lrp=True).every - EVERYTHING.every == {"attention_relevance"}


def test_the_graph_starts_where_the_recorder_starts_it():
    x = torch.ones(2, 3, 4)
    for name, starts in [("weighted", True), ("input_x_gradient", False), ("rollout", False)]:
        with record(needs=needs(name)) as recorder:
            first, again = recorder.start("image", x * 1), recorder.start("image", x)
        assert first.requires_grad == starts, name
        assert not again.requires_grad
    with record(needs=needs("weighted")) as recorder:
        assert not recorder.inputs("image", x, start=False).requires_grad
        assert recorder.inputs("image", x).requires_grad
    with record(needs=needs("input_x_gradient")) as recorder:
        assert recorder.inputs("image", x, start=False).requires_grad


def test_errors_name_a_last_attention_without_a_graph():
    x = torch.ones(2, 1, 3, 3)
    with record(needs=needs("attention_gradcam")) as recorder:
        recorder.step(query="image", key="image", attention=x, residual=x[:, 0], output=x[:, 0])
        y = (torch.ones(2, requires_grad=True) * 2).clone()
        with pytest.raises(TraceError, match=r"step 0 \(image attends to image\): attention requires no grad; watch"):
            recorder.trace(y, SIZES)
