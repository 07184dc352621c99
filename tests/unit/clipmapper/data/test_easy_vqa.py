"""Writing easy-VQA in VQAv2's format."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from watching import watched

from clipmapper.data.easy_vqa import EASY_VQA, SPLITS, write_easy_vqa
from clipmapper.data.images import load_rgb
from clipmapper.data.splitting import merge
from clipmapper.data.vqa_files import read_vqav2
from clipmapper.errors import UserError


@pytest.fixture
def small_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the package by one with the same interface, but with 3 images instead of 5000."""
    paths = {}
    for image_id, color in enumerate(("red", "teal", "gray")):
        paths[image_id] = str(tmp_path / f"{image_id}.png")
        Image.new("RGB", (8, 8), color).save(paths[image_id])
    train = (
        ["what color is the shape?", "is there a circle?", "is a red shape present?"],
        ["red", "no", "no"],
        [0, 0, 1],
    )
    package = SimpleNamespace(
        get_train_questions=lambda: train,
        get_test_questions=lambda: (["what shape is in the image?"], ["circle"], [0]),
        get_train_image_paths=lambda: {0: paths[0], 1: paths[1]},
        get_test_image_paths=lambda: {0: paths[2]},
    )
    monkeypatch.setitem(sys.modules, "easy_vqa", package)


@pytest.mark.usefixtures("small_package")
def test_the_written_dataset_is_read_like_vqav2(tmp_path: Path) -> None:
    root = tmp_path / "data" / "easy_vqa"
    write_easy_vqa(root)
    train, test = (read_vqav2(root, [split], EASY_VQA) for split in SPLITS)
    assert [record.question_id for record in train.questions] == [0, 1, 1000]
    assert [record.answer_type for record in train.questions] == ["other", "yes/no", "yes/no"]
    assert [record.question_type for record in train.questions] == ["what color", "is there", "is a"]
    assert [answer["answer"] for answer in train.questions[0].answers] == ["red"] * 10
    assert [answer["answer_id"] for answer in train.questions[0].answers] == list(range(1, 11))
    assert train.questions[0].multiple_choice_answer == "red"
    assert load_rgb(train.images[0]).getpixel((0, 0)) == (255, 0, 0)
    assert load_rgb(test.images[2]).getpixel((0, 0)) == (128, 128, 128)
    assert len(merge(train, test).images) == 3


@pytest.mark.usefixtures("small_package")
def test_a_second_run_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "easy_vqa"
    write_easy_vqa(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    monkeypatch.setitem(sys.modules, "easy_vqa", None)  # the written dataset does not need the package
    write_easy_vqa(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.usefixtures("small_package")
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "data" / "easy_vqa"
    copies = []

    def interrupt(_source: str, copy: Path) -> None:
        copies.append(copy)
        raise KeyboardInterrupt

    with watched(shutil, "copyfile", interrupt), pytest.raises(KeyboardInterrupt):
        write_easy_vqa(root)
    assert copies
    assert list(root.parent.iterdir()) == []
    write_easy_vqa(root)
    assert len(read_vqav2(root, SPLITS, EASY_VQA).questions) == 4


@pytest.mark.usefixtures("small_package")
def test_another_process_may_be_faster(tmp_path: Path) -> None:
    root = tmp_path / "easy_vqa"
    package: Any = sys.modules["easy_vqa"]  # the package of the fixture
    questions = package.get_test_questions

    def read_while_another_writes() -> Any:
        package.get_test_questions = questions
        write_easy_vqa(root)
        return questions()

    package.get_test_questions = read_while_another_writes
    write_easy_vqa(root)
    assert len(read_vqav2(root, SPLITS, EASY_VQA).questions) == 4


@pytest.mark.usefixtures("small_package")
def test_an_unusable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="full: contains other files than those of easy_vqa"):
        write_easy_vqa(tmp_path / "full")
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "easy_vqa"):
        with pytest.raises(UserError, match=r"cannot be written .*; choose another folder"):
            write_easy_vqa(root)
    assert (tmp_path / "file").is_file()


def test_a_missing_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "easy_vqa", None)
    with pytest.raises(UserError, match="pip install easy-vqa"):
        write_easy_vqa(tmp_path / "easy_vqa")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_real_package(tmp_path: Path) -> None:
    """The expected numbers are those of the package's README."""
    pytest.importorskip("easy_vqa")
    root = tmp_path / "easy_vqa"
    write_easy_vqa(root)
    train, test = (read_vqav2(root, [split], EASY_VQA) for split in SPLITS)
    for data, images, questions, yes_no in ((train, 4000, 38575, 28407), (test, 1000, 9673, 7136)):
        assert len(data.images) == images
        assert len(data.questions) == questions
        assert Counter(record.answer_type for record in data.questions)["yes/no"] == yes_no
        assert load_rgb(data.images[next(iter(data.images))]).size == (64, 64)
    both = merge(train, test)
    assert len({record.multiple_choice_answer for record in both.questions}) == 13
    assert all(Path(image.name).is_file() for image in both.images.values())
