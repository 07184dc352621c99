"""Traces of chosen layers, and of only what explainers need: what is recorded, and where the graph starts."""

import pytest
import torch
from adapter_checks import assert_same_scores, counted_backward, graph
from adapter_models import TEXTS, images, lxmert_inputs, tiny_clip, tiny_lxmert, tiny_vilt, vilt_inputs
from explain_table import EXPLAINERS

from explain import Needs, TraceError, explainers
from explain.adapters import trace_lxmert, trace_open_clip, trace_vilt
from explain.adapters.watching import chosen_blocks

pytest.importorskip("open_clip")
pytest.importorskip("transformers")


class Spied:
    """A model's adapter that also keeps the logits of each of the model's passes, with their graph."""

    def __init__(self, name, frozen=True):
        make = {"open_clip": tiny_clip, "vilt": tiny_vilt, "lxmert": tiny_lxmert}[name]
        self.model, self.name, self.logits = make().requires_grad_(not frozen), name, []
        if name == "open_clip":  # its two towers run one after the other, and the adapter computes their cosine
            encode_image, encode_text = self.model.encode_image, self.model.encode_text
            self.model.encode_image = lambda *args, **options: self.see(encode_image(*args, **options))
            self.model.encode_text = lambda *args, **options: self.join(encode_text(*args, **options))
        else:
            key = {"vilt": "logits", "lxmert": "question_answering_score"}[name]
            self.model.register_forward_hook(lambda _, __, output: self.logits.append(output[key]))

    def see(self, logits):
        self.logits.append(logits)
        return logits

    def join(self, text):
        self.logits.append(self.logits.pop()[:, None] @ text[:, :, None])
        return text

    def __call__(self, **options):
        self.logits.clear()
        if self.name == "open_clip":
            return trace_open_clip(self.model, images(), TEXTS, **options)
        if self.name == "vilt":
            return trace_vilt(self.model, vilt_inputs(), **options)
        return trace_lxmert(self.model, lxmert_inputs(), **options)

    @property
    def attentions_in_the_graph(self):
        return [graph(logits)["SoftmaxBackward0"] for logits in self.logits]


BLOCKS = {"open_clip": 4, "vilt": 3, "lxmert": 11}  # number of steps of the whole model
LAST = {"open_clip": 2, "vilt": 1, "lxmert": 4}  # number of last steps
names = pytest.mark.parametrize("name", BLOCKS)


@names
@pytest.mark.parametrize("explainer", ["rollout", "raw_attention", "random", "integrated_gradients"])
def test_without_gradients_there_is_no_backward_pass_and_no_graph(name, explainer):
    spied = Spied(name, frozen=False)
    with counted_backward() as passes:
        traced = spied(needs=Needs.of([EXPLAINERS[explainer]]))
    assert passes == []
    assert [logits.grad_fn for logits in spied.logits] == [None]
    assert len(traced.trace.steps) == (BLOCKS[name] if explainer == "rollout" else LAST[name])
    assert [[field for field, _ in step.tensors()] for step in traced.trace.steps] == [["attention"]] * len(
        traced.trace.steps
    )


@names
def test_gradcam_differentiates_only_the_last_attentions_and_the_graph_starts_there(name):
    spied = Spied(name)
    with counted_backward() as passes:
        traced = spied(needs=Needs.of([explainers.AttentionGradCAM()]))
    assert passes == [LAST[name]]
    # In LXMERT's last layer the image no longer affects the answer, so its two maps are not in the graph.
    assert spied.attentions_in_the_graph == [{"open_clip": 2, "vilt": 1, "lxmert": 2}[name]]
    assert all([field for field, _ in s.tensors()] == ["attention", "attention_grad"] for s in traced.trace.steps)
    assert_same_scores(spied(), traced, [explainers.AttentionGradCAM(), explainers.RawAttention()])


