"""``explain_question``: the scores are those of a trace of the model; doubtful input gives a warning or an error."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipmapper.api import explain_question, load_pretrained
from clipmapper.errors import UserError
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import explain
from explain.explainers import GenAtt, Shuffled
from explain.targets import margin

SCENE = Path(__file__).parents[3] / "docs" / "pictures" / "scene.png"
QUESTION = "what color is the circle?"


@pytest.fixture(scope="module")
def model() -> CLIPMapperVQA:
    loaded: CLIPMapperVQA = load_pretrained("vqa", "b")
    return loaded


def test_the_scores_are_those_of_the_trace(model: CLIPMapperVQA) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = explain_question(model, SCENE, QUESTION, {"genatt": GenAtt()})
    pixels, text = model.encoder.pixels([Image.open(SCENE).convert("RGB")]), model.encoder.tokenize([QUESTION])
    with torch.no_grad():
        logits = model(pixels, text)[0]
    traced = trace_vqa(model, pixels, text)
    patches = traced.scores(GenAtt()(traced.trace).row(traced.rows), "image")
    assert sample.answer == model.answers[int(logits.argmax())]
    assert sample.probability == pytest.approx(float(logits.max().sigmoid()), abs=1e-5)
    (only,) = sample.explanations
    assert only.explainer == "genatt"
    assert only.patch_scores.ravel() == pytest.approx(patches[0].detach().numpy().astype(float), rel=1e-3, abs=1e-6)
    assert list(sample.words) == ["what", "color", "is", "the", "circle", "?"]
    assert len(only.word_scores) == 6


def test_the_default_is_weighted_relevance(model: CLIPMapperVQA) -> None:
    sample = explain_question(model, str(SCENE), QUESTION)
    assert [each.explainer for each in sample.explanations] == ["weighted"]
    assert sample.question == QUESTION
    assert np.array_equal(sample.photo.pixels, np.asarray(Image.open(SCENE).convert("RGB")))


def test_an_unfamiliar_question_gives_a_warning(model: CLIPMapperVQA) -> None:
    with pytest.warns(UserWarning, match="no training question contains: zebra"):
        explain_question(model, SCENE, "where is the zebra?")


def test_a_missing_image_is_an_error(model: CLIPMapperVQA, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.png: no such image"):
        explain_question(model, tmp_path / "missing.png", QUESTION)


def test_an_explainer_that_needs_other_images_is_an_error(model: CLIPMapperVQA) -> None:
    with pytest.raises(UserError, match="can't be explained"):
        explain_question(model, SCENE, QUESTION, {"shuffled": Shuffled()})


def test_explain_gives_the_same(model: CLIPMapperVQA) -> None:
    sample = explain_question(model, SCENE, QUESTION, {"genatt": GenAtt()})
    explained = explain(model, None, SCENE, QUESTION, explainer="genatt")
    assert np.array_equal(sample.explanations[0].patch_scores, explained.image)
    assert explained.words == list(zip(sample.words, sample.explanations[0].word_scores, strict=True))
    assert (explained.answer.text, explained.answer.probability) == (sample.answer, sample.probability)


def test_explain_takes_a_target(model: CLIPMapperVQA) -> None:
    pixels, text = model.encoder.pixels([Image.open(SCENE).convert("RGB")]), model.encoder.tokenize([QUESTION])
    red, blue = model.answers.index("red"), model.answers.index("blue")
    traced = trace_vqa(model, pixels, text, margin(red, blue))
    patches = traced.scores(GenAtt()(traced.trace).row(traced.rows), "image")[0]
    explained = explain(model, None, SCENE, QUESTION, explainer="genatt", target=("red", "blue"))
    assert explained.image.ravel() == pytest.approx(patches.numpy().astype(float), rel=1e-4)
    assert explained.figure_content().caption == "explained: red rather than blue"
    with pytest.raises(ValueError, match="target='zebra' is not one of the model's"):
        explain(model, None, SCENE, QUESTION, target="zebra")


@pytest.mark.parametrize(("images", "words"), [([], QUESTION), ([SCENE, SCENE], QUESTION), (SCENE, None)])
def test_explain_needs_one_image_and_a_question(
    model: CLIPMapperVQA, images: Path | list[Path], words: str | None
) -> None:
    with pytest.raises(ValueError, match=r"CLIPMapperVQA needs (one|a question)"):
        explain(model, None, images, words)
