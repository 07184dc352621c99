"""Warnings: unknown words are named, ordinary scenes pass, and photos and noise are reported."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipmapper.config.schema import EncoderConfig
from clipmapper.data.images import FileImage, load_rgb
from clipmapper.data.shapes.render import draw_scene
from clipmapper.data.shapes.scene import sample_scene
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL
from clipmapper.explaining import familiarity as examining
from clipmapper.explaining.familiarity import (
    FAMILIARITY,
    Familiarity,
    WordCount,
    describe,
    examine,
    note_unknown,
    words_of,
)
from clipmapper.explaining.image_statistics import ImageStatistics
from clipmapper.features.store import FeatureStore, FrozenFeatures

QUESTIONS = ("What color is the star?", "is there a star left of the dog's bowl?", "What color is the star?")
BATCH = 50


@given(st.lists(st.text("aÉΣ '’.\u0345\n"), max_size=6), st.integers(1, 3))
def test_words_of_all_texts_are_those_of_each(texts: list[str], at_once: int) -> None:
    with patch.object(examining, "_TEXTS", at_once):
        assert examining._all_words(texts) == {word for text in texts for word in words_of(text)}


@dataclass
class Model:
    """The parts of a model that are examined."""

    encoder: FrozenClip
    familiarity: Familiarity


def scenes(split: str, count: int) -> Iterator[Image.Image]:
    """Draw the first scenes of a split of ``shapes`` with seed 0."""
    return (draw_scene(sample_scene(Random(f"shapes 0 {split} {index}")), 128) for index in range(count))


def batches(images: Iterable[Image.Image]) -> Iterator[list[Image.Image]]:
    waiting = list[Image.Image]()
    for image in images:
        waiting.append(image)
        if len(waiting) == BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


@torch.no_grad()
def trained_on(count: int, folder: Path) -> Model:
    """A model that was trained on scenes, whose description was stored in a card."""
    encoder = load_encoder(EncoderConfig(model=EMBEDDED_MODEL, weights="embedded"))
    tokens = [row for each in batches(scenes("train", count)) for row in encoder.vision(encoder.pixels(each)).features]
    features = FrozenFeatures(
        FeatureStore.written(folder / "store", tokens), {number: number for number in range(count)}, {}
    )
    card = json.loads(json.dumps({FAMILIARITY: describe(QUESTIONS, features, range(count))}))
    return Model(encoder, Familiarity.of_card(card))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return trained_on(1600, tmp_path_factory.mktemp("features"))


def warned(model: Model, images: Iterable[Image.Image]) -> float:
    """Return the share of images with a warning."""
    findings = [found for each in batches(images) for found in examine(model, model.encoder.pixels(each))]
    return sum(bool(found.warnings) for found in findings) / len(findings)


def photos(folder: Path) -> list[Image.Image]:
    return [load_rgb(FileImage(path)) for path in sorted(folder.glob("images/*/*.jpg"))]


def far_images() -> dict[str, Image.Image]:
    """Images that no generator of scenes draws."""
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (128, 128, 3), np.uint8)
    blurred = Image.fromarray(draw.integers(0, 256, (6, 6, 3), np.uint8)).resize((128, 128), Image.Resampling.BICUBIC)
    across, down = np.meshgrid(np.linspace(0, 255, 128), np.linspace(0, 255, 128))
    gradient = np.stack([across, down, 255 - (across + down) / 2], -1).astype(np.uint8)
    return {"noise": Image.fromarray(noise), "blurred": blurred, "gradient": Image.fromarray(gradient)}


@pytest.mark.slow
def test_scenes_pass(model: Model) -> None:
    assert warned(model, scenes("test", 200)) <= 0.02


@pytest.mark.parametrize("kind", far_images())
def test_far_images_are_reported(model: Model, kind: str) -> None:
    (found,) = examine(model, model.encoder.pixels([far_images()[kind]]))
    assert found.image_distance is not None
    assert found.image_distance > 1
    expected = f"at {found.image_distance:.2f} times the distance that 99 % of them do not exceed"
    assert found.warnings == [f"the image is far from the training images, {expected}"]


def test_photos_are_reported(model: Model, real_mini: Path) -> None:
    assert warned(model, photos(real_mini)) >= 0.95


@pytest.mark.slow
def test_the_rates_in_the_documentation(real_mini: Path, tmp_path: Path) -> None:
    """docs/reference/commands.md has them; rounding moves an image that is close to the threshold."""
    model = trained_on(8000, tmp_path)
    assert warned(model, photos(real_mini)) * 144 == pytest.approx(140, abs=1)
    assert warned(model, scenes("test", 1000)) * 1000 == pytest.approx(5, abs=2)


def test_words() -> None:
    assert words_of("What's LEFT of the small-ish Ångström, the 2nd or what’s left?") == [
        *("what's", "left", "of", "the", "small", "ish", "ångström", "2nd", "or")
    ]
    assert words_of(" ?! ") == []


def test_unknown_words_are_named_in_order_and_known_ones_are_not(model: Model) -> None:
    questions = ["what color is the CAT, cat or zebra?", "Is the star left of the dog's bowl", "the dogs?"]
    pixels = model.encoder.pixels(list(scenes("test", 3)))
    findings = examine(model, pixels, questions)
    assert [found.unknown_words for found in findings] == [["cat", "or", "zebra"], [], ["dogs"]]
    assert [found.warnings for found in findings] == [
        *(["no training question contains: cat, or, zebra"], [], ["no training question contains: dogs"])
    ]


def test_a_far_image_and_an_unknown_word_are_two_warnings(model: Model) -> None:
    (found,) = examine(model, model.encoder.pixels([far_images()["noise"]]), ["a giraffe?"])
    assert [line.split(":")[0].split(",")[0] for line in found.warnings] == [
        *("no training question contains", "the image is far from the training images")
    ]


def test_nothing_is_found_without_a_description(model: Model) -> None:
    old = Model(model.encoder, Familiarity.of_card({"task": "vqa"}))
    pixels = model.encoder.pixels([far_images()["noise"]])
    for questions in (["a giraffe?"], None):
        (found,) = examine(old, pixels, questions)
        assert (found.unknown_words, found.image_distance, found.warnings) == (None, None, [])


@pytest.mark.parametrize(
    ("words", "images", "asked", "missing"),
    [
        (False, False, True, "questions and images"),
        (False, False, False, "images"),
        (True, False, True, "images"),
        (False, True, True, "questions"),
        (False, True, False, None),
        (True, True, True, None),
    ],
)
def test_one_line_says_which_warnings_are_not_possible(
    words: bool, images: bool, asked: bool, missing: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    statistics = ImageStatistics(np.zeros(2), np.eye(2))
    note_unknown(Familiarity(frozenset() if words else None, statistics if images else None), asked)
    what = f"warning: the checkpoint does not describe its training {missing}"
    expected = "" if missing is None else f"{what}, so there are no warnings about unfamiliar {missing}\n"
    assert capsys.readouterr().err == expected


def test_unknown_words_are_counted_and_named() -> None:
    known = Familiarity(frozenset(["is", "the", "cat", "it"]))
    count = WordCount.of(known, ["Is it the zebra?", "is the zebra a zebra?", "is it the cat?", "the hat"])
    assert count == WordCount(7, 4, 3, {"zebra": 2, "a": 1, "hat": 1})
    assert list(count.unknown) == ["zebra", "a", "hat"]
    assert str(count) == (
        "words: 3 of the 7 words of the questions occur in no training question; they are in 3 of 4 questions: "
        "zebra (2), a (1), hat (1)"
    )
    assert str(WordCount.of(known, ["the cat"])) == "words: all 2 of the questions occur in training questions"
    assert WordCount.of(Familiarity(), ["the cat"]) is None


def test_the_line_about_unknown_words_is_bounded() -> None:
    line = str(WordCount.of(Familiarity(frozenset()), [f"w{number}" for number in range(500)]))
    assert line.startswith("words: 500 of the 500 words")
    assert line.endswith(", …")
    assert len(line) < 400


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[np.ndarray], FrozenFeatures]:
    """A function that stores tokens, [images, tokens, D]; image number k has the id 1000 - k."""

    def store(tokens: np.ndarray) -> FrozenFeatures:
        items = list(torch.from_numpy(tokens.astype(np.float32)))
        return FrozenFeatures(
            FeatureStore.written(tmp_path / "store", items), {1000 - k: k for k in range(len(tokens))}, {}
        )

    return store


def test_the_description_is_that_of_the_patches_of_evenly_spaced_images(
    stored: Callable[[np.ndarray], FrozenFeatures], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "MOST_IMAGES", 450)
    tokens = np.random.default_rng(0).normal(size=(900, 4, 3)).astype(np.float32)
    chosen = tokens[::-1][::2, 1:].mean(1)  # every second image by its id, without the class token
    expected = ImageStatistics.fit(chosen)
    assert expected is not None
    ids = range(101, 1001)
    entry = describe(QUESTIONS, stored(tokens), [*ids, *ids])
    read = Familiarity.of_card({FAMILIARITY: entry})
    assert read.images is not None
    np.testing.assert_allclose(read.images.distance(chosen), expected.distance(chosen), rtol=1e-4)
    assert entry["words"] == ["a", "bowl", "color", "dog's", "is", "left", "of", "star", "the", "there", "what"]
    assert read.words == set(entry["words"])


def test_what_cannot_be_described_is_none(stored: Callable[[np.ndarray], FrozenFeatures]) -> None:
    features = stored(np.zeros((3, 4, 3), np.float32))
    assert describe(None, features, [999, 1000]) == {"words": None, "images": None}
    assert describe([], features, [999])["words"] == []