@names
@pytest.mark.parametrize("explainer", EXPLAINERS)
def test_a_trace_of_only_what_is_needed_gives_the_same_scores(name, explainer):
    spied = Spied(name)
    whole = spied(needs=Needs.everything(lrp=True))
    needed = spied(needs=Needs.of([EXPLAINERS[explainer]]))
    if explainer == "centre_first" and name != "open_clip":  # images of two sizes, or objects: no common grid
        with pytest.raises(TraceError, match="CentreFirst needs grid, which this trace lacks"):
            needed.explain(EXPLAINERS[explainer])
        return
    assert_same_scores(whole, needed, [EXPLAINERS[explainer]])


@names
def test_rollout_with_gradcam_records_all_steps_and_differentiates_the_last(name):
    spied, both = Spied(name), [explainers.Rollout(), explainers.AttentionGradCAM()]
    with counted_backward() as passes:
        traced = spied(needs=Needs.of(both))
    assert passes == [LAST[name]]
    assert len(traced.trace.steps) == BLOCKS[name]
    assert_same_scores(spied(), traced, both)


@pytest.mark.parametrize(
    ("name", "layers", "steps", "attentions"),
    [
        ("open_clip", [1], [1, 3], 2),
        ("open_clip", {"image": [0, 1]}, [0, 1], 2),
        ("open_clip", {"image": [0], "text": [1]}, [0, 3], 3),
        ("vilt", [1, 2], [1, 2], 2),
        ("vilt", [0, 2], [0, 2], 3),
        ("vilt", [1], [1], 2),
        ("lxmert", [0], [0, 2, 3, 4, 5, 6], 9),
        ("lxmert", {"cross": [1]}, [7, 8, 9, 10], 2),
        ("lxmert", {"text": [1], "cross": [0, 1]}, [1, 3, 4, 5, 6, 7, 8, 9, 10], 7),
    ],
)
@pytest.mark.parametrize("frozen", [True, False])
def test_chosen_layers_equal_those_of_the_whole_trace(name, layers, steps, attentions, frozen):
    """``attentions`` is the number of attentions between the lowest chosen layer and y."""
    spied = Spied(name, frozen)
    whole = spied().trace
    part = spied(layers=layers, needs=Needs.of([explainers.Weighted()])).trace
    if frozen:  # otherwise a stream without a chosen layer has the graph of its weights
        assert spied.attentions_in_the_graph == [attentions]
    for step, expected in zip(part.steps, [whole.steps[index] for index in steps], strict=True):
        assert (step.query, step.key) == (expected.query, expected.key)
        for field, tensor in step.tensors():
            torch.testing.assert_close(tensor, getattr(expected, field), rtol=1e-9, atol=1e-12)


def test_relevance_starts_as_the_identity_at_the_lowest_layer():
    spied = Spied("vilt")
    whole, part = spied().trace, spied(layers=[1, 2]).trace
    object.__setattr__(whole, "steps", whole.steps[1:])
    matrix = explainers.Weighted()(part).matrix
    torch.testing.assert_close(matrix, explainers.Weighted()(whole).matrix)


@names
def test_lrp_relevance_of_chosen_layers(name):
    spied, last = Spied(name), {"open_clip": [1], "vilt": [2], "lxmert": {"cross": [1]}}[name]
    whole = spied(needs=Needs.everything(lrp=True)).trace
    part = spied(layers=last, needs=Needs.of([explainers.TransAtt()])).trace
    for step, expected in zip(part.steps, whole.steps[-1:] if name == "vilt" else whole.last_steps(), strict=True):
        torch.testing.assert_close(step.attention_relevance, expected.attention_relevance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([2], "layers: image has no block 2; choose from 0 to 1"),
        ([-1], "layers: image has no block -1; choose from 0 to 1"),
        ({"text": [5]}, "layers: text has no block 5; choose from 0 to 2"),
        ({"sound": [0]}, "layers: unknown stack 'sound'; choose one of 'image', 'text'"),
        ([], "layers: no block is chosen"),
        ({"text": []}, "layers: no block is chosen"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layers, message):
    with pytest.raises(TraceError, match=message):
        chosen_blocks(layers, {"image": 2, "text": 3})


@names
def test_adapters_refuse_unknown_layers_before_the_model_runs(name):
    spied = Spied(name)
    with pytest.raises(TraceError, match="has no block 9"):
        spied(layers=[9])
    assert spied.logits == []
