"""Traces of tiny random models of each family: the untouched forward pass, correct gradients, nothing left behind."""

from contextlib import contextmanager
from functools import lru_cache

import pytest
import torch
from adapter_checks import (
    TRACE_ONLY,
    breaking,
)
from hugging_face_checks import joint_order, plain_logits, single
from hugging_face_models import MODELS, llava, texts, vit

from explain import Needs, TokenMap, TraceError, explainers, targets
from explain.adapters import trace_hugging_face
from explain.step import JOINT

transformers = pytest.importorskip("transformers")
families = pytest.mark.parametrize("name", MODELS)


@families
def test_the_logits_are_those_of_the_untouched_model(name):
    model, inputs = MODELS[name]()
    traced = trace_hugging_face(model, inputs)
    torch.testing.assert_close(traced.logits, plain_logits(name, model, inputs), rtol=1e-4, atol=1e-5)


@families
def test_all_explainers_run_and_keep_relevance(name):
    model, inputs = MODELS[name]()
    traced = trace_hugging_face(model, inputs)
    trace = traced.trace
    for explainer in TRACE_ONLY:
        matrix = explainer(trace).matrix
        assert matrix.shape == (2, trace.final.tokens, trace.tokens)
        for scores in traced.explain(explainer).values():
            assert bool(scores.isfinite().all())
    total = explainers.Weighted()(trace).matrix.sum(-1)
    valid = torch.ones_like(total, dtype=torch.bool) if trace.final.valid is None else trace.final.valid
    torch.testing.assert_close(total[valid], torch.ones_like(total[valid]))
    assert not bool((traced.removable & ~trace.valid).any())


@families
def test_a_padded_batch_equals_its_single_samples(name):
    model, inputs = MODELS[name](torch.float64)
    if name == "blip_vqa":  # its answer also reads the padding of a shorter question, so both have the same length
        inputs |= texts([2, 7, 6, 5, 3], [2, 9, 8, 7, 3])
    traced = trace_hugging_face(model, inputs)
    for sample in range(2):
        alone = trace_hugging_face(model, single(name, inputs, sample))
        torch.testing.assert_close(alone.logits[0], traced.logits[sample], rtol=1e-5, atol=1e-7)
        columns, rows = traced.trace.valid[sample], traced.trace.final.valid[sample]
        for explainer in (explainers.Weighted(), explainers.GenAtt(), explainers.Rollout(), explainers.RawAttention()):
            found = explainer(traced.trace).matrix[sample][rows][:, columns]
            expected = explainer(alone.trace).matrix[0]
            expected = expected[alone.trace.final.valid[0]][:, alone.trace.valid[0]]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_left_padding_changes_nothing():
    model, inputs = llava(torch.float64)
    _, left = llava(torch.float64, left=True)
    right, padded = trace_hugging_face(model, inputs), trace_hugging_face(model, left)
    torch.testing.assert_close(padded.logits, right.logits, rtol=1e-5, atol=1e-7)
    assert torch.equal(padded.trace.valid, right.trace.valid)
    matrices = [explainers.Weighted()(traced.trace).matrix for traced in (padded, right)]
    torch.testing.assert_close(*matrices, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["clip", "llava", "vit"])
def test_attention_equals_what_the_library_reports(name):
    model, inputs = MODELS[name]()
    trace = trace_hugging_face(model, inputs).trace
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
    if name == "clip":
        expected = [*output.vision_model_output.attentions, *output.text_model_output.attentions]
    elif name == "vit":
        expected = output.attentions
    else:
        orders = joint_order(inputs)
        expected = []
        for attention in output.attentions:
            whole = torch.zeros(2, 4, 14, 14)
            for b, order in enumerate(orders):
                index = torch.tensor(order)
                whole[b, :, : len(order), : len(order)] = attention[b][:, index][:, :, index]
            expected.append(whole)
        trace = type("Steps", (), {"steps": trace.steps[3:]})  # after the tower's two layers and the map
    for step, attention in zip(trace.steps, expected, strict=True):
        torch.testing.assert_close(step.attention, attention)


