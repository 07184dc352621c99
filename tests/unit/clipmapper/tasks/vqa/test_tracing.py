"""Tests of CLIPmapper's traces for VQA, and of every explainer on them."""

from __future__ import annotations

import gc
from functools import cache
from typing import Any

import captum.attr
import pytest
import torch
from models import random_vqa, samples
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import Traced, trace_vqa
from explain import TraceError, explainers, targets
from explain.capture.needs import Needs

CLOSE = {"atol": 1e-5, "rtol": 1e-4}
NAMES, READOUTS = ("a", "b"), ("cls", "eot", "token")
EVERY = [getattr(explainers, name) for name in explainers.__all__]
IDS = ["k", "l", "m", "n"]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def traced(model: CLIPMapperVQA, count: int = 4, **options: Any) -> Traced:
    return trace_vqa(model, *samples(count), needs=Needs.everything(lrp=True), **options)


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_forward_equals_the_fast_one(name: str, readout: str) -> None:
    model = random_vqa(name, readout)
    pixels, questions = samples(4)
    found = traced(model)
    torch.testing.assert_close(found.logits, model(pixels, questions), **CLOSE)
    torch.testing.assert_close(found.answers, model(pixels, questions).argmax(1))


@cache
def in_double(name: str, readout: str) -> CLIPMapperVQA:
    return random_vqa(name, readout, dtype=torch.float64)  # because LRP divides by numbers close to 0


@cache
def together(name: str, readout: str) -> Traced:
    """Return the trace of four samples."""
    pixels, questions = samples(4)
    needs = Needs.everything(lrp=True)
    return trace_vqa(in_double(name, readout), pixels.double(), questions, needs=needs, sample_ids=IDS)


@cache
def alone(name: str, readout: str, needs: Needs) -> list[Traced]:
    """Return the traces of the same samples, each alone and without padding."""
    pixels, questions = samples(4)
    found = []
    for b in range(4):
        length = int(questions.valid[b].sum())
        text = TextBatch(questions.ids[b : b + 1, :length], questions.valid[b : b + 1, :length], 0)
        own = {"needs": needs, "sample_ids": IDS[b : b + 1]}
        found.append(trace_vqa(in_double(name, readout), pixels[b : b + 1].double(), text, **own))
    return found


@pytest.mark.parametrize("explainer", EVERY)
@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_explanations_of_a_batch_equal_those_of_its_samples_alone(name: str, readout: str, explainer: Any) -> None:
    whole = together(name, readout)
    rule = (
        explainer(steps=4) if explainer is explainers.IntegratedGradients else explainer()
    )  # the default of 32 steps takes seconds
    scores = rule(whole.trace, rows=whole.rows)
    assert scores.isfinite().all()
    assert scores.shape == (4, whole.trace.tokens)
    if rule.partners:  # it uses the weights of other samples of the batch
        return
    for b, one in enumerate(alone(name, readout, Needs.of([rule]))):
        single = rule(one.trace, rows=one.rows)[0]
        torch.testing.assert_close(scores[b, : len(single)], single, **CLOSE)
        assert not scores[b, len(single) :].any()


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_weighted_rows_sum_to_one(name: str, readout: str) -> None:
    found = traced(random_vqa(name, readout))
    matrix = explainers.Weighted()(found.trace).matrix
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(-1), torch.ones(matrix.shape[:2]))
    scores = explainers.Weighted()(found.trace, rows=found.rows)
    torch.testing.assert_close(scores, matrix[torch.arange(4), found.rows], **CLOSE)


@pytest.mark.parametrize("readout", READOUTS)
def test_removable_and_readout_positions(readout: str) -> None:
    model = random_vqa("b", readout)
    _, questions = samples(4)
    found = traced(model)
    first = 2 if readout == "token" else 1
    assert found.trace.sizes == {"image": first + 9, "text": questions.ids.shape[1]}
    lengths = questions.valid.sum(1).tolist()
    for b, length in enumerate(lengths):
        expected = [first + p for p in range(9)] + [first + 9 + k for k in range(1, length - 1)]
        assert found.removable[b].nonzero()[:, 0].tolist() == expected
        assert int(found.rows[b]) == (first + 9 + length - 1 if readout == "eot" else 0)
    scores = torch.arange(found.trace.tokens).expand(4, -1)
    assert found.scores(scores, "image")[0].tolist() == [first + p for p in range(9)]
    assert found.scores(scores, "text")[0, 0] == first + 9


