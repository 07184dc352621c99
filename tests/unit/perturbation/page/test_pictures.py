"""Explained samples: their maps as images, the colours of words, and what lacks a map."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from report_runs import answers, captions

from explain.figures.scale import Scale
from perturbation.page.pictures import NO_MAP, explained, gallery, heat_map


def pixels(uri: str, kind: str = "png") -> np.ndarray:
    head, _, data = uri.partition(",")
    assert head == f"data:image/{kind};base64"
    return np.asarray(Image.open(BytesIO(base64.b64decode(data))))


def test_a_heat_map_has_the_colours_of_the_figures() -> None:
    scores = np.array([[0.0, 0.5], [1.0, 0.25]])
    found = pixels(heat_map(scores, Scale.over([scores])))
    scale = Scale(1.0, signed=False)
    np.testing.assert_allclose(found, 255 * scale.colormap(scores), atol=0.51)
    assert found[0, 0, 3] == 0  # a score of zero has no colour
    signed = pixels(heat_map(-scores, Scale.over([-scores])))
    assert signed[1, 0, 2] > signed[1, 0, 0]  # negative scores are blue


def test_an_answer_shows_each_explainer_and_the_interaction_of_words() -> None:
    shown = explained(answers(), (), smooth=True, common=False)
    assert (shown.title, shown.answer, shown.note) == ("is it red?", "yes (75\u00a0%)", "people: yes (10)")
    assert shown.size == (80, 60)
    assert shown.box == (10, 0, 60, 60)
    assert pixels(shown.photo, "webp").shape == (60, 80, 3)
    assert [tab.name for tab in shown.tabs] == ["weighted", "genatt"]
    first, second = shown.tabs
    assert first.heat == second.heat  # each explainer has a scale of its own
    assert first.about == "relevance to the answer; the strongest patch is in row 1 of 2, column 1 of 2"
    weak, strong = first.words
    assert (weak.text, weak.score, strong.score) == ("is", "0.25", "0.5")
    assert strong.label == "interaction with “red”"
    assert pixels(strong.heat)[..., 3].tolist() == [[0, 0], [0, 209]]  # 0.82 of 255
    assert 0 < pixels(weak.heat)[0, 0, 3] < 209
    assert weak.colour != strong.colour


def test_with_a_common_scale_half_the_score_has_another_colour() -> None:
    first, second = explained(answers(), (), smooth=True, common=True).tabs
    assert pixels(second.heat)[0, 0, 3] == 209
    assert pixels(first.heat)[0, 0, 3] < 209


def test_a_caption_has_a_map_of_each_word() -> None:
    shown = explained(captions(), (), smooth=False, common=False)
    assert (shown.answer, shown.smooth) == ("", False)
    tab = shown.tabs[0]
    assert tab.label == "relevance to the whole caption"
    assert [word.label for word in tab.words] == ["relevance to “a”", "relevance to “kite”"]
    assert pixels(tab.words[1].heat)[..., 3].tolist() == [[0, 0], [209, 0]]
    assert not any(word.colour for word in tab.words)


@pytest.mark.parametrize("patches", [None, [0.5, 0.25], [[0, 0], [0, 0]]])
def test_a_model_without_a_grid_has_words_only(patches: object) -> None:
    content = answers(("weighted",))
    content["maps"][0]["patches"] = patches
    content["interaction"] = None
    [tab] = explained(content, (), smooth=True, common=False).tabs
    assert (tab.heat, tab.label) == ("", NO_MAP)
    assert [word.score for word in tab.words] == ["0.25", "0.5"]
    assert [word.heat for word in tab.words] == ["", ""]


def test_a_model_without_words_has_maps_only() -> None:
    content = answers(("weighted",))
    content |= {"words": [], "interaction": []}
    content["maps"][0]["words"] = []
    [tab] = explained(content, (), smooth=True, common=False).tabs
    assert tab.words == []
    assert tab.heat


def test_a_text_alone_has_words_only() -> None:
    content = answers(("weighted",))
    content |= {"photo": None, "interaction": None}
    content["maps"][0]["patches"] = []
    shown = explained(content, (), smooth=True, common=False)
    assert (shown.photo, shown.outline) == ("", "")
    assert [word.score for word in shown.tabs[0].words] == ["0.25", "0.5"]


@pytest.mark.parametrize(("probability", "shown"), [(None, "yes"), (0.0, "yes (<1\u00a0%)"), (1.0, "yes (100\u00a0%)")])
def test_an_answer_has_a_percentage_only_if_it_has_a_probability(probability: float | None, shown: str) -> None:
    assert explained({**answers(), "probability": probability}, (), smooth=True, common=False).answer == shown


def test_the_known_evidence_is_outlined() -> None:
    content = answers(("weighted",))
    assert not any(word.evidence for word in explained(content, (), smooth=True, common=False).tabs[0].words)
    lines = [[[0.5, 0.5], [1.0, 0.5], [0.5, 0.5]], [[0.0, 0.0], [0.1, 0.1]]]
    content["photo"]["outlines"], content["evidence"] = lines, [False, True]
    shown = explained(content, (), smooth=True, common=False)
    assert shown.outline == "M40.0 30.0L80.0 30.0L40.0 30.0ZM0.0 0.0L8.0 6.0Z"
    assert [word.evidence for word in shown.tabs[0].words] == [False, True]
    assert "Dashed lines are the known evidence." in gallery([content], {}, 1, True, False).caption
    assert "Dashed" not in gallery([answers()], {}, 1, True, False).caption


def test_a_word_of_a_caption_has_its_own_outline() -> None:
    content = {**captions(("weighted",)), "evidence": {"1": [[[0.5, 0.5], [1, 0.5]]]}}
    shown = explained(content, (), smooth=True, common=False)
    assert (shown.outline, [word.outline for word in shown.tabs[0].words]) == ("", ["", "M40.0 30.0L80.0 30.0Z"])
    assert "Dashed lines" in gallery([content], {}, 1, True, False).caption


def test_one_explainer_does_not_blank_the_others_on_a_common_scale() -> None:
    content = answers()
    content["maps"][1]["patches"] = [[900.0, 0.0], [0.0, 0.0]]
    first, second = explained(content, (), smooth=True, common=True).tabs
    assert pixels(second.heat)[0, 0, 3] == 209
    assert pixels(first.heat)[0, 0, 3] > 100


def test_a_run_of_an_earlier_version_has_no_evidence() -> None:
    content = answers(("weighted",))
    del content["photo"]["outlines"], content["evidence"]
    assert explained(content, (), smooth=True, common=False).outline == ""


def test_a_gallery_says_how_many_samples_it_leaves_out() -> None:
    assert len(gallery([answers()] * 3, {}, 2, True, False).samples) == 2
    assert "The first 2 of 3 are shown." in gallery([answers()] * 3, {}, 2, True, False).caption
    assert "are shown" not in gallery([answers()] * 3, {}, 3, True, False).caption
    assert gallery([], {}, 3, True, False).samples == []