def test_the_future_gets_no_attention():
    """A causal decoder would see later tokens if the interface had no function for masks."""
    for name in ("clip", "llava", "qwen2_vl"):
        model, inputs = MODELS[name]()
        trace = trace_hugging_face(model, inputs).trace
        text = [step for step in trace.attention_steps if step.query in ("text", JOINT)]
        text_tokens = trace.sizes["text"]
        for step in text:
            own = step.attention[:, :, -text_tokens:, -text_tokens:]
            assert own.triu(1).abs().max() == 0
            assert own.tril(-1).abs().max() > 0


@families
def test_nothing_is_left_on_the_model_or_in_the_library(name):
    from transformers import AttentionInterface, AttentionMaskInterface

    model, inputs = MODELS[name]()
    registries = [dict(kind._global_mapping) for kind in (AttentionInterface, AttentionMaskInterface)]
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    before = [config._attn_implementation for config in configs]
    trace_hugging_face(model, inputs)  # the library itself adds hooks the first time that it returns hidden states
    for _ in range(2):
        trace_hugging_face(model, inputs)
    with breaking(last_block(model)), pytest.raises(RuntimeError):
        trace_hugging_face(model, inputs, tolerance=float("inf"))
    with pytest.raises(TraceError, match="target: expected"):
        trace_hugging_face(model, inputs, lambda logits: logits.sum())
    assert [config._attn_implementation for config in configs] == before
    assert [dict(kind._global_mapping) for kind in (AttentionInterface, AttentionMaskInterface)] == registries


def last_block(model):
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)][-1]


@pytest.mark.parametrize("name", ["siglip", "llava", "blip_vqa", "flava", "visual_bert"])
def test_hooks_and_recorded_tensors_are_gone(name):
    model, inputs = MODELS[name]()
    trace_hugging_face(model, inputs)
    assert_gone(model, lambda: trace_hugging_face(model, inputs))


def assert_gone(model, trace):
    import gc
    import weakref

    from adapter_checks import state
    from watching import watched

    from explain import Recorder, active_recorder

    before, recorded = state(model), []

    def remember(_, **step):
        for name in ("attention", "residual", "output"):
            value = step[name]
            recorded.extend(map(weakref.ref, getattr(value, "tensors", (value,))))

    with watched(Recorder, "step", remember):
        for _ in range(5):
            trace()
    gc.collect()
    assert len(recorded) >= 5 * 3
    assert not any(ref() is not None for ref in recorded)
    assert state(model) == before
    assert active_recorder() is None
    assert all(parameter.grad is None for parameter in model.parameters())


@families
def test_a_model_that_is_not_frozen_gives_the_same_gradients(name):
    model, inputs = MODELS[name](torch.float64)
    frozen = trace_hugging_face(model, inputs).trace
    trained = trace_hugging_face(model.requires_grad_(True), inputs).trace
    for a, b in zip(frozen.attention_steps, trained.attention_steps, strict=True):
        for field in ("attention_grad", "residual_grad", "output_grad"):
            torch.testing.assert_close(getattr(a, field), getattr(b, field), rtol=1e-4, atol=1e-7)
    for modality, grad in frozen.inputs_grad.items():
        torch.testing.assert_close(grad, trained.inputs_grad[modality], rtol=1e-4, atol=1e-7)


@families
def test_half_precision(name):
    model, inputs = MODELS[name](torch.bfloat16)
    single_model, single_inputs = MODELS[name](torch.float32)
    traced = trace_hugging_face(model, inputs, tolerance=0.2)
    assert traced.trace.attention_steps[0].attention.dtype == torch.bfloat16
    matrix = explainers.Weighted()(traced.trace).matrix
    assert matrix.dtype == torch.float32
    exact = explainers.Rollout()(trace_hugging_face(single_model, single_inputs).trace).matrix
    torch.testing.assert_close(explainers.Rollout()(traced.trace).matrix, exact, rtol=0.2, atol=0.1)


