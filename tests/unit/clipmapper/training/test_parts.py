"""The parts of training, each against a slow or closed form."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import Tiny

from clipmapper.config.tasks import OptimConfig
from clipmapper.data.records import Question, VQAData
from clipmapper.tasks.vqa.data import VQADataset
from clipmapper.tasks.vqa.training import soft_accuracy, soft_label_loss
from clipmapper.training.batches import StepSampler, in_order
from clipmapper.training.checkpoint_files import WholeCheckpointIO
from clipmapper.training.module import learning_rate_factor

SIZES = st.integers(1, 40)


@settings(max_examples=60, deadline=None)
@given(size=SIZES, batch=st.integers(1, 50), seed=st.integers(0, 3))
def test_every_epoch_holds_each_question_once(size: int, batch: int, seed: int) -> None:
    steps = math.ceil(3 * size / batch)
    batches = list(StepSampler(size, batch, steps, seed))
    assert [len(rows) for rows in batches] == [batch] * steps
    flat = [row for rows in batches for row in rows]
    for epoch in range(3):
        assert sorted(flat[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_epochs_and_seeds_are_shuffled_each_in_its_own_way() -> None:
    orders = {tuple(rows) for seed in (0, 1) for rows in StepSampler(50, 50, 3, seed)}
    assert len(orders) == 6
    assert tuple(range(50)) not in orders


@settings(max_examples=60, deadline=None)
@given(size=SIZES, batch=st.integers(1, 30), start=st.integers(0, 12))
def test_a_batch_does_not_depend_on_where_training_began(size: int, batch: int, start: int) -> None:
    whole = list(StepSampler(size, batch, 12, 5))
    resumed = StepSampler(size, batch, 12, 5)
    resumed.start = start
    assert list(resumed) == whole[start:]
    assert list(resumed) == whole[start:]
    assert len(resumed) == 12


@settings(max_examples=60, deadline=None)
@given(size=SIZES, batch=st.integers(4, 30), world=st.integers(1, 4))
def test_the_processes_share_a_batch_among_them(size: int, batch: int, world: int) -> None:
    shares = [list(StepSampler(size, batch, 6, 2, rank, world)) for rank in range(world)]
    for step, rows in enumerate(StepSampler(size, batch, 6, 2)):
        assert Counter(row for share in shares for row in share[step]) == Counter(rows)
        assert max(len(share[step]) for share in shares) - min(len(share[step]) for share in shares) <= 1


def test_evaluation_reads_every_row_once_in_order() -> None:
    assert in_order(5, 2) == [[0, 1], [2, 3], [4]]
    assert in_order(4, 2) == [[0, 1], [2, 3]]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_loss_is_that_of_a_loop_over_answers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 0.3, 0.6, 0.9, 1])[torch.randint(5, (5, 7), generator=generator)].double()
    total = 0.0
    for row in range(5):
        for answer in range(7):
            p = 1 / (1 + math.exp(-float(logits[row, answer])))
            t = float(targets[row, answer])
            total -= t * math.log(p) + (1 - t) * math.log(1 - p)
    assert float(soft_label_loss(logits, targets)) == pytest.approx(total / 5, rel=1e-12)


def test_the_accuracy_is_the_score_of_the_answer_given() -> None:
    targets = torch.tensor([[0.3, 1.0, 0.0], [0.6, 0.0, 0.9]])
    logits = torch.tensor([[2.0, -1.0, 0.0], [-3.0, -2.0, -1.0]])
    assert float(soft_accuracy(logits, targets)) == pytest.approx((0.3 + 0.9) / 2)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (0, 0.01),
        (49, 0.5),
        (99, 1),
        (100, 1),
        (299, 1),
        (300, 1),
        (525, 0.5 + math.sqrt(0.5) / 2),
        (750, 0.5),
        (1200, 0),
        (2000, 0),
    ],
)
def test_the_learning_rate_is_warmed_up_held_and_let_down(step: int, factor: float) -> None:
    optim = OptimConfig(lr=1.0, batch_size=1, warmup_steps=100, decay_start=300)
    assert learning_rate_factor(step, optim, 1200) == pytest.approx(factor, abs=1e-12)


def test_the_learning_rate_without_warm_up_and_without_decay() -> None:
    optim = OptimConfig(lr=1.0, batch_size=1, warmup_steps=0, decay_start=10)
    assert [learning_rate_factor(step, optim, 10) for step in range(10)] == [1] * 10
    assert learning_rate_factor(10, optim, 10) == 1


def features(widths: dict[object, int], missing: tuple[object, ...] = ()) -> SimpleNamespace:
    """Items whose tokens all hold the item's place."""
    return SimpleNamespace(
        place={item: k for k, item in enumerate(widths)},
        missing=dict.fromkeys(missing, "gone"),
        gather=lambda places: torch.from_numpy(np.asarray(places)).clone(),
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


def test_a_batch_joins_pictures_questions_and_targets(data: VQAData) -> None:
    batch = dataset(data)[[2, 0]]
    assert batch.rows.tolist() == [2, 0]
    assert batch.image.tolist() == [2, 0]
    assert batch.text.tolist() == [0, 2]
    torch.testing.assert_close(batch.targets, torch.tensor([[0.0, 0, 0], [1, 0.6, 0.3]]))
    assert dataset(data).without_target == 1


def test_questions_without_a_picture_are_left_out_and_counted(
    data: VQAData, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = dataset(data, missing=(6,))
    assert [q.question_id for q in kept.questions] == [11, 13]
    assert [q.question_id for q in kept.left_out] == [12]
    assert kept[[0, 1]].image.tolist() == [0, 2]
    assert capsys.readouterr().err == "1 questions are left out: their images could not be read\n"


def test_the_blind_see_one_constant(data: VQAData) -> None:
    rows = [0, 1, 2]
    assert len(set(dataset(data, sees="question")[rows].image.tolist())) == 1
    assert dataset(data, sees="question")[rows].text.tolist() == [2, 1, 0]
    assert len(set(dataset(data, sees="image")[rows].text.tolist())) == 1
    assert dataset(data, sees="image")[rows].image.tolist() == [0, 1, 2]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "checkpoints" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, place)
    original = type(place).write_bytes

    def full(self, content) -> None:
        original(self, bytes(content)[:40])
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(type(place), "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        WholeCheckpointIO().save_checkpoint({"step": 2}, place)
    assert torch.load(place, weights_only=True) == {"step": 1}
    assert list(place.parent.iterdir()) == [place]


def test_lightning_is_told_what_the_config_says(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    original = pl.Trainer.__init__

    def init(self: pl.Trainer, **values: Any) -> None:
        told.update(values)
        original(self, **values)

    monkeypatch.setattr(pl.Trainer, "__init__", init)
    tiny.train(tmp_path / "run", "trainer.precision=bf16-mixed", "trainer.gradient_clip_val=null")
    assert told["precision"] == "bf16-mixed"
    assert told["gradient_clip_val"] is None
    assert told["accelerator"] == "cpu"
