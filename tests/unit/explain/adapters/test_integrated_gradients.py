"""Integrated gradients of the adapters' traces, compared with a loop over the points on the unmodified model."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from adapter_models import TEXTS, images, lxmert_inputs, tiny_clip, tiny_lxmert, tiny_vilt, vilt_inputs

from explain import Needs, explainers
from explain.adapters import trace_lxmert, trace_open_clip, trace_vilt

pytest.importorskip("open_clip")
pytest.importorskip("transformers")

STEPS = 6
CLOSE = {"rtol": 1e-6, "atol": 1e-7}  # captum stores the points of the line in single precision
ANSWERS = torch.tensor([3, 1])
ALL = slice(None)


def chosen(logits):
    return logits[torch.arange(2), ANSWERS]


def clip():
    model = tiny_clip()

    def y():
        return torch.nn.functional.cosine_similarity(model.encode_image(images()), model.encode_text(TEXTS))

    places = {"image": (model.visual.transformer, "input", ALL), "text": (model.transformer, "input", ALL)}
    return lambda **options: trace_open_clip(model, images(), TEXTS, **options), y, places


def vilt():
    model, inputs = tiny_vilt(), vilt_inputs()
    places = {"text": (model.vilt.encoder, "input", slice(5)), "image": (model.vilt.encoder, "input", slice(5, None))}
    return (
        lambda **options: trace_vilt(model, inputs, chosen, **options),
        lambda: chosen(model(**inputs).logits),
        places,
    )


def lxmert():
    model, inputs = tiny_lxmert(), lxmert_inputs()
    places = {"text": (model.lxmert.embeddings, "output", ALL), "image": (model.lxmert.encoder.visn_fc, "output", ALL)}
    return (
        lambda **options: trace_lxmert(model, inputs, chosen, **options),
        lambda: chosen(model(**inputs).question_answering_score),
        places,
    )


def with_embeddings(y, places, given):
    """Return y of the unmodified model with the given embeddings, and the embeddings that it would have used.

    A place is a module, its input or output, and which of its tokens belong to the modality.
    """
    seen = {}

    def changed(name, tokens, span):
        seen[name] = tokens[:, span]
        tokens = tokens.clone()
        tokens[:, span] = given.get(name, seen[name])
        return tokens

    with ExitStack() as hooks:
        for name, (module, side, span) in places.items():
            if side == "input":
                hook = module.register_forward_pre_hook(
                    lambda _, args, name=name, span=span: (changed(name, args[0], span), *args[1:])
                )
            else:
                hook = module.register_forward_hook(
                    lambda _, __, output, name=name, span=span: changed(name, output, span)
                )
            hooks.enter_context(hook)
        return y(), seen


def slow_integrated_gradients(y, places, valid):
    """Return Σ_channels (E − E₀) ⊙ ∫ ∂y/∂E by Gauss-Legendre integration, for each modality.

    E₀ is the mean of the sample's valid tokens.
    """
    _, whole = with_embeddings(y, places, {})
    start = {name: torch.empty_like(x) for name, x in whole.items()}
    for name, x in whole.items():
        for b in range(len(x)):
            start[name][b] = x[b, valid[name][b]].mean(0)
    shares = {name: torch.zeros_like(x) for name, x in whole.items()}
    for point, weight in zip(*np.polynomial.legendre.leggauss(STEPS), strict=True):
        at = (point + 1) / 2
        here = {name: (start[name] + at * (x - start[name])).requires_grad_() for name, x in whole.items()}
        value, _ = with_embeddings(y, places, here)
        value.sum().backward()
        for name, x in whole.items():
            shares[name] += weight / 2 * here[name].grad * (x - start[name])
    return {name: share.sum(-1) * valid[name] for name, share in shares.items()}


@pytest.mark.usefixtures("_patches_in_order")
@pytest.mark.parametrize("build", [clip, vilt, lxmert])
def test_scores_equal_a_loop_on_the_unmodified_model(build):
    trace_of, y, places = build()
    explainer = explainers.IntegratedGradients(steps=STEPS)
    traced = trace_of(needs=Needs.of([explainer]))
    valid = {name: traced.trace.valid_tokens(name) for name in places}
    expected = slow_integrated_gradients(y, places, valid)
    scores = explainer(traced.trace, traced.rows)
    found = traced.explain(explainer)
    for name, share in expected.items():
        assert share.abs().max() > 1e-3
        torch.testing.assert_close(scores[:, traced.trace.span(name)], share, **CLOSE)
        own = share[:, share.shape[1] - traced.patches :] if name == "image" else share
        torch.testing.assert_close(found[name], own, **CLOSE)


@pytest.mark.usefixtures("_patches_in_order")
@pytest.mark.parametrize("build", [clip, vilt, lxmert])
def test_inputs_and_scalar_work_with_chosen_layers(build):
    trace_of, _, _ = build()
    explainer = explainers.IntegratedGradients(steps=2)
    whole, part = trace_of().trace, trace_of(layers=[0]).trace
    for name, grad in whole.inputs_grad.items():
        torch.testing.assert_close(part.inputs_grad[name], grad)
    rows = torch.zeros(2, dtype=torch.long)
    torch.testing.assert_close(explainer(part, rows), explainer(whole, rows))
