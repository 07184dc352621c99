"""Traces of tiny random open_clip models: two streams of self-attention, their cosine, and correct gradients."""

import pytest
import torch
from adapter_checks import (
    add_to_input,
    add_to_output,
    assert_explained,
    assert_gradient_is_the_slope,
    assert_nothing_is_left,
    assert_same_gradients,
    breaking,
    reaching,
)
from adapter_models import TEXTS, images, tiny_clip
from torch import nn

from explain import TraceError, explainers
from explain.adapters.open_clip import trace_open_clip

open_clip = pytest.importorskip("open_clip")

LAYERS, N_IMAGE, N_TEXT, HEADS = 2, 10, 8, 2
STEPS = [("image", "image")] * LAYERS + [("text", "text")] * LAYERS


def cosine(model):
    return nn.functional.cosine_similarity(model.encode_image(images()), model.encode_text(TEXTS))


def blocks(model):
    return [*model.visual.transformer.resblocks, *getattr(model, "text", model).transformer.resblocks]


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_recorded_forward_is_the_plain_forward(kind, dtype, tolerance):
    """The plain forward pass runs without gradients, and so with PyTorch's fused attention."""
    model, recorded = tiny_clip(dtype, kind), []

    def spy(encode):
        return lambda *args, **options: recorded.append(encode(*args, **options)) or recorded[-1]

    with torch.no_grad():
        plain = [model.encode_image(images(dtype), normalize=True), model.encode_text(TEXTS, normalize=True)]
    model.encode_image, model.encode_text = spy(model.encode_image), spy(model.encode_text)
    trace_open_clip(model, images(dtype), TEXTS)
    for one, other in zip(recorded, plain, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", ["CLIP", "CustomTextCLIP"])
def test_steps_sizes_and_padding(kind):
    trace = trace_open_clip(tiny_clip(kind=kind), images(), TEXTS).trace
    assert [(step.query, step.key) for step in trace.steps] == STEPS
    assert [len(stage) for stage in trace.stages()] == [1] * len(STEPS)
    assert list(trace.sizes.items()) == [("image", N_IMAGE), ("text", N_TEXT)]
    assert trace.valid.tolist() == [[True] * 13 + [False] * 5, [True] * 15 + [False] * 3]


def test_attention_and_output_equal_pytorchs():
    model = tiny_clip()
    for step, block in zip(trace_open_clip(model, images(), TEXTS).trace.steps, blocks(model), strict=True):
        x = block.ln_1(step.residual)
        mask = model.attn_mask.double() if step.query == "text" else None
        output, attention = block.attn(x, x, x, attn_mask=mask, average_attn_weights=False)
        torch.testing.assert_close(step.attention, attention)
        torch.testing.assert_close(step.output, block.ls_1(output))


def add_to_attention(attn, delta):
    """Return a hook that has the effect of adding ``delta`` [B, H, n, n] to the attention probabilities.

    Only the output of PyTorch's attention can be changed, so the hook adds δV W_o to it.
    """

    def add(_, args, output):
        value = nn.functional.linear(args[2], *(part.chunk(3)[2] for part in (attn.in_proj_weight, attn.in_proj_bias)))
        value = value.unflatten(-1, (HEADS, -1))
        return output[0] + torch.einsum("bhij,bjhd->bihd", delta, value).flatten(2) @ attn.out_proj.weight.T, None

    return attn.register_forward_hook(add)


@pytest.mark.parametrize("index", range(len(STEPS)))
def test_gradients_equal_slopes(index):
    model = tiny_clip()
    trace = trace_open_clip(model, images(), TEXTS).trace
    assert all(reaching(trace))
    step, block = trace.steps[index], blocks(model)[index]
    points = {
        "residual": lambda delta: add_to_input(block, delta),
        "attention": lambda delta: add_to_attention(block.attn, delta),
        "output": lambda delta: add_to_output(block.ls_1, delta),
    }
    for name, nudged in points.items():
        assert_gradient_is_the_slope(getattr(step, f"{name}_grad"), nudged, lambda: cosine(model))


def test_gradients_of_inputs_equal_slopes():
    model = tiny_clip()
    trace = trace_open_clip(model, images(), TEXTS).trace
    for modality, start in {"image": model.visual.transformer, "text": model.transformer}.items():
        assert_gradient_is_the_slope(
            trace.inputs_grad[modality], lambda delta, start=start: add_to_input(start, delta), lambda: cosine(model)
        )


def test_a_padded_batch_equals_its_single_samples():
    """The model always takes 8 tokens, so a single sample is padded too.

    The test changes the tokens after the end token, which must have no effect.
    """
    model = tiny_clip()
    trace = trace_open_clip(model, images(), TEXTS).trace
    for sample in range(2):
        text = TEXTS[sample : sample + 1].clone()
        text[text == 0] = 7
        alone = trace_open_clip(model, images()[sample : sample + 1], text).trace
        matrix = explainers.Weighted()(trace).matrix[sample]
        torch.testing.assert_close(explainers.Weighted()(alone).matrix[0], matrix)


def test_explainers_run_and_modalities_do_not_mix():
    trace = trace_open_clip(tiny_clip(), images(), TEXTS).trace
    assert_explained(trace, torch.tensor([0, 0]))
    assert_explained(trace, N_IMAGE + TEXTS.argmax(1))
    matrix = explainers.Weighted()(trace).matrix
    assert matrix[:, :N_IMAGE, N_IMAGE:].abs().sum() == 0
    assert matrix[:, N_IMAGE:, :N_IMAGE].abs().sum() == 0
    assert bool((matrix[torch.arange(2), N_IMAGE + TEXTS.argmax(1), N_IMAGE] > 0).all())  # the start token


def test_a_model_that_is_not_frozen_gives_the_same_gradients():
    model = tiny_clip()
    frozen = trace_open_clip(model, images(), TEXTS).trace
    trained = trace_open_clip(model.requires_grad_(True), images(), TEXTS).trace
    assert_same_gradients(frozen, trained)


def test_nothing_is_left_on_the_model():
    model = tiny_clip()
    assert_nothing_is_left(model, lambda: trace_open_clip(model, images(), TEXTS))


def test_nothing_is_left_after_errors():
    model = tiny_clip()
    with breaking(model.transformer.resblocks[1].mlp):
        assert_nothing_is_left(model, lambda: trace_open_clip(model, images(), TEXTS), failing=RuntimeError)
    nan = images() * float("nan")
    assert_nothing_is_left(model, lambda: trace_open_clip(model, nan, TEXTS), failing=TraceError)


@pytest.mark.parametrize(
    ("vision", "text", "message"),
    [
        ({"pool_type": "avg"}, {}, r"visual \(VisionTransformer\) is not a vision transformer read at its class token"),
        ({"attentional_pool": True, "attn_pooler_heads": 2}, {}, "not a vision transformer read at its class token"),
        ({}, {"no_causal_mask": True}, "text tower of CLIP is not a causal transformer read at its end token"),
        ({}, {"pool_type": "last"}, "text tower of CLIP is not a causal transformer read at its end token"),
        ({"qk_norm": True, "block_type": "custom"}, {}, r"image block 0 has attention Attention: only PyTorch's plain"),
        ({}, {"qk_norm": True, "block_type": "custom"}, r"text block 0 has attention Attention: only PyTorch's plain"),
    ],
)
def test_other_towers_are_refused_by_name(vision, text, message):
    known = open_clip.CLIPVisionCfg.__annotations__ | open_clip.CLIPTextCfg.__annotations__
    if not (vision | text).keys() <= known.keys():
        pytest.skip("this version of open_clip has no such towers")
    with pytest.raises(TraceError, match=message):
        trace_open_clip(tiny_clip(vision=vision, text=text), images(), TEXTS)


def test_other_models_modes_and_unpaired_inputs_are_refused():
    model = tiny_clip()
    with pytest.raises(TraceError, match="Linear has no visual"):
        trace_open_clip(nn.Linear(2, 2).eval(), images(), TEXTS)
    with pytest.raises(TraceError, match="2 images and 1 texts: each image needs its text"):
        trace_open_clip(model, images(), TEXTS[:1])
    with pytest.raises(TraceError, match=r"training mode: call eval\(\)"):
        trace_open_clip(model.train(), images(), TEXTS)
    model.eval().set_grad_checkpointing(True)
    with pytest.raises(TraceError, match=r"image transformer checkpoints .* set_grad_checkpointing\(False\)"):
        trace_open_clip(model, images(), TEXTS)
