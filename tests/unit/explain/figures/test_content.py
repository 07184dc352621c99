"""The content of figures as plain values."""

import base64
import json
from io import BytesIO

import numpy as np
import pytest
from figure_checks import BOX, make_sample, random_explanations
from PIL import Image

from explain.figures import Caption, Photo, WordMaps, caption_content, sample_content


def stored(content):
    return np.asarray(Image.open(BytesIO(base64.b64decode(content["photo"]["webp"]))))


def test_a_sample_keeps_its_texts_and_scores():
    explanations = random_explanations(2)
    interaction = np.random.default_rng(0).random((2, 3, 4))
    content = sample_content(make_sample(*explanations, caption="people: no (1)"), interaction)
    assert json.loads(json.dumps(content)) == content
    texts = {key: content[key] for key in ("text", "answer", "probability", "note", "words")}
    assert texts == {
        "text": "Is it?",
        "answer": "yes",
        "probability": 0.73,
        "note": "people: no (1)",
        "words": ["is", "it"],
    }
    for shown, explanation in zip(content["maps"], explanations, strict=True):
        assert shown["explainer"] == explanation.explainer
        np.testing.assert_allclose(shown["patches"], explanation.patches, rtol=1e-4)
        np.testing.assert_allclose(shown["words"], explanation.words, rtol=1e-4)
    np.testing.assert_allclose(content["interaction"], interaction, rtol=1e-4)
    assert sample_content(make_sample(*explanations))["interaction"] is None


def test_scores_keep_five_significant_digits():
    [explanation] = random_explanations(1, grid=(1, 3))
    explanation.patches[:] = [[1.23456789e-9, -123456.789, 0]]
    assert sample_content(make_sample(explanation))["maps"][0]["patches"] == [[1.2346e-9, -123460.0, 0.0]]


def test_a_caption_keeps_the_maps_of_its_words():
    rng = np.random.default_rng(0)
    maps = [WordMaps("weighted", rng.random((2, 3, 4)), rng.random((3, 4)))]
    photo = Photo(np.zeros((40, 60, 3), np.uint8), (10, 0, 50, 40))
    content = caption_content(Caption(photo, "a kite", ["a", "kite"], maps, "people: a red kite"))
    assert json.loads(json.dumps(content)) == content
    assert (content["text"], content["words"], content["note"]) == ("a kite", ["a", "kite"], "people: a red kite")
    np.testing.assert_allclose(content["maps"][0]["by_word"], maps[0].words, rtol=1e-4)
    np.testing.assert_allclose(content["maps"][0]["patches"], maps[0].whole, rtol=1e-4)


@pytest.mark.parametrize(("height", "width", "size"), [(60, 100, [100, 60]), (640, 1280, [320, 160])])
def test_a_photo_is_stored_small_with_the_box_as_shares(height, width, size):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    box = tuple(edge * height / 60 for edge in BOX)
    content = sample_content(make_sample(*random_explanations(1), image=pixels, box=box))
    assert content["photo"]["size"] == size
    found = stored(content)
    assert found.shape == (size[1], size[0], 3)
    assert found[:, : size[0] // 2 - 4].max() < 30
    assert found[:, size[0] // 2 + 4 :].min() > 225
    np.testing.assert_allclose(content["photo"]["box"], np.array(box) / [width, height, width, height], rtol=1e-4)
