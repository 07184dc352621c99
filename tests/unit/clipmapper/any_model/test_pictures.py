"""Explanations of samples of which the first cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sample_models
from any_model_runs import QUESTIONS, of_table, write_table
from no_figures import without_figures
from tiny_runs import composed

from clipmapper.any_model.load import LoadedModel
from clipmapper.any_model.pictures import write_pictures
from clipmapper.cli import typed
from clipmapper.config.explain import ModelPictureConfig
from clipmapper.errors import UserError
from explain import explainers

pytest.importorskip("transformers")


def explained(table: Path, *overrides: str) -> pd.DataFrame:
    """Explain three samples of a table with a tiny CLIP, and return the scores."""
    run = table.parent / "run"
    run.mkdir(exist_ok=True)
    loaded = LoadedModel(*sample_models.clip(), "tiny", dual=True)
    config = typed(composed("explain", *of_table(Path("tiny"), table, "samples=3", *overrides)), ModelPictureConfig)
    given = {"weighted": explainers.Weighted(), "shuffled": explainers.Shuffled()}  # one of them cannot explain it
    with without_figures():
        write_pictures(loaded, given, config, run)
    return pd.read_parquet(run / "scores.parquet")


def drawn(seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(len(QUESTIONS))[:3].tolist()


def test_an_unreadable_first_image_is_left_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_table(tmp_path / "table.csv", answers=False)
    whole = explained(table)
    first, *others = drawn(0)
    assert whole["sample_id"].drop_duplicates().tolist() == [first, *others]
    bad = tmp_path / f"{first}.png"
    bad.write_bytes(b"")
    capsys.readouterr()
    found = explained(table, "data.on_bad_image=skip")
    told = [line.split("; ")[0] for line in capsys.readouterr().err.splitlines()]
    assert told.count(f"skipped: {bad}: the file is empty") == 1
    assert told.count("explainer shuffled is left out: it needs samples of other images") == 1
    assert set(found["explainer"]) == {"weighted"}
    assert found["sample_id"].drop_duplicates().tolist() == others
    left = whole[whole["sample_id"] != first].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, left, rtol=1e-6, atol=1e-9)
    with pytest.raises(UserError, match=f"^{bad}: the file is empty; replace it with an intact copy"):
        explained(table)
    for number in others:
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(UserError, match=r"^none of the chosen images could be read; check the data$"):
        explained(table, "data.on_bad_image=skip")


def test_the_seed_draws_the_samples(tmp_path: Path) -> None:
    found = explained(write_table(tmp_path / "table.csv", answers=False), "seed=3")
    assert found["sample_id"].drop_duplicates().tolist() == drawn(3) != drawn(0)
