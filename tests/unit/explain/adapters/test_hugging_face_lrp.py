"""LRP relevance of ``transformers`` models: compared with loops, kept from the logit to the tokens, and refusals."""

import decoder_lrp_reference as slow
import pytest
import torch
from hugging_face_checks import joint_order, single
from hugging_face_models import MODELS

from explain import Needs, TraceError, explainers, targets
from explain.adapters import trace_hugging_face
from explain.lrp import lrp, rules
from explain.lrp.precision import in_float64

pytest.importorskip("transformers")

LRP = [explainers.TransAtt(), explainers.PartialLRP()]
ALL = Needs.everything(lrp=True)
SERVED = [name for name in MODELS if name != "qwen3_5"]  # which has linear attention
# Rows of tiles end with learnt tokens, which are constants and keep the relevance that reaches them.
KEEPING = [name for name in SERVED if name not in ("llava_next", "llava_onevision")]
families = pytest.mark.parametrize("name", SERVED)


@families
def test_the_words_and_patches_of_every_sample_are_scored(name):
    model, inputs = MODELS[name](torch.float64)
    traced = trace_hugging_face(model, inputs, needs=ALL)
    for explainer in LRP:
        for scores in traced.explain(explainer).values():
            assert bool(scores.isfinite().all())
            assert bool(scores.any(1).all())


@pytest.mark.parametrize("name", KEEPING)
def test_the_tokens_of_a_sample_keep_the_relevance_of_its_logit(name, monkeypatch):
    """What is lost is lost where the divisor is 0: there a value is a bias alone.

    Inside ``lrp()``, the gradients of the inputs are their relevance. The tolerance is that of 1e-9 in the divisors.
    """
    lost = []
    divide = rules.safe_divide

    def counted(a, b):
        lost.append(a[b == 0].sum())
        return divide(a, b)

    monkeypatch.setattr(rules, "safe_divide", counted)
    model, inputs = MODELS[name](torch.float64)
    needs = Needs(trace=frozenset({"inputs_grad"}), last=frozenset({"attention"}))
    with lrp(), in_float64():
        trace = trace_hugging_face(model, inputs, targets.given(0), needs=needs).trace
    total = sum(relevance.sum() for relevance in trace.inputs_grad.values()) + sum(lost)
    torch.testing.assert_close(total, torch.tensor(2.0, dtype=torch.float64), rtol=0, atol=1e-6)
    if name not in ("bert", "instructblip"):  # the latter's queries also read the text
        assert all(bool(relevance.any()) for relevance in trace.inputs_grad.values())


# The answer of BLIP's VQA model reads the padding of its question (tests of the adapter).
@pytest.mark.parametrize("name", [name for name in SERVED if name != "blip_vqa"])
def test_a_sample_alone_has_the_relevance_that_it_has_in_a_padded_batch(name):
    model, inputs = MODELS[name](torch.float64)
    target = targets.given(1 if name not in ("clip", "chinese_clip", "siglip", "siglip2") else 0)
    traced = trace_hugging_face(model, inputs, target, needs=ALL)
    for sample in range(2):
        alone = trace_hugging_face(model, single(name, inputs, sample), target, needs=ALL)
        columns, rows = traced.trace.valid[sample], traced.trace.final.valid[sample]
        for explainer in LRP:
            found = explainer(traced.trace).matrix[sample][rows][:, columns]
            expected = explainer(alone.trace).matrix[0]
            expected = expected[alone.trace.final.valid[0]][:, alone.trace.valid[0]]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


def test_relevance_of_llava_equals_a_pass_in_loops():
    model, inputs = MODELS["llava"](torch.float64)
    trace = trace_hugging_face(model, inputs, targets.given(3), needs=ALL).trace
    joint = [step for step in trace.attention_steps if step.query == "joint"]
    for sample, order in enumerate(joint_order(inputs)):
        place = torch.tensor(order).argsort()  # the joint position of each place in the sequence
        entering = joint[0].residual[sample][place].numpy()
        expected = slow.llama(model.model.language_model, model.lm_head, entering, 3)
        assert max(abs(maps).max() for maps in expected) > 1e-3
        for step, maps in zip(joint, expected, strict=True):
            found = step.attention_relevance[sample][:, place][:, :, place]
            torch.testing.assert_close(found, torch.from_numpy(maps), rtol=1e-6, atol=1e-9)


def test_relevance_of_dinov2_equals_a_pass_in_loops():
    model, inputs = MODELS["dinov2"](torch.float64)
    trace = trace_hugging_face(model, inputs, targets.given(3), needs=ALL).trace
    for sample in range(2):
        expected = slow.dinov2(model, trace.steps[0].residual[sample].numpy(), 3)
        assert max(abs(maps).max() for maps in expected) > 1e-3
        for step, maps in zip(trace.steps, expected, strict=True):
            torch.testing.assert_close(step.attention_relevance[sample], torch.from_numpy(maps), rtol=1e-6, atol=1e-9)


def test_linear_attention_is_refused_by_the_name_of_the_function_where_relevance_reaches_it():
    """The only layer with linear attention is before the last attention, which is all that partial LRP reads."""
    model, inputs = MODELS["qwen3_5"]()
    with pytest.raises(TraceError, match=r"^LRP has no rule for torch\.Tensor\.\w+ with these arguments$"):
        trace_hugging_face(model, inputs, needs=Needs.of([explainers.TransAtt()]))
    partial_lrp = explainers.PartialLRP()
    scores = trace_hugging_face(model, inputs, needs=Needs.of([partial_lrp])).explain(partial_lrp)
    assert all(bool(each.any(1).all()) for each in scores.values())
