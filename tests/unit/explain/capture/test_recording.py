"""The recorder on a tiny attention model: gradients equal finite differences, and nothing stays in memory."""

import gc
import weakref

import pytest
import torch
from tiny_attention import SIZES, TinyModel, embeddings

from explain import TraceError, active_recorder, explainers, record


def traced(model, image, text, **options):
    with record() as recorder:
        return recorder.trace(model(image, text)[:, 1], SIZES, **options)


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("name", ["attention", "residual", "output"])
def test_gradients_equal_finite_differences(name, index):
    model, inputs = TinyModel(), embeddings()
    step = traced(model, *inputs).steps[index]
    grad = getattr(step, f"{name}_grad")
    for seed in range(3):
        direction = torch.randn(grad.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        ahead, behind = (model_with(model, index, name, sign * 1e-6 * direction)(*inputs)[:, 1] for sign in (1, -1))
        slope = (ahead - behind) / 2e-6
        torch.testing.assert_close((grad * direction).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-8)


def model_with(model, index, name, nudge):
    model.nudges = {(index, name): nudge}
    return model


@pytest.mark.parametrize("modality", SIZES)
def test_input_gradients_equal_finite_differences(modality):
    model, inputs = TinyModel(), dict(zip(SIZES, embeddings(), strict=True))
    trace = traced(model, *inputs.values())
    torch.testing.assert_close(trace.inputs[modality], inputs[modality], rtol=0, atol=0)
    direction = torch.randn(inputs[modality].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ahead, behind = (
        model(*{**inputs, modality: inputs[modality] + sign * 1e-6 * direction}.values())[:, 1] for sign in (1, -1)
    )
    slope = (ahead - behind) / 2e-6
    torch.testing.assert_close((trace.inputs_grad[modality] * direction).flatten(1).sum(1), slope, rtol=1e-6, atol=1e-8)


def test_the_trace_contains_the_models_steps():
    trace = traced(TinyModel(), *embeddings(), sample_ids=["a", "b"], valid=torch.ones(2, 5, dtype=torch.bool))
    steps = [(step.query, step.key) for step in trace.steps]
    assert steps == [("image", "image"), ("text", "text"), ("image", "text"), ("text", "image"), ("joint", "joint")]
    assert [len(stage) for stage in trace.stages()] == [1, 1, 2, 1]
    tensors = [t for step in trace.steps for t in vars(step).values() if isinstance(t, torch.Tensor)]
    assert not any(t.requires_grad for t in [*tensors, *trace.inputs.values(), *trace.inputs_grad.values()])
    assert explainers.Weighted()(trace, rows=torch.tensor([0, 0])).shape == (2, 5)


def test_gradients_of_steps_that_the_target_does_not_depend_on_are_zero():
    model, image = TinyModel(), embeddings()[0]
    with record() as recorder:
        image = recorder.inputs("image", image)
        model.block(0, "image", "image", image, image)
        seen = model.block(1, "image", "image", image, image)
        trace = recorder.trace(seen[:, 0, 0], {"image": 3})
    assert trace.steps[0].attention_grad.abs().sum() == 0
    assert trace.steps[0].output_grad.abs().sum() == 0
    assert trace.steps[1].attention_grad.abs().sum() > 0


def test_a_samples_gradients_do_not_depend_on_the_batch():
    image, text = embeddings(batch=3)
    together, alone = traced(TinyModel(), image, text), traced(TinyModel(), image[1:2], text[1:2])
    for a, b in zip(together.steps, alone.steps, strict=True):
        torch.testing.assert_close(a.attention_grad[1:2], b.attention_grad)
        torch.testing.assert_close(a.residual_grad[1:2], b.residual_grad)


def test_several_targets_from_one_recording():
    model, inputs = TinyModel(), embeddings()
    with record() as recorder:
        logits = model(*inputs)
        kept = recorder.trace(logits[:, 0], SIZES, retain=True)
        last = recorder.trace(logits[:, 1], SIZES)
        with pytest.raises(TraceError, match="nothing was recorded"):
            recorder.trace(logits[:, 1], SIZES)
    assert not torch.equal(kept.steps[4].attention_grad, last.steps[4].attention_grad)
    expected = traced(model, *inputs)
    assert torch.equal(last.steps[4].attention_grad, expected.steps[4].attention_grad)


def test_the_model_computes_the_same_with_and_without_a_recorder():
    model, inputs = TinyModel(), embeddings()
    with record():
        recorded = model(*inputs)
    assert torch.equal(recorded, model(*inputs))


def test_recording_works_under_no_grad_and_after_the_block():
    with torch.no_grad():
        with record() as recorder:
            target = TinyModel()(*embeddings())[:, 1]
        trace = recorder.trace(target, SIZES)
        assert not torch.is_grad_enabled()
    assert trace.steps[0].attention_grad.abs().sum() > 0


def test_blocks_can_be_nested_and_no_recorder_stays_active():
    assert active_recorder() is None
    with record() as outer:
        with record() as inner:
            assert active_recorder() is inner
        assert active_recorder() is outer
    assert active_recorder() is None


def test_after_an_error_the_recording_is_dropped():
    model, inputs = TinyModel(), embeddings()
    model.nudges = {(4, "output"): torch.zeros(7)}  # cannot be added
    recorders = []

    def fail():
        with record() as recorder:
            recorders.append(recorder)
            model(*inputs)

    with pytest.raises(RuntimeError, match="size"):
        fail()
    assert active_recorder() is None
    with pytest.raises(TraceError, match="nothing was recorded"):
        recorders[0].trace(torch.zeros(2), SIZES)


@pytest.mark.parametrize("fails", [False, True])
def test_memory_does_not_grow_over_fifty_calls(fails):
    model, inputs, dead = TinyModel(), embeddings(), []

    def call():
        with record() as recorder:
            logits = model(*inputs)
            dead.extend(weakref.ref(tensor) for tensor in recorder.live())
            recorder.trace(logits[:, 1], {"image": 4, "text": 2} if fails else SIZES)

    for _ in range(50):
        try:
            call()
        except TraceError:
            assert fails
    gc.collect()
    assert len(dead) == 50 * 15
    assert not any(ref() is not None for ref in dead)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_recorder_drops_its_tensors_as_soon_as_the_trace_is_made():
    with record() as recorder:
        logits = TinyModel()(*embeddings())
        live = weakref.ref(recorder.live()[0])
        recorder.trace(logits[:, 1], SIZES)
        del logits
        gc.collect()
        assert live() is None


def test_watch_returns_a_tensor_with_a_graph_unchanged():
    x = torch.zeros(2, requires_grad=True)
    with record() as recorder:
        assert recorder.watch(x) is x
        plain = torch.zeros(2)
        assert recorder.watch(plain).requires_grad
        assert not plain.requires_grad


def _record_step(recorder, x):
    recorder.step(query="image", key="image", attention=x, residual=x, output=x)


def test_errors_name_the_step_and_the_tensor():
    x = torch.ones(2, 3, requires_grad=True) * 1
    with record() as recorder:
        with pytest.raises(TraceError, match=r"step 0 \(image attends to image\): attention requires no grad; watch"):
            _record_step(recorder, torch.zeros(2, 3))
        _record_step(recorder, x)
        with pytest.raises(TraceError, match=r"target: expected one scalar per sample, \[2\], .* got \[1, 3\]"):
            recorder.trace(x[:1] * 2, SIZES, retain=True)
        with pytest.raises(TraceError, match="target has no gradient graph"):
            recorder.trace(torch.zeros(2), SIZES, retain=True)
        x += 1
        with pytest.raises(TraceError, match=r"step 0 .*: attention was changed in place"):
            recorder.trace(x.sum(1), SIZES)


def test_errors_name_a_gradient_that_is_not_finite():
    with record() as recorder:
        logits = TinyModel()(*embeddings())
        with pytest.raises(TraceError, match=r"step 0 \(image attends to image\): attention_grad holds NaN or Inf"):
            recorder.trace((logits[:, 1] * 0).sqrt(), SIZES)
