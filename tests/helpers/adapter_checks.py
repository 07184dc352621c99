"""Checks for every adapter: gradients equal slopes, explainers run, and nothing is left on the model."""

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
    """Return the frozen model in evaluation mode, with random parameters.

    No weight is exactly 0 or 1, so a weight that is left out or swapped changes the result.
    """
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
    """Return a hook that adds ``delta`` to a positional input of the module; used as a context manager."""

    def add(_, args):
        return (*args[:position], args[position] + delta, *args[position + 1 :])

    return module.register_forward_pre_hook(add)


def add_to_output(module, delta, call=0):
    """Return a hook that adds ``delta`` to the output of one call of the module, counted from 0."""
    calls = []

    def add(_, __, output):
        calls.append(None)
        return output + delta if len(calls) == call + 1 else output

    return module.register_forward_hook(add)


def assert_gradient_is_the_slope(gradient, nudged, y):
    """Check a gradient against finite differences on the unmodified model.

    Args:
        gradient: ∂y/∂Z, [B, ...].
        nudged: ``nudged(delta)`` is a context manager that adds ``delta`` to Z in the model.
        y: Runs the model and returns y [B].
    """
    for seed in range(2):
        direction = normal(*gradient.shape, seed=seed)
        ends = []
        for sign in (1, -1):
            with nudged(sign * 1e-5 * direction), torch.no_grad():
                ends.append(y())
        slope = (ends[0] - ends[1]) / 2e-5
        torch.testing.assert_close((gradient * direction).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-8)


def reaching(trace):
    """Return for each step whether the target depends on it.

    Comparing gradients with slopes is meaningful only for these steps; for the others, both are 0.
    """
    return [bool(step.attention_grad.abs().sum() > 0 and step.output_grad.abs().sum() > 0) for step in trace.steps]


def graph(tensor):
    """Count the nodes of each kind in the tensor's gradient graph, such as one SoftmaxBackward0 per attention."""
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
    """Yield a list that gets the number of differentiated tensors of each backward pass inside the block."""
    passes = []
    with watched(torch.autograd, "grad", lambda _outputs, inputs, *_, **__: passes.append(len(inputs))):
        yield passes


def assert_same_scores(first, second, explainers):
    """Check that two :class:`Traced` of the same model and batch give the same scores."""
    for explainer in explainers:
        for modality, scores in first.explain(explainer).items():
            torch.testing.assert_close(second.explain(explainer)[modality], scores, rtol=1e-9, atol=1e-12)


def assert_explained(trace, rows):
    """Check the maps, rows, padding and sums of all explainers that need only a trace."""
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
    """Check that the trace and map of a single unpadded sample equal its part of the padded batch."""
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
    """Check that two traces of the same model, frozen and not frozen, have the same gradients."""
    for a, b in zip(first.steps, second.steps, strict=True):
        torch.testing.assert_close(a.residual_grad, b.residual_grad)
        torch.testing.assert_close(a.attention_grad, b.attention_grad)


def state(model):
    """Return everything that hooks and patches could leave on a model."""
    return [
        (
            name,
            sorted(vars(module)),
            {key: dict(value) for key, value in vars(module).items() if isinstance(value, dict) and "hooks" in key},
        )
        for name, module in model.named_modules()
    ]


def assert_nothing_is_left(model, trace, failing=None):
    """Check that traces leave the model unchanged and keep no recorded tensor in memory.

    Args:
        model: The model.
        trace: Traces the model.
        failing: The exception that every trace raises, if any.
    """
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
    """Make the module raise RuntimeError when it is called inside the block."""

    def fail(*_):
        raise RuntimeError("broken")

    with module.register_forward_pre_hook(fail):
        yield
