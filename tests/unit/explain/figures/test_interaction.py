"""Figures of interactions, checked by their pixels, texts and positions."""

import numpy as np
import pytest
from figure_checks import BOX, GRID, HEIGHT, WHITE, WIDTH, cut, no_overlap, pictures, texts

from explain.figures import Photo, draw_interaction


def test_nothing_is_clipped_or_overlaps_in_an_interaction():
    for words in (["a"], ["what", "is", "antidisestablishmentarianism", "$?"] * 4):
        no_overlap(draw_interaction(Photo(WHITE, BOX), words, np.ones((len(words), 12)), GRID))


@pytest.mark.parametrize(("words", "lines"), [(6, [7]), (7, [4, 4]), (8, [5, 4]), (14, [5, 5, 5])])
def test_rows_of_maps_have_similar_length(words, lines):
    figure = draw_interaction(Photo(WHITE, BOX), ["w"] * words, np.ones((words, 12)), GRID)
    tops = [round(axes.get_position().y1, 3) for axes in figure.axes[1:-1]]  # all except the page and the colour bar
    assert [tops.count(top) for top in sorted(set(tops), reverse=True)] == lines


@pytest.mark.parametrize("overlay", ["bilinear", "patches"])
def test_each_words_map_shows_its_row_of_the_matrix(overlay):
    matrix = np.zeros((3, 12))
    hot = [(0, 1), (2, 3), (1, 0)]
    for word, (row, column) in enumerate(hot):
        matrix[word, row * 4 + column] = 1
    figure = draw_interaction(Photo(WHITE, (0, 0, WIDTH, HEIGHT)), ["a", "b", "c"], matrix, GRID, overlay)
    assert texts(figure)[:3] == ["a", "b", "c"]
    photo, *maps = pictures(figure)
    for axes, (row, column) in zip(maps, hot, strict=True):
        pixels = cut(figure, axes).sum(2)
        y, x = (np.mean(np.nonzero(pixels == pixels.min()), axis=1) + 0.5) / pixels.shape * GRID
        assert (int(y), int(x)) == (row, column)
    assert cut(figure, photo).min() == 255


def test_an_interaction_has_one_scale():
    figure = draw_interaction(Photo(WHITE, (0, 0, WIDTH, HEIGHT)), ["a", "b"], [[0.5, 1], [2, 0.5]], (1, 2), "patches")
    first, second = (cut(figure, axes) for axes in pictures(figure)[1:])
    np.testing.assert_array_equal(first[40, 40], second[40, -40])
    assert first[40, 40].sum() > first[40, -40].sum() + 30 > second[40, 40].sum() + 60  # 0.5, 1, 2
    assert "2" in texts(figure)


def test_question_answer_and_meaning_are_written() -> None:
    for words in (["a"], ["a"] * 9):
        matrix = np.ones((len(words), 12))
        figure = draw_interaction(Photo(WHITE, BOX), words, matrix, GRID, question="$x$ a?", answer="red, 0.98")
        no_overlap(figure)
        assert {"$x$ a?", "red, 0.98"} <= set(texts(figure))
        assert "the word to the patch" in " ".join(texts(figure))
