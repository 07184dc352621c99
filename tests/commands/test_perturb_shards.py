"""Shards of a perturbation run: the bytes of one run, and one line about what is missing, doubled or of another run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from killed_runs import killed_after
from perturb_runs import Trained, results
from watching import watched

from clipmapper.errors import UserError
from perturbation.perturb import lightning
from perturbation.perturb.shards import Shard

THREE = "batch_samples=2"  # three parts


@pytest.fixture(scope="module")
def one(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that one job has computed."""
    run = tmp_path_factory.mktemp("one") / "run"
    trained.perturb(run, THREE)
    return run


@pytest.mark.parametrize("of", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [1, 3, 12])
def test_every_part_belongs_to_one_shard(of: int, count: int) -> None:
    shards = [Shard(number, of).numbers(count) for number in range(1, of + 1)]
    assert sorted(number for shard in shards for number in shard) == list(range(count))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_the_last_of_the_shards_writes_the_bytes_of_one_run(trained: Trained, one: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert trained.perturb(run, THREE, "shard=2/3") == {}
    with killed_after(0):
        trained.perturb(run, THREE, "shard=1/3")
    assert trained.perturb(run, THREE, "shard=3/3") == {}
    assert not (run / "perturbation.json").exists()
    assert trained.perturb(run, THREE, "shard=1/3")["rows"]
    assert results(run) == results(one)


def test_shards_are_merged_without_computing(trained: Trained, one: Path, tmp_path: Path) -> None:
    run = tmp_path / "shards"
    trained.perturb(run, THREE, "shard=2/3")
    said = rf"merge={run}: shards 1/3, 3/3 are not finished; .* with shard=1/3 hydra.run.dir={run}"
    with pytest.raises(UserError, match=said):
        trained.perturb(tmp_path / "early", THREE, f"merge={run}")
    for number in (1, 3):
        shutil.copytree(run, copied := tmp_path / f"copied-{number}")  # as if both ended without seeing the other
        trained.perturb(copied, THREE, f"shard={number}/3")
        shutil.copytree(copied / "parts", tmp_path / "parts", dirs_exist_ok=True)
    shutil.copytree(tmp_path / "parts", run / "parts", dirs_exist_ok=True)
    with watched(lightning, "write_part", lambda *_: pytest.fail("a part is computed")):
        trained.perturb(tmp_path / "merged", THREE, f"merge={run}")
    assert results(tmp_path / "merged") == results(one)


def test_a_shard_that_another_process_computes_is_refused(trained: Trained, tmp_path: Path) -> None:
    trained.perturb(tmp_path, THREE, "shard=1/3")
    with (
        Shard(2, 3).claimed(tmp_path),
        pytest.raises(UserError, match=r"shard=2/3: process \d+ on .* computes it in .*; give another shard"),
    ):
        trained.perturb(tmp_path, THREE, "shard=2/3")


def test_a_shard_of_another_run_is_refused_by_what_differs(trained: Trained, tmp_path: Path) -> None:
    trained.perturb(tmp_path, THREE, "shard=1/3")
    with pytest.raises(UserError, match=r"contains a run with .*seed=0, but this run has .*seed=1"):
        trained.perturb(tmp_path, THREE, "shard=2/3", "seed=1")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["shard=0/3"], "shard=0/3 is not null or NUMBER/SHARDS such as 3/64"),
        (["shard=4/3"], "shard=4/3 is not null or NUMBER/SHARDS"),
        (["shard=1/3", "merge=runs/x"], "shard and merge: give one of them"),
        (["shard=1/3"], "shard=1/3: give hydra.run.dir=FOLDER"),
    ],
)
def test_what_no_shard_is_ends_in_one_line(
    keys: list[str], said: str, command: Callable[..., tuple[int, str, list[str]]], tmp_path: Path
) -> None:
    status, _, errors = command("perturb", f"paths.root={tmp_path}", *keys)
    assert status == 1
    assert len(errors) == 1
    assert said in errors[0]
