"""The stages of an experiment: their order, what a stopped or failed one changes, and what is printed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from tiny_runs import composed

from clipmapper.arguments import for_hydra
from clipmapper.errors import UserError
from perturbation.reproduce import run
from perturbation.reproduce.run import run_stages
from perturbation.reproduce.stages import Stage, planned, restore, save

# A stand-in for the commands: it makes its folder, adds its arguments to calls.txt, and fails where fail.txt names it.
STAND_IN = """
import sys
import time
from pathlib import Path
name, *arguments = sys.argv[1:]
folder = Path(next(a for a in arguments if a.startswith("hydra.run.dir=")).partition("=")[2])
root = folder.parent
with open(root / "calls.txt", "a") as calls:
    print(name, *arguments, file=calls)
fail = root / "fail.txt"
if fail.exists() and folder.name in fail.read_text().split():
    print("something else")
    print("error: no such data; give data.root")
    sys.exit(1)
folder.mkdir(exist_ok=True)
together = root / "together.txt"
names = together.read_text().split() if together.exists() else []
if folder.name in names:
    until = time.monotonic() + 30
    while not all((root / each).exists() for each in names):
        if time.monotonic() > until:
            sys.exit(1)
        time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "COMMAND", (sys.executable, "-c", STAND_IN))


def three() -> list[Stage]:
    train = {"title": "train it", "command": "train", "arguments": ["mapper=b"]}
    perturb = {"title": "remove tokens", "command": "perturb", "arguments": ["checkpoint=<first>"]}
    check = {"title": "check it", "command": "sanity_check", "arguments": []}
    return planned({"first": train, "second": perturb, "third": check}, ["threads=1"])


def reproduce(stages: list[Stage], folder: Path, jobs: int = 1) -> list[str]:
    """Run the stages, and return the names of those that did not end well."""
    return [stage.name for stage in run_stages(stages, folder, jobs)]


def calls(folder: Path) -> list[str]:
    path = folder / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_stages_run_in_order_with_their_arguments(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reproduce(three(), tmp_path)
    assert calls(tmp_path) == [
        f"train threads=1 mapper=b hydra.run.dir={tmp_path}/first",
        f"perturb threads=1 checkpoint={tmp_path}/first hydra.run.dir={tmp_path}/second",
        f"sanity_check threads=1 hydra.run.dir={tmp_path}/third",
    ]
    first, second, third = capfd.readouterr().out.splitlines()
    assert re.fullmatch(r"\[1/3\] train it: 0:00:\d\d; 2 left", first)
    assert re.fullmatch(r"\[2/3\] remove tokens: 0:00:\d\d; 1 left", second)
    assert re.fullmatch(r"\[3/3\] check it: 0:00:\d\d", third)


def test_two_jobs_run_together_what_does_not_wait(tmp_path: Path) -> None:
    """The first and the third stage need each other's file, so one after the other they would never end."""
    (tmp_path / "together.txt").write_text("first third")
    assert reproduce(three(), tmp_path, jobs=2) == []
    assert sorted(line.split()[0] for line in calls(tmp_path)[:2]) == ["sanity_check", "train"]
    assert calls(tmp_path)[2].startswith("perturb ")


def test_a_stage_waits_for_those_it_names(tmp_path: Path) -> None:
    wait = {"title": "wait", "command": "explain", "arguments": [], "after": ["slow"]}
    slow = {"title": "slow", "command": "train", "arguments": []}
    assert reproduce(planned({"slow": slow, "wait": wait}, []), tmp_path, jobs=2) == []
    assert [line.split()[0] for line in calls(tmp_path)] == ["train", "explain"]
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "fail.txt").write_text("slow")
    assert reproduce(planned({"slow": slow, "wait": wait}, []), tmp_path / "again", jobs=2) == ["slow", "wait"]


def test_a_second_run_repeats_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    reproduce(three(), tmp_path)
    reproduce(three(), tmp_path)
    assert len(calls(tmp_path)) == 3
    assert capfd.readouterr().out.splitlines()[3:] == ["3 of 3 stages were done before"]


def test_other_arguments_or_a_removed_folder_run_a_stage_again(tmp_path: Path) -> None:
    reproduce(three(), tmp_path)
    changed = three()
    changed[1].arguments.append("samples=2")
    reproduce(changed, tmp_path)
    assert [line.split()[0] for line in calls(tmp_path)[3:]] == ["perturb"]
    (tmp_path / "third").rmdir()
    reproduce(changed, tmp_path)
    assert [line.split()[0] for line in calls(tmp_path)[4:]] == ["sanity_check"]


