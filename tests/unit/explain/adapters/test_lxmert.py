"""Traces of a tiny random LXMERT: single-modality layers, parallel cross-attentions, and correct gradients."""

from contextlib import ExitStack

import pytest
import torch
from adapter_checks import (
    add_to_input,
    add_to_output,
    assert_explained,
    assert_gradient_is_the_slope,
    assert_nothing_is_left,
    assert_same_gradients,
    assert_sample_alone_equals_batch,
    breaking,
    reaching,
)
from adapter_models import lxmert_inputs, tiny_lxmert
from torch import nn

from explain import TraceError, explainers
from explain.adapters.lxmert import trace_lxmert
from explain.targets import given

pytest.importorskip("transformers")

T, V = "text", "image"
CROSS_LAYER = [(T, V), (V, T), (T, T), (V, V)]
STEPS = [(T, T), (T, T), (V, V), *CROSS_LAYER, *CROSS_LAYER]
UNREAD = [8, 10]  # in the last layer the image stream no longer affects [CLS]


def alone(inputs, sample):
    words, objects = (3, 4) if sample == 0 else (4, 3)
    return {
        name: tensor[sample : sample + 1, : words if name in ("input_ids", "attention_mask") else objects]
        for name, tensor in inputs.items()
    }


def blocks(model):
    """Return each step's block, the name of the attention in it, and which of the block's calls is the step."""
    encoder = model.lxmert.encoder
    found = [(layer.attention, "self", 0) for layer in [*encoder.layer, *encoder.r_layers]]
    for layer in encoder.x_layers:
        found += [(layer.visual_attention, "att", 0), (layer.visual_attention, "att", 1)]
        found += [(layer.lang_self_att, "self", 0), (layer.visn_self_att, "self", 0)]
    return found


