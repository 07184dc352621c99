"""The perturbation tests of any model: unreadable images, and what the seed draws."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sample_models
from any_model_runs import QUESTIONS, of_table, run_perturb, write_table
from tiny_runs import composed

from clipmapper.any_model.load import LoadedModel
from clipmapper.cli import typed
from clipmapper.errors import UserError
from perturbation.config import PerturbModelConfig
from perturbation.pairs.tests import PairTests
from perturbation.perturb import any_model
from perturbation.perturb.identity import IMAGES

pytest.importorskip("transformers")
SHORT = ("steps=[0,0.5,1]", "random_seeds=1")


@pytest.fixture(autouse=True)
def _clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loaded model is a tiny CLIP."""
    loaded = LoadedModel(*sample_models.clip(), "tiny", dual=True)
    monkeypatch.setattr(any_model, "load_model", lambda config: loaded)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.csv", answers=False)


def built(table: Path, *overrides: str) -> Any:
    config = typed(composed("perturb", *of_table(Path("tiny"), table, *overrides)), PerturbModelConfig)
    return any_model.build_tests(config, [], {})


def test_an_unreadable_first_image_is_left_out_and_told(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its batch has no other image; the records of the others do not depend on it, nor on the batches."""
    run_perturb(of_table(Path("tiny"), table, *SHORT), tmp_path / "whole")
    bad = tmp_path / "0.png"
    bad.write_bytes(b"")
    capsys.readouterr()
    skip = ("data.on_bad_image=skip", "batch_samples=1")
    content = run_perturb(of_table(Path("tiny"), table, *SHORT, *skip), tmp_path / "found")
    told = {line.split("; ")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")}
    assert told == {f"skipped: {bad}: the file is empty"}
    assert {row["samples"] for row in content["rows"]} == {len(QUESTIONS) - 1}
    key = ["sample_id", "modality", "explainer", "seed", "direction"]
    whole, found = (
        pd.read_parquet(tmp_path / name / "samples.parquet").sort_values(key) for name in ("whole", "found")
    )
    left = whole[whole["sample_id"] != 0]
    assert found[key].to_numpy().tolist() == left[key].to_numpy().tolist()
    assert set(found["sample_id"]) == {1, 2, 3, 4}
    np.testing.assert_allclose(np.stack(found["similarity"]), np.stack(left["similarity"]), atol=1e-5)
    with pytest.raises(UserError, match=f"^{bad}: the file is empty; replace it with an intact copy"):
        run_perturb(of_table(Path("tiny"), table, *SHORT), tmp_path / "failed")


def test_a_copy_of_the_table_and_its_photos_is_the_same_run(table: Path, tmp_path: Path) -> None:
    shutil.copytree(table.parent, copy := tmp_path.with_name(f"{tmp_path.name}-copy"))
    one, other = built(table), built(copy / table.name)
    assert other.content == one.content
    (copy / "3.png").unlink()
    assert {name for name, value in built(copy / table.name).content.items() if value != one.content[name]} == {IMAGES}


def test_data_without_a_readable_image_is_refused(table: Path) -> None:
    for number in range(len(QUESTIONS)):
        (table.parent / f"{number}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^none of the chosen images could be read; check the data$"):
        built(table, "data.on_bad_image=skip")


def test_an_unreadable_later_image_ends_the_run(table: Path) -> None:
    (table.parent / "3.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"3\.png: the file is empty"):
        built(table, "batch_samples=1").record(3, None)


def test_a_batch_begins_after_all_drawn_samples_before_it(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that were left out count, so a resumed run and another process find the same number."""
    (table.parent / "0.png").write_bytes(b"")
    monkeypatch.setattr(PairTests, "record", lambda _, pairs, start: ([pair.id for pair in pairs], start))
    tests = built(table, "data.on_bad_image=skip", "batch_samples=2")
    assert [tests.record(number, None) for number in range(3)] == [([1], 0), ([2, 3], 2), ([4], 4)]


def test_the_seed_draws_the_samples_and_images_that_were_not_drawn_are_not_read(table: Path) -> None:
    first, second = (sorted(np.random.default_rng(seed).permutation(len(QUESTIONS))[:2].tolist()) for seed in (0, 5))
    assert first != second
    for number in set(range(len(QUESTIONS))) - set(second):
        (table.parent / f"{number}.png").unlink()
    tests = built(table, "samples=2", "seed=5")
    assert [row for rows in tests.batches for row in rows] == second
    assert tests.tests.seed == 5
