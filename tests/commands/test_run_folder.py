"""No command writes into the folder of a run that is not its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from perturb_runs import Trained
from watching import watched

from clipmapper.cli import decorator
from clipmapper.config.run_folder import may_write
from clipmapper.errors import UserError
from clipmapper.process.partial import alone_in
from perturbation.cli import COMMANDS

Command = Callable[..., tuple[int, str, list[str]]]
TRAINING = ("config.yaml", "split.json", "identity.json", "metrics.json", "checkpoints/best.ckpt", "log/metrics.csv")


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'{{"file": "{name}"}}')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "perturb"])
def test_every_command_refuses_the_folder_of_a_run(name: str, tmp_path: Path, command: Command) -> None:
    run = filled(tmp_path / "run", *TRAINING)
    before = contents(run)
    status, _, errors = command(name, f"hydra.run.dir={run}")
    assert (status, len(errors)) == (1, 1)
    assert f"hydra.run.dir={run} contains the files of another run; give a new folder" in errors[0]
    assert contents(run) == before


@pytest.mark.parametrize("names", [TRAINING, ("config.yaml", "identity.json"), ("config.yaml", "scores.jsonl")])
def test_perturb_refuses_the_folder_of_another_run(
    names: tuple[str, ...], trained: Trained, tmp_path: Path, command: Command
) -> None:
    run = filled(tmp_path / "run", *names)
    before = contents(run)
    status, _, errors = command("perturb", *trained.overrides, f"hydra.run.dir={run}")
    assert (status, len(errors)) == (1, 1)
    assert str(run) in errors[0]
    assert contents(run) == before


@pytest.mark.parametrize("names", [(), ("config.yaml",), ("notes.txt",)])
def test_a_folder_without_a_run_is_used(names: tuple[str, ...], tmp_path: Path) -> None:
    assert may_write(filled(tmp_path, *names), None, [])


def test_only_the_run_that_is_resumed_is_continued_in_its_folder(tmp_path: Path) -> None:
    run = filled(tmp_path / "run", *TRAINING)
    assert not may_write(run, str(run), [])
    assert not may_write(run, str(tmp_path / "run" / ".." / "run"), [])
    assert not may_write(run, None, ["identity.json"])
    for resume, continued in ((None, []), (str(tmp_path), []), (None, ["stages.json"])):
        with pytest.raises(UserError, match="contains the files of another run"):
            may_write(run, resume, continued)


@pytest.mark.parametrize("name", ["train", "explain", "report", "perturb", "reproduce"])
@pytest.mark.parametrize("others", [False, True])
def test_a_command_refuses_the_folder_of_one_that_still_runs(
    name: str, others: bool, tmp_path: Path, command: Command
) -> None:
    """The other one has written no more than its config; it may be a shard, which lets other shards in."""
    run = filled(tmp_path / "run", "config.yaml")
    before = contents(run)
    wrong = "mapper.width=0" if name == "train" else "samples=-1"  # otherwise it would run if it was not refused
    with alone_in(run, others):
        status, _, errors = command(name, wrong, f"hydra.run.dir={run}")
    assert status == 1
    said = f"hydra.run.dir={run} is used by a command that still runs; wait for its end, or give a new folder"
    assert errors == [f"error: {said}"]
    assert contents(run) == before


def test_a_failed_command_leaves_the_folder_of_a_run_that_has_begun(tmp_path: Path, command: Command) -> None:
    run = filled(tmp_path / "run", "config.yaml")
    assert command("pool_seeds", "runs=[a,b]", f"hydra.run.dir={run}")[0] == 1
    assert (run / "config.yaml").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_process_removes_the_config(
    rank: int, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file appears late, as a shared file system may show it."""
    run = filled(tmp_path / "run")
    run.mkdir()
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    with watched(decorator, "remove_left_over", lambda _: filled(run, "config.yaml")):
        assert command("train", "mapper.width=0", f"hydra.run.dir={run}")[0] == 1
    assert run.exists() == (rank == 1)


FIRST_SHARD = ("config.yaml", "parts/shards-of-3", "log/events.out.tfevents.1", "wandb/run.wandb")


@pytest.mark.parametrize("names", [(), ("config.yaml",), FIRST_SHARD])
@pytest.mark.parametrize("wrong", ["samples=0", "checkpoint=missing.ckpt"])
def test_a_shard_that_fails_leaves_the_files_of_another(
    wrong: str, names: tuple[str, ...], trained: Trained, tmp_path: Path, command: Command
) -> None:
    """The other one has begun, and has not yet written the identity of the run."""
    run = filled(tmp_path / "run", *names)
    run.mkdir(exist_ok=True)
    keys = [*trained.overrides, "shard=2/3", wrong, f"hydra.run.dir={run}"]
    with alone_in(run, others=True):
        status, _, errors = command("perturb", *keys)
    assert (status, len(errors)) == (1, 1)
    assert wrong.partition("=")[2] in errors[0]
    assert {*names} <= contents(run).keys()
    assert run.is_dir()


def test_a_shard_refuses_the_folder_of_another_command(trained: Trained, tmp_path: Path, command: Command) -> None:
    for names in (TRAINING, ("config.yaml", "scores.jsonl")):
        run = filled(tmp_path / names[-1], *names)
        before = contents(run)
        status, _, errors = command("perturb", *trained.overrides, "shard=2/3", f"hydra.run.dir={run}")
        assert (status, len(errors)) == (1, 1)
        assert str(run) in errors[0]
        assert contents(run) == before
