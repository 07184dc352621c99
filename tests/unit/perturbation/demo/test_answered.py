"""The answers of the demo without some parts are those of the model to such pictures and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from demo_pages import EXPLAINERS, demo_page
from PIL import Image

import perturbation
from clipmapper.errors import UserError
from perturbation.demo.answered import MOST_CHARACTERS, STEPS, Answered, ask
from perturbation.demo.page import Page
from perturbation.removal.reader import Modality

QUESTION = "what color is the cross?"
NOTHING: frozenset[int] = frozenset()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return demo_page(tmp_path_factory.mktemp("demo"))


def answered(page: Page, question: str = QUESTION, name: str = "CLIPmapper b, shipped") -> Answered:
    return ask(page.models.load(name), EXPLAINERS, page.scenes[0].image, question, 0)[1]


def test_the_answer_is_that_of_the_model(page: Page) -> None:
    found, asked, doubts = ask(page.models.load("CLIPmapper b, shipped"), EXPLAINERS, page.scenes[0].image, QUESTION, 0)
    model = asked.loaded.model
    with torch.no_grad():
        shares = model(model.encoder.pixels([page.scenes[0].image]), model.encoder.tokenize([QUESTION]))[0].sigmoid()
    said = asked.without(NOTHING, NOTHING)
    assert (found.answer.text, said.text, doubts) == ("yellow", "yellow", [])
    assert said.value == pytest.approx(float(shares.max()), abs=1e-6)


def test_removed_parts_are_those_of_the_picture_and_the_text(page: Page) -> None:
    asked = answered(page)
    model, cells = asked.loaded.model, frozenset({0, 7, 30})
    pixels = np.asarray(page.scenes[0].image).astype(float)
    mean = pixels.mean((0, 1))
    side = pixels.shape[0] / 6
    for cell in cells:
        (top, left), (bottom, right) = (
            (round(row * side), round(col * side))
            for row, col in ((cell // 6, cell % 6), (cell // 6 + 1, cell % 6 + 1))
        )
        pixels[top:bottom, left:right] = mean
    kept = np.ones(36, np.bool_)
    kept[list(cells)] = False
    shown = asked.picture(kept)
    assert np.abs(np.asarray(shown).astype(float) - pixels).max() <= 0.5
    with torch.no_grad():
        inputs = model.encoder.pixels([shown]), model.encoder.tokenize(["what color the cross?"])
        logits = model(*inputs)[0]
    said = asked.without(cells, frozenset({2}))
    assert said.text == model.answers[int(logits.argmax())]
    assert said.value == pytest.approx(float(logits[model.answers.index("yellow")].sigmoid()), abs=1e-6)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_strips_are_the_curves_of_the_removal_test(page: Page, modality: Modality) -> None:
    asked = answered(page)
    strips = {strip.explainer: strip for strip in asked.strips(modality, 0)}
    assert list(strips) == ["weighted", "genatt", "random"]
    samples = [(page.scenes[0].image, QUESTION)]
    curves = perturbation.test(
        asked.loaded.model, None, samples, explainers=list(EXPLAINERS), steps=STEPS, controls=["random"], random_seeds=1
    )
    rows = {
        row["explainer"]: row["probability"]
        for row in curves.content["rows"]
        if (row["modality"], row["direction"]) == (modality, "positive")
    }
    for name, strip in strips.items():
        assert [step.said.value for step in strip.steps] == pytest.approx(rows[name], abs=1e-6)
        assert [step.share for step in strip.steps] == list(STEPS)
        assert strip.steps[0].kept.all()
        assert not strip.steps[-1].kept.any()


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("", "the question is empty"),
        (" \n", "the question is empty"),
        ("a" * (MOST_CHARACTERS + 1), "1,001 characters: shorten it to at most 1,000"),
    ],
)
def test_questions_that_are_refused(page: Page, question: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        answered(page, question)


def test_doubts_about_the_input_are_told(page: Page) -> None:
    loaded = page.models.load("CLIPmapper b, shipped")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    doubts = ask(loaded, EXPLAINERS, Image.fromarray(noise), "is there a zebra? " * 20, 0)[2]
    for said in ("no training question contains: zebra", "the image is far from the training images", "cut off"):
        assert any(said in line for line in doubts)


def test_a_model_of_transformers(page: Page, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    asked = answered(page, name="LLaVA for shapes, shipped")
    said = asked.without(NOTHING, NOTHING)
    assert said.text == "yellow"
    assert [strip.steps[0].said for strip in asked.strips("text", 0)] == [said] * 3
    assert asked.without(frozenset(range(36)), NOTHING).value < said.value
