"""Tests of question batches: images, texts and targets belong together, also with one input hidden."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from clipmapper.data.records import Question, VQAData
from clipmapper.tasks.vqa.data import VQADataset


def features(widths: dict[object, int], missing: tuple[object, ...] = ()) -> SimpleNamespace:
    """Return fake features in which each item's tokens are the item's position."""
    return SimpleNamespace(
        place={item: k for k, item in enumerate(widths)},
        missing=dict.fromkeys(missing, "gone"),
        store=SimpleNamespace(gather=lambda places: torch.from_numpy(np.asarray(places)).clone()),
    )


class Vocabulary:
    answers = ("yes", "no", "2")

    def __len__(self) -> int:
        return 3

    def index(self, answer: str) -> int | None:
        return self.answers.index(answer) if answer in self.answers else None


def question(number: int, image: int, *answers: str) -> Question:
    given = tuple({"answer": answer, "answer_id": k} for k, answer in enumerate(answers, 1))
    return Question(number, image, f"question {number}?", given, answers[0], "other", "what")


@pytest.fixture
def data() -> VQAData:
    asked = (
        question(11, 5, *["yes"] * 7, "no", "no", "2"),
        question(12, 6, *["no"] * 10),
        question(13, 7, *["blue"] * 10),
    )
    return VQAData(asked, {})


def dataset(data: VQAData, missing: tuple[int, ...] = (), sees: str = "both") -> VQADataset:
    images = features({5: 1, 6: 1, 7: 1}, missing)
    texts = features({f"question {n}?": 1 for n in (13, 12, 11)})
    return VQADataset(data, images, texts, Vocabulary(), sees)  # type: ignore[arg-type]


def test_a_batch_has_the_images_questions_and_targets_of_its_rows(data: VQAData) -> None:
    batch = dataset(data)[[2, 0]]
    assert batch.rows.tolist() == [2, 0]
    assert batch.image.tolist() == [2, 0]
    assert batch.text.tolist() == [0, 2]
    torch.testing.assert_close(batch.targets, torch.tensor([[0.0, 0, 0], [1, 0.6, 0.3]]))
    assert dataset(data).without_target == 1


def test_questions_without_a_readable_image_are_left_out_and_counted(
    data: VQAData, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = dataset(data, missing=(6,))
    assert [q.question_id for q in kept.questions] == [11, 13]
    assert [q.question_id for q in kept.left_out] == [12]
    assert kept[[0, 1]].image.tolist() == [0, 2]
    assert capsys.readouterr().err == "1 questions are left out: their images could not be read\n"


def test_a_hidden_input_is_the_same_for_all_questions(data: VQAData) -> None:
    rows = [0, 1, 2]
    assert len(set(dataset(data, sees="question")[rows].image.tolist())) == 1
    assert dataset(data, sees="question")[rows].text.tolist() == [2, 1, 0]
    assert len(set(dataset(data, sees="image")[rows].text.tolist())) == 1
    assert dataset(data, sees="image")[rows].image.tolist() == [0, 1, 2]
