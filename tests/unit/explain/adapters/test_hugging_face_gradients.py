"""Gradients of every step, compared with slopes of the untouched model."""

import sys
from contextlib import contextmanager

import pytest
import torch
from adapter_checks import normal
from hugging_face_checks import JOINT_ORDERS, blocks_of, joint_order, plain_logits, shown_attention
from hugging_face_models import IMAGE, MODELS

from explain import TokenMap, targets
from explain.adapters import trace_hugging_face
from explain.lrp.precision import in_float64
from explain.step import JOINT

pytest.importorskip("transformers")

SLOPES = ["clip", "siglip", "siglip2", "vit", "dinov2", "bert", "llava", "qwen2_vl", "gemma3", "blip2", "instructblip"]
SLOPES += ["chinese_clip", "blip_matching", "blip_vqa", "blip_caption", "flava", "visual_bert"]


@pytest.mark.parametrize("name", SLOPES)
def test_gradients_of_each_step_equal_slopes(name):
    """Each tensor is nudged in the untouched model: X, A and Y of every block, in a random direction."""
    model, inputs = MODELS[name](torch.float64)
    classes = {"blip_matching": 1, "flava": 1, **dict.fromkeys(["clip", "chinese_clip", "siglip", "siglip2"], 0)}
    choice = targets.given(classes.get(name, 3))
    with in_float64():
        trace = trace_hugging_face(model, inputs, choice).trace
    for config in {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values():
        config._attn_implementation_internal = "eager"
    packed = packed_places() if name == "qwen2_vl" else None
    steps = [step for step in trace.steps if not isinstance(step, TokenMap) and step.query != "probe"]
    blocks = blocks_of(name, model)
    assert len(steps) == len(blocks)

    def y():
        with in_float64(), torch.no_grad():
            return choice(plain_logits(name, model, inputs)).sum()

    for step, (block, added) in zip(steps, blocks, strict=True):
        of_queries = packed if step.query == "image" else None
        for field in ("residual", "output", "attention"):
            gradient = in_models_order(name, inputs, step, step.tensor(f"{field}_grad"), of_queries)
            direction = normal(*gradient.shape)
            if field == "attention" and of_queries is not None:  # one call for each image
                pieces = lambda d: [d[None, :, :16, :16], d[None, :, 16:, 16:]]  # noqa: E731
                direction[:, :16, 16:] = direction[:, 16:, :16] = 0
            else:
                pieces = lambda d: [d]  # noqa: E731
            if name == "instructblip" and step.is_cross:  # only the three queries read the image
                gradient, direction = (each.narrow(-2, 0, 3) for each in (gradient, direction))
            if name in ("blip_matching", "blip_caption") and field == "attention" and step.key == "text":
                direction = direction * inputs["attention_mask"][:, None, None, :]
            real = real_tokens(name, inputs, step)
            if real is not None and field == "attention":  # the trace leaves padding out
                direction = direction * real[:, None, :, None] * real[:, None, None, :]
            elif real is not None:
                direction = direction * real[:, :, None]
            nudge = {
                "residual": lambda d: stream_hook(block, d),  # noqa: B023
                "output": lambda d: output_hook(added, d),  # noqa: B023
                "attention": lambda d: nudged_attention(block, pieces(d)),  # noqa: B023
            }[field]
            ends = []
            for sign in (1, -1):
                with nudge(sign * 1e-5 * direction):
                    ends.append(y())
            slope = (ends[0] - ends[1]) / 2e-5
            found = (gradient * direction).sum()
            torch.testing.assert_close(found, slope, rtol=1e-4, atol=1e-7, msg=f"{step} {field}: {found} {slope}")


@contextmanager
def nudged_attention(block, delta):
    """Add ``delta``, a list of one tensor per call, to the attention maps of a block."""
    file, calls, inside = sys.modules[type(block).__module__], iter(delta), set(block.modules())
    if not hasattr(file, "eager_attention_forward"):
        with output_hook(shown_attention(block), delta[0]):
            yield
        return
    eager = file.eager_attention_forward

    def attend(called, q, k, v, attention_mask, **options):
        output, attention = eager(called, q, k, v, attention_mask, **options)
        if called not in inside:
            return output, attention
        groups = getattr(called, "num_key_value_groups", 1)
        return output + (next(calls) @ v.repeat_interleave(groups, 1)).transpose(1, 2), attention

    file.eager_attention_forward = attend
    try:
        yield
    finally:
        file.eager_attention_forward = eager


def in_models_order(name, inputs, step, tensor, packed=None):
    """Return a gradient of the trace [B, ...] in the order of the model's tensors."""
    if step.query == JOINT and name in JOINT_ORDERS:
        order = JOINT_ORDERS[name]
        return tensor[:, order] if tensor.ndim == 3 else tensor[:, :, order][:, :, :, order]
    if step.query == JOINT:
        length, orders = inputs["input_ids"].shape[1], joint_order(inputs)
        slots, most = (inputs["input_ids"] == IMAGE).sum(1), int((inputs["input_ids"] == IMAGE).sum(1).max())
        whole = tensor.new_zeros(
            *((2, length, tensor.shape[-1]) if tensor.ndim == 3 else (2, tensor.shape[1], length, length))
        )
        for b, order in enumerate(orders):
            own = [k if k < slots[b] else k - int(slots[b]) + most for k in range(len(order))]
            for i, at in zip(own, order, strict=True):
                if tensor.ndim == 3:
                    whole[b, at] = tensor[b, i]
                else:
                    for j, other in zip(own, order, strict=True):
                        whole[b, :, at, other] = tensor[b, :, i, j]
        return whole
    if packed is None:
        return tensor
    count = sum(len(row) for row in packed)
    if tensor.ndim == 3:
        whole = tensor.new_zeros(count, tensor.shape[-1])
        for b, row in enumerate(packed):
            whole[row] = tensor[b, : len(row)]
        return whole
    whole = tensor.new_zeros(tensor.shape[1], count, count)
    for b, row in enumerate(packed):
        for i, at in enumerate(row):
            for j, other in enumerate(row):
                whole[:, at, other] = tensor[b, :, i, j]
    return whole


def packed_places():
    """Return where Qwen2-VL's patches (two images of 4 × 4 and 4 × 6, merged 2 × 2) are, row by row."""
    rows, first = [], 0
    for height, width in ((4, 4), (4, 6)):
        at = {}
        for number in range(height * width):
            block, inside = divmod(number, 4)
            row, col = divmod(block, width // 2)
            at[2 * row + inside // 2, 2 * col + inside % 2] = first + number
        rows.append([at[r, c] for r in range(height) for c in range(width)])
        first += height * width
    return rows


def real_tokens(name, inputs, step):
    """Return the mask of a step's tokens in the model's order, or None if there is no padding."""
    if step.query == JOINT and name not in JOINT_ORDERS:
        return inputs["attention_mask"]
    if name == "siglip2" and step.query == "image":
        return inputs["pixel_attention_mask"]
    if name == "instructblip" and step.query == step.key == "query":
        return torch.cat([torch.ones(2, 3), inputs["qformer_attention_mask"]], 1)
    return None


def stream_hook(block, delta):
    def add(_, args, kwargs):
        if args:
            return (args[0] + delta, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": kwargs["hidden_states"] + delta}

    return block.register_forward_pre_hook(add, with_kwargs=True)


def output_hook(module, delta):
    def add(_, __, output):
        return (output[0] + delta, *output[1:]) if isinstance(output, tuple) else output + delta

    return module.register_forward_hook(add)