@pytest.mark.parametrize(
    ("name", "layers", "steps"),
    [
        ("clip", [1], [1, 4]),
        ("clip", {"image": [0, 2]}, [0, 2]),
        ("llava", {"text": [1, 2]}, [3, 4]),
        ("llava", {"image": [1], "text": [0, 2]}, [1, 2, 4]),
        ("qwen2_5_vl", {"image": [2], "text": [0, 1, 2]}, [2, 3, 4, 5]),
    ],
)
def test_chosen_layers_equal_those_of_the_whole_trace(name, layers, steps):
    model, inputs = MODELS[name](torch.float64)
    needs = Needs.of([explainers.Weighted()])
    whole, part = trace_hugging_face(model, inputs).trace, trace_hugging_face(model, inputs, None, layers, needs=needs)
    found = part.trace.attention_steps
    for step, expected in zip(found, [whole.attention_steps[index] for index in steps], strict=True):
        assert (step.query, step.key) == (expected.query, expected.key)
        for field, tensor in step.tensors():
            torch.testing.assert_close(tensor, getattr(expected, field), rtol=1e-4, atol=1e-7)
    maps = [step for step in part.trace.steps if isinstance(step, TokenMap)]
    assert len(maps) == (name != "clip")


def test_the_backward_pass_stops_at_the_lowest_chosen_layer():
    model, inputs = llava()
    seen = []

    def see(_module, args):
        seen.append(args[0].grad_fn)

    needs = Needs.of([explainers.Weighted()])
    with model.model.language_model.norm.register_forward_pre_hook(see), add_nothing(model) as tower:
        trace_hugging_face(model, inputs, layers={"text": [2]}, needs=needs, tolerance=float("inf"))
        assert tower == [False]
        trace_hugging_face(model, inputs, layers={"image": [1], "text": [2]}, needs=needs, tolerance=float("inf"))
    assert tower == [False, True]
    assert all(seen)


@contextmanager
def add_nothing(model):
    """Yield a list that gets whether the language model's input requires grad, for each run."""
    found = []

    def see(_module, _args, kwargs):
        found.append(kwargs["inputs_embeds"].requires_grad)

    with model.model.language_model.register_forward_pre_hook(see, with_kwargs=True):
        yield found


NEEDED = [*TRACE_ONLY, explainers.Random(), explainers.IntegratedGradients(2)]


@lru_cache(1)
def built(name):
    """Return a model and its inputs; the tests of one model follow each other."""
    return MODELS[name](torch.float64)


@lru_cache(16)
def traced_with(name, needs):
    """Return a trace; explainers that read the same fields share it."""
    return trace_hugging_face(*built(name), needs=needs)


@pytest.mark.parametrize("explainer", NEEDED, ids=lambda explainer: type(explainer).__name__)
@families
def test_a_trace_of_only_what_is_needed_gives_the_same_scores(name, explainer):
    whole = traced_with(name, Needs.everything()).explain(explainer)
    needed = traced_with(name, Needs.of([explainer])).explain(explainer)
    for modality, scores in whole.items():
        torch.testing.assert_close(needed[modality], scores, rtol=1e-4, atol=1e-6)


def test_the_target_can_be_a_class_or_a_margin():
    model, inputs = vit(torch.float64)
    parts = [trace_hugging_face(model, inputs, targets.given(k)).trace.attention_steps for k in (1, 2)]
    margin = trace_hugging_face(model, inputs, targets.margin(1, 2)).trace.attention_steps
    for one, two, both in zip(*parts, margin, strict=True):
        torch.testing.assert_close(both.residual_grad, one.residual_grad - two.residual_grad, rtol=1e-5, atol=1e-8)


def test_a_model_is_explained_for_its_own_prediction_by_default():
    model, inputs = llava(torch.float64)
    own = trace_hugging_face(model, inputs)
    given = trace_hugging_face(model, inputs, targets.given(own.logits.argmax(-1)))
    for a, b in zip(own.trace.attention_steps, given.trace.attention_steps, strict=True):
        torch.testing.assert_close(a.output_grad, b.output_grad)