def test_the_encoders_steps_are_zero_for_the_read_out_token() -> None:
    found = traced(random_vqa("b", "token"))
    encoder, mapper = found.trace.steps[0], found.trace.steps[4]
    assert encoder.attention.shape[2:] == mapper.attention.shape[2:]
    for tensor in (encoder.attention, encoder.attention_grad, encoder.attention_relevance):
        assert tensor is not None
        assert not tensor[:, :, 0].any()
        assert not tensor[:, :, :, 0].any()
    assert not encoder.residual[:, 0].any()  # type: ignore[index]
    assert found.trace.inputs is not None
    assert not found.trace.inputs["image"][:, 0].any()
    torch.testing.assert_close(encoder.attention[:, :, 1:].sum(-1), torch.ones(4, 2, 10))


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_the_inputs_equal_finite_differences_of_the_scalar(name: str, readout: str) -> None:
    model = random_vqa(name, readout, dtype=torch.float64)
    pixels, questions = samples(3)
    found = trace_vqa(model, pixels.double(), questions)
    inputs, grads = found.trace.inputs, found.trace.inputs_grad
    scalar = found.trace.scalar
    assert inputs is not None
    assert grads is not None
    assert scalar is not None
    torch.testing.assert_close(scalar(inputs), found.logits.max(1).values)
    draw = torch.Generator().manual_seed(1)
    for modality in ("image", "text"):
        direction = torch.randn(inputs[modality].shape, generator=draw, dtype=torch.float64)
        ahead, behind = (scalar(inputs | {modality: inputs[modality] + sign * 1e-6 * direction}) for sign in (1, -1))
        torch.testing.assert_close(
            (grads[modality] * direction).flatten(1).sum(1), (ahead - behind) / 2e-6, rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_are_complete(name: str) -> None:
    found = traced(random_vqa(name))
    inputs, scalar = found.trace.inputs, found.trace.scalar
    assert inputs is not None
    assert scalar is not None
    scores = explainers.IntegratedGradients(steps=64)(found.trace, rows=found.rows)
    valid = {modality: _valid(found)[:, found.trace.span(modality), None] for modality in inputs}
    means = {m: ((x * valid[m]).sum(1, keepdim=True) / valid[m].sum(1, keepdim=True)) for m, x in inputs.items()}
    difference = scalar(inputs) - scalar({m: means[m].expand_as(x) for m, x in inputs.items()})
    assert difference.abs().min() > 0.01
    torch.testing.assert_close(scores.sum(1), difference.detach(), atol=1e-3, rtol=1e-3)


def test_gradient_explainers_equal_captum() -> None:
    found = traced(random_vqa("b"))
    inputs, scalar = found.trace.inputs, found.trace.scalar
    assert inputs is not None
    assert scalar is not None
    given = tuple(x.clone().requires_grad_() for x in inputs.values())

    def forward(image: Tensor, text: Tensor) -> Tensor:
        return scalar({"image": image, "text": text})

    shares = captum.attr.InputXGradient(forward).attribute(given)
    expected = torch.cat([share.sum(-1) for share in shares], 1).detach()
    scores = explainers.InputXGradient()(found.trace, rows=found.rows)
    torch.testing.assert_close(scores, expected.masked_fill(~_valid(found), 0), **CLOSE)


def _valid(found: Traced) -> Tensor:
    assert found.trace.valid is not None
    return found.trace.valid


def test_the_target_chooses_what_is_explained() -> None:
    model = random_vqa("b")
    pixels, questions = samples(4)
    answers = model(pixels, questions).argmax(1)
    predicted, given = traced(model), traced(model, target=targets.given(answers))
    torch.testing.assert_close(_grad(predicted), _grad(given))
    others = (answers + 1) % 5
    other, margin = traced(model, target=targets.given(others)), traced(model, target=targets.margin(answers, others))
    torch.testing.assert_close(_grad(margin), _grad(given) - _grad(other), **CLOSE)
    assert not torch.allclose(_grad(other), _grad(given), rtol=1e-2)


def _grad(found: Traced) -> Tensor:
    grad = found.trace.steps[0].attention_grad
    assert grad is not None
    return grad


def test_wrong_targets_are_refused_with_a_reason() -> None:
    model = random_vqa("b")
    with pytest.raises(ValueError, match="one for each of 4 samples"):
        traced(model, target=targets.given([1, 2]))
    with pytest.raises(ValueError, match=r"must be in 0\.\.4"):
        traced(model, target=targets.given(5))


def test_the_target_of_a_caption_token_is_its_logit_at_its_position() -> None:
    logits = torch.randn(2, 3, 5)
    torch.testing.assert_close(targets.token([2, 0], [4, 1])(logits), torch.stack([logits[0, 2, 4], logits[1, 0, 1]]))


def test_nan_in_the_model_names_the_step_and_the_tensor() -> None:
    model = random_vqa("b")
    with torch.no_grad():
        model.trained.mapper.image_layers[0].self_attention.out.weight[0, 0] = float("nan")  # type: ignore[index, union-attr]
    with pytest.raises(TraceError, match=r"step 4 \(image attends to image\): output holds NaN or Inf"):
        traced(model)


def test_tracing_leaves_no_hooks_gradients_or_tensors_behind() -> None:
    model = random_vqa("b")
    before = {name: (len(m._forward_hooks), len(m._backward_hooks)) for name, m in model.named_modules()}

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(x, Tensor) for x in gc.get_objects())

    traced(model)
    count = tensors()
    for _ in range(10):
        trace_vqa(model, *samples(2))
    with pytest.raises(ValueError, match="one for each"):
        traced(model, target=targets.given([1]))
    assert tensors() <= count
    assert before == {name: (len(m._forward_hooks), len(m._backward_hooks)) for name, m in model.named_modules()}
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_a_trace_has_its_grid_boxes_words_and_picture_ids() -> None:
    model = random_vqa("b", readout="token")
    pixels, questions = samples(5)
    traced = trace_vqa(model, pixels, questions, picture_ids=[7, 7, 8, 9, 9])
    assert traced.grid == (3, 3)
    assert traced.picture_ids == [7, 7, 8, 9, 9]
    assert traced.boxes is not None
    assert traced.boxes[4].tolist() == [8, 8, 16, 16]
    assert traced.words is not None
    words = [[word for word, _ in each] for each in traced.words]
    assert words[2] == ["how", "many", "?"]
    assert words[1] == []
    for b, each in enumerate(traced.words):  # the words' tokens are exactly those that may be removed
        positions = [place for _, places in each for place in places]
        text = traced.trace.span("text")
        assert positions == [text.start + k for k in traced.removable[b, text].nonzero()[:, 0].tolist()]
    explained = traced.explain(explainers.Weighted())
    row = explainers.Weighted()(traced.trace).matrix[3, 0]
    _, places = traced.words[3][1]
    torch.testing.assert_close(explained["text"][3, 1], sum(row[place] for place in places))
    torch.testing.assert_close(explained["image"][3], row[2:11])
