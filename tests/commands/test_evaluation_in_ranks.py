"""Evaluation and localisation by two processes, which write the files of one."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from caption_runs import TASK, Captioner
from perturb_runs import Trained
from ranks import in_ranks
from tiny_runs import composed

from clipmapper.cli import typed
from clipmapper.nn import Tokens
from clipmapper.process import together
from clipmapper.tasks.caption import decoding
from clipmapper.tasks.caption.data import prepare_images
from clipmapper.tasks.caption.model import load_caption
from clipmapper.tasks.vqa import evaluation
from clipmapper.tasks.vqa.data import VQABatch
from clipmapper.training.batches import Batches, in_order
from explain.explainers import Weighted
from perturbation.config import LocaliseConfig
from perturbation.localise import vqa


class Echo(torch.nn.Module):
    """A model whose answer is the number in its input, and that counts its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches = 0

    def forward(self, image: Tokens, text: Tokens) -> torch.Tensor:
        self.batches += 1
        return torch.eye(8)[image.features[:, 0, 0].long() % 8]


class Numbers:
    """A dataset whose item is its number."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, rows: list[int]) -> VQABatch:
        values = torch.tensor(rows, dtype=torch.float32)[:, None, None]
        tokens = Tokens(values, torch.ones(len(rows), 1, dtype=torch.bool), torch.zeros(len(rows), 1))
        return VQABatch(tokens, tokens, torch.zeros(len(rows), 8), torch.tensor(rows))


def test_two_processes_answer_half_of_the_batches_each(tmp_path: Path) -> None:
    def answer(rank: int) -> tuple[list[int], int]:
        model = Echo()
        answers, _ = evaluation.predict(model, Numbers(), 2)  # type: ignore[arg-type]
        return answers.tolist(), model.batches

    expected = [number % 8 for number in range(11)]
    assert in_ranks(tmp_path, answer) == [(expected, 3), (expected, 3)]


def test_two_processes_validate_all_samples_once_in_equally_many_batches() -> None:
    for count in (2, 255, 257, 513, 1000):
        batches = Batches(range(9), range(count), 4, 10, 0)  # type: ignore[arg-type]
        shares = []
        for rank in range(2):
            batches.trainer = type("Trainer", (), {"global_rank": rank, "world_size": 2})()
            shares.append(list(batches.val_dataloader().sampler))
        assert sorted(row for share in shares for rows in share for row in rows) == list(range(count))
        assert len(shares[0]) == len(shares[1])
        assert max(len(rows) for share in shares for rows in share) <= 257


@pytest.mark.parametrize(("limit", "expected"), [(None, 4), (1.0, 4), (0.5, 2), (0.01, 1), (3, 3), (1, 1), (9, 4)])
def test_validation_is_limited_to_batches_or_a_share(limit: float | None, expected: int) -> None:
    batches = Batches(range(9), range(1000), 4, 10, 0, limit=limit)  # type: ignore[arg-type]
    batches.trainer = type("Trainer", (), {"global_rank": 0, "world_size": 1})()
    assert list(batches.val_dataloader().sampler) == in_order(1000, 256)[:expected]


def test_two_processes_caption_as_one(captioner: Captioner, tmp_path: Path) -> None:
    config = captioner.tiny.config(*TASK)
    images, model = prepare_images(config, "test").images("test"), load_caption(captioner.checkpoint, config)
    rows = list(range(len(images)))
    expected = decoding.caption_images(model, images, rows, 6, 3)

    def caption(rank: int) -> list[str]:
        return decoding.caption_images(model, images, rows, 6, 3)

    assert in_ranks(tmp_path, caption) == [expected, expected]


@pytest.mark.slow
def test_two_processes_localise_as_one(trained: Trained, tmp_path: Path) -> None:
    keys = (f"checkpoint={trained.checkpoint}", "samples=4", "batch_size=2", "explainer=weighted")
    config: LocaliseConfig = typed(composed("evaluate_explanations", *trained.tiny.overrides, *keys), LocaliseConfig)
    explainers = {"weighted": Weighted()}
    folders = [tmp_path / name for name in ("alone", "0", "1")]
    for folder in folders:
        folder.mkdir()

    def localise(rank: int) -> int:
        with redirect_stdout(StringIO()):
            vqa.run_localisation(config, explainers, folders[1 + rank])
        return together.world()

    vqa.run_localisation(config, explainers, folders[0])
    assert in_ranks(tmp_path, localise) == [2, 2]
    assert not list(folders[2].iterdir())
    for name in ("localisation.parquet", "localisation.md", "localisation.json"):
        assert (folders[1] / name).read_bytes() == (folders[0] / name).read_bytes()
