"""The events of the demo: what they return for odd input, and that sessions share nothing."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from demo_pages import demo_page
from PIL import Image

from perturbation.demo import drawing
from perturbation.demo.page import Chosen, Page, Removing

EVIL = "<img src=x onerror=alert(1)> {{7*7}} ${7*7} <b>&amp;"
B, A = "CLIPmapper b, shipped", "CLIPmapper a, shipped"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return demo_page(tmp_path_factory.mktemp("demo"))


def scene(page: Page, number: int = 0) -> Chosen:
    return Chosen(page.scenes[number].image, number)


def event(part: str) -> Any:
    return SimpleNamespace(part=part)


def text(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_an_answer_comes_before_the_strips(page: Page) -> None:
    first, last = page.answer(scene(page), B, ["genatt", "weighted"], "what color is the cross?")
    assert first[:4] == last[:4]
    assert first[4] == ""
    assert "yellow" in last[1]
    assert text(last[3]).index("weighted") < text(last[3]).index("genatt")
    assert last[4].count("<img") == 18
    assert "probability of “yellow”" in last[4]


@pytest.mark.parametrize(
    ("chosen", "model", "names", "question", "said"),
    [
        (True, B, ["weighted"], "", "the question is empty: write one, or choose one of the scene"),
        (True, B, ["weighted"], "x" * 10_000, "the question has 10,000 characters: shorten it to at most 1,000"),
        (True, B, ["weighted"], "\ud83d", "half of a character"),
        (True, B, [], "what?", "choose at least one explainer"),
        (True, B, ["unknown"], "what?", "choose at least one explainer"),
        (True, "/etc/passwd", ["weighted"], "what?", "the page offers no such model"),
        (False, B, ["weighted"], "what?", "there is no picture"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    page: Page, chosen: bool, model: str, names: list[str], question: str, said: str
) -> None:
    ((removing, answer, *rest),) = page.answer(scene(page) if chosen else None, model, names, question)
    assert removing is None
    assert rest == ["", "", ""]
    assert said in text(answer)
    assert answer.count("\n") <= 1


@pytest.mark.parametrize("question", [EVIL, "🔥 what\u202e color\x1b[31m?", "What Is &lt;b&gt; ﬁne’s?"])
def test_odd_texts_are_shown_as_they_are(page: Page, question: str) -> None:
    removing, *shown = list(page.answer(scene(page), B, ["weighted"], question))[-1]
    removing, parts = page.remove(removing, event("w0"))
    for html in [*shown, parts, drawing.question_list([question]), drawing.problem(ValueError(question))]:
        assert not re.search(r"<(img src=x|b>&|(?![a-z/]))", html)  # every < begins a tag of the page
    assert 'aria-pressed="true"' in parts


def test_parts_are_removed_and_put_back(page: Page) -> None:
    start: Removing = list(page.answer(scene(page), B, ["weighted"], "what color is the cross?"))[-1][0]
    removing: Removing | None = start
    for part in ("c7", "w0", "c8"):
        removing, html = page.remove(removing, event(part))
    assert removing is not None
    assert (removing.cells, removing.words) == ({7, 8}, {0})
    assert "Without 2 patches and 1 word" in text(html)
    removing, _ = page.remove(removing, event("c7"))
    assert removing is not None
    assert removing.cells == {8}
    removing, html = page.remove(removing, event("all"))
    assert removing is not None
    assert (removing.cells, removing.words) == (frozenset(), frozenset())
    assert "Nothing is removed" in text(html)
    for part in ("c36", "w99", "c-1", "x1", "c1e3", "", "<b>", "c٣"):
        same, html = page.remove(removing, event(part))
        assert same is removing
        assert "there is no such part" in text(html)
    assert page.remove(None, event("c1")) == (None, "")


def test_two_users_do_not_mix(page: Page) -> None:
    """The events of two users alternate, with other pictures, models and questions."""
    ask = {
        "first": (scene(page, 0), B, ["weighted"], "what color is the cross?"),
        "second": (scene(page, 1), A, ["genatt"], "how many things are there?"),
    }
    alone = {name: list(page.answer(*given)) for name, given in ask.items()}
    running = {name: page.answer(*given) for name, given in ask.items()}
    mixed: dict[str, list[list[Any]]] = {"first": [], "second": []}
    for _ in range(2):
        for name, steps in running.items():
            mixed[name].append(next(steps))
    for name in ask:
        assert [each[1:] for each in mixed[name]] == [each[1:] for each in alone[name]]
    first, second = (page.remove(mixed[name][-1][0], event("c3"))[1] for name in ask)
    for name, html in (("first", first), ("second", second)):
        assert html == page.remove(alone[name][-1][0], event("c3"))[1]
    assert first != second


def pictures(folder: Path) -> dict[str, Path]:
    """Write odd files of images."""
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    image, files = Image.fromarray(noise), {}

    def path(name: str) -> Path:
        files[name] = folder / name
        return files[name]

    path("text.png").write_text("no image")
    path("empty.jpg").write_bytes(b"")
    path("<b>.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    Image.new("L", (10_000, 10_000)).save(path("huge.png"))
    Image.new("RGB", (1, 60_000)).save(path("thin.png"))
    Image.new("RGB", (1, 200)).save(path("narrow.png"))
    Image.new("RGB", (1, 1)).save(path("point.png"))
    image.save(path("animated.gif"), save_all=True, append_images=[Image.fromarray(255 - noise)])
    image.convert("CMYK").save(path("cmyk.jpg"))
    Image.new("RGB", (3000, 30)).save(path("long.png"))
    turned = Image.Exif()
    turned[0x112] = 6
    image.save(path("turned.jpg"), exif=turned)
    image.save(path("cut.png"))
    files["cut.png"].write_bytes(files["cut.png"].read_bytes()[:2000])
    return files


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_odd_uploads(page: Page, tmp_path: Path) -> None:
    refused = {
        "text.png": "not an image",
        "empty.jpg": "the file is empty",
        "<b>.svg": "not an image",
        "huge.png": "more than 89478485",
        "thin.png": "one side is more than 445 times the other",
        "cut.png": "cut.png",
    }
    read = {
        "narrow.png": ((1, 200), ""),
        "point.png": ((1, 1), ""),
        "animated.gif": ((80, 60), "2 frames, of which the first is read"),
        "cmyk.jpg": ((80, 60), ""),
        "long.png": ((2000, 20), "3000 × 30 pixels was reduced to 2000 × 20"),
        "turned.jpg": ((60, 80), ""),
    }
    for name, file in pictures(tmp_path).items():
        chosen, _, _, problem = page.upload(str(file))
        if name in refused:
            assert not isinstance(chosen, Chosen)
            assert refused[name] in text(problem.replace("&lt;b&gt;", "")), name
            assert str(tmp_path) not in problem
            assert "<b>" not in problem
            continue
        size, note = read.pop(name)
        assert chosen.image.size == size
        assert note in " ".join(chosen.notes)
        _, answer, *_ = next(page.answer(chosen, B, ["weighted"], "what color is it?"))
        assert "problem" not in answer, name
        assert note in answer
    assert not read
    assert "try again" in page.upload(None)[3]


def test_scenes_and_their_questions(page: Page) -> None:
    chosen, pictures, questions, problem, first = page.choose_scene(event("1"))
    assert (chosen.scene, problem) == (1, "")
    assert chosen.image is page.scenes[1].image
    assert first == page.scenes[1].questions[0]
    assert first in questions
    assert re.findall('aria-pressed="(true|false)"', pictures) == ["false", "true"]
    assert page.choose_question(chosen, event("2")) == page.scenes[1].questions[2]
    assert page.choose_question(chosen, event("99")) == ""
    assert page.choose_question(Chosen(chosen.image), event("0")) == ""
