"""The pooled report of runs of several training seeds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from no_figures import without_figures
from perturb_runs import Trained, records
from tiny_runs import Tiny

from clipmapper.checkpoint import read_checkpoint
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.training.checkpoint_file import write_checkpoint
from perturbation.perturb.results import pool
from perturbation.statistics import seed_interval


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Runs of two models on the same questions."""
    folder = tmp_path_factory.mktemp("seeds")
    tiny.train(folder / "trained")
    content = read_checkpoint(folder / "trained" / "checkpoints" / "best.ckpt")
    found = []
    for seed in (0, 1):
        draw = torch.Generator().manual_seed(seed)
        for tensor in content["state_dict"].values():
            tensor += 0.2 * torch.randn(tensor.shape, generator=draw)
        write_checkpoint(folder / f"{seed}.ckpt", content)
        run = folder / f"run{seed}"
        Trained(tiny, folder / f"{seed}.ckpt").perturb(run, "controls=[uniform]", "faithfulness=false", "eraser=[]")
        found.append(run)
    return found


@pytest.fixture(scope="module")
def whole(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pooled report of the runs."""
    folder = tmp_path_factory.mktemp("pooled")
    with without_figures():
        assert pool(runs, folder) == read_json(folder / "pooled.json")
    return folder


def test_areas_are_the_means_over_runs(runs: list[Path], whole: Path) -> None:
    pooled = read_json(whole / "pooled.json")
    singles = [json.loads((run / "perturbation.json").read_text())["rows"] for run in runs]
    for row, *each in zip(pooled["rows"], *singles, strict=True):
        for key in ("auc", "probability_auc"):
            assert row[key] == pytest.approx(np.mean([one[key] for one in each]))
        low, high = row["probability_auc_ci95"]
        assert low <= row["probability_auc"] <= high
    assert {file.name for file in whole.iterdir()} >= {"pooled.json", "comparisons.json", "areas_accuracy.md"}


def test_the_interval_covers_seeds_and_samples(runs: list[Path], whole: Path) -> None:
    row = read_json(whole / "pooled.json")["rows"][0]
    keys = ("explainer", "modality", "direction")
    values = [
        [r["probability"] for r in records(run) if all(r[key] == row[key] for key in keys)] for run in runs
    ]  # [runs, samples, steps]
    expected = seed_interval(np.asarray(values), shared_samples=True, seed=0)
    np.testing.assert_allclose(row["probability_ci95"], expected)


def test_comparisons_contain_the_difference_of_each_run(runs: list[Path], whole: Path) -> None:
    pooled = read_json(whole / "comparisons.json")
    singles = [json.loads((run / "comparisons.json").read_text()) for run in runs]
    assert len(pooled) == len(singles[0]) > 0
    for row, *each in zip(pooled, *singles, strict=True):
        assert row["runs"] == pytest.approx([one["difference"] for one in each])
        assert row["difference"] == pytest.approx(np.mean(row["runs"]))


def test_refused_runs(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each with a different checkpoint"):
        pool([runs[0], runs[0]], tmp_path)
    with pytest.raises(UserError, match="each with a different checkpoint"):
        pool(runs[:1], tmp_path)
    with pytest.raises(UserError, match="no finished perturbation run"):
        pool([runs[0], tmp_path], tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    identity = json.loads((runs[1] / "identity.json").read_text())
    identity["config"]["samples"] = 7
    write_json(other / "identity.json", identity)
    (other / "perturbation.json").write_text("{}")
    with pytest.raises(
        UserError, match=f"samples=7, but {runs[0]} has samples=6: pool runs that differ in the checkpoint only"
    ):
        pool([runs[0], other], tmp_path)


def test_the_script(runs: list[Path], tmp_path: Path, command: Callable[..., tuple[int, str, list[str]]]) -> None:
    folders = ",".join(map(str, runs))
    code, out, _ = command("pool_seeds", f"runs=[{folders}]", f"hydra.run.dir={tmp_path}")
    assert code == 0
    [gap] = [
        row["gap"]
        for row in read_json(tmp_path / "pooled.json")["gaps"]
        if (row["explainer"], row["modality"], row["measure"]) == ("weighted", "image", "accuracy")
    ]
    [first, *_] = [line for line in out.splitlines() if line.startswith("weighted ")]  # the table of the images
    assert f" {gap:.1f} [" in first
    code, _, errors = command("pool_seeds", f"hydra.run.dir={tmp_path / 'other'}")
    assert code == 1
    assert errors[-1].startswith("error: config key runs has no value")
