"""Several scalars per sample from one recording, compared with a separate recording and backward pass for each."""

import gc
import weakref

import pytest
import torch
from tiny_attention import SIZES, TinyModel, embeddings

from explain import TraceError, explainers, record
from explain.capture.gradients import AT_ONCE, Items, gradients
from explain.lrp import lrp

FIELDS = ("attention", "attention_grad", "residual", "residual_grad", "output", "output_grad")
SCALARS = 4  # the tiny model's logits
EXACT = {"rtol": 1e-12, "atol": 1e-14}


def many(inputs, **options):
    with record() as recorder:
        return recorder.trace(TinyModel()(*inputs), SIZES, **options)


def alone(inputs, sample, scalar):
    image, text = (x[sample : sample + 1] for x in inputs)
    with record() as recorder:
        return recorder.trace(TinyModel()(image, text)[:, scalar], SIZES)


def assert_item(trace, m, single):
    for found, expected in zip(trace.steps, single.steps, strict=True):
        assert (found.query, found.key) == (expected.query, expected.key)
        for name in FIELDS:
            torch.testing.assert_close(getattr(found, name)[m : m + 1], getattr(expected, name), **EXACT)
    for modality in SIZES:
        torch.testing.assert_close(trace.inputs[modality][m : m + 1], single.inputs[modality], **EXACT)
        torch.testing.assert_close(trace.inputs_grad[modality][m : m + 1], single.inputs_grad[modality], **EXACT)


@pytest.mark.parametrize("at_once", [1, 2, 3, 6, 100])
@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("some", [False, True])
def test_gradients_do_not_depend_on_how_many_are_taken_at_once(batch, at_once, some):
    """Compare with one backward pass per scalar.

    The graph is kept as long as ``retain`` is true, and is dropped in the end.
    """
    wanted = torch.ones(batch, SCALARS, dtype=torch.bool)
    if some:
        wanted[0, 1:3] = wanted[-1, 1] = False
    with record() as recorder:
        logits = TinyModel()(*embeddings(batch=batch))
    live = recorder.live()
    singles = {
        (sample, place): torch.autograd.grad(logits[sample, place], live, retain_graph=True, materialize_grads=True)
        for sample, place in wanted.nonzero().tolist()
    }
    items = Items.of(logits, wanted)
    for retain in (True, False):
        found = gradients(logits, live, items, retain, at_once)
        assert {len(each) for each in found} == {len(singles)}
        for m, (sample, _) in enumerate(singles):
            expected = [grad[sample] for grad in list(singles.values())[m]]
            torch.testing.assert_close([each[m] for each in found], expected, **EXACT)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        gradients(logits, live, items, False, at_once)


@pytest.mark.parametrize("batch", [1, 2, 3, 5])
def test_every_item_is_the_trace_of_its_scalar(batch):
    inputs = embeddings(batch=batch)
    trace = many(inputs)
    assert trace.batch == batch * SCALARS
    assert [len(stage) for stage in trace.stages()] == [1, 1, 2, 1]
    for m in range(trace.batch):
        assert_item(trace, m, alone(inputs, *divmod(m, SCALARS)))


def test_the_trace_contains_only_the_selected_scalars():
    inputs = embeddings(batch=3)
    wanted = torch.tensor([[True, False, False, True], [False] * 4, [False, False, True, True]])
    trace = many(inputs, wanted=wanted, sample_ids=["a", "b", "c"])
    assert trace.sample_ids == ["a", "a", "c", "c"]
    assert trace.batch == 4
    for m, (sample, scalar) in enumerate([(0, 0), (0, 3), (2, 2), (2, 3)]):
        assert_item(trace, m, alone(inputs, sample, scalar))


def test_one_scalar_per_sample_in_two_dimensions():
    inputs = embeddings()
    with record() as recorder:
        trace = recorder.trace(TinyModel()(*inputs)[:, 2:3], SIZES)
    for m in range(2):
        assert_item(trace, m, alone(inputs, m, 2))


