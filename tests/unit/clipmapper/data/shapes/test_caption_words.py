"""The objects that words name: handmade scenes, and brute force over the possible objects of each word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from models import bpe
from PIL import Image
from shapes_data import known, scene_from_seen, shapes_config

from clipmapper.config.data import CocoConfig
from clipmapper.data.shapes.caption_truth import KnownScene, check_caption
from clipmapper.data.shapes.caption_words import NamedObjects, caption_judge, named_objects, read_scenes
from clipmapper.data.shapes.captions import captions
from clipmapper.data.shapes.evidence import SplitEvidence, read_evidence
from clipmapper.data.shapes.language import WORDINGS, holds, plural
from clipmapper.data.shapes.scene import COLORS, SHAPES, SIZES, Seen, sample_scene, truth
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.tasks.caption.sentence import split_words

SCENE = known(
    ("small", "red", "star", 0.2, 0.3),
    ("large", "red", "star", 0.8, 0.2),
    ("small", "blue", "ring", 0.7, 0.8),
    ("large", "green", "moon", 0.2, 0.7),
)


def named(caption: str, scene: KnownScene = SCENE) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the kind and the objects of each naming word, by its position and text."""
    words = caption.split()
    return {f"{n.word} {words[n.word]}": (n.kind, n.objects) for n in named_objects(words, scene)}


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a blue ring", {"1 blue": ("color", (2,)), "2 ring": ("shape", (2,))}),
        ("a red star", {}),  # can be either of two
        ("a small red star", {"1 small": ("size", (0,)), "2 red": ("color", (0,)), "3 star": ("shape", (0,))}),
        ("two red stars", {"1 red": ("color", (0, 1)), "2 stars": ("shape", (0, 1))}),
        ("Two Red things and a Moon .", {"1 Red": ("color", (0, 1)), "5 Moon": ("shape", (3,))}),
        ("no circles", {}),
        ("a large thing in the bottom left", {
            "1 large": ("size", (3,)), "5 bottom": ("position", (3,)), "6 left": ("position", (3,)),
        }),
        ("a star to the left of a blue ring", {
            "1 star": ("shape", (0,)), "4 left": ("position", (0, 2)), "7 blue": ("color", (2,)),
            "8 ring": ("shape", (2,)),
        }),
        ("a star above a ring", {"4 ring": ("shape", (2,))}),  # both stars are above it
        ("a ring is lower than a moon , a small star", {
            "1 ring": ("shape", (2,)), "3 lower": ("position", (2, 3)), "6 moon": ("shape", (3,)),
            "9 small": ("size", (0,)), "10 star": ("shape", (0,)),
        }),
        ("a blue star", {}),  # there is none
        ("a blue ring and a red moon", {}),  # only the first half is true
        ("a blue ring and a zebra", {}),
        ("four things on a dark striped background", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_words_of_a_handmade_scene(caption: str, expected: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    assert named(caption) == expected


def test_every_relation_has_one_direction_word() -> None:
    scenes = {
        "left of": known(("small", "red", "star", 0.2, 0.5), ("small", "blue", "ring", 0.8, 0.5)),
        "right of": known(("small", "red", "star", 0.8, 0.5), ("small", "blue", "ring", 0.2, 0.5)),
        "above": known(("small", "red", "star", 0.5, 0.2), ("small", "blue", "ring", 0.5, 0.8)),
        "below": known(("small", "red", "star", 0.5, 0.8), ("small", "blue", "ring", 0.5, 0.2)),
    }
    directions = ("left", "right", "above", "over", "higher", "below", "under", "lower")
    for relation, wordings in WORDINGS.items():
        for wording in wordings:
            words = f"a star is {wording} a ring".split()
            found = [n for n in named_objects(words, scenes[relation]) if n.kind == "position"]
            assert [words[n.word] for n in found] == [word for word in wording.split() if word in directions]
            assert [n.objects for n in found] == [(0, 1)]


def test_an_object_seen_in_two_ways_makes_its_name_ambiguous() -> None:
    """Some see the first ring as red: "a red ring" can mean either ring, but "a small red ring" means only that one."""
    ring, other = Seen(0, "ring", "orange", "small", 0.2, 0.2), Seen(1, "ring", "red", "large", 0.8, 0.8)
    doubtful = Seen(0, "ring", "red", "small", 0.2, 0.2)
    scene = KnownScene(((ring, other), (doubtful, other)), "dark", "plain")
    assert named("a red ring", scene) == {}
    assert named("a red ring", scene_from_seen((ring, other))) == {
        "1 red": ("color", (1,)),
        "2 ring": ("shape", (1,)),
    }
    assert set(named("a small red ring", scene).values()) == {("size", (0,)), ("color", (0,)), ("shape", (0,))}


# Brute force: try all ways to assign objects to the phrases of a generated caption.


def brute_force(words: list[str], seen: tuple[Seen, ...]) -> set[tuple[int, str, tuple[int, ...]]]:
    """Return the naming words of a caption of the form "a [size] color shape relation a [size] color shape"."""
    kinds = {**dict.fromkeys(SIZES, "size"), **dict.fromkeys(COLORS, "color"), **dict.fromkeys(SHAPES, "shape")}
    direction = {w: r for r, each in WORDINGS.items() for wording in each for w in wording.split()}
    starts = [k for k, word in enumerate(words) if word in ("a", "an")]
    phrases = [range(start, end) for start, end in zip(starts, [*starts[1:], len(words)], strict=True)]

    def fits(phrase: range, s: Seen) -> bool:
        return all(words[k] in (s.size, s.color, s.shape) for k in phrase if words[k] in kinds)

    joint = [k for k in phrases[0] if words[k] in direction and words[k] not in ("to", "the", "of", "than")]
    relation = direction[words[joint[0]]]
    ways = [(x, y) for x in seen for y in seen if x is not y and fits(phrases[0], x) and fits(phrases[1], y)]
    ways = [(x.index, y.index) for x, y in ways if holds(relation, x, y)]
    found = set()
    for side, phrase in enumerate(phrases):
        objects = {way[side] for way in ways}
        if len(objects) == 1:
            found |= {(k, kinds[words[k]], tuple(objects)) for k in phrase if words[k] in kinds}
    both = tuple(sorted({index for way in ways for index in way}))
    return found | {(k, "position", both) for k in joint if len(both) == 2}


def relations() -> Iterator[tuple[list[str], tuple[Seen, ...]]]:
    for i in range(250):
        rng = Random(f"words {i}")
        scene = sample_scene(rng)
        for text in captions(scene, 5, rng):
            words = [word.text for word in split_words(bpe().encode(text), bpe())]
            related = {"left", "right", "above", "below", "over", "under", "higher", "lower"} & set(words)
            if related and not {"in", "and"} & set(words) and words.count("a") + words.count("an") == 2:
                yield words, truth(scene)


def test_words_of_generated_relations_equal_brute_force() -> None:
    counted, left_out = 0, 0
    for words, seen in relations():
        found = named_objects(words, scene_from_seen(seen))
        assert {(n.word, n.kind, n.objects) for n in found} == brute_force(words, seen)
        assert len(found) == len({n.word for n in found})
        counted += len(found)
        left_out += not any(n.kind == "position" for n in found)
    assert counted > 500
    assert left_out >= 1


def test_named_objects_have_the_attribute_that_the_word_names() -> None:
    kinds: list[str] = []
    for i in range(200):
        rng = Random(f"true {i}")
        scene = sample_scene(rng)
        seen, knows = truth(scene), scene_from_seen(truth(scene), scene.background)
        for text in captions(scene, 5, rng):
            words = [word.text for word in split_words(bpe().encode(text), bpe())]
            assert check_caption(" ".join(words), knows).true
            for n in named_objects(words, knows):
                kinds.append(n.kind)
                values = [
                    {"size": seen[o].size, "color": seen[o].color, "shape": seen[o].shape}.get(n.kind)
                    for o in n.objects
                ]
                assert n.kind == "position" or set(values) <= {words[n.word], *_singular(words[n.word])}
    assert {kind: kinds.count(kind) > 150 for kind in set(kinds)} == dict.fromkeys(
        ("size", "color", "shape", "position"), True
    )


def _singular(word: str) -> list[str]:
    return [shape for shape in SHAPES if plural(shape) == word]


# Files


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> SplitEvidence:
    return read_evidence(shapes_config(tmp_path_factory.mktemp("shapes")), "train")


def test_reference_captions_in_the_files_name_objects_of_the_scenes_in_the_files(evidence: SplitEvidence) -> None:
    scenes = read_scenes(evidence)
    side: dict[str, Any] = read_json(evidence.folder / "shapes_train_evidence.json")["scenes"]
    assert scenes.keys() == {int(image_id) for image_id in side}
    annotations = read_json(evidence.folder / "captions_shapes_train.json")["annotations"]
    found = [named_objects(a["caption"].replace(",", " ,").split(), scenes[a["image_id"]]) for a in annotations]
    assert len(found) == 40
    assert sum(map(bool, found)) > 25
    for a, words in zip(annotations, found, strict=True):
        assert {o for n in words for o in n.objects} <= set(range(len(side[str(a["image_id"])]["objects"])))


def test_patches_show_the_named_objects(evidence: SplitEvidence) -> None:
    image_id = next(iter(read_scenes(evidence)))
    mask = np.asarray(Image.open(evidence.folder / f"masks/train/shapes_train_{image_id:012d}.png"))
    for objects in ((0,), (1,), (0, 1)):
        shown = np.isin(mask, [o + 1 for o in objects]).reshape(8, 4, 8, 4).mean((1, 3))
        found = evidence.object_patches(image_id, objects, 8, 0.5)
        assert found.tolist() == (shown >= 0.5).ravel().tolist()
        assert found.any()


def test_an_evidence_file_without_scenes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "shapes_val_evidence.json").write_text('{"questions": {}}')
    with pytest.raises(UserError, match=r"shapes_val_evidence\.json: holds no scenes"):
        read_scenes(SplitEvidence(tmp_path, "val", 64, {}))


def test_named_objects_can_be_compared() -> None:
    assert named_objects(["a", "moon"], SCENE) == [NamedObjects(1, "shape", (3,))]


def test_the_judge_decides_what_is_true_of_an_image(tmp_path: Path) -> None:
    config = shapes_config(tmp_path)
    judge = caption_judge(config, "val")
    assert judge is not None
    scenes = read_scenes(read_evidence(config, "val"))
    annotations = read_json(Path(read_evidence(config, "val").folder) / "captions_shapes_val.json")["annotations"]
    texts = [*(a["caption"] for a in annotations), "a zebra", ""]
    verdicts = [(judge(i, text), check_caption(text, scene).true) for i, scene in scenes.items() for text in texts]
    assert all(found == expected for found, expected in verdicts)
    assert {found for found, _ in verdicts} == {True, False}
    assert caption_judge(CocoConfig(name="coco", root=str(tmp_path)), "val") is None
