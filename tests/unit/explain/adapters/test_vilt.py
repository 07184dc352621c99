"""Traces of a tiny random ViLT: its steps in order, and correct gradients."""

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
    normal,
    reaching,
)
from adapter_models import tiny_vilt, vilt_inputs
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from explain import TraceError
from explain.adapters.vilt import trace_vilt
from explain.targets import given

pytest.importorskip("transformers")

LAYERS, WIDTH, N_TEXT, N_IMAGE = 3, 16, 5, 10


def alone(inputs, sample):
    width = 16 if sample else 24
    words = int(inputs["attention_mask"][sample].sum())
    return {
        "input_ids": inputs["input_ids"][sample : sample + 1, :words],
        "attention_mask": inputs["attention_mask"][sample : sample + 1, :words],
        "pixel_values": inputs["pixel_values"][sample : sample + 1, :, :, :width],
        "pixel_mask": inputs["pixel_mask"][sample : sample + 1, :, :width],
    }


def recorded_logits(model, inputs):
    seen = []
    trace_vilt(model, inputs, lambda logits: seen.append(logits.detach()) or logits[:, 0])
    return seen[0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_recorded_forward_is_the_plain_forward(dtype, tolerance):
    model, inputs = tiny_vilt(dtype), vilt_inputs(dtype)
    torch.testing.assert_close(
        recorded_logits(model, inputs), model(**inputs).logits, rtol=tolerance, atol=10 * tolerance
    )


def test_steps_sizes_and_padding():
    trace = trace_vilt(tiny_vilt(), vilt_inputs()).trace
    assert [(step.query, step.key) for step in trace.steps] == [("joint", "joint")] * LAYERS
    assert [len(stage) for stage in trace.stages()] == [1] * LAYERS
    assert list(trace.sizes.items()) == [("text", N_TEXT), ("image", N_IMAGE)]
    assert trace.valid.tolist() == [[True] * 3 + [False] * 2 + [True] * 10, [True] * 12 + [False] * 3]


@pytest.mark.usefixtures("_patches_in_order")
def test_attention_and_streams_equal_what_the_library_reports():
    """The library reports attentions and hidden states; the sum X + Y is read before the next norm."""
    model, inputs, sums = tiny_vilt(), vilt_inputs(), []
    with ExitStack() as hooks:
        for layer in model.vilt.encoder.layer:
            hooks.enter_context(layer.layernorm_after.register_forward_pre_hook(lambda _, args: sums.append(args[0])))
        plain = model(**inputs, output_attentions=True, output_hidden_states=True)
    for index, step in enumerate(trace_vilt(model, inputs).trace.steps):
        torch.testing.assert_close(step.attention, plain.attentions[index])
        torch.testing.assert_close(step.residual, plain.hidden_states[index])
        torch.testing.assert_close(step.residual + step.output, sums[index])


def test_patches_are_in_row_by_row_order_although_vilt_shuffles_them():
    model, inputs = tiny_vilt(), vilt_inputs()
    embeddings = model.vilt.embeddings
    patches = (
        embeddings.patch_embeddings(inputs["pixel_values"]).flatten(2).mT[0]
        + embeddings.position_embeddings[0, 1:]
        + embeddings.token_type_embeddings.weight[1]
    )
    orders = []
    for seed in range(3):
        torch.manual_seed(seed)
        orders.append(embeddings.visual_embed(inputs["pixel_values"], inputs["pixel_mask"], -1)[0][0, 1:])
        trace = trace_vilt(model, inputs).trace
        torch.testing.assert_close(trace.inputs["image"][0, 1:], patches)
    assert not torch.allclose(orders[0], orders[1])


@pytest.mark.usefixtures("_patches_in_order")
@pytest.mark.parametrize("index", range(LAYERS))
def test_gradients_equal_slopes(index):
    model, inputs = tiny_vilt(), vilt_inputs()
    target = given([1, 3])
    trace = trace_vilt(model, inputs, target).trace
    assert all(reaching(trace))
    step, layer = trace.steps[index], model.vilt.encoder.layer[index]
    points = {
        "residual": lambda delta: add_to_input(layer, delta),
        "attention": lambda delta: add_to_output(layer.attention.attention.dropout, delta),
        "output": lambda delta: add_to_output(layer.attention.output, delta),
    }
    for name, nudged in points.items():
        assert_gradient_is_the_slope(getattr(step, f"{name}_grad"), nudged, lambda: target(model(**inputs).logits))


@pytest.mark.usefixtures("_patches_in_order")
def test_gradients_of_inputs_equal_slopes():
    model, inputs = tiny_vilt(), vilt_inputs()
    trace = trace_vilt(model, inputs, given(2)).trace
    text = model.vilt.embeddings.text_embeddings
    assert_gradient_is_the_slope(
        trace.inputs_grad["text"], lambda delta: add_to_output(text, delta), lambda: model(**inputs).logits[:, 2]
    )
    whole = model.vilt.embeddings.dropout  # the class token and all patches of both images
    assert_gradient_is_the_slope(
        trace.inputs_grad["image"], lambda delta: add_to_output(whole, delta), lambda: model(**inputs).logits[:, 2]
    )


def test_a_padded_batch_equals_its_single_samples():
    model, inputs = tiny_vilt(), vilt_inputs()
    trace = trace_vilt(model, inputs).trace
    for sample in range(2):
        assert_sample_alone_equals_batch(trace_vilt(model, alone(inputs, sample)).trace, trace, sample)


def test_explainers_run():
    trace = trace_vilt(tiny_vilt(), vilt_inputs()).trace
    assert_explained(trace, torch.tensor([0, 0]))


def test_a_model_that_is_not_frozen_gives_the_same_gradients():
    model, inputs = tiny_vilt(), vilt_inputs()
    frozen = trace_vilt(model, inputs).trace
    trained = trace_vilt(model.requires_grad_(True), inputs).trace
    assert_same_gradients(frozen, trained)


def test_nothing_is_left_on_the_model():
    model, inputs = tiny_vilt(), vilt_inputs()
    assert_nothing_is_left(model, lambda: trace_vilt(model, inputs))


def test_nothing_is_left_after_errors():
    model, inputs = tiny_vilt(), vilt_inputs()
    assert_nothing_is_left(model, lambda: trace_vilt(model, inputs, lambda logits: logits.sum()), failing=TraceError)
    with breaking(model.vilt.encoder.layer[2].output):
        assert_nothing_is_left(model, lambda: trace_vilt(model, inputs), failing=RuntimeError)


class FusedAttention(nn.Module):
    """Attention without probabilities, which replaces ViLT's attention."""

    def __init__(self, eager):
        super().__init__()
        self.query, self.key, self.value, self.dropout = eager.query, eager.key, eager.value, eager.dropout

    def forward(self, x, mask=None, *_):
        q, k, v = (part(x).unflatten(-1, (2, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        return (scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2),)


def test_attention_without_probabilities_is_refused_by_name():
    model, inputs = tiny_vilt(), vilt_inputs()
    attention = model.vilt.encoder.layer[1].attention
    attention.attention = FusedAttention(attention.attention)
    refused = r"vilt\.encoder\.layer\.1 \(ViltLayer\) ran without showing its attention: only eager .*='eager'"
    with pytest.raises(TraceError, match=refused):
        trace_vilt(model, inputs)


def test_other_models_inputs_and_modes_are_refused():
    model, inputs = tiny_vilt(), vilt_inputs()
    with pytest.raises(TraceError, match=r"Linear has no vilt\.encoder\.layer"):
        trace_vilt(nn.Linear(2, 2).eval(), inputs)
    with pytest.raises(TraceError, match=r"training mode: call eval\(\)"):
        trace_vilt(model.train(), inputs)
    embeds = {"image_embeds": normal(2, 4, WIDTH), "pixel_mask": torch.ones(2, 4), "pixel_values": None}
    with pytest.raises(TraceError, match="needs pixel_values"):
        trace_vilt(model.eval(), {**inputs, **embeds})
