"""Tests of caption traces: all words from one pass against a separate pass per word over the words before it."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from models import image_tokens, pictures, random_caption
from torch import Tensor

from clipmapper.encoder.load import TextBatch
from clipmapper.errors import UserError
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.explaining import contrast_class
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.tracing import TracedCaptions, trace_captions
from explain import TraceError, explainers
from explain.capture.needs import Needs
from explain.capture.recording import record
from explain.explainers.base.explainer import Explainer
from explain.lrp import lrp
from explain.trace import AttentionTrace

MAPPERS = pytest.mark.parametrize("name", ["a", "b"])
READOUTS = pytest.mark.parametrize("readout", ["cls", "token"])
EVERY = [getattr(explainers, name) for name in explainers.__all__]
NEEDS = Needs.everything(lrp=True)
LENGTHS = (5, 0, 2, 7)
IDS = ["k", "l", "m", "n"]
FIELDS = ("attention", "attention_grad", "residual", "residual_grad", "output", "output_grad", "attention_relevance")
CLOSE = {"rtol": 1e-8, "atol": 1e-10}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def captions(model: CLIPMapperCaption) -> list[list[int]]:
    """Return captions of random words with different lengths; the second caption has none."""
    draw = torch.Generator().manual_seed(0)
    ids = [i for i in model.vocabulary.ids if i != model.vocabulary.end]
    return [[ids[int(k)] for k in torch.randint(len(ids), (n,), generator=draw)] for n in LENGTHS]


def pixels() -> Tensor:
    return pictures(len(LENGTHS)).double()


@cache
def traced(name: str, readout: str = "cls") -> tuple[CLIPMapperCaption, TracedCaptions]:
    model = random_caption(name, "learnt", readout)
    return model, trace_captions(model, pixels(), captions(model), NEEDS, IDS)


@cache
def alone(name: str, readout: str = "cls") -> list[AttentionTrace]:
    """Trace each item with a separate forward and backward pass over its image and the words before it."""
    model = random_caption(name, "learnt", readout)
    found = []
    for k, caption in enumerate(captions(model)):
        for place, token in enumerate(caption):
            before = torch.tensor([[model.vocabulary.start, *caption[:place]]])
            found.append(_trace_word(model, pixels()[k : k + 1], before, model.vocabulary.ids.index(token), IDS[k]))
    return found


def _trace_word(model: CLIPMapperCaption, picture: Tensor, before: Tensor, class_: int, name: str) -> AttentionTrace:
    text = TextBatch(before, torch.ones_like(before, dtype=torch.bool), 0)

    def y() -> Tensor:
        return model(picture, text)[:, -1, class_]

    def scalar(inputs: Any) -> Tensor:
        with record(inputs):
            return y()

    with record() as again, lrp():
        propagating = model(picture, text)
    relevance = again.attention_relevance(propagating[:, -1, class_])
    image = model.encoder.vision.token_count + (model.trained.mapper.read.learnt is not None)
    with record() as recorder:
        sizes = {"image": image, "text": before.shape[1]}
        grid = tuple(model.encoder.vision.visual.grid_size)
        return recorder.trace(y(), sizes, None, [name], attention_relevance=relevance, scalar=scalar, grid=grid)


@MAPPERS
@READOUTS
def test_items_equal_the_traces_of_captions_cut_at_their_word(name: str, readout: str) -> None:
    _, found = traced(name, readout)
    assert found.trace.batch == sum(LENGTHS)
    for m, single in enumerate(alone(name, readout)):
        for step, expected in zip(found.trace.steps, single.steps, strict=True):
            assert (step.query, step.key) == (expected.query, expected.key)
            for field in FIELDS:
                cut = step.tensor(field)[m]
                whole = expected.tensor(field)[0]
                n_s = whole.shape[-2]
                cut = cut[:, :n_s, : whole.shape[-1]] if field.startswith("attention") else cut[:n_s]
                torch.testing.assert_close(cut, whole, **CLOSE)


@MAPPERS
def test_samples_places_readouts_and_logits_of_the_items(name: str) -> None:
    model, found = traced(name)
    assert found.sample.tolist() == [0] * 5 + [2] * 2 + [3] * 7
    assert found.place.tolist() == [*range(5), *range(2), *range(7)]
    assert found.trace.sizes == {"image": 10, "text": 8}
    assert found.rows.tolist() == [10 + place for place in found.place.tolist()]
    assert found.trace.sample_ids == ["k"] * 5 + ["m"] * 2 + ["n"] * 7
    assert found.patches == 9
    assert found.trace.valid is not None
    assert found.trace.valid.sum(1).tolist() == [11 + place for place in found.place.tolist()]
    assert found.trace.valid[:, :11].all()
    words = captions(model)
    for m, single in enumerate(alone(name)):
        assert single.scalar is not None
        assert single.inputs is not None
        class_ = model.vocabulary.ids.index(words[int(found.sample[m])][int(found.place[m])])
        torch.testing.assert_close(found.logits[m, class_], single.scalar(single.inputs)[0].detach(), **CLOSE)


@pytest.mark.parametrize("readout", ["cls", "token"])
def test_image_and_text_parts_of_a_row(readout: str) -> None:
    _, found = traced("b", readout)
    first = 2 if readout == "token" else 1
    scores = torch.arange(found.trace.tokens).expand(found.trace.batch, -1)
    assert found.scores(scores, "image")[3].tolist() == list(range(first, first + 9))
    assert found.scores(scores, "text")[3].tolist() == list(range(first + 9, first + 17))


def test_the_image_branch_of_mapper_b_reads_only_the_image() -> None:
    _, found = traced("b")
    stages = [[(step.query, step.key) for step in stage] for stage in found.trace.stages()]
    own = [[("image", "image")], [("text", "text")]]
    layer = [*own, [("image", "image"), ("text", "image")]]
    assert stages == [own[0]] * 2 + [own[1]] * 2 + layer * 2


@MAPPERS
@pytest.mark.parametrize("explainer", EVERY)
def test_every_explainer_gives_the_scores_of_a_separate_trace_of_the_word(name: str, explainer: Any) -> None:
    _, found = traced(name)
    explainer = partial(explainer, steps=2) if explainer is explainers.IntegratedGradients else explainer
    scores = explainer()(found.trace, rows=found.rows)
    assert scores.shape == (sum(LENGTHS), found.trace.tokens)
    assert scores.isfinite().all()
    for m, single in enumerate(alone(name)):
        assert not scores[m, single.tokens :].any()  # later words
        if not explainer().partners:  # they use the weights of other items
            expected = explainer()(single, rows=torch.tensor([single.tokens - 1]))[0]
            torch.testing.assert_close(scores[m, : single.tokens], expected, **CLOSE)


@MAPPERS
@pytest.mark.parametrize("explainer", [explainers.Weighted, explainers.Uniform, explainers.Constant])
def test_rows_sum_to_one(name: str, explainer: type[Explainer]) -> None:
    _, found = traced(name, "token")
    matrix = explainer()(found.trace).matrix
    assert (matrix >= 0).all()
    torch.testing.assert_close(matrix.sum(-1), torch.ones_like(matrix[:, 0]))
    scores = explainer()(found.trace, rows=found.rows)
    torch.testing.assert_close(scores, matrix[torch.arange(len(scores)), found.rows])
    assert found.scores(scores, "image").sum(1).min() > 0


@MAPPERS
@READOUTS
def test_the_explained_logits_are_the_greatest_where_decoding_was_greedy(name: str, readout: str) -> None:
    model = random_caption(name, readout=readout, seed=3)
    generated = greedy(model, image_tokens(model, 4), 10)
    assert sum(map(len, generated)) > 8
    found = trace_captions(model, pictures(4).double(), generated)
    best = [model.vocabulary.ids[k] for k in found.logits.argmax(1).tolist()]
    assert best == [token for caption in generated for token in caption]


@MAPPERS
def test_gradients_of_the_inputs_equal_finite_differences_of_the_scalar(name: str) -> None:
    _, found = traced(name)
    inputs, grads, scalar = found.trace.inputs, found.trace.inputs_grad, found.trace.scalar
    assert inputs is not None
    assert grads is not None
    assert scalar is not None
    for modality in ("image", "text"):
        direction = torch.randn(inputs[modality].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        ahead, behind = (scalar({**inputs, modality: inputs[modality] + sign * 1e-6 * direction}) for sign in (1, -1))
        slope = ((ahead - behind) / 2e-6).detach()
        torch.testing.assert_close((grads[modality] * direction).flatten(1).sum(1), slope, rtol=1e-5, atol=1e-7)


def test_one_forward_pass_serves_all_words() -> None:
    model = random_caption("b")
    calls: list[tuple[int, ...]] = []
    model.encoder.vision.register_forward_pre_hook(lambda _, args: calls.append(tuple(args[0].shape)))
    trace_captions(model, pixels(), captions(model))
    assert calls == [(4, 3, 24, 24)]


def test_captions_that_cannot_be_explained_are_refused() -> None:
    model = random_caption("b")
    with pytest.raises(UserError, match="no caption contains a word"):
        trace_captions(model, pixels(), [[]] * 4)
    word, foreign = captions(model)[0][0], 7
    assert foreign not in model.vocabulary.ids
    with pytest.raises(UserError, match="token 7 of a caption is not in the model's vocabulary"):
        trace_captions(model, pixels(), [[word], [word, foreign], [], []])
    with pytest.raises(UserError, match="a caption of 12 sub-words does not fit the encoder's context, which holds 11"):
        trace_captions(model, pixels(), [[word] * 12, [], [], []])


def test_shuffled_needs_a_second_image() -> None:
    model = random_caption("b")
    ids = [captions(model)[0], captions(model)[2]]
    found = trace_captions(model, pixels()[:2], ids, picture_ids=[5, 5])
    with pytest.raises(TraceError, match="trace samples of two or more images together"):
        explainers.Shuffled()(found.trace, rows=found.rows)
    two = trace_captions(model, pixels()[:2], ids, picture_ids=[5, 6])
    assert explainers.Shuffled()(two.trace, rows=two.rows).isfinite().all()


@MAPPERS
def test_a_contrast_explains_the_difference_of_two_logits(name: str) -> None:
    model, ids = random_caption(name), captions(random_caption(name))
    other = 2
    plain, contrast = trace_captions(model, pixels(), ids), trace_captions(model, pixels(), ids, against=other)
    assert contrast.trace.scalar is not None
    assert contrast.trace.inputs is not None
    classes = torch.from_numpy(model.vocabulary.classes(np.array([i for caption in ids for i in caption])))
    expected = plain.logits.gather(1, classes[:, None])[:, 0] - plain.logits[:, other]
    torch.testing.assert_close(contrast.trace.scalar(contrast.trace.inputs).detach(), expected)
    leaf = contrast.trace.inputs["image"].clone().requires_grad_()
    y = contrast.trace.scalar({**contrast.trace.inputs, "image": leaf})
    (grad,) = torch.autograd.grad(y.sum(), leaf)
    assert contrast.trace.inputs_grad is not None
    torch.testing.assert_close(contrast.trace.inputs_grad["image"], grad, **CLOSE)


@MAPPERS
def test_gradients_of_a_word_against_itself_are_zero(name: str) -> None:
    model = random_caption(name)
    word = captions(model)[0][0]
    same = int(model.vocabulary.classes(np.array([word]))[0])
    found = trace_captions(model, pixels()[:1], [[word]], against=same)
    assert all(not step.tensor("output_grad").any() for step in found.trace.steps)


def test_the_contrast_word_must_be_a_token_that_the_model_can_generate() -> None:
    model = random_caption("b")
    assert contrast_class(model, "blue") == model.vocabulary.ids.index(model.encoder.tokenizer.encode("blue")[0])
    with pytest.raises(UserError, match=r"against=parallelogramatic: CLIP's tokenizer splits it into \d sub-words"):
        contrast_class(model, "parallelogramatic")
    with pytest.raises(
        UserError, match="against=cirque is not a word that the model can generate; similar ones: circle"
    ):
        contrast_class(model, "cirque")


def test_the_words_of_an_item_are_those_before_its_token() -> None:
    model = random_caption("b", readout="token")
    ids = model.encoder.tokenizer.encode("a red circle")
    found = trace_captions(model, pixels()[:2], [ids, ids[:1]], picture_ids=[4, 9])
    assert found.words is not None
    assert [[word for word, _ in words] for words in found.words] == [[], ["a"], ["a", "red"], []]
    assert found.picture_ids == [4, 4, 4, 9]
    assert found.grid == (3, 3)
    image = found.trace.sizes["image"]
    assert found.removable[2].nonzero()[:, 0].tolist() == [*range(2, image), image + 1, image + 2]
    assert found.words[2][1][1] == range(image + 2, image + 3)
