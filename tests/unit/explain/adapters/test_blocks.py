"""A and Y of every block, found without knowing its code, compared with hooks on the modules that show them."""

import re
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from adapter_models import lxmert_inputs, tiny_lxmert, tiny_vilt, vilt_inputs
from explain_table import EXPLAINERS
from hugging_face_checks import JOINT_ORDERS, logits_of
from hugging_face_models import MODELS, visual_bert
from torch import nn

from explain import AttentionStep, Needs, TraceError
from explain.adapters import trace_hugging_face, trace_lxmert, trace_vilt
from explain.adapters.blocks import Watch, watch_block

pytest.importorskip("transformers")

# For each model: blocks, and in them the modules that output A and Y.
BERT = ("self.dropout", "output.dropout")
BLIP = {r"vision_model\.encoder\.layers\.\d+": ("self_attn.dropout", "self_attn.projection")}
SHOWN = {
    "vilt": {r"vilt\.encoder\.layer\.\d+": ("attention.attention.dropout", "attention.output.dropout")},
    "lxmert": {
        r"lxmert\.encoder\.r?_?layers?\.\d+\.attention": BERT,
        r"lxmert\.encoder\.x_layers\.\d+\.visual_attention": ("att.dropout", "output.dropout"),
        r"lxmert\.encoder\.x_layers\.\d+\.(lang|visn)_self_att": BERT,
    },
    "blip_matching": {**BLIP, r"text_encoder\.encoder\.layer\.\d+\.(cross)?attention": BERT},
    "blip_vqa": {**BLIP, r"text_.*coder\.(bert\.)?encoder\.layer\.\d+\.(cross)?attention": BERT},
    "blip_caption": {**BLIP, r"text_decoder\.bert\.encoder\.layer\.\d+\.(cross)?attention": BERT},
    "flava": {r"flava\..*_model\.encoder\.layer\.\d+": ("attention.attention.dropout", "attention.output.dropout")},
    "visual_bert": {r"visual_bert\.encoder\.layer\.\d+": tuple(f"attention.{path}" for path in BERT)},
}
OWN = {"vilt": (tiny_vilt, vilt_inputs, trace_vilt), "lxmert": (tiny_lxmert, lxmert_inputs, trace_lxmert)}


def model_and_inputs(name):
    if name in OWN:
        make, inputs, _ = OWN[name]
        return make(), inputs()
    return MODELS[name](torch.float64)


def hooked_steps(name, model, inputs):
    """Return X, A, Y and their gradients of each block, in the order in which the untouched model runs them."""
    seen = []
    with ExitStack() as hooks:
        for path, block in model.named_modules():
            for pattern, (attention, output) in SHOWN[name].items():
                if re.fullmatch(pattern, path):
                    enter = hooks.enter_context
                    enter(block.register_forward_pre_hook(lambda _, args: seen.append([args[0]])))
                    for shown in (attention, output):
                        enter(block.get_submodule(shown).register_forward_hook(lambda _, __, out: seen[-1].append(out)))
        logits = logits_of(name, model.requires_grad_(True), inputs)
    tensors = [tensor for step in seen for tensor in step]
    options = {"allow_unused": True, "materialize_grads": True}
    grads = torch.autograd.grad(logits.max(-1).values.sum(), tensors, **options)
    model.requires_grad_(False)
    flat = [(tensor.detach(), grad) for tensor, grad in zip(tensors, grads, strict=True)]
    return [flat[k : k + 3] for k in range(0, len(flat), 3)]


@pytest.mark.usefixtures("_patches_in_order")
@pytest.mark.parametrize("name", SHOWN)
def test_steps_and_all_explainers_equal_those_of_hooks_on_the_model(name):
    model, inputs = model_and_inputs(name)
    traced = trace_hugging_face(model, inputs, needs=Needs.everything(lrp=True))
    expected = []
    found = hooked_steps(name, model, inputs)
    if name == "flava":  # the model runs its encoders of images and texts twice, and reads the second run
        found = found[-len(traced.trace.steps) :]
    for step, tensors in zip(traced.trace.steps, found, strict=True):
        values = {}
        for field, pair in zip(("residual", "attention", "output"), tensors, strict=True):
            for suffix, tensor in zip(("", "_grad"), pair, strict=True):
                values[field + suffix] = in_trace_order(name, traced.trace, step, field, tensor)
        for field, tensor in values.items():
            torch.testing.assert_close(step.tensor(field), tensor, rtol=1e-9, atol=1e-12, msg=f"{step}: {field}")
        names = {"query": step.query, "key": step.key, "stage": step.stage}
        expected.append(AttentionStep(**names, **values, attention_relevance=step.attention_relevance))
    other = replace(traced, trace=replace(traced.trace, steps=expected))
    for kind, explainer in EXPLAINERS.items():
        if kind == "centre_first" and traced.grid is None:
            continue
        for modality, scores in traced.explain(explainer).items():
            close = {"rtol": 1e-9, "atol": 1e-12}
            torch.testing.assert_close(scores, other.explain(explainer)[modality], **close, msg=f"{kind} {modality}")


