"""The pictures of README.md show what the current code and the shipped model give, and fit into the page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from public import PROJECT
from readme_pictures import answer, curves, hero, removal
from readme_pictures.stamp import TOLERANCE, Stamp, read_stamp, rounded, settled, write_image
from readme_pictures.subject import OVERRIDES, Subject, config_of, load_subject

PICTURES = PROJECT / "docs" / "pictures"
STAMPED = ("answer", "curves", "explained", "hero", "removal")
README = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
OLD = "docs/pictures/{}.png is old: run python docs/write_pictures.py"


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["1 thread", "2 threads"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    """The subject of the pictures, with one or two threads."""
    before = torch.get_num_threads()
    root = tmp_path_factory.mktemp("pictures")
    yield load_subject(config_of(f"paths.root={root}", f"threads={request.param}"))
    torch.set_num_threads(before)


def stored(name: str) -> Stamp:
    """Return the stamp of a picture, whose hash must be that of its content."""
    stamp, found = read_stamp(PICTURES / f"{name}.png")
    assert stamp.hash == found
    return stamp


def compare(name: str, config: Any, scores: Any) -> None:
    """Compare the hash of a picture with that of recomputed scores."""
    old = stored(name)
    assert Stamp(config, settled(rounded(scores), old.scores)).hash == old.hash, OLD.format(name)


def test_the_hero_is_current(subject: Subject) -> None:
    compare("hero", {"overrides": list(OVERRIDES)}, hero.scores(subject))


def test_the_removal_is_current(subject: Subject) -> None:
    compare("removal", {"overrides": list(OVERRIDES)}, removal.scores(subject))


@pytest.mark.parametrize("name", answer.CALLS)
def test_what_the_code_draws_is_current(subject: Subject, name: str) -> None:
    code = answer.readme_code(name)
    _, scores = answer.run(name, code, PICTURES / "scene.png")
    compare(name, {"code": code}, scores)


def test_the_explained_map_is_on_the_rings_that_the_text_names(subject: Subject) -> None:
    """The scene has two rings, which the text names, and a circle, which it does not."""
    scores = stored("explained").scores["maps"]["weighted"]["patches"]
    rows, cols = np.divmod(np.arange(36), 6)
    left = np.asarray(scores)[(cols <= 3) & (rows <= 3)]
    circle = np.asarray(scores)[(cols >= 4) & (rows <= 2)]
    assert np.sort(left)[-6:].min() > circle.max()


def test_the_scene_is_that_of_the_question(subject: Subject) -> None:
    with Image.open(PICTURES / "scene.png") as scene:
        assert np.array_equal(np.asarray(scene.convert("RGB")), np.asarray(subject.batch.images[0]))


@pytest.mark.slow
def test_the_curves_are_current(tmp_path: Path) -> None:
    """Only the curves of the first scenes are computed again."""
    old = stored("curves")
    assert old.config == {"overrides": list(OVERRIDES)}
    before = torch.get_num_threads()
    rows, first = curves.measured(curves.first_scenes(config_of(f"paths.root={tmp_path}")))
    torch.set_num_threads(before)
    assert len(first) == 20  # five explainers, two modalities and two directions
    assert settled(rounded(first), old.scores["first"]) == old.scores["first"], OLD.format("curves")
    keys = [[row[key] for key in ("explainer", "modality", "direction", "steps")] for row in rows]
    assert keys == [[row[key] for key in ("explainer", "modality", "direction", "steps")] for row in old.scores["rows"]]


def test_the_removal_shows_what_the_text_says() -> None:
    orders = stored("removal").scores["orders"]
    place = stored("removal").scores["steps"].index(0.1)
    answers = {name: order["answer"] for name, order in orders.items()}
    assert answers["weighted"][place] != answers["weighted"][0]
    assert {said[place] for name, said in answers.items() if name != "weighted"} == {answers["weighted"][0]}
    assert "Without the 10 % of the patches" in README


def test_the_text_has_the_number_of_questions_of_the_curves() -> None:
    assert {row["samples"] for row in stored("curves").scores["rows"]} == {240}
    assert "The curves are those of the shipped model on 240 test questions." in README


def test_the_question_fits_its_rule(subject: Subject) -> None:
    objects = subject.evidence.questions[subject.question.question_id].objects
    shown = subject.evidence.mask(subject.question.image_id)
    outlined = subject.evidence.answer_pixels(subject.question.question_id, subject.question.image_id)
    assert subject.question.question_type == "relation_color"
    assert len(objects) == 2
    assert set(np.unique(shown).tolist()) - {0} > {number + 1 for number in objects}
    for number in range(shown.max()):
        pixels = outlined[shown == number + 1]
        assert pixels.all() if number in objects else not pixels.any()


def test_the_words_of_the_evidence_are_marked(subject: Subject) -> None:
    sample = hero.explained(subject)
    text, spans = subject.question.question, subject.evidence.questions[subject.question.question_id].words
    marked = [word for word, known in zip(sample.words, sample.evidence, strict=True) if known]
    assert marked == " ".join(text[first:last] for first, last in spans).split()


def texts(figure: Figure) -> list[str]:
    """Return all texts of a figure that are not empty."""
    return [text for each in figure.findobj(Text) if (text := each.get_text())]


def test_the_figures_show_the_scores(subject: Subject) -> None:
    sample = hero.explained(subject)
    drawn = texts(hero.draw(subject))
    assert {f"answer: {sample.answer}, probability {sample.probability:.3f}", *hero.TITLES} <= set(drawn)
    assert [drawn.count(word) for word in set(sample.words)] == [5 * sample.words.count(w) for w in set(sample.words)]
    orders = removal.scores(subject)["orders"]
    best, *others = (np.array(order["probability"]) for order in orders.values())
    values = [*best, *np.mean(others, axis=0)]
    answers = [text for text in texts(removal.draw(subject)) if text.startswith("p(")]
    assert answers == [f"p({sample.answer}) = {value:.2f}" for value in values]


def test_the_curves_are_drawn_from_the_stored_scores() -> None:
    rows = stored("curves").scores["rows"]
    figure = curves.draw(rows)
    lines = [line.get_ydata().tolist() for panel in figure.axes for line in panel.lines]
    assert sorted(lines) == sorted(row["accuracy"] for row in rows)
    assert "N = 240 test questions, 95 % bands" in texts(figure)


def test_the_readme_shows_every_picture() -> None:
    found = re.findall(r"docs/pictures/(\w+)\.png", README)
    assert set(found) == {path.stem for path in PICTURES.glob("*.png")} == {*STAMPED, "scene"}


@pytest.mark.parametrize("name", STAMPED)
def test_a_picture_is_small_and_opaque(name: str) -> None:
    path = PICTURES / f"{name}.png"
    assert path.stat().st_size <= 150_000
    with Image.open(path) as image:
        assert image.mode in ("RGB", "P")
        assert "transparency" not in image.info
        assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)


def test_only_small_differences_are_settled() -> None:
    old = {"a": [0.5, "gray"], "b": 0.1}
    near = {"a": [0.5 + 0.9 * TOLERANCE, "gray"], "b": 0.1}
    assert settled(near, old) == old
    for other in (
        {"a": [0.5 + 1.1 * TOLERANCE, "gray"], "b": 0.1},
        {"a": [0.5, "teal"], "b": 0.1},
        {"a": [0.5], "b": 0.1},
        {"a": [0.5, "gray"]},
        {"a": [0.5, "gray"], "b": 0.1, "c": 1},
    ):
        assert settled(other, old) == other
        assert Stamp({}, settled(other, old)).hash != Stamp({}, old).hash


def test_a_stamp_is_read_as_it_was_written(tmp_path: Path) -> None:
    stamp = Stamp({"text": "Ā → 1"}, {"scores": [0.25, "gray"]})
    write_image(Image.new("RGB", (2, 2)), tmp_path / "a.png", stamp)
    assert read_stamp(tmp_path / "a.png") == (stamp, stamp.hash)
