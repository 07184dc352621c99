"""Whole commands with an encoder like SigLIP: no class token, and texts that fill the context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from folder_models import write_family
from tiny_runs import Tiny

from clipmapper.files import read_json

Command = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family(tmp_path_factory.mktemp("siglip") / "folder", "siglip")


@pytest.mark.parametrize("readout", ["cls", "eot"])
def test_a_read_out_token_that_the_encoder_lacks_is_an_error(
    readout: str, folder: Path, tiny: Tiny, command: Command, tmp_path: Path
) -> None:
    given = (f"encoder.model={folder}", "encoder.weights=null", f"mapper.readout={readout}")
    status, _, errors = command("train", *tiny.overrides, *given, f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 1
    assert errors == [
        f"error: mapper.readout={readout}: encoder.model={folder} has no class token; give mapper.readout=token"
    ]


@pytest.mark.slow
def test_every_command_works_on_an_encoder_like_siglip(
    folder: Path, tiny: Tiny, command: Command, tmp_path: Path
) -> None:
    chosen = (*tiny.overrides, f"encoder.model={folder}", "encoder.weights=null", "mapper.readout=token")
    run = tmp_path / "train"
    longer = ("trainer.max_steps=60", "trainer.val_check_interval=30", "task.optim.lr=0.01")
    assert command("train", *chosen, *longer, f"hydra.run.dir={run}")[0] == 0
    chosen = (*chosen, f"checkpoint={run}")

    def ended(name: str, *given: str) -> Path:
        out = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        status, _, errors = command(name, *chosen, *given, f"hydra.run.dir={out}")
        assert (status, errors) == (0, [])
        return out

    for removal in ("removal.text=mask", "removal.text=drop"):
        tested = ended("perturb", "explainer=paper", "samples=6", "engine_batch=16", removal, "steps=[0,0.5,1]")
        rows = read_json(tested / "perturbation.json")["rows"]
        assert {(row["modality"], row["explainer"]) for row in rows} >= {("image", "weighted"), ("text", "weighted")}
        assert all(0 < share < 1 for row in rows for share in row["probability"])
    explained = ended("explain", "samples=3", "formats=[png]", "explainer=weighted")
    scores = pd.read_parquet(explained / "scores.parquet")
    assert scores[scores.modality == "image"].token.dropna().unique().tolist() == ["read-out"]
    assert scores[scores.modality == "text"].groupby("question_id").size().unique().tolist() == [10]
    assert not scores[~scores.special].token.dropna().str.contains("</s>").any()
    ended("evaluate_explanations", "samples=2", "explainer=weighted")
    ended("sanity_check", "samples=3", "explainer=weighted")
    ended("evaluate")
