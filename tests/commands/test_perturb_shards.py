"""Shards of a perturbation run: the bytes of one run, and one line about what is missing, doubled or of another run."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout
from killed_runs import killed_after
from perturb_runs import Trained, results
from ranks import CONTEXT
from tiny_runs import finish, script
from watching import watched

from clipmapper.errors import UserError
from clipmapper.features import claims
from clipmapper.files import read_json, write_json
from clipmapper.process import partial
from clipmapper.process.stop_line import StartedRun
from perturbation.perturb import lightning, shards
from perturbation.perturb import run as run_module
from perturbation.perturb.shards import Shard, merging

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


def test_a_shard_that_another_process_computes_is_refused(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.perturb(tmp_path, THREE, "shard=1/3")
    with (
        Shard(2, 3).claimed(tmp_path),
        pytest.raises(UserError, match=r"shard=2/3: process \d+ on .* computes it in .*; give another shard"),
    ):
        trained.perturb(tmp_path, THREE, "shard=2/3")
    assert "this one waits" not in capsys.readouterr().out


@pytest.mark.parametrize("renewed", [True, False])
def test_a_shard_waits_for_the_claim_of_a_machine_that_may_have_ended(
    renewed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A requeued job finds the claim of its former node, which ends because it is not renewed."""
    monkeypatch.setattr(claims, "EXPIRES", 1.0)
    monkeypatch.setattr(claims, "RENEWED", 0.1 if renewed else 60.0)
    for name, seconds in (("EXPIRES", 1.0), ("RENEWED", 0.5), ("_LOOKS", 0.05)):
        monkeypatch.setattr(shards, name, seconds)
    monkeypatch.setattr(partial, "place", lambda: "0" * 8)
    (tmp_path / "parts").mkdir()
    with Shard(2, 3).claimed(tmp_path):
        monkeypatch.setattr(partial, "place", lambda: "1" * 8)
        refused = pytest.raises(UserError, match=r"shard=2/3: process \d+ on .* computes it")
        with refused if renewed else nullcontext(), Shard(2, 3).claimed(tmp_path):
            assert not renewed
    assert capsys.readouterr().out.count("has claimed shard 2/3, and may have ended; this one waits") == 1


def test_a_shard_of_another_run_is_refused_by_what_differs(trained: Trained, tmp_path: Path) -> None:
    trained.perturb(tmp_path, THREE, "shard=1/3")
    with pytest.raises(UserError, match=r"contains a run with .*seed=0, but this run has .*seed=1"):
        trained.perturb(tmp_path, THREE, "shard=2/3", "seed=1")
    with pytest.raises(UserError, match=r"contains a run with .*seed=0, but this run has .*seed=1"):
        trained.perturb(tmp_path / "merged", THREE, "seed=1", f"merge={tmp_path}")


def test_only_one_shard_at_a_time_writes_the_identity_of_the_run(trained: Trained, tmp_path: Path) -> None:
    """Otherwise each of two that differ could find none, and compute parts under the name of the other's."""

    def see(*_: object) -> None:
        assert (tmp_path / "parts" / "shards-of-3").is_file()
        with pytest.raises(Timeout):
            FileLock(tmp_path / "parts" / ".lock").acquire(timeout=0)

    with watched(run_module, "open_run", see):
        trained.perturb(tmp_path, THREE, "shard=1/3")


