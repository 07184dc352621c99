"""Several processes write one feature store at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clipmapper.encoder.features import FeatureStore, open_or_none, write_store

FORK = multiprocessing.get_context("fork")


def batches() -> Iterator[list[np.ndarray]]:
    for number in range(3):
        yield [np.full((2, 4), number, np.float32)]


def write(folder: Path, start: multiprocessing.synchronize.Barrier) -> None:
    start.wait(60)
    if open_or_none(folder) is None:
        write_store(folder, batches(), "float16")
    assert FeatureStore(folder).lengths.tolist() == [2, 2, 2]


@pytest.mark.parametrize("damaged", [False, True])
@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_all_have_a_complete_store(tmp_path: Path, rounds: int, damaged: bool) -> None:
    for number in range(rounds):
        folder = tmp_path / f"texts-{number}"
        if damaged:
            folder.mkdir()
            (folder / "meta.json").write_text("{}")
        start = FORK.Barrier(8)
        writers = [FORK.Process(target=write, args=(folder, start)) for _ in range(8)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        assert [writer.exitcode for writer in writers] == [0] * 8
    assert {path.name for path in tmp_path.iterdir()} == {f"texts-{n}" for n in range(rounds)}
