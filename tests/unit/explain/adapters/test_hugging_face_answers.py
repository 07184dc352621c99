"""Words of an answer: log-probabilities by teacher forcing, compared with one run for each word."""

import pytest
import torch
from hugging_face_models import MODELS, llava, prompt_with

from explain import Needs, TraceError, explainers, targets
from explain.adapters import trace_hugging_face

pytest.importorskip("transformers")

ANSWERS = [[7, 3, 9], [11, 4]]
ENCODERS = (
    *("clip", "chinese_clip", "siglip", "siglip2", "vit", "dinov2", "dinov2_with_registers", "bert"),
    *("blip_matching", "flava", "visual_bert"),
)
decoders = pytest.mark.parametrize("name", [name for name in MODELS if name not in ENCODERS])
EXPLAINERS = [explainers.Weighted(), explainers.GenAtt(), explainers.Rollout(), explainers.AttentionGradCAM()]


@decoders
def test_each_word_equals_a_run_with_the_words_before_it(name):
    """One forward pass for all words gives what the next word's log-probability gives after each prefix."""
    model, inputs = MODELS[name](torch.float64)
    traced = trace_hugging_face(model, inputs, targets.answer(ANSWERS, each=True))
    assert len(traced.logits) == 5
    assert list(traced.picture_ids) == [0, 0, 0, 1, 1]
    item = 0
    for sample, words in enumerate(ANSWERS):
        for number, word in enumerate(words):
            prefixes = [ANSWERS[b][:number] if b == sample else [] for b in range(2)]
            alone = trace_hugging_face(model, prompt_with(inputs, prefixes), targets.log_probability(word))
            torch.testing.assert_close(traced.logits[item], alone.logits[sample], rtol=1e-4, atol=1e-6)
            for explainer in EXPLAINERS:
                found = traced.explain(explainer)
                expected = alone.explain(explainer)
                torch.testing.assert_close(found["image"][item], expected["image"][sample], rtol=1e-3, atol=1e-6)
                text = expected["text"][sample]
                n = min(len(text), found["text"].shape[1])
                torch.testing.assert_close(found["text"][item][:n], text[:n], rtol=1e-3, atol=1e-6)
            item += 1


def test_a_span_is_the_sum_of_its_words_and_the_mean_of_their_rows():
    model, inputs = llava(torch.float64)
    whole = trace_hugging_face(model, inputs, targets.answer([7, 3, 9], each=True))
    span = trace_hugging_face(model, inputs, targets.answer([7, 3, 9], span=(1, 3)))
    for a, b in zip(whole.trace.attention_steps, span.trace.attention_steps, strict=True):
        of_words = a.attention_grad.unflatten(0, (2, 3))[:, 1:].sum(1)
        torch.testing.assert_close(b.attention_grad, of_words, rtol=1e-4, atol=1e-7)
    rows = explainers.Rollout()(span.trace).matrix
    positions = whole.readout["image"].view(2, 3)[:, 1:]
    expected = torch.stack([rows[b, positions[b]].mean(0) for b in range(2)])
    torch.testing.assert_close(explainers.Rollout()(span.trace, span.readout["image"]), expected)


def test_the_gradient_is_that_of_the_log_probability():
    """The sum of the words' log-probabilities, computed by the untouched model from the whole sequence."""
    model, inputs = llava(torch.float64)
    target = targets.answer(ANSWERS)
    seen = []

    def see(logits):
        seen.append(target(logits).detach())
        return target(logits)

    traced = trace_hugging_face(model, inputs, target)
    with torch.no_grad():
        logits = model(**prompt_with(inputs, ANSWERS)).logits.log_softmax(-1)
    for sample, words in enumerate(ANSWERS):
        start = int(inputs["attention_mask"][sample].sum())
        total = sum(logits[sample, start - 1 + k, word] for k, word in enumerate(words))
        own = targets.answer([words])(traced.logits[sample : sample + 1, : len(words)])
        torch.testing.assert_close(own[0], total, rtol=1e-5, atol=1e-7)


def test_words_of_the_answer_are_not_removable_and_left_padding_changes_nothing():
    model, inputs = llava(torch.float64)
    _, left = llava(torch.float64, left=True)
    first = trace_hugging_face(model, inputs, targets.answer(ANSWERS))
    second = trace_hugging_face(model, left, targets.answer(ANSWERS))
    plain = trace_hugging_face(model, inputs)
    assert first.removable.sum().item() == plain.removable.sum().item()
    for explainer in EXPLAINERS:
        for modality, scores in first.explain(explainer).items():
            torch.testing.assert_close(second.explain(explainer)[modality], scores, rtol=1e-3, atol=1e-6)


def test_yes_and_no_can_be_contrasted():
    model, inputs = llava(torch.float64)
    traced = trace_hugging_face(model, inputs, targets.contrast([5, 6], [7]))
    log = traced.logits.log_softmax(-1).exp()
    odds = targets.contrast([5, 6], [7])(traced.logits)
    torch.testing.assert_close(odds, ((log[:, 5] + log[:, 6]) / log[:, 7]).log())


def test_several_words_take_one_forward_pass_and_the_backward_passes_are_batched():
    from adapter_checks import counted_backward

    model, inputs = llava()
    calls = []
    with model.lm_head.register_forward_hook(lambda *_: calls.append(None)), counted_backward() as passes:
        needs = Needs.of([explainers.Weighted()])
        trace_hugging_face(model, inputs, targets.answer([3, 4, 5, 6], each=True), needs=needs, tolerance=float("inf"))
    assert len(calls) == 1
    assert len(passes) == 1


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (targets.answer([]), ValueError, "of an answer of 0 tokens"),
        (targets.answer([3, 4], span=(1, 5)), ValueError, "tokens 1 to 5 of an answer of 2 tokens"),
        (targets.answer([[3], [4], [5]]), ValueError, "one for each of 2 samples, got 3"),
    ],
)
def test_answers_that_do_not_fit_are_refused(target, error, message):
    model, inputs = llava()
    with pytest.raises(error, match=message):
        trace_hugging_face(model, inputs, target)


def test_an_answer_needs_a_language_model_and_no_positions():
    model, inputs = MODELS["vit"]()
    with pytest.raises(TraceError, match="ViTForImageClassification generates no text: an answer needs a language"):
        trace_hugging_face(model, inputs, targets.answer([3]))
    model, inputs = llava()
    with pytest.raises(TraceError, match="position_ids, which do not fit an added answer"):
        trace_hugging_face(model, {**inputs, "position_ids": torch.arange(14)[None]}, targets.answer([3]))
