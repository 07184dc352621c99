"""Outlines of the known evidence: around the pixels that it covers, on every photo and map, and around words."""

import dataclasses

import numpy as np
import pytest
from figure_checks import HEIGHT, WHITE, WIDTH, cut, make_sample, no_overlap, pictures, random_explanations, texts
from matplotlib.colors import to_rgba
from matplotlib.path import Path

from explain.figures import Caption, Photo, WordMaps, draw, draw_caption, draw_interaction
from explain.figures.evidence import INK, KEY, outlines

MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[10:30, 60:90] = True
KNOWN = Photo(WHITE, (0, 0, WIDTH, HEIGHT), MASK)


def lines_of(figure):
    """Return for each photo and map the corners of its dashed lines, in pixels of the photo."""
    return [
        [line.get_xydata() for line in axes.lines if to_rgba(line.get_color()) == to_rgba(INK)]
        for axes in pictures(figure)
    ]


@pytest.mark.parametrize("size", [1, 4])
def test_an_outline_is_around_all_pixels_and_no_others(size):
    """Up to the rounding of the corners; the mask may have another size than the photo."""
    mask = MASK.repeat(size, 0).repeat(size, 1)
    [line] = outlines(mask)
    np.testing.assert_array_equal(line[0], line[-1])
    y, x = (np.indices(MASK.shape).reshape(2, -1) + 0.5) / np.array([[HEIGHT], [WIDTH]])
    inside = Path(line).contains_points(np.stack([x, y], 1)).reshape(MASK.shape)
    assert inside[MASK].all()
    near = np.zeros_like(MASK)
    near[7:33, 57:93] = True
    assert not inside[~near].any()


def test_evidence_at_the_edge_has_a_closed_outline_and_several_objects_several():
    edge = np.zeros((20, 20), bool)
    edge[:5, :5] = edge[12:18, 12:18] = True
    found = outlines(edge)
    assert len(found) == 2
    assert all((line[0] == line[-1]).all() for line in found)
    assert outlines(np.zeros((20, 20), bool)) == []


def test_every_photo_and_map_of_a_sample_has_the_outline():
    sample = dataclasses.replace(make_sample(*random_explanations(3)), photo=KNOWN)
    figure = draw(sample)
    found = lines_of(figure)
    assert [len(lines) for lines in found] == [1] * 4
    for [line] in found:
        assert [*line.min(0), *line.max(0)] == pytest.approx([60, 10, 90, 30], abs=2)
    assert KEY in texts(figure)
    no_overlap(figure)
    assert KEY not in texts(draw(make_sample(*random_explanations(3))))
    assert all(axes.get_xlim() == (0, WIDTH) and axes.get_ylim() == (HEIGHT, 0) for axes in pictures(figure))


def test_an_outline_is_visible_on_any_photo():
    """It has dark dashes on a light line."""
    for level in (0, 128, 255):
        photo = dataclasses.replace(KNOWN, image=np.full_like(WHITE, level))
        figure = draw(dataclasses.replace(make_sample(*random_explanations(1)), photo=photo))
        pixels = cut(figure, pictures(figure)[0])[..., 0]
        assert pixels.max() - pixels.min() > 100


def test_words_of_the_evidence_have_frames():
    sample = make_sample(*random_explanations(2))
    frames = {}
    for known in ((), (False, False), (False, True)):
        figure = draw(dataclasses.replace(sample, evidence=known))
        page = figure.axes[0]
        dashed = [each for each in page.patches if each.get_linestyle() not in ("solid", "-")]
        at = [text.get_position() for text in page.texts if text.get_text() == "it"]
        frames[known] = [
            each.get_path().transformed(each.get_patch_transform()).contains_point(point)
            for each, point in zip(dashed, at, strict=False)
        ]
        assert (KEY in texts(figure)) == any(known)
    assert frames == {(): [], (False, False): [], (False, True): [True, True]}  # one for each explainer


def test_the_maps_of_an_interaction_have_the_outline_and_say_so():
    figure = draw_interaction(KNOWN, ["a", "b"], np.ones((2, 12)), (3, 4))
    assert [len(lines) for lines in lines_of(figure)] == [1, 1, 1]
    assert KEY in " ".join(texts(figure))


def test_a_word_of_a_caption_has_its_own_outline():
    maps = [WordMaps(name, np.ones((2, 3, 4)), np.ones((3, 4))) for name in ("x", "y")]
    caption = Caption(dataclasses.replace(KNOWN, evidence=None), "a star", ["a", "star"], maps, evidence={1: MASK})
    figure = draw_caption(caption)
    photo, *found = map(len, lines_of(figure))
    assert (photo, found) == (0, [0, 1, 0, 0, 1, 0])  # for each explainer: two words, and all words
    assert KEY in " ".join(texts(figure))
    assert KEY not in " ".join(texts(draw_caption(dataclasses.replace(caption, evidence={}))))
