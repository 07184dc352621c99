"""The synthetic files of full size: a small share of them has the counts and formats that the readers expect."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipmapper.benchmarks.full_size import SPLITS, TEST, TEST_DEV, write, write_test
from clipmapper.data.caption_files import read_karpathy
from clipmapper.data.images import load_rgb
from clipmapper.data.vqa_files import VQAV2, read_vqav2
from clipmapper.features.hashes import hash_of
from clipmapper.tasks.submission import check_answers

SHARE = 0.001


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("full")
    write(root, SHARE, 16)
    return root


def test_the_questions_have_the_counts_and_fields_of_vqav2(folder: Path) -> None:
    for split, (_, count) in SPLITS.items():
        data = read_vqav2(folder / "vqav2", [split])
        assert len(data.questions) == int(count * SHARE)
        assert {len(question.answers) for question in data.questions} == {10}
        assert {question.answer_type for question in data.questions} <= {"yes/no", "number", "other"}
    whole = read_vqav2(folder / "vqav2", list(SPLITS))
    assert len(whole.questions) == sum(int(count * SHARE) for _, count in SPLITS.values())
    entry = json.loads((folder / "vqav2" / VQAV2.annotations.format(split="val2014")).read_text())["annotations"][0]
    assert [*entry["answers"][0]] == ["answer", "answer_confidence", "answer_id"]


def test_the_captions_have_karpathys_splits(folder: Path) -> None:
    file, images = folder / "coco" / "dataset_coco.json", folder / "coco" / "images"
    sizes = {split: len(read_karpathy(file, images, split).images) for split in ("train", "val", "test", "restval")}
    total = sum(int(count * SHARE) for count, _ in SPLITS.values())
    assert sizes == {"train": total - 10, "val": 5, "test": 5, "restval": int(SPLITS["val2014"][0] * SHARE) - 10}
    captions = [image.captions for image in read_karpathy(file, images, "train").images]
    assert {len(each) for each in captions} <= {5, 6}


def test_no_two_images_have_the_same_bytes(folder: Path) -> None:
    files = sorted((folder / "images").rglob("*.jpg"))
    assert len(files) == sum(int(count * SHARE) for count, _ in SPLITS.values())
    assert len({hash_of(file.read_bytes()) for file in files}) == len(files)
    data = read_vqav2(folder / "vqav2", list(SPLITS))
    assert {load_rgb(image).size for image in data.images.values()} == {(16, 16)}


def test_the_test_split_has_questions_and_answers_for_the_server(tmp_path: Path) -> None:
    write_test(tmp_path, SHARE, 16)
    root = tmp_path / "vqav2"
    whole, part = (read_vqav2(root, [split]) for split in ("test2015", "test-dev2015"))
    assert (len(whole.questions), len(part.questions)) == (int(TEST[1] * SHARE), int(TEST_DEV * SHARE))
    assert {each.question_id for each in part.questions} < {each.question_id for each in whole.questions}
    assert len(list((root / "images" / "test2015").iterdir())) == int(TEST[0] * SHARE)
    assert {load_rgb(image).size for image in whole.images.values()} == {(16, 16)}
    results = root / "vqa_OpenEnded_mscoco_test2015_synthetic_results.json"
    check_answers(results, root / VQAV2.questions.format(split="test2015"))
