"""No command writes into the folder of a run that is not its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from perturb_runs import Trained

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
    assert may_write(filled(tmp_path, *names), None, None)


def test_only_the_run_that_is_resumed_is_continued_in_its_folder(tmp_path: Path) -> None:
    run = filled(tmp_path / "run", *TRAINING)
    assert not may_write(run, str(run), None)
    assert not may_write(run, str(tmp_path / "run" / ".." / "run"), None)
    assert not may_write(run, None, "identity.json")
    for resume, continued in ((None, None), (str(tmp_path), None), (None, "stages.json")):
        with pytest.raises(UserError, match="contains the files of another run"):
            may_write(run, resume, continued)


@pytest.mark.parametrize("name", ["train", "explain", "report"])
def test_a_command_refuses_the_folder_of_one_that_still_runs(name: str, tmp_path: Path, command: Command) -> None:
    """The other one has written no more than its config."""
    run = filled(tmp_path / "run", "config.yaml")
    before = contents(run)
    with alone_in(run):
        status, _, errors = command(name, f"hydra.run.dir={run}")
    assert status == 1
    said = f"hydra.run.dir={run} is used by a command that still runs; wait for its end, or give a new folder"
    assert errors == [f"error: {said}"]
    assert contents(run) == before
