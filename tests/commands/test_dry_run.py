"""A dry run says what a training or a perturbation run needs and names what is missing, and computes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from perturb_runs import Trained
from tiny_runs import PROJECT, Tiny, write_vqav2

from perturbation.perturb import vqa

Command = Callable[..., tuple[int, str, list[str]]]


@pytest.mark.parametrize("task", ["vqa", "caption"])
def test_it_counts_what_is_to_be_encoded_before_and_after(
    task: str, tiny: Tiny, command: Command, tmp_path: Path
) -> None:
    keys = [*tiny.overrides, f"task={task}", f"paths.cache={tmp_path / 'cache'}", f"paths.runs={tmp_path / 'runs'}"]
    status, out, errors = command("train", *keys, "dry_run=true")
    assert (status, errors) == (0, [])
    assert re.search(r"training: 8 steps of 32 samples, predicted time 0:00:\d\d on one device, from 20 t", out), out
    assert re.search(r"images +60 +60 +[\d.]+ [KM]iB +0:00:\d\d", out), out
    assert not list((tmp_path / "runs").rglob("*.ckpt"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_missing_images_are_one_line(tiny: Tiny, command: Command, tmp_path: Path) -> None:
    write_vqav2(tmp_path / "data", splits=("train2014", "val2014", "test2015"))
    keys = [*tiny.base, "data=vqav2", f"data.root={tmp_path / 'data'}", f"paths.root={tmp_path}", "dry_run=true"]
    small = ["data.min_answer_questions=1", "data.reserved=2", "data.test_split=null"]
    gone = sorted((tmp_path / "data" / "images" / "val2014").iterdir())[0]
    gone.unlink()
    status, _, errors = command("train", *keys, *small)
    assert status == 1
    assert errors == [f"error: {gone}: no such image, as 1 of 12; check data.root"]
    gone.write_bytes(b"no image")  # found only when it is read
    more = [*small, "data.on_bad_image=skip", "trainer.max_steps=2", "task.optim.warmup_steps=0", "mapper.width=16"]
    status, out, errors = command("train", *keys, *more, "mapper.heads=2", "mapper.layers=1")
    assert (status, errors) == (0, [])
    assert re.search(r"images +12 +12 ", out), out


def test_the_disk_of_a_cache_that_does_not_exist_yet_is_checked(
    tiny: Tiny, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _disk(monkeypatch, free=1000)
    folders = [f"paths.cache={tmp_path / 'scratch' / 'new'}", f"paths.runs={tmp_path / 'runs'}"]
    (tmp_path / "scratch").mkdir()
    status, _, errors = command("train", *tiny.overrides, "task=vqa", *folders, "dry_run=true")
    assert status == 1
    assert len(errors) == 1
    assert re.match(r"error: paths.cache=\S+new: [\d.]+ [KM]iB are needed for features, but 1000 B are free", errors[0])
    assert asked == [tmp_path / "scratch"]


@pytest.mark.slow
def test_a_disk_that_is_too_small_for_the_parts_is_one_line(
    trained: Trained, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _disk(monkeypatch, free=10)
    more = ["modality=[image]", "steps=[0,0.5,1]", "measure.names=[areas]", "explainer=weighted", "dry_run=true"]
    status, _, errors = command("perturb", *trained.overrides, f"hydra.run.dir={tmp_path / 'run'}", *more)
    assert status == 1
    assert re.fullmatch(r"error: \S+: [\d.]+ KiB are needed for the parts, but 10 B are free", errors[0]), errors
    assert asked == [tmp_path / "run"]


def _disk(monkeypatch: pytest.MonkeyPatch, free: int) -> list[Path]:
    """Give every disk so many free bytes; return the list of the paths that will be asked for."""
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(Path(path))
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return asked


@pytest.mark.slow
def test_a_cpu_times_smaller_steps(tiny: Tiny, command: Command, tmp_path: Path) -> None:
    keys = [*tiny.overrides, "task=vqa", f"paths.root={tmp_path}", "task.optim.batch_size=64"]
    status, out, _ = command("train", *keys, "trainer.accumulate_grad_batches=2", "dry_run=true")
    assert status == 0
    assert re.search(r"training: 8 steps of 128 samples, .* from 20 timed steps of 64 samples on random features", out)


def test_a_perturbation_run_is_counted_and_nothing_is_written(
    trained: Trained, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vqa, "fastest", None)  # which reads more than the dry run
    run = tmp_path / "run"
    keys = [*trained.overrides, f"hydra.run.dir={run}", "modality=[image]", "direction=[positive]", "steps=[0,0.5,1]"]
    more = ["measure.names=[areas]", "explainer=weighted", "engine_batch=null", "dry_run=true"]
    status, out, errors = command("perturb", *keys, *more)
    assert (status, errors) == (0, [])
    # Subsets of a question: the whole image, no patch, and half of the patches by weighted and two random orders.
    assert re.search(r"tested +6 +2 +5 each +[\d.]+ KiB +0:00:\d\d", out), out
    assert "testing: 6 questions, predicted time 0:00:" in out
    assert "results are in" not in out
    assert [path.name for path in run.rglob("*") if path.is_file()] == ["config.yaml"]


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is(trained: Trained, command: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    keys = [*trained.overrides, f"hydra.run.dir={run}", "modality=[image]", "steps=[0,0.5,1]", "measure.names=[areas]"]
    assert command("perturb", *keys)[0] == 0
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert command("perturb", *keys, "dry_run=true")[0] == 0
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


ONLY_AREAS = ("modality=[image]", "direction=[positive]", "steps=[0,0.5,1]", "measure.names=[areas]")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
SRUN = (str(PROJECT / "tests" / "helpers" / "slurm" / "srun"), "--ntasks=2", sys.executable)


@pytest.mark.parametrize(("name", "wrong"), [("train", "encoder.weights=nowhere"), ("perturb", "checkpoint=nowhere")])
def test_of_many_processes_only_the_first_does_it(
    name: str, wrong: str, tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = [*tiny.overrides, wrong, f"hydra.run.dir={tmp_path / 'run'}", "dry_run=true"]
    assert command(name, *keys)[0] == 1
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert command(name, *keys) == (0, "", [])


@pytest.mark.slow
@pytest.mark.parametrize("by", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
@pytest.mark.parametrize("name", ["train", "perturb"])
def test_under_launchers_the_first_process_says_what_one_process_says(
    name: str, by: tuple[str, ...], trained: Trained, command: Command, tmp_path: Path
) -> None:
    own = trained.overrides if name == "perturb" else trained.tiny.overrides
    keys = [*own, *(ONLY_AREAS if name == "perturb" else ()), f"paths.cache={tmp_path / 'cache'}", "dry_run=true"]
    alone, run = tmp_path / "alone", tmp_path / "run"
    status, out, _ = command(name, *keys, f"hydra.run.dir={alone}")
    assert status == 0
    line = [*by, str(PROJECT / "scripts" / f"{name}.py"), *keys, f"hydra.run.dir={run}"]
    environment = {**os.environ, "CLIPMAPPER_TRACE": "0", "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "5678"}
    done = subprocess.run(line, capture_output=True, text=True, env={**environment, "SLURM_NNODES": "1"}, timeout=200)
    assert done.returncode == 0, done.stderr
    assert without_measures(done.stdout, run) == without_measures(out, alone)
    assert not [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert [path.name for path in run.rglob("*") if path.is_file()] == ["config.yaml"]


def without_measures(said: str, run: Path) -> str:
    """Return what a dry run says without the times and the free space, which differ, and the name of its folder."""
    said = re.sub(r"\d+:\d\d:\d\d|[\d.]+ [KMG]iB free|from \d+ timed|\d+ \w+ old", "…", said.replace(str(run), "RUN"))
    return re.sub(r" {2,}|─+", " ", said)
