"""LRP through whole models: compared with loops, and batches compared with single samples; explainers that use it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import lrp_reference as slow
import pytest
import torch
from models import TEXTS, loaded, pictures, random_clip, register, saved
from schemas import mapper_config
from torch import Tensor

from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.nn import Tokens, TokenSubset
from clipmapper.tasks.vqa.model import CLIPMapperVQA, VQAMapper
from explain import AttentionTrace, Recorder, TraceError, explainers, record
from explain.lrp import lrp

LAYERS = {"a": 3, "b": 2}
ANSWERS = torch.tensor([1, 4, 0])
KEEP = torch.tensor([[True] * 10, [True] * 5 + [False] * 5, [True, False] * 5])


@pytest.fixture(scope="module", params=[False, True], ids=["gelu", "quick_gelu"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FrozenClip:
    folder = tmp_path_factory.mktemp("lrp")
    name = register(folder, f"test-under-lrp-{request.param}", {"ls_init_value": 0.1}, {}, quick_gelu=request.param)
    return loaded(name, saved(random_clip(name), folder / "weights.safetensors"))


def whole_model(encoder: FrozenClip, mapper: str, readout: str = "cls") -> Any:
    torch.manual_seed(1)
    config = mapper_config(
        mapper, layers=LAYERS[mapper], width=16, heads=4, readout=readout, positions="learnt", dropout=0.1
    )
    vision, text = encoder.vision, encoder.text
    vqa = VQAMapper(config, vision.width, text.width, vision.token_count, text.context_length, 5)
    return CLIPMapperVQA(encoder, vqa, ("no", "yes", "0", "1", "red")).eval()


def inputs(encoder: FrozenClip) -> tuple[Tensor, TextBatch, TokenSubset, TokenSubset]:
    questions = encoder.tokenize([TEXTS[0], TEXTS[2], TEXTS[3]])
    return pictures(3), questions, TokenSubset.from_mask(KEEP), TokenSubset.from_mask(questions.valid)


def relevances(run: Callable[[Recorder], Tensor], answers: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the logits under LRP, every recorded A, and the relevance of each A for the chosen logits."""
    attentions: list[Tensor] = []
    with record() as recorder:
        take_step = recorder.step

        def step(*, attention: Tensor, **others: Any) -> None:
            attentions.append(attention)
            take_step(attention=attention, **others)

        recorder.step = step  # type: ignore[method-assign]
        with lrp():
            logits = run(recorder)
        chosen = logits[torch.arange(len(logits)), answers]
        found = torch.autograd.grad(chosen, attentions, torch.ones_like(chosen), materialize_grads=True)
    return logits, attentions, list(found)


def traced(model: Any, given: tuple[Any, ...]) -> AttentionTrace:
    """Return the trace of a recording without LRP."""
    with record() as recorder:
        logits = model(*given)
        sizes = {"image": given[2].index.shape[1], "text": given[3].index.shape[1]}
        chosen = logits[torch.arange(len(logits)), ANSWERS[: len(logits)]]
        return recorder.trace(chosen, sizes=sizes, valid=torch.cat([given[2].valid, given[3].valid], 1))


# --- the forward pass --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapper", ["a", "b"])
def test_values_do_not_change_and_later_gradients_are_not_affected(mapper: str, encoder: FrozenClip) -> None:
    model, given = whole_model(encoder, mapper), inputs(encoder)
    before = traced(model, given)
    with torch.no_grad():
        logits = model(*given)
    under, attentions, found = relevances(lambda _: model(*given), ANSWERS)
    torch.testing.assert_close(under, logits)
    after = traced(model, given)
    for one, other, attention, relevance in zip(before.steps, after.steps, attentions, found, strict=True):
        assert torch.equal(attention, one.attention)
        assert torch.equal(one.tensor("attention_grad"), other.tensor("attention_grad"))
        assert relevance.shape == attention.shape
        assert relevance.isfinite().all()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_with_fused_attention_is_refused(encoder: FrozenClip) -> None:
    visual: Any = encoder.vision.visual
    hidden = pictures(2, 32)[:, 0].requires_grad_()  # has the shape [B, N, D] that a block expects
    message = "multi_head_attention_forward: run the model with explicit attention"
    with lrp():
        value = visual.transformer.resblocks[0](hidden)
    with pytest.raises(TraceError, match=message):
        value.backward(torch.ones_like(value))


