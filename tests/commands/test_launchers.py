"""Launchers run the same command: one run folder for all processes, and the numbers of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import PROJECT, Tiny, checkpoint_of, weights_of

STUBS = PROJECT / "tests" / "helpers" / "slurm"
STEPS = ("trainer.max_steps=4", "trainer.val_check_interval=2", "task.optim.name=adam")
SCRIPT = (sys.executable, str(PROJECT / "scripts" / "train.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", SCRIPT[1])
SRUN = (str(STUBS / "srun"), "--ntasks=2", *SCRIPT)
STEP = {"SLURM_JOB_ID": "1234", "SLURM_NNODES": "1"}


def launched(line: tuple[str, ...], arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CLIPMAPPER_TRACE": "0", "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run([*line, *arguments], capture_output=True, text=True, env=environment, timeout=500)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["torchrun", "srun", "sweep"])
def test_every_launcher_trains_as_one_process(by: str, tiny: Tiny, tmp_path: Path) -> None:
    tiny.train(tmp_path / "one", *STEPS)
    arguments = [*tiny.overrides, *STEPS, f"paths.runs={tmp_path / 'runs'}"]
    if by == "sweep":
        done = launched(SCRIPT, ["--multirun", *arguments, "trainer=ddp", "seed=0,1"])
    else:
        done = launched(SRUN if by == "srun" else TORCHRUN, arguments, **STEP)
    assert done.returncode == 0, done.stderr
    folders = [path.parent for path in sorted((tmp_path / "runs").rglob("config.yaml"))]
    assert len(folders) == (2 if by == "sweep" else 1)
    assert len(list((tmp_path / "runs" / "train").glob("*/*"))) == len(folders)
    assert done.stdout.count("run folder: ") == done.stdout.count("results are in ") == len(folders)
    expected = weights_of(tmp_path / "one")
    for name, tensor in weights_of(folders[0]).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=2e-5)
    scores = [checkpoint_of(folder)["callbacks"] for folder in (tmp_path / "one", folders[0])]
    assert len(scores[0]) == len(scores[1])
    for folder in folders:
        assert {"metrics.json", "identity.json", "split.json"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_an_error_of_many_processes_is_one_line(tiny: Tiny, tmp_path: Path) -> None:
    wrong = [*tiny.overrides, f"paths.runs={tmp_path}", "trainer.num_nodes=3"]
    done = launched(SRUN, wrong, **STEP)
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == ["error: trainer.num_nodes=3: srun started 1 nodes; give trainer.num_nodes=1, or leave it out"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
