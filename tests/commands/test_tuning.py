"""Searches for settings: training returns the value by which a sweeper chooses."""

from __future__ import annotations

import csv
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from tiny_runs import PROJECT, Tiny

from clipmapper.training.trainer import best_score


def monitored(run: Path, name: str) -> list[float]:
    with (run / "log" / "metrics.csv").open() as file:
        return [float(row[name]) for row in csv.DictReader(file) if row[name]]


@pytest.mark.parametrize("task", ["vqa", pytest.param("caption", marks=pytest.mark.slow)])
def test_the_value_is_the_best_on_the_validation_data(task: str, tiny: Tiny, tmp_path: Path) -> None:
    options = (f"task={task}", "trainer.val_check_interval=2")
    tiny.train(tmp_path / "run", *options)
    values = monitored(tmp_path / "run", tiny.config(*options).task.monitor)
    assert len(values) == 4
    assert best_score(tmp_path / "run") == pytest.approx(max(values), rel=1e-6)


def test_a_folder_without_a_checkpoint_has_no_value(tmp_path: Path) -> None:
    assert best_score(tmp_path) is None


@pytest.mark.slow
def test_optuna_keeps_the_trial_with_the_greatest_value(tiny: Tiny, tmp_path: Path) -> None:
    if find_spec("optuna") is None:
        pytest.skip("Optuna is not installed")
    search = ("hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=3")
    line = [sys.executable, "scripts/train.py", "--multirun", *tiny.overrides, *search]
    line += ["task.optim.lr=tag(log, interval(0.0001, 0.1))", f"hydra.sweep.dir={tmp_path}"]
    found = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    results = OmegaConf.load(tmp_path / "optimization_results.yaml")
    runs = [path.parent for path in tmp_path.rglob("metrics.json")]
    assert len(runs) == 3
    values = {float(OmegaConf.load(run / "config.yaml").task.optim.lr): best_score(run) for run in runs}
    assert results.best_value == pytest.approx(max(values.values()))
    assert values[results.best_params["task.optim.lr"]] == results.best_value