def test_a_merged_run_is_not_merged_again(trained: Trained, one: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(one, run)
    with (
        watched(run_module, "merge", lambda *_: pytest.fail("the parts are merged again")),
        watched(lightning, "write_part", lambda *_: pytest.fail("a part is computed again")),
    ):
        assert trained.perturb(run, THREE, "shard=1/3") == read_json(one / "perturbation.json")
    (run / "perturbation.json").write_text("{")  # damaged
    trained.perturb(run, THREE, "shard=1/3")
    assert results(run) == results(one)


def test_a_merge_is_claimed_for_as_long_as_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another shard, on this machine or elsewhere, waits meanwhile, and merges if this one fails."""
    monkeypatch.setattr(claims, "RENEWED", 0.05)
    monkeypatch.setattr(claims, "EXPIRES", 1.0)
    monkeypatch.setattr(shards, "_LOOKS", 0.05)
    (tmp_path / "parts").mkdir()
    merged: list[bool] = []

    def other() -> None:
        with merging(tmp_path, Shard(2, 2)) as merges:
            merged.append(merges)

    thread = threading.Thread(target=other)
    with merging(tmp_path, Shard(1, 2)) as merges:
        assert merges
        thread.start()
        time.sleep(2)
        assert merged == []
    thread.join(10)
    assert merged == [True]
    assert [*(tmp_path / "parts").glob(".claim*")] == []
    write_json(tmp_path / "perturbation.json", {"rows": []})
    with merging(tmp_path, Shard(1, 2)) as merges:
        assert not merges


@pytest.mark.parametrize(
    ("shard", "content", "what"),
    [(["shard=2/3"], {}, "parts"), (["shard=2/3"], {"rows": []}, "results"), ([], {"rows": []}, "results")],
)
def test_the_last_line_says_what_is_in_the_folder(
    shard: list[str],
    content: dict[str, object],
    what: str,
    trained: Trained,
    command: Callable[..., tuple[int, str, list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "perturb", lambda *_: content)
    status, out, _ = command("perturb", *trained.overrides, *shard, f"hydra.run.dir={tmp_path}")
    assert status == 0
    assert out.splitlines()[-1] == f"{what} are in {tmp_path}"


def test_a_stopped_shard_goes_on_with_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-000000.samples.parquet").touch()
    said = StartedRun("perturb", tmp_path, ["shard=2/3", f"hydra.run.dir={tmp_path}"]).stopped("SIGTERM")
    assert said.endswith(f"; its state is in {tmp_path}; to go on run the same command again")


@pytest.mark.slow
def test_a_shard_that_fails_early_does_not_disturb_another(
    trained: Trained, one: Path, tmp_path: Path, command: Callable[..., tuple[int, str, list[str]]]
) -> None:
    """The first one has started its logger, but has not written the identity of the run; a third one does."""
    run = tmp_path / "run"
    keys = [*trained.overrides, "explainer=weighted", THREE, "logger=tensorboard", f"hydra.run.dir={run}"]
    done: list[tuple[int, str, str]] = []

    def others(*_: object) -> None:
        assert not (run / "identity.json").exists()
        assert [*(run / "log").glob("events*")]
        done.append(finish("perturb", [*keys, "shard=2/3", f"checkpoint={tmp_path / 'missing.ckpt'}"]))
        done.append(finish("perturb", [*keys, "shard=3/3"]))

    with watched(run_module, "identify", others):
        status, out, _ = command("perturb", *keys, "shard=1/3")
    assert (status, out.splitlines()[-1]) == (0, f"parts are in {run}")
    assert [code for code, _, _ in done] == [1, 0], done
    assert "missing.ckpt" in done[0][2]
    assert command("perturb", *keys, "shard=2/3")[0] == 0
    assert results(run) == results(one)


@pytest.mark.slow
@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 1, 2)])
def test_shards_that_run_at_the_same_time_write_the_bytes_of_one_run(
    order: tuple[int, ...], trained: Trained, tmp_path: Path
) -> None:
    six, run = ("batch_samples=1", "measure.names=[areas]"), tmp_path / "run"
    trained.perturb(tmp_path / "one", *six)
    keys = [*trained.overrides, *six, "explainer=weighted", f"hydra.run.dir={run}"]
    together = CONTEXT.Barrier(4)

    def compute(number: int, place: int) -> None:
        """Run a command in a fork of this process."""
        torch.set_num_threads(1)
        with (tmp_path / f"{number}.txt").open("w") as log, redirect_stdout(log), redirect_stderr(log):
            main = script("perturb").main
            together.wait(60)
            time.sleep(0.3 * place if order[0] > 1 else 0)
            status = 0
            try:
                with watched(run_module, "merge", lambda *_: (tmp_path / f"merged by {number}").touch()):
                    main([*keys, f"shard={number}/4"])
            except SystemExit as leaving:
                status = int(leaving.code or 0)
        os._exit(status)

    started = [CONTEXT.Process(target=compute, args=(number, place)) for place, number in enumerate(order)]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    said = {number: (tmp_path / f"{number}.txt").read_text() for number in order}
    assert [process.exitcode for process in started] == [0] * 4, said
    assert results(run) == results(tmp_path / "one")
    assert len([*tmp_path.glob("merged by *")]) == 1
    assert [*run.rglob(".*.partial"), *run.rglob("*claim*")] == []
    for text in said.values():
        unfinished = "the last shard merges them" in text
        assert text.splitlines()[-1] == f"{'parts' if unfinished else 'results'} are in {run}"


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
