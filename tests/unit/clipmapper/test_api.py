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
from explain.explainers import GenAtt, Shuffled

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