def nudge_stream(model, index, delta):
    """Return a hook that adds ``delta`` to X of a step.

    X of a cross-attention is also read by the other direction, so ``delta`` is added where X enters the layer.
    """
    query, key = STEPS[index]
    if query == key:
        return add_to_input(blocks(model)[index][0], delta)
    return add_to_input(model.lxmert.encoder.x_layers[(index - 3) // 4], delta, position=0 if query == T else 2)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_recorded_forward_is_the_plain_forward(dtype, tolerance):
    model, inputs, seen = tiny_lxmert(dtype), lxmert_inputs(dtype), []
    trace_lxmert(model, inputs, lambda logits: seen.append(logits.detach()) or logits[:, 0])
    torch.testing.assert_close(seen[0], model(**inputs).question_answering_score, rtol=tolerance, atol=10 * tolerance)


def test_steps_stages_sizes_and_padding():
    trace = trace_lxmert(tiny_lxmert(), lxmert_inputs()).trace
    assert [(step.query, step.key) for step in trace.steps] == STEPS
    assert [len(stage) for stage in trace.stages()] == [1, 1, 1, 2, 2, 2, 2]
    assert list(trace.sizes.items()) == [(T, 4), (V, 4)]
    assert trace.valid.tolist() == [[True] * 3 + [False] + [True] * 4, [True] * 7 + [False]]


def test_without_masks_all_tokens_are_valid():
    inputs = {name: tensor for name, tensor in lxmert_inputs().items() if "mask" not in name}
    assert bool(trace_lxmert(tiny_lxmert(), inputs).trace.valid.all())


def test_attention_equals_what_the_library_reports():
    """The library reports the single-modality layers, and in each cross layer the text's attention to the image."""
    model, inputs = tiny_lxmert(), lxmert_inputs()
    plain = model(**inputs, output_attentions=True)
    attention = [step.attention for step in trace_lxmert(model, inputs).trace.steps]
    reported = [*plain.language_attentions, *plain.vision_attentions, *plain.cross_encoder_attentions]
    for step, expected in zip([0, 1, 2, 3, 7], reported, strict=True):
        torch.testing.assert_close(attention[step], expected)


def test_the_sum_of_stream_and_output_enters_the_layer_norm():
    model, inputs, sums = tiny_lxmert(), lxmert_inputs(), []
    with ExitStack() as hooks:
        for norm in {block.output.LayerNorm for block, _, _ in blocks(model)}:
            hooks.enter_context(norm.register_forward_pre_hook(lambda _, args: sums.append(args[0])))
        model(**inputs)
    for step, expected in zip(trace_lxmert(model, inputs).trace.steps, sums, strict=True):
        torch.testing.assert_close(step.residual + step.output, expected)


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_gradients_equal_slopes(index):
    model, inputs, target = tiny_lxmert(), lxmert_inputs(), given([1, 3])
    step = trace_lxmert(model, inputs, target).trace.steps[index]
    block, attention, call = blocks(model)[index]
    probabilities = getattr(block, attention).dropout
    points = {
        "residual": lambda delta: nudge_stream(model, index, delta),
        "attention": lambda delta: add_to_output(probabilities, delta, call),
        "output": lambda delta: add_to_output(block.output.dense, delta, call),
    }
    for name, nudged in points.items():
        assert_gradient_is_the_slope(
            getattr(step, f"{name}_grad"), nudged, lambda: target(model(**inputs).question_answering_score)
        )


def test_all_steps_except_the_last_of_the_image_affect_the_answer():
    reach = reaching(trace_lxmert(tiny_lxmert(), lxmert_inputs()).trace)
    assert [index for index, reached in enumerate(reach) if not reached] == UNREAD


@pytest.mark.parametrize("modality", [T, V])
def test_gradients_of_inputs_equal_slopes(modality):
    model, inputs = tiny_lxmert(), lxmert_inputs()
    trace = trace_lxmert(model, inputs, given(2)).trace
    start = model.lxmert.embeddings if modality == T else model.lxmert.encoder.visn_fc
    assert_gradient_is_the_slope(
        trace.inputs_grad[modality],
        lambda delta: add_to_output(start, delta),
        lambda: model(**inputs).question_answering_score[:, 2],
    )


def test_a_padded_batch_equals_its_single_samples():
    model, inputs = tiny_lxmert(), lxmert_inputs()
    trace = trace_lxmert(model, inputs).trace
    for sample in range(2):
        assert_sample_alone_equals_batch(trace_lxmert(model, alone(inputs, sample)).trace, trace, sample)


def test_explainers_run_and_the_question_depends_on_the_image():
    trace = trace_lxmert(tiny_lxmert(), lxmert_inputs()).trace
    rows = torch.tensor([0, 0])
    assert_explained(trace, rows)
    assert bool((explainers.Weighted()(trace, rows=rows)[:, trace.span(V)].sum(1) > 0).all())


def test_a_model_that_is_not_frozen_gives_the_same_gradients():
    model, inputs = tiny_lxmert(), lxmert_inputs()
    frozen = trace_lxmert(model, inputs).trace
    trained = trace_lxmert(model.requires_grad_(True), inputs).trace
    assert_same_gradients(frozen, trained)


def test_nothing_is_left_on_the_model():
    model, inputs = tiny_lxmert(), lxmert_inputs()
    assert_nothing_is_left(model, lambda: trace_lxmert(model, inputs))


def test_nothing_is_left_after_errors():
    model, inputs = tiny_lxmert(), lxmert_inputs()
    assert_nothing_is_left(model, lambda: trace_lxmert(model, inputs, lambda logits: logits.sum()), failing=TraceError)
    with breaking(model.lxmert.encoder.x_layers[1].visn_self_att):
        assert_nothing_is_left(model, lambda: trace_lxmert(model, inputs), failing=RuntimeError)


class AttentionWithoutProbabilities(nn.Module):
    """Attention without probabilities, which replaces LXMERT's attention."""

    def __init__(self, eager):
        super().__init__()
        self.dropout = eager.dropout

    def forward(self, x, context, *_, **__):
        return (x + context.mean(1, keepdim=True),)


def test_attention_without_probabilities_is_refused_by_name():
    model, inputs = tiny_lxmert(), lxmert_inputs()
    block = model.lxmert.encoder.x_layers[1].visual_attention
    block.att = AttentionWithoutProbabilities(block.att)
    refused = r"lxmert\.encoder\.x_layers\.1\.visual_attention \(LxmertCrossAttentionLayer\) ran without showing its at"
    with pytest.raises(TraceError, match=refused):
        trace_lxmert(model, inputs)


def test_other_models_and_modes_are_refused():
    model, inputs = tiny_lxmert(), lxmert_inputs()
    with pytest.raises(TraceError, match=r"Linear has no lxmert\.embeddings"):
        trace_lxmert(nn.Linear(2, 2).eval(), inputs)
    with pytest.raises(TraceError, match=r"training mode: call eval\(\)"):
        trace_lxmert(model.train(), inputs)
