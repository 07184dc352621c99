"""Training and validation questions that are kept: a second start reads no JSON and gives the same data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from clipmapper.benchmarks.full_size import write
from clipmapper.config.data import VQAv2Config
from clipmapper.data import vqa_files
from clipmapper.data.datasets import Questions, load_data
from clipmapper.data.question_table import QuestionTable
from clipmapper.errors import UserError
from clipmapper.storage import kept


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full {0}")  # braces in a path are no fields
    write(folder, 0.0005, 8)
    return folder / "vqav2"


@pytest.fixture
def config(root: Path, monkeypatch: pytest.MonkeyPatch) -> VQAv2Config:
    monkeypatch.setattr(kept, "SMALLEST", 1)
    monkeypatch.setattr(kept, "SETTLED", 0)
    return VQAv2Config(
        name="vqav2",
        root=str(root),
        train_splits=["train2014", "val2014"],
        reserve_from="val2014",
        reserved=30,
        test_split="val2014",
        min_answer_questions=1,
        answers_file=None,
        on_bad_image="fail",
        seed=0,
    )


def check_equal(found: Questions, expected: Questions) -> None:
    for name, part in expected.parts.items():
        assert found.part(name).questions == part.questions
        assert found.part(name).images == part.images
        assert QuestionTable.of(found.part(name).questions).digest("answers") == QuestionTable.of(
            part.questions
        ).digest("answers")
    assert found.images == expected.images


def test_the_second_reading_is_of_the_kept_parts(
    config: VQAv2Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_data(config)
    check_equal(load_data(config, tmp_path), plain)
    monkeypatch.setattr(vqa_files, "read_json", None)
    monkeypatch.setattr(QuestionTable, "joined", None)
    config.test_split = None
    again = load_data(config, tmp_path)
    assert again.test is None
    check_equal(again, replace(plain, test=None))
    assert Image.open(Path(again.train.images[min(again.train.images)].name)).size == (8, 8)


def test_other_settings_are_read_again(config: VQAv2Config, tmp_path: Path) -> None:
    for change in ({}, {"seed": 1}, {"reserved": 20}, {"train_splits": ["val2014"]}):
        other = replace(config, **change)
        check_equal(load_data(other, tmp_path), load_data(other))


def test_a_missing_folder_of_images_is_named_although_the_questions_are_kept(
    config: VQAv2Config, root: Path, tmp_path: Path
) -> None:
    load_data(config, tmp_path)
    (root / "images").rename(root / "away")
    try:
        with pytest.raises(UserError, match="no such folder"):
            load_data(config, tmp_path)
    finally:
        (root / "away").rename(root / "images")
