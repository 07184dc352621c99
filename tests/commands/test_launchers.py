"""Launchers run the same command: one run folder for all processes, and the numbers of one process."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from perturb_runs import Trained
from safetensors.torch import load_file
from slurm_jobs import STUBS, logs_of, scripts_of_the_page, submit, wait_for
from tiny_runs import PROJECT, Tiny, assert_same_weights, checkpoint_of, weights_of

from clipmapper.files import read_json
from clipmapper.training.trainer import best_score

STEPS = ("trainer.max_steps=4", "trainer.val_check_interval=2", "task.optim.name=adam")
SCRIPT = (sys.executable, str(PROJECT / "scripts" / "train.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", SCRIPT[1])
SRUN = (str(STUBS / "srun"), "--ntasks=2", *SCRIPT)
STEP = {"SLURM_JOB_ID": "1234", "SLURM_NNODES": "1"}
NODES = (str(STUBS / "srun"), "--ntasks=2", "--nodes=2", *SCRIPT)


def launched(line: tuple[str, ...], arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLIPMAPPER_TRACE": "0", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([*line, *arguments], capture_output=True, text=True, env=environment, timeout=500)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["torchrun", "srun", "sweep"])
def test_every_launcher_trains_as_one_process(by: str, tiny: Tiny, tmp_path: Path) -> None:
    seeds = ["0", "1"] if by == "sweep" else ["0"]
    for seed in seeds:
        tiny.train(tmp_path / seed, *STEPS, f"seed={seed}")
    arguments = [*tiny.overrides, *STEPS, f"paths.runs={tmp_path / 'runs'}"]
    if by == "sweep":
        done = launched(SCRIPT, ["--multirun", *arguments, "trainer=ddp", "seed=0,1"])
    else:
        done = launched(SRUN if by == "srun" else TORCHRUN, arguments, **STEP)
    assert done.returncode == 0, done.stderr
    folders = folders_of(tmp_path / "runs")
    assert len(folders) == len(seeds)
    assert len(list((tmp_path / "runs" / "train").glob("*/*"))) == len(folders)
    assert done.stdout.count("run folder: ") == done.stdout.count("results are in ") == len(folders)
    for seed, folder in zip(seeds, folders, strict=True):
        assert best_score(folder) == pytest.approx(best_score(tmp_path / seed), abs=1e-6)
        for name in ("best", "last"):
            expected = weights_of(tmp_path / seed, name)
            for key, tensor in weights_of(folder, name).items():
                torch.testing.assert_close(tensor, expected[key], rtol=1e-4, atol=2e-5)
    for folder in folders:
        assert {"metrics.json", "identity.json", "split.json"} <= {path.name for path in folder.iterdir()}


@pytest.fixture(scope="module")
def two(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training with two processes on one machine, with its runs and with a cache that was empty."""
    folder = tmp_path_factory.mktemp("two")
    done = launched(SCRIPT, [*tiny.overrides, *STEPS, *in_folder(folder), "trainer=ddp", "trainer.devices=2"])
    assert done.returncode == 0, done.stderr
    return folder


def in_folder(folder: Path) -> list[str]:
    return [f"paths.runs={folder / 'runs'}", f"paths.cache={folder / 'cache'}"]


def encoded(folder: Path) -> list[tuple[str, ...]]:
    """Return the store and the key of every item in the shards of a cache."""
    shards = (folder / "cache" / "stores").glob("*/shard-*.safetensors")
    return sorted((path.parent.name, *map(str, key)) for path in shards for key in load_file(path)["keys"].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("by", ["srun", "torchrun"])
def test_two_nodes_train_as_two_processes_of_one(by: str, two: Path, tiny: Tiny, tmp_path: Path) -> None:
    arguments = [*tiny.overrides, *STEPS, *in_folder(tmp_path)]
    if by == "srun":
        done = [launched(NODES, arguments, **STEP)]
    else:
        with ThreadPoolExecutor() as agents:
            done = [*agents.map(launched, [torchrun_of_a_node(free_port())] * 2, [arguments] * 2)]
    assert [each.returncode for each in done] == [0] * len(done), "".join(each.stderr for each in done)
    said = "".join(each.stdout for each in done)
    assert said.count("run folder: ") == said.count("results are in ") == 1
    (folder,), (expected,) = folders_of(tmp_path), folders_of(two)
    assert len([path for path in tmp_path.glob("runs/*/*/*") if path.is_dir()]) == 1
    assert_same_weights(weights_of(folder), weights_of(expected))
    assert read_json(folder / "metrics.json")["test"] == read_json(expected / "metrics.json")["test"]
    assert encoded(tmp_path) == encoded(two)
    assert len({*encoded(two)}) == len(encoded(two)) > 60  # each of the 60 images and of the questions once


def torchrun_of_a_node(port: int) -> tuple[str, ...]:
    """Return the line that starts one process on a node, where the nodes meet at a port of this machine."""
    meeting = ("--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--local-addr=127.0.0.1")
    return (*TORCHRUN[:-2], "--nnodes=2", "--nproc-per-node=1", *meeting, SCRIPT[1])


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def folders_of(runs: Path) -> list[Path]:
    return [path.parent for path in sorted(runs.rglob("config.yaml"))]


@pytest.mark.slow
def test_nodes_with_unequal_numbers_of_processes_are_refused_in_one_line(tiny: Tiny, tmp_path: Path) -> None:
    line = (str(STUBS / "srun"), "--ntasks=3", "--nodes=2", *SCRIPT)
    done = launched(line, [*tiny.overrides, f"paths.runs={tmp_path}"], **STEP)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    assert re.fullmatch(r"error: srun started 3 processes on 2 nodes, .*: give srun --ntasks-per-node=N", lines[0])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "submitit_slurm", "joblib"])