def in_trace_order(name, trace, step, field, tensor):
    """Return a tensor of the model with its tokens in joint order, and 0 for padding that BLIP's steps leave out."""
    if step.query == "joint" and name in JOINT_ORDERS:
        order = torch.tensor(JOINT_ORDERS[name]).argsort()
        tensor = tensor[:, :, order][:, :, :, order] if field == "attention" else tensor[:, order]
    if name.startswith("blip_"):
        queries, keys = trace.valid_tokens(step.query), trace.valid_tokens(step.key)
        rows = queries[:, None, :, None] & keys[:, None, None] if field == "attention" else queries[:, :, None]
        tensor = tensor * rows
    return tensor


@pytest.mark.usefixtures("_patches_in_order")
@pytest.mark.parametrize("name", OWN)
def test_models_with_adapters_of_their_own_are_passed_to_them(name):
    model, inputs = model_and_inputs(name)
    first, second = OWN[name][2](model, inputs), trace_hugging_face(model, inputs)
    assert second.trace.sizes == first.trace.sizes
    for a, b in zip(first.trace.steps, second.trace.steps, strict=True):
        for field, tensor in a.tensors():
            torch.testing.assert_close(b.tensor(field), tensor, rtol=1e-9, atol=1e-12)
    assert len(trace_hugging_face(model, inputs, layers=[1] if name == "vilt" else {"cross": [1]}).trace.steps) in (
        1,
        4,
    )


def test_flava_is_read_at_the_class_token_of_its_multimodal_encoder_or_of_its_image():
    model, inputs = MODELS["flava"](torch.float64)
    traced = trace_hugging_face(model, inputs)
    assert traced.trace.sizes == {"image": 10, "multimodal": 1, "text": 5}
    assert traced.readout["text"].tolist() == [10, 10]
    model.flava.multimodal_model.use_cls_token = False
    traced = trace_hugging_face(model, inputs)
    assert traced.trace.sizes == {"image": 10, "text": 5}
    assert traced.readout["image"].tolist() == [0, 0]


def test_what_is_special_of_visual_bert_and_of_blips_answers():
    model, inputs = MODELS["visual_bert"](torch.float64)
    boxes = torch.rand(2, 5, 4)
    traced = trace_hugging_face(model, {**inputs, "boxes": boxes})
    assert traced.boxes is boxes
    assert traced.grid is None
    assert trace_hugging_face(model, inputs).boxes is None
    assert traced.readout["image"].tolist() == [5 + 1, 5 + 3]  # the last word before [SEP]
    assert traced.removable.int().tolist() == [[1, 1, 1, 1, 0, 0, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0, 1, 1, 1, 0]]
    model, inputs = visual_bert(torch.float64, "VisualBertForVisualReasoning")
    assert trace_hugging_face(model, inputs).readout["text"].tolist() == [5, 5]  # [CLS]
    model, inputs = MODELS["blip_vqa"](torch.float64)
    traced = trace_hugging_face(model, inputs)
    begun = {name: tensor for name, tensor in inputs.items() if "decoder" not in name}
    torch.testing.assert_close(trace_hugging_face(model, begun).logits, traced.logits)  # 38 begins any answer
    padding = traced.trace.attention_steps[-1].attention[0, :, :, 3:]
    assert bool((padding > 0).all())  # the library's mask does not reach the answer's attention to the question
    assert traced.trace.valid_tokens("text").all()
    assert traced.removable[0, 10:15].tolist() == [False, True, False, False, False]


class Block(nn.Module):
    """Attention in whose way the probabilities are cast and dropped, after another softmax that nothing reads."""

    def __init__(self, through):
        super().__init__()
        self.through = through

    def forward(self, x):
        x.softmax(-1)
        attention = (x @ x.mT).softmax(-1)
        x.sum(-1) @ x.sum(-1).mT  # a product of other tensors
        return self.through(attention) @ x + x


@pytest.mark.parametrize(
    ("through", "cast"),
    [
        (lambda a: a, torch.float64),
        (lambda a: nn.functional.dropout(a.to(torch.float32).to(torch.float64), 0.5, training=False), torch.float32),
    ],
)
def test_the_probabilities_are_those_that_multiply_the_values(through, cast):
    x, watch, seen = torch.rand(1, 3, 4, dtype=torch.float64).requires_grad_(), Watch(), []
    with ExitStack() as hooks, watch:
        block = Block(through)
        watch_block(hooks, watch, "block", block, seen.append)
        total = block(x)
    (step,) = seen
    probabilities = (x @ x.mT).softmax(-1).to(cast).double()
    assert len(step.attention) == 1
    torch.testing.assert_close(step.attention[0], probabilities)
    torch.testing.assert_close(step.attention[0] @ x + x, total)
    (gradient,) = torch.autograd.grad(total.sum(), step.attention)
    torch.testing.assert_close(gradient, x.sum(-1)[:, None].expand(-1, 3, -1))


def test_a_block_without_a_softmax_before_a_product_is_refused_by_name():
    watch, block = Watch(), Block(lambda a: 2 * a)
    with ExitStack() as hooks, watch:
        watch_block(hooks, watch, "layers.3", block, print)
        with pytest.raises(TraceError, match=r"layers\.3 \(Block\) ran without showing its attention: only eager att"):
            block(torch.rand(1, 3, 4))