def test_gradients_of_steps_that_a_scalar_does_not_depend_on_are_zero():
    """The first scalar depends only on the first block, the second only on the second, and neither on the text."""
    model, (image, text) = TinyModel(), embeddings()
    with record() as recorder:
        image, text = recorder.inputs("image", image), recorder.inputs("text", text)
        first = model.block(0, "image", "image", image, image)
        second = model.block(1, "image", "image", image, image)
        model.block(2, "text", "text", text, text)
        trace = recorder.trace(torch.stack([first[:, 0, 0], second[:, 0, 0]], 1), SIZES)
    seen = [[bool(grad.any()) for grad in step.attention_grad] for step in trace.steps]
    assert seen == [[True, False] * 2, [False, True] * 2, [False] * 4]
    assert not trace.inputs_grad["text"].any()
    assert trace.inputs_grad["text"].shape == (4, 2, 4)


def test_masks_per_sample_and_per_scalar():
    valid = torch.ones(2, 5, dtype=torch.bool)
    valid[1, 4] = False
    repeated = many(embeddings(), valid=valid).valid
    assert torch.equal(repeated, torch.stack([valid[0]] * SCALARS + [valid[1]] * SCALARS))
    each = torch.rand(2, SCALARS, 5, generator=torch.Generator().manual_seed(0)) > 0.3
    wanted = torch.tensor([[True, True, False, True], [False, True, True, True]])
    assert torch.equal(many(embeddings(), valid=each, wanted=wanted).valid, each[wanted])


@pytest.mark.parametrize("batch", [1, 3])
def test_lrp_relevance_of_every_item(batch):
    inputs = embeddings(batch=batch)

    def relevance(target, **options):
        with record() as recorder, lrp():
            logits = TinyModel()(*inputs)
        return recorder.attention_relevance(target(logits), **options)

    wanted = torch.ones(batch, SCALARS, dtype=torch.bool)
    wanted[0, 1] = False
    singles = [relevance(lambda logits, t=t: logits[:, t]) for t in range(SCALARS)]
    every, some = relevance(lambda logits: logits), relevance(lambda logits: logits, wanted=wanted)
    assert len(every) == 5
    for step, (found, chosen) in enumerate(zip(every.values(), some.values(), strict=True)):
        expected = torch.stack([single[step] for single in singles], 1)
        assert expected.abs().sum() > 0
        torch.testing.assert_close(found, expected.flatten(0, 1), **EXACT)
        torch.testing.assert_close(chosen, expected[wanted], **EXACT)


def test_lrp_relevance_is_added_to_the_trace():
    inputs = embeddings()
    with record() as again, lrp():
        logits = TinyModel()(*inputs)
    trace = many(inputs, attention_relevance=again.attention_relevance(logits))
    scores = explainers.TransAtt()(trace, rows=torch.zeros(8, dtype=torch.long))
    assert scores.shape == (8, 5)
    assert scores.isfinite().all()


@pytest.mark.parametrize("batch", [2, AT_ONCE])  # all scalars in one pass, and one pass for each
def test_a_retained_recording_gives_the_same_trace_again_and_is_then_dropped(batch):
    with record() as recorder:
        logits = TinyModel()(*embeddings(batch=batch))
        live = weakref.ref(recorder.live()[0])
        first = recorder.trace(logits, SIZES, retain=True)
        second = recorder.trace(logits, SIZES)
        del logits
        gc.collect()
        assert live() is None
    for one, other in zip(first.steps, second.steps, strict=True):
        assert torch.equal(one.attention_grad, other.attention_grad)


def test_errors_name_the_cause():
    with pytest.raises(TraceError, match=r"wanted: expected bool of the target's shape \[B, T\], got \[2, 3\]"):
        many(embeddings(), wanted=torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TraceError, match=r"wanted: expected bool"):
        many(embeddings(), wanted=torch.ones(2, SCALARS))
    with pytest.raises(TraceError, match="wanted: no scalar of any sample is selected"):
        many(embeddings(), wanted=torch.zeros(2, SCALARS, dtype=torch.bool))
    with record() as recorder:
        logits = TinyModel()(*embeddings())
        with pytest.raises(TraceError, match=r"one scalar per sample, \[2\], or several, \[2, T\], got \[1, 4\]"):
            recorder.trace(logits[:1], SIZES)