# --- compared with loops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_relevance_of_attention_equals_a_pass_in_loops(seed: int) -> None:
    torch.manual_seed(seed)
    config = mapper_config("a", layers=2, width=6, heads=2, readout="eot")
    vqa: Any = VQAMapper(config, 5, 3, 4, 4, 3).double().eval()
    with torch.no_grad():
        for parameter in vqa.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    image, text = tokens([3, 2], 5), tokens([2, 4], 3)
    answers = torch.tensor([2, 0])

    def run(recorder: Recorder) -> Tensor:
        return vqa(*(replace(x, features=recorder.watch(x.features)) for x in (image, text)))

    _, _, found = relevances(run, answers)
    mapper = vqa.mapper
    for b in range(2):
        joined = torch.cat(
            [mapper.project_image.linear(image.features[b]), mapper.project_text.linear(text.features[b])]
        )
        valid = torch.cat([image.valid[b], text.valid[b]])
        layers = [slow.mapper_layer(*both) for both in zip(mapper.attentions, mapper.feed_forwards, strict=True)]
        x = joined[valid].detach().numpy()
        expected = slow.attention_relevance(layers, vqa.head, x, len(x) - 1, int(answers[b]))
        for of_a, by_loops in zip(found, expected, strict=True):
            torch.testing.assert_close(of_a[b][:, valid][:, :, valid], torch.from_numpy(by_loops), rtol=1e-6, atol=1e-9)
            assert not of_a[b][:, ~valid].any()
            assert not of_a[b][:, :, ~valid].any()
        assert abs(expected[0]).max() > 1e-3


def tokens(lengths: list[int], width: int) -> Tokens:
    """Return random tokens, with features of 50 at padding."""
    n = max(lengths)
    valid = torch.arange(n) < torch.tensor(lengths)[:, None]
    features = torch.randn(len(lengths), n, width, dtype=torch.float64).masked_fill(~valid[..., None], 50.0)
    return Tokens(features, valid, torch.arange(n).expand(len(lengths), -1))


# --- batches -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("readout", ["cls", "token", "eot"])
@pytest.mark.parametrize("mapper", ["a", "b"])
def test_relevance_in_a_batch_equals_that_of_single_samples(mapper: str, readout: str, encoder: FrozenClip) -> None:
    model = copy.deepcopy(whole_model(encoder, mapper, readout)).double()
    pixels, questions, image, text = inputs(encoder)
    pixels = pixels.double()
    _, steps, together = relevances(lambda _: model(pixels, questions, image, text), ANSWERS)
    for b in range(3):
        v, t = image.valid[b], text.valid[b]
        one = TextBatch(questions.ids[b : b + 1, t], questions.valid[b : b + 1, t], 0)
        subsets = TokenSubset(image.index[b : b + 1, v], v[v][None]), TokenSubset(text.index[b : b + 1, t], t[t][None])
        _, _, alone = relevances(
            lambda _, b=b, one=one, two=subsets: model(pixels[b : b + 1], one, *two), ANSWERS[b : b + 1]
        )
        first = v.new_ones(int(readout == "token"))
        streams = {len(v): v, len(t): t}
        streams |= {len(first) + len(v): torch.cat([first, v]), len(first) + len(v) + len(t): torch.cat([first, v, t])}
        for whole, single in zip(together, alone, strict=True):
            rows, columns = (streams[size] for size in whole.shape[-2:])
            torch.testing.assert_close(whole[b][:, rows][:, :, columns], single[0], rtol=1e-9, atol=1e-12)
            assert not whole[b][:, ~rows].any()
            assert not whole[b][:, :, ~columns].any()
    assert len(steps) == len(together)


# --- explainers that use LRP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapper", ["a", "b"])
def test_trans_att_and_partial_lrp_use_the_relevance(mapper: str, encoder: FrozenClip) -> None:
    model, given = whole_model(encoder, mapper), inputs(encoder)
    trace = traced(model, given)
    _, _, found = relevances(lambda _: model(*given), ANSWERS)
    steps = [replace(step, attention_relevance=of_a) for step, of_a in zip(trace.steps, found, strict=True)]
    full, rows = replace(trace, steps=steps), torch.zeros(3, dtype=torch.long)
    assert full.valid is not None
    n_v = full.sizes["image"]
    last = {(step.query, step.key): step.tensor("attention_relevance")[:, :, 0].mean(1) for step in steps}
    partial = explainers.PartialLRP()(full, rows)
    expected = (
        last["joint", "joint"] if mapper == "a" else torch.cat([last["image", "image"], last["image", "text"]], 1)
    )
    torch.testing.assert_close(partial, expected.masked_fill(~full.valid, 0))
    scores = explainers.TransAtt()(full, rows)
    assert scores.shape == full.valid.shape
    assert scores.isfinite().all()
    assert not scores[~full.valid].any()
    assert (scores[:, 0] >= 1).all()  # the class token starts with itself
    assert (scores[:, n_v:].sum(1) > 0).all()
    with pytest.raises(TraceError, match="attention_relevance"):
        explainers.TransAtt()(trace, rows)