def test_hydra_s_launchers_run_the_jobs_of_a_sweep(launcher: str, tiny: Tiny, tmp_path: Path) -> None:
    folder = [] if launcher == "joblib" else [f"hydra.launcher.submitit_folder={tmp_path / 'jobs'}", "trainer=ddp"]
    keys = [*tiny.overrides, *STEPS, f"hydra/launcher={launcher}", *folder, "seed=0,1"]
    named = [f"hydra.sweep.dir={tmp_path / 'runs'}", "hydra.sweep.subdir=${hydra.job.num}"]
    path = f"{STUBS}:{os.environ['PATH']}" if launcher == "submitit_slurm" else os.environ["PATH"]
    done = launched(SCRIPT, ["--multirun", *keys, *named], PATH=path, STUB_SLURM=str(tmp_path))
    assert done.returncode == 0, done.stderr
    for number in ("0", "1"):
        assert (tmp_path / "runs" / number / "metrics.json").is_file()
        assert checkpoint_of(tmp_path / "runs" / number)["clipmapper"]["seed"] == int(number)


@pytest.mark.slow
def test_the_scripts_of_the_page_run_unchanged(tiny: Tiny, tmp_path: Path) -> None:
    train, shards = scripts_of_the_page()
    run, keys = tmp_path / "run", [*tiny.overrides, *STEPS]
    submit(train, [*keys, "trainer.max_steps=4"], tmp_path, run, "--ntasks-per-node=2")
    wait_for(tmp_path / "done-1000")
    assert (run / "metrics.json").is_file(), logs_of(tmp_path)
    few = ["samples=6", "batch_samples=3", "engine_batch=16", f"checkpoint={run}"]
    submit(shards, [*tiny.overrides, *few], tmp_path, tmp_path / "test", "--array=1-2", SHARDS="2")
    wait_for(tmp_path / "done-1100")
    assert (tmp_path / "test" / "perturbation.json").is_file(), logs_of(tmp_path)
    assert {each.read_text() for each in tmp_path.glob("status-*")} == {"0\n"}


@pytest.mark.slow
def test_an_error_of_many_processes_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    wrong = [*tiny.overrides, f"paths.runs={tmp_path}", "trainer.num_nodes=3"]
    done = launched(SRUN, wrong, **STEP)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ["error: trainer.num_nodes=3: srun started 1 nodes; give trainer.num_nodes=1, or leave it out"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["perturb", "evaluate", "evaluate_explanations"])
def test_two_processes_of_any_launcher_write_the_files_of_one(name: str, trained: Trained, tmp_path: Path) -> None:
    checkpoint = f"checkpoint={trained.checkpoint}"
    overrides = trained.overrides if name == "perturb" else (*trained.tiny.overrides, checkpoint)
    few = ["samples=4", "batch_size=2", "explainer=weighted"] if name == "evaluate_explanations" else []
    script = str(PROJECT / "scripts" / f"{name}.py")
    found = {}
    for by, line in {"alone": (SCRIPT[0],), "torchrun": TORCHRUN[:-1], "srun": SRUN[:-1]}.items():
        variables = STEP if by == "srun" else {}
        done = launched((*line, script), [*overrides, *few, f"paths.runs={tmp_path / by}"], **variables)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run folder: ") == done.stdout.count("results are in ") == 1
        (folder,) = folders_of(tmp_path / by)
        found[by] = {path.name: content_of(path) for path in folder.iterdir() if path.is_file()}
    del found["alone"]["config.yaml"], found["torchrun"]["config.yaml"], found["srun"]["config.yaml"]
    assert len(found["alone"]) > 2
    assert found["torchrun"] == found["alone"]
    assert found["srun"] == found["alone"]


def content_of(file: Path) -> object:
    """Return the bytes of a file, or the content of a JSON object without the config, which has the folder's name."""
    content = read_json(file) if file.suffix == ".json" else None
    if not isinstance(content, dict):
        return file.read_bytes()
    return {key: value for key, value in content.items() if key != "config"}
