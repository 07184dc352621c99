"""The ``shapes`` files: the same bytes for the same seed, the official formats, and no incomplete dataset."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shapes_data import load, shapes_config, write_all, written_shapes
from watching import watched

from clipmapper.data.datasets import load_captions_of, load_data, load_questions_of
from clipmapper.data.images import load_rgb
from clipmapper.data.shapes import write
from clipmapper.data.shapes.write import LAYOUT, SPLITS
from clipmapper.data.vqa_files import read_vqav2
from clipmapper.errors import UserError


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_bytes_depend_on_the_seed_but_not_on_the_number_of_workers(tmp_path: Path) -> None:
    """There is more than one chunk of work, so that their order matters."""
    alone = tree(write_all(shapes_config(tmp_path / "1", train_scenes=101, workers=1)))
    shared = tree(write_all(shapes_config(tmp_path / "3", train_scenes=101, workers=3)))
    assert len(alone) == 2 * (101 + 4 + 4) + 5 * 3
    assert alone == shared


@pytest.mark.slow
def test_the_first_scenes_do_not_depend_on_the_number_of_scenes(tmp_path: Path) -> None:
    few, many = written_of(tmp_path, train_scenes=5), written_shapes()
    for name in ("v2_OpenEnded_shapes_train_questions.json", "v2_shapes_train_annotations.json"):
        key = "questions" if "questions" in name else "annotations"
        assert load(few, name)[key] == load(many, name)[key][: 5 * 6]
    assert _captions(few) == _captions(many)[: 5 * 5]
    evidence = [load(folder, "shapes_train_evidence.json") for folder in (few, many)]
    assert evidence[0]["scenes"].items() <= evidence[1]["scenes"].items()
    assert evidence[0]["questions"].items() <= evidence[1]["questions"].items()
    images, more = tree(few / "images" / "train"), tree(many / "images" / "train")
    assert len(images) == 5
    assert images.items() <= more.items()
    assert tree(few / "masks" / "train").items() <= tree(many / "masks" / "train").items()


def written_of(root: Path, **changes: Any) -> Path:
    return write_all(shapes_config(root, **changes))


def _captions(folder: Path) -> list[dict[str, object]]:
    return list(load(folder, "captions_shapes_train.json")["annotations"])


def test_another_seed_gives_other_scenes(tmp_path: Path) -> None:
    one, other = tree(written_of(tmp_path)), tree(written_of(tmp_path, seed=1))
    assert one.keys() == other.keys()
    images = [name for name in one if name.endswith(".png")]
    assert sum(one[name] == other[name] for name in images) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"train_scenes": 9},
        {"val_scenes": 5},
        {"test_scenes": 5},
        {"questions_per_scene": 2},
        {"pixels": 40},
        {"extra_questions": {"same": 1}},
        {"extra_captions": 1},
        {"disagreement": "vqav2"},
    ],
)
def test_every_key_that_changes_the_content_also_changes_the_folder(tmp_path: Path, change: dict[str, Any]) -> None:
    one, other = written_of(tmp_path), written_of(tmp_path, **change)
    assert one != other
    assert one.parent == other.parent == tmp_path


@pytest.mark.slow
def test_extra_questions_are_added_to_the_training_scenes_and_change_nothing_else(tmp_path: Path) -> None:
    plain = written_of(tmp_path)
    more = written_of(tmp_path, extra_questions={"same": 3, "count": 2})
    differing = {name for name, content in tree(plain).items() if tree(more)[name] != content}
    assert differing == {
        "v2_OpenEnded_shapes_train_questions.json",
        "v2_shapes_train_annotations.json",
        "shapes_train_evidence.json",
        "shapes_train.b2",
    }
    before, after = (load(folder, "v2_shapes_train_annotations.json")["annotations"] for folder in (plain, more))
    known = {entry["question_id"]: entry for entry in before}
    added = [entry for entry in after if entry["question_id"] not in known]
    assert [entry for entry in after if entry["question_id"] in known] == before
    kinds = Counter((entry["image_id"], entry["question_type"]) for entry in added)
    assert {kind for _, kind in kinds} == {"same", "count"}
    assert max(n for (_, kind), n in kinds.items() if kind == "same") == 3
    assert max(n for (_, kind), n in kinds.items() if kind == "count") <= 2
    questions = load(more, "v2_OpenEnded_shapes_train_questions.json")["questions"]
    texts = [(question["image_id"], question["question"]) for question in questions]
    assert len(set(texts)) == len(texts) == len(after)


@pytest.mark.slow
def test_extra_captions_are_added_to_the_training_scenes_and_change_nothing_else(tmp_path: Path) -> None:
    plain, more = written_of(tmp_path), written_of(tmp_path, extra_captions=2)
    name = "captions_shapes_train.json"
    assert {file for file, content in tree(plain).items() if tree(more)[file] != content} == {name, "shapes_train.b2"}
    before, after = (load(folder, name) for folder in (plain, more))
    assert before["images"] == after["images"]
    for image in before["images"]:
        old, new = (
            [a["caption"] for a in part["annotations"] if a["image_id"] == image["id"]] for part in (before, after)
        )
        assert (len(old), new[:5], len(new)) == (5, old, 7)


def test_an_unknown_kind_of_extra_questions_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no kind of question is called sames; kinds: exist, relation, side, same"):
        written_of(tmp_path, extra_questions={"sames": 1})
    with pytest.raises(UserError, match=r"questions_per_scene and data\.extra_questions: 101 a scene; 100 are allowed"):
        shapes_config(tmp_path, extra_questions={"same": 95})


def test_splits_share_no_scene_and_no_id() -> None:
    folder = written_shapes()
    scenes: list[str] = []
    question_ids: list[str] = []
    image_ids: list[str] = []
    for split in SPLITS:
        side = load(folder, f"shapes_{split}_evidence.json")
        scenes += [json.dumps(scene) for scene in side["scenes"].values()]
        image_ids += side["scenes"]
        question_ids += side["questions"]
    assert len(image_ids) == 408
    assert len(set(scenes)) == len(scenes)
    assert len(set(image_ids)) == len(image_ids)
    assert len(set(question_ids)) == len(question_ids)


def test_the_reader_of_vqav2_reads_every_split() -> None:
    for split, scenes in zip(SPLITS, (400, 4, 4), strict=True):
        data = read_vqav2(written_shapes(), [split], LAYOUT)
        assert len(data.questions) == 6 * scenes
        assert len(data.images) == scenes
        assert all(len(question.answers) == 10 for question in data.questions)
        assert len({(q.image_id, q.question) for q in data.questions}) == len(data.questions)
        for image_id in list(data.images)[:3]:
            assert load_rgb(data.images[image_id]).size == (32, 32)


def test_load_data_writes_and_reads_the_dataset(tmp_path: Path) -> None:
    splits = load_data(shapes_config(tmp_path))
    assert splits.test is not None
    assert [len(part.questions) for part in splits.parts.values()] == [48, 24, 24]


def test_captions_are_read_by_cocos_own_reader() -> None:
    from pycocotools.coco import COCO

    path = written_shapes() / "captions_shapes_train.json"
    coco = COCO(str(path))
    assert len(coco.imgs) == 400
    for image_id, image in coco.imgs.items():
        texts = [caption["caption"] for caption in coco.imgToAnns[image_id]]
        assert len(texts) == 5
        assert all(text and text == text.strip() and "\n" not in text for text in texts)
        assert (image["width"], image["height"]) == (32, 32)
        assert (path.parent / "images" / "train" / image["file_name"]).is_file()
    ids = [caption["id"] for caption in load(path.parent, path.name)["annotations"]]
    assert len(set(ids)) == len(ids) == 2000


def test_every_image_has_a_mask_of_its_objects() -> None:
    folder = written_shapes()
    scenes = load(folder, "shapes_train_evidence.json")["scenes"]
    for image in load(folder, "captions_shapes_train.json")["images"][:50]:
        mask = Image.open(folder / "masks" / "train" / image["file_name"])
        assert mask.mode == "L"
        assert mask.size == (32, 32)
        objects = scenes[str(image["id"])]["objects"]
        assert set(np.unique(np.asarray(mask))) == set(range(len(objects) + 1))


def test_writing_again_does_nothing(tmp_path: Path) -> None:
    folder = written_of(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for split in SPLITS:
        folder.with_name(f".{folder.name}.{split}.{os.getpid()}").touch()  # it would make any writing fail
    assert written_of(tmp_path) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.slow
def test_only_the_split_that_is_read_is_written(tmp_path: Path) -> None:
    whole = tree(written_of(tmp_path / "whole"))
    config = shapes_config(tmp_path / "parts")
    assert len(load_questions_of(config, "test").questions) == 24
    folder = next((tmp_path / "parts").iterdir())
    assert {name: content for name, content in whole.items() if "test" in name} == tree(folder)
    assert len(load_captions_of(config, "val").images) == 4
    assert {name: content for name, content in whole.items() if "train" not in name} == tree(folder)
    with pytest.raises(UserError, match="split=tests: this data has train, val, test"):
        load_questions_of(config, "tests")
    assert tree(write_all(config)) == whole


@pytest.mark.parametrize("moved", [0, 1, 3])
def test_an_incomplete_split_is_never_used_as_a_complete_one(tmp_path: Path, moved: int) -> None:
    """The move of a split fails after some files, and the split is written again."""
    whole = tree(written_of(tmp_path / "whole"))
    count = 0

    def full(*_: object) -> None:
        nonlocal count
        count += 1
        if count > moved:
            raise OSError("the disk is full")

    method = "rename" if moved < 2 else "replace"
    with watched(Path, method, full), pytest.raises(OSError, match="disk is full"):
        written_of(tmp_path / "part")
    folder = tmp_path / "part" / next((tmp_path / "whole").iterdir()).name
    assert not (folder / "shapes_train_evidence.json").exists()
    assert tree(written_of(tmp_path / "part")) == whole


def test_a_disk_that_is_full_while_images_are_drawn_leaves_nothing(tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError("the disk is full")

    with watched(write, "_write_split", full), pytest.raises(OSError, match="disk is full"):
        written_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_files_left_by_a_killed_process_change_nothing(tmp_path: Path) -> None:
    whole = tree(written_of(tmp_path / "whole"))
    name = next((tmp_path / "whole").iterdir()).name
    for process in ("1", str(os.getpid())):
        remains = tmp_path / f".{name}.train.{process}" / "images" / "train"
        remains.mkdir(parents=True)
        (remains / "half.png").write_bytes(b"half")
    assert tree(written_of(tmp_path)) == whole


def test_answer_types_have_their_shares() -> None:
    annotations = load(written_shapes(), "v2_shapes_train_annotations.json")["annotations"]
    shares = Counter(annotation["answer_type"] for annotation in annotations)
    assert 0.28 < shares["yes/no"] / shares.total() < 0.4
    assert 0.1 < shares["number"] / shares.total() < 0.25


def test_the_evidence_file_contains_the_drawn_scenes() -> None:
    from random import Random

    from clipmapper.data.shapes.scene import sample_scene

    folder = written_shapes()
    scenes = load(folder, "shapes_val_evidence.json")["scenes"]
    for index, (image_id, entry) in enumerate(scenes.items()):
        assert int(image_id) % 10_000_000 == index
        scene = sample_scene(Random(f"shapes 0 val {index}"))
        assert len(entry["objects"]) == len(scene.objects)
        for written, o in zip(entry["objects"], scene.objects, strict=True):
            assert written["shape"] == asdict(o.shape)
            assert written["color"] == asdict(o.color)
            assert written["x"] == pytest.approx(o.x, abs=1e-4)
            assert written["y"] == pytest.approx(o.y, abs=1e-4)
            assert written["rgb"] == list(o.rgb)