def test_a_failed_stage_skips_only_those_that_need_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fail.txt").write_text("first")
    stages = three()
    assert reproduce(stages, tmp_path) == ["first", "second"]
    assert [stage.status for stage in stages] == ["failed", "skipped", "done"]
    assert stages[0].error == "no such data; give data.root"
    first, second, _ = capfd.readouterr().out.splitlines()
    assert first == "[1/3] train it: failed: no such data; give data.root; 2 left"
    assert second == "[2/3] remove tokens: skipped: it needs the stage first, which did not end well; 1 left"
    held = json.loads((tmp_path / "stages.json").read_text())
    assert [(entry["name"], entry["status"]) for entry in held] == [
        ("first", "failed"),
        ("second", "skipped"),
        ("third", "done"),
    ]
    (tmp_path / "fail.txt").unlink()
    reproduce(three(), tmp_path)
    assert [line.split()[0] for line in calls(tmp_path)] == ["train", "sanity_check", "train", "perturb"]


def test_a_stopped_training_is_resumed(tmp_path: Path) -> None:
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    last.parent.mkdir(parents=True)
    last.touch()
    reproduce(three(), tmp_path)
    stopped = tmp_path / "first.stopped-1"
    assert calls(tmp_path)[0] == f"train threads=1 mapper=b resume={stopped} hydra.run.dir={tmp_path}/first"
    assert (stopped / "checkpoints" / "last.ckpt").exists()


def test_a_folder_with_files_is_never_used_again(tmp_path: Path) -> None:
    """A stopped test is continued, another stage starts again, and other arguments continue nothing."""
    for name in ("second/identity.json", "third/sanity.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    reproduce(three(), tmp_path)
    second, third = calls(tmp_path)[1:]
    assert f" resume={tmp_path / 'second.stopped-1'} " in second
    assert "resume=" not in third
    assert (tmp_path / "third.stopped-1" / "sanity.csv").exists()
    (tmp_path / "second" / "identity.json").write_text("{}")
    changed = three()
    changed[1].arguments.append("samples=2")
    reproduce(changed, tmp_path)
    assert "resume=" not in calls(tmp_path)[3]
    assert (tmp_path / "second.stopped-2" / "identity.json").exists()


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        (
            {"one": {"title": "t", "command": "train"}},
            r"stages\.one has the keys command, title; give title, command, arguments and after",
        ),
        ({"one": {"title": "t", "command": "trian", "arguments": []}}, r"stages\.one\.command=trian is no command"),
        ({"one": {"title": "t", "command": "reproduce", "arguments": []}}, r"command=reproduce is no command"),
        (
            {"one": {"title": "t", "command": "train", "arguments": ["a=<two>"]}},
            "needs two, which is no stage before one",
        ),
        (
            {"one": {"title": "t", "command": "train", "arguments": ["a=<one>"]}},
            "needs one, which is no stage before one",
        ),
    ],
)
def test_an_impossible_plan_is_refused(stages: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        planned(stages, [])


@pytest.mark.parametrize(
    "name", ["quickstart", *(pytest.param(name, marks=pytest.mark.slow) for name in ("shapes", "paper"))]
)
def test_every_stage_of_an_experiment_has_a_valid_config(name: str, tmp_path: Path) -> None:
    config = composed("reproduce", f"experiment={name}", f"paths.root={tmp_path}")
    stages = planned(OmegaConf.to_container(config.stages), config.shared)  # type: ignore[arg-type]
    assert len(stages) > 5
    for stage in stages:
        folder = tmp_path / "a=1, (b)"
        config = composed(stage.command, *for_hydra(stage.filled(folder)))
        used = config.runs if stage.command == "pool_seeds" else [config.checkpoint] if "checkpoint" in config else []
        assert all(Path(path).parent == folder for path in used if path not in (None, "shipped"))


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    stages = three()
    save(stages, tmp_path)
    (tmp_path / "stages.json").write_text('[{"names": 1}]')
    with pytest.raises(UserError, match=r"stages\.json: not a list of stages; remove it"):
        restore(stages, tmp_path)
