"""What every adapter must keep to: slopes, explainers that run, nothing left on the model."""

import gc
import weakref
from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn
from watching import watched

from explain import Recorder, active_recorder, explainers

TRACE_ONLY = [
    explainers.Weighted(),
    explainers.Weighted(residual_gradient="branch", importance="token"),
    explainers.Uniform(),
    explainers.Constant(),
    explainers.Rollout(),
    explainers.GenAtt(),
    explainers.RawAttention(),
    explainers.AttentionGradCAM(),
    explainers.InputXGradient(),
]


def randomise(model, seed=0):
    """No weight is 0 or 1, so that none that is left out or swapped goes unnoticed; frozen, in evaluation mode."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0, 0.4, generator=draw)
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight += 1
    return model.eval().requires_grad_(False)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def add_to_input(module, delta, position=0):
    """A hook that adds to one of the module's positional inputs; it goes with its ``with`` block."""

    def add(_, args):
        return (*args[:position], args[position] + delta, *args[position + 1 :])

    return module.register_forward_pre_hook(add)


def add_to_output(module, delta, call=0):
    """A hook that adds to what the module gives in its first, second … call."""
    calls = []

    def add(_, __, output):
        calls.append(None)
        return output + delta if len(calls) == call + 1 else output

    return module.register_forward_hook(add)


def assert_gradient_is_the_slope(gradient, nudged, y):
    """``nudged(delta)`` changes the untouched model while it is entered; ``y()`` runs it, [B]."""
    for seed in range(2):
        direction = normal(*gradient.shape, seed=seed)
        ends = []
        for sign in (1, -1):
            with nudged(sign * 1e-5 * direction), torch.no_grad():
                ends.append(y())
        slope = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-8)


def reaching(trace):
    """Which steps the target depends on: there the slopes do not compare 0 with 0."""
    return [bool(step.attention_grad.abs().sum() > 0 and step.output_grad.abs().sum() > 0) for step in trace.steps]


def graph(tensor):
    """How many nodes of each kind the tensor's gradient graph has, such as one SoftmaxBackward0 an attention."""
    kinds, open_nodes, seen = Counter(), [tensor.grad_fn], set()
    while open_nodes:
        node = open_nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            kinds[type(node).__name__] += 1
            open_nodes += [following for following, _ in node.next_functions]
    return kinds


@contextmanager
def counted_backward():
    """A list that grows by the number of tensors differentiated in each backward pass run inside the block."""
    passes = []
    with watched(torch.autograd, "grad", lambda _outputs, inputs, *_, **__: passes.append(len(inputs))):
        yield passes


def assert_same_scores(first, second, explainers):
    """Of two :class:`Traced` of one model and batch."""
    for explainer in explainers:
        for modality, scores in first.explain(explainer).items():
            torch.testing.assert_close(second.explain(explainer)[modality], scores, rtol=1e-9, atol=1e-12)


def assert_explained(trace, rows):
    for explainer in TRACE_ONLY:
        matrix = explainer(trace).matrix
        assert matrix.shape == (trace.batch, trace.tokens, trace.tokens)
        scores = explainer(trace, rows=rows)
        torch.testing.assert_close(scores, matrix[torch.arange(trace.batch), rows])
        assert bool(scores.isfinite().all())
        assert scores[~trace.valid].abs().sum() == 0, type(explainer).__name__
    total = explainers.Weighted()(trace).matrix.sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def assert_sample_alone_equals_batch(alone, trace, sample):
    """All of a trace of one unpadded sample against its part of the padded batch's, and what it explains."""
    keep = {modality: trace.valid_tokens(modality)[sample] for modality in trace.sizes}
    keep["joint"] = trace.valid[sample]
    for one, step in zip(alone.steps, trace.steps, strict=True):
        s, q = keep[step.query], keep[step.key]
        for name in ("attention", "attention_grad"):
            torch.testing.assert_close(getattr(one, name)[0], getattr(step, name)[sample][:, s][:, :, q])
        for name in ("residual", "residual_grad", "output", "output_grad"):
            torch.testing.assert_close(getattr(one, name)[0], getattr(step, name)[sample][s])
    valid = keep["joint"]
    matrix = explainers.Weighted()(trace).matrix[sample][valid][:, valid]
    torch.testing.assert_close(explainers.Weighted()(alone).matrix[0], matrix)


def assert_same_gradients(first, second):
    """Of two traces of one model, frozen and not."""
    for a, b in zip(first.steps, second.steps, strict=True):
        torch.testing.assert_close(a.residual_grad, b.residual_grad)
        torch.testing.assert_close(a.attention_grad, b.attention_grad)


def state(model):
    """All that hooks and patches could leave on a model."""
    return [
        (name, sorted(vars(module)), {key: dict(value) for key, value in vars(module).items() if "hooks" in key})
        for name, module in model.named_modules()
    ]


def assert_nothing_is_left(model, trace, failing=None):
    """After traces, or after traces that fail, the model is as it was, and no recorded tensor stays behind."""
    before, recorded = state(model), []

    def remember(_, **step):
        recorded.extend(weakref.ref(step[name]) for name in ("attention", "residual", "output"))

    with watched(Recorder, "step", remember):
        for _ in range(20):
            with nullcontext() if failing is None else pytest.raises(failing):
                trace()
    gc.collect()
    assert len(recorded) >= 20 * 3
    assert not any(ref() is not None for ref in recorded)
    assert state(model) == before
    assert active_recorder() is None
    assert all(parameter.grad is None for parameter in model.parameters())


@contextmanager
def breaking(module):
    """The module raises RuntimeError when it is called."""

    def fail(*_):
        raise RuntimeError("broken")

    with module.register_forward_pre_hook(fail):
        yield
