"""The curves of the randomisation test, for explanations with known results, of answers and captions."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models import CAPTIONS, QUESTIONS, pictures, random_caption, random_vqa, words_of
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from clipmapper.data.caption_files import CaptionImage
from clipmapper.data.images import FileImage
from clipmapper.data.records import Question
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from clipmapper.tasks.vqa.trained import QuestionBatch, question_batch
from explain import AttentionTrace, Explainer, explainers
from explain.explainers.base.token_scores import TokenScores
from explain.targets import given
from perturbation.randomise import caption, vqa
from perturbation.randomise.figure import draw_curves
from perturbation.randomise.layers import layers_from_the_top, rank_correlation, redraw
from perturbation.randomise.run import correlations, curve_rows

Command = Callable[..., tuple[int, str, list[str]]]
NAMES = ("a", "b")


class Position(TokenScores):
    """An explainer that scores a token only by its position."""

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        return torch.arange(float(trace.tokens)).expand(trace.batch, -1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def asked(model: CLIPMapperVQA, count: int = 6) -> QuestionBatch:
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 255, (24, 24, 3), np.uint8)) for _ in range(count)]
    words = [text for text in QUESTIONS if len(text) > 8]
    questions = [Question(k, k, words[k % len(words)]) for k in range(count)]
    return question_batch(model, questions, pictures)


def fixed(model: CLIPMapperVQA, batch: QuestionBatch) -> vqa.FixedAnswers:
    return vqa.FixedAnswers(batch, model(batch.pixels, batch.text).argmax(1))


@pytest.mark.parametrize("name", ["a", pytest.param("b", marks=pytest.mark.slow)])
def test_curves_of_explanations_with_known_results(name: str) -> None:
    model = random_vqa(name)
    chosen = [fixed(model, asked(model)), fixed(model, asked(model, 3))]
    before = deepcopy(model.state_dict())
    every = {"position": Position(), "random": explainers.Random(), "weighted": explainers.Weighted()}
    found = correlations(vqa, model, chosen, every, seed=0)
    layers = ["none", *layers_from_the_top(model)]
    for (modality, explainer), curve in found.items():
        assert list(curve) == layers
        assert all(values.shape == (9,) for values in curve.values())
        np.testing.assert_allclose(curve["none"], 1)
        if explainer == "position":  # it does not depend on the model, and the test shows it
            np.testing.assert_allclose(np.stack(list(curve.values())), 1)
        if explainer == "weighted" and modality == "image":
            assert curve["embeddings"].mean() < 0.95
    control = np.stack([curve for layer, curve in found["image", "random"].items() if layer != "none"])
    assert abs(control.mean()) < 4 / (8 * control.size) ** 0.5  # the variance is 1 / 8 for 9 patches
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    again = correlations(vqa, model, chosen, every, seed=0)
    for key, curve in found.items():
        for layer, values in curve.items():
            np.testing.assert_array_equal(values, again[key][layer])
    other = correlations(vqa, model, chosen, every, seed=1)
    assert not np.array_equal(other["image", "weighted"]["embeddings"], found["image", "weighted"]["embeddings"])


@pytest.mark.parametrize("name", NAMES)
def test_layers_stay_random_and_the_explained_answer_stays_the_same(name: str) -> None:
    model = random_vqa(name)
    batch = asked(model)
    explainer = explainers.InputXGradient()
    found = correlations(vqa, model, [fixed(model, batch)], {"ixg": explainer}, seed=3)
    answers = model(batch.pixels, batch.text).argmax(1)
    whole = trace_vqa(model, batch.pixels, batch.text, given(answers))
    first = whole.scores(explainer(whole.trace, whole.rows), "image").numpy()
    copy, generator, changed = deepcopy(model), torch.Generator().manual_seed(3), 0
    for layer, parts in layers_from_the_top(copy).items():
        redraw(parts, generator)
        changed += int((copy(batch.pixels, batch.text).argmax(1) != answers).sum())
        traced = trace_vqa(copy, batch.pixels, batch.text, given(answers))
        second = traced.scores(explainer(traced.trace, traced.rows), "image").numpy()
        expected = rank_correlation(first, second, np.ones(first.shape, bool))
        np.testing.assert_allclose(found["image", "ixg"][layer], expected, atol=1e-6)
    assert changed  # else this test could not tell which answer is explained


def parts_of(task: str) -> tuple[nn.Module, list[Any], list[Any]]:
    """Return a model, and its samples as one batch and as several."""
    if task == "vqa":
        model = random_vqa("b")
        whole = asked(model)
        pairs = [question_batch(model, whole.questions[k : k + 2], whole.images[k : k + 2]) for k in (0, 2, 4)]
        return model, [fixed(model, whole)], [fixed(model, pair) for pair in pairs]
    captioner = random_caption("b")
    ids = tuple(captioner.encoder.tokenizer.encode(text) for text in CAPTIONS[:3])
    images = tuple(CaptionImage(k, (), FileImage(Path(f"{k}.jpg"))) for k in range(3))
    photos = tuple(Image.new("RGB", (8, 8)) for _ in images)
    batch = CaptionedBatch(images, photos, pictures(3).double(), ids)
    return captioner, [batch], [batch.part([0]), batch.part([1, 2])]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["vqa", pytest.param("caption", marks=pytest.mark.slow)])
def test_controls_with_partners_do_not_depend_on_the_batches(task: str) -> None:
    every = {"shuffled": explainers.Shuffled(), "depth_matched": explainers.DepthMatched()}
    model, whole, parts = parts_of(task)
    module = {"vqa": vqa, "caption": caption}[task]
    found, by_parts = (correlations(module, model, chosen, every, seed=3) for chosen in (whole, parts))
    for key, curve in found.items():
        for layer, values in curve.items():
            np.testing.assert_allclose(values, by_parts[key][layer], atol=1e-5)
    assert any(curve["embeddings"].mean() < 0.95 for curve in found.values())


def test_rows_leave_out_samples_without_an_order() -> None:
    nan = float("nan")
    curve = {"none": np.array([1.0, nan, 1.0]), "head": np.array([0.5, nan, 0.1])}
    lost = {"none": np.array([nan] * 3), "head": np.array([nan] * 3)}
    rows = curve_rows({("image", "x"): curve, ("text", "x"): lost}, {"mapper": "a"}, seed=0)
    assert [row["correlation"] for row in rows] == pytest.approx([1, 0.3, None, None])
    assert [row["samples"] for row in rows] == [2, 2, 0, 0]
    assert [(row["layers"], row["layer"]) for row in rows] == [(0, "none"), (1, "head")] * 2
    assert rows[0]["ci95"] == [1, 1]
    assert rows[2]["ci95"] is None
    figure = draw_curves(rows)
    assert [axes.get_title() for axes in figure.axes] == ["image", "text"]
    drawn = next(line for line in figure.axes[0].lines if line.get_label() == "x")
    assert np.asarray(drawn.get_ydata()).tolist() == pytest.approx([1, 0.3])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["none", "head"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_captions_stay_the_same_while_the_model_is_randomised(name: str) -> None:
    model = random_caption(name)
    pixels = pictures(3).double()
    ids = tuple(model.encoder.tokenizer.encode(text) for text in CAPTIONS[:3])
    images = tuple(CaptionImage(k, (), FileImage(Path(f"{k}.jpg"))) for k in range(3))
    batch = CaptionedBatch(images, (), pixels, ids)
    explainer = explainers.Weighted()
    found = correlations(caption, model, [batch], {"weighted": explainer, "random": explainers.Random()}, seed=3)
    assert set(found) == {("image", "weighted"), ("image", "random")}
    copy, generator = deepcopy(model), torch.Generator().manual_seed(3)
    first = whole_captions(copy, pixels, ids, explainer)
    for layer, parts in layers_from_the_top(copy).items():
        redraw(parts, generator)
        second = whole_captions(copy, pixels, ids, explainer)
        expected = rank_correlation(first, second, np.ones(first.shape, bool))
        np.testing.assert_allclose(found["image", "weighted"][layer], expected, atol=1e-6)
    np.testing.assert_allclose(found["image", "random"]["none"], 1)


def whole_captions(
    model: CLIPMapperCaption, pixels: Tensor, captions: tuple[list[int], ...], explainer: Explainer
) -> NDArray[np.float64]:
    """Return the relevance of whole captions (Huang et al. 2023, Eq. 20), computed caption by caption.

    All words have equal weights, and so have the sub-words of a word.
    """
    rows = []
    for k, ids in enumerate(captions):
        traced = trace_captions(model, pixels[k : k + 1], [ids])
        scores = traced.scores(explainer(traced.trace, traced.rows), "image").double().numpy()
        words = words_of(ids, model.encoder.tokenizer.decoder)
        rows.append(np.mean([scores[places].mean(0) for places in words], axis=0))
    return np.stack(rows)
