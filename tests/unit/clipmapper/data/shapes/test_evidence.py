"""Evidence patches and sub-words, against the generated data, brute force and CLIP's own preprocessing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from models import random_encoder
from PIL import Image
from shapes_data import asked, shapes_config, written_shapes

from clipmapper.config.data import DataConfig
from clipmapper.data.shapes.evidence import evidence_patches, read_evidence, sub_word_bytes, sub_word_spans
from clipmapper.data.shapes.write import write_shapes
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded
from clipmapper.errors import UserError


@cache
def tokenizer() -> Any:
    register_embedded()
    return open_clip.get_tokenizer(EMBEDDED_MODEL)


def test_pieces_of_every_question_concatenate_to_the_cleaned_question() -> None:
    for question in asked():
        pieces = [sub_word_bytes(number, tokenizer()) for number in tokenizer().encode(question.text)]
        assert b"".join(pieces).decode() == question.text.lower().replace(" ", "")
        spans = sub_word_spans(question.text, tokenizer())
        assert [question.text[start:end].lower().encode() for start, end in spans] == pieces


def test_evidence_sub_words_cover_the_evidence_characters_and_no_others() -> None:
    folder = written_shapes()
    evidence = read_evidence(shapes_config(folder.parent, train_scenes=400), "train")
    assert len(evidence.questions) == len(asked())
    for question in asked():
        number = question.annotation["question_id"]
        chosen = evidence.sub_words(number, question.text, tokenizer())
        spans = sub_word_spans(question.text, tokenizer())
        covered = {k for (start, end), inside in zip(spans, chosen, strict=True) if inside for k in range(start, end)}
        marked = {k for start, end in question.evidence["words"] for k in range(start, end) if question.text[k] != " "}
        assert covered == marked
        assert 0 < chosen.sum() < len(spans)  # the question mark is never evidence


def test_evidence_words_cover_the_evidence_characters_and_no_others() -> None:
    evidence = read_evidence(shapes_config(written_shapes().parent, train_scenes=400), "train")
    for question in asked():
        number, text = question.annotation["question_id"], question.text
        words = re.findall(r"\w+|[^\w\s]", text.upper())
        chosen = [
            word for word, inside in zip(words, evidence.answer_words(number, text, words), strict=True) if inside
        ]
        marked = "".join(text[start:end] for start, end in question.evidence["words"]).upper()
        assert "".join(chosen) == "".join(marked.split())
        assert evidence.answer_words(number, text, [*words, "else"]) == []


def test_evidence_pixels_are_those_of_the_objects_and_their_holes() -> None:
    evidence = read_evidence(shapes_config(written_shapes().parent, train_scenes=400), "train")
    filled = 0
    for question in asked()[:200]:
        number, image = question.annotation["question_id"], question.annotation["image_id"]
        found, mask = evidence.answer_pixels(number, image), evidence.mask(image)
        own = np.isin(mask, [k + 1 for k in evidence.questions[number].objects])
        assert found[own].all()
        more = found & ~own
        filled += bool(more.any())
        assert not more[0].any()
        assert not more[:, 0].any()
        reached = np.zeros_like(own)  # what can be reached from the edge without crossing the objects is outside
        reached[0], reached[-1], reached[:, 0], reached[:, -1] = ~own[0], ~own[-1], ~own[:, 0], ~own[:, -1]
        while True:
            grown = reached.copy()
            grown[1:] |= reached[:-1]
            grown[:-1] |= reached[1:]
            grown[:, 1:] |= reached[:, :-1]
            grown[:, :-1] |= reached[:, 1:]
            grown &= ~own
            if (grown == reached).all():
                break
            reached = grown
        np.testing.assert_array_equal(found, ~reached)
    assert filled > 5


@pytest.mark.parametrize("text", ["  What's   the COLOR\tof it? ", "a naïve café's ☃ 🎉", "12 Straße", "", "?"])
def test_spans_of_unusual_texts_are_their_characters(text: str) -> None:
    numbers = tokenizer().encode(text)
    spans = sub_word_spans(text, tokenizer())
    assert len(spans) == len(numbers)
    for number, (start, end) in zip(numbers, spans, strict=True):
        piece = sub_word_bytes(number, tokenizer())
        assert piece in text[start:end].lower().encode()
    assert {k for start, end in spans for k in range(start, end)} == {k for k, c in enumerate(text) if not c.isspace()}


def test_a_text_that_cleaning_changes_is_an_error() -> None:
    with pytest.raises(UserError, match=r"fish &amp; chips.*do not spell its characters"):
        sub_word_spans("fish &amp; chips", tokenizer())


@pytest.mark.parametrize(("pixels", "grid"), [(32, 6), (20, 3), (24, 4), (7, 7), (5, 6)])
def test_patches_equal_counting_on_a_finer_grid(pixels: int, grid: int) -> None:
    random = np.random.default_rng(pixels)
    for share in (0.25, 0.5, 1.0, 0.01):
        mask = np.kron(random.integers(0, 4, (pixels, pixels)), np.ones((1, 1))).astype(np.uint8)
        mask[: pixels // 2, : pixels // 3] = 2
        fine = np.kron(np.isin(mask, [2, 4]), np.ones((grid, grid), int))  # a cell now has pixels × pixels elements
        expected = [
            fine[r * pixels : (r + 1) * pixels, c * pixels : (c + 1) * pixels].sum() >= share * pixels**2
            for r in range(grid)
            for c in range(grid)
        ]
        assert evidence_patches(mask, (1, 3), grid, share).tolist() == expected


def test_exactly_the_required_share_is_enough_and_less_is_not() -> None:
    mask = np.zeros((12, 12), np.uint8)
    mask[0:2, 0:2] = 1  # a quarter of the first of 9 patches
    mask[4:6, 4:6] = 1
    mask[4, 4] = 2  # another object has one pixel of this quarter
    assert evidence_patches(mask, (0,), 3, 0.25).tolist() == [True] + [False] * 8
    assert evidence_patches(mask, (0, 1), 3, 0.25).nonzero()[0].tolist() == [0, 4]
    assert not evidence_patches(mask, (), 3, 0.25).any()


def test_evidence_patches_are_the_patches_of_the_encoder() -> None:
    """A bright cell of an image is exactly the bright patch of the preprocessed image."""
    encoder = random_encoder()
    for cell in range(9):
        mask = np.zeros((48, 48), np.uint8)
        row, column = divmod(cell, 3)
        mask[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
        pixels = encoder.pixels([Image.fromarray(mask * 255).convert("RGB")])
        bright = pixels.mean(1).unfold(1, 8, 8).unfold(2, 8, 8).mean((3, 4)).flatten()
        found = evidence_patches(mask, (0,), 3, 0.25)
        assert found.nonzero()[0].tolist() == [int(bright.argmax())] == [cell]


def test_patches_of_a_generated_question_show_its_objects() -> None:
    folder = written_shapes()
    evidence = read_evidence(shapes_config(folder.parent, train_scenes=400), "train")
    for question in asked()[::97]:
        number, image = question.annotation["question_id"], question.annotation["image_id"]
        mask = np.asarray(Image.open(folder / f"masks/train/shapes_train_{image:012d}.png"))
        shown = np.zeros((32, 32), bool)
        for k in question.evidence["objects"]:
            shown |= mask == k + 1
        expected = shown.reshape(4, 8, 4, 8).mean((1, 3)) >= 0.25
        assert evidence.patches(number, image, 4, 0.25).tolist() == expected.ravel().tolist()


def test_only_shapes_has_evidence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data=other .*give data=shapes"):
        read_evidence(DataConfig(name="other", root=str(tmp_path)), "test")
    with pytest.raises(UserError, match="split=dev: data=shapes has evidence for train, val, test"):
        read_evidence(shapes_config(tmp_path), "dev")


def test_a_damaged_evidence_file_is_one_line_and_a_missing_one_is_written_again(tmp_path: Path) -> None:
    config = shapes_config(tmp_path, train_scenes=1, val_scenes=1, test_scenes=1)
    side = write_shapes(config, "test") / "shapes_test_evidence.json"
    side.write_text(json.dumps({"scenes": {}, "questions": {"1": {"objects": [0]}}}))
    with pytest.raises(UserError, match=r"evidence.json: damaged or edited since .*; remove .* data=shapes"):
        read_evidence(config, "test")
    side.with_name("shapes_test.b2").unlink()  # data of an earlier version
    with pytest.raises(UserError, match=r"evidence.json: questions.1.words is missing; remove .* data=shapes"):
        read_evidence(config, "test")
    side.unlink()
    assert len(read_evidence(config, "test").questions) == 6


MASKS: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:60]),
    "text": lambda path: path.write_text("hello"),
    "another size": lambda path: Image.new("L", (3, 3)).save(path),
    "another kind": lambda path: Image.new("RGB", Image.open(path).size).save(path),
    "huge": lambda path: Image.new("1", (60_000, 1)).save(path),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", MASKS)
def test_a_damaged_mask_is_named_with_the_fix(tmp_path: Path, damage: str) -> None:
    config = shapes_config(tmp_path, val_scenes=1)
    evidence = read_evidence(config, "val")
    [path] = sorted((evidence.folder / "masks" / "val").iterdir())
    image_id = int(path.stem.rpartition("_")[2])
    assert evidence.mask(image_id).shape == (config.pixels, config.pixels)
    MASKS[damage](path)
    with pytest.raises(UserError) as caught:
        evidence.mask(image_id)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(f"; remove {evidence.folder}, so that data=shapes is generated again")
    assert "\n" not in message
