"""Runs of the commands on other models than CLIPmapper, and what they are given: tiny models, tables, scenes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sample_models
from no_figures import without_figures
from sample_models import photo
from tiny_runs import QUIET, Tiny, composed

from clipmapper.any_model.samples import Sample, load_samples
from clipmapper.arguments import as_added
from clipmapper.cli import typed
from perturbation.config import PerturbModelConfig
from perturbation.perturb.run import perturb

QUESTIONS = ("what is red ?", "is it a big cat", "red cat", "what is it", "a red cat")
ANSWERS = ("yes", "no", "1", "red")
EXPLAINERS = ("explainer.names=[weighted,rollout]",)


def answering_vilt() -> tuple[Any, Any]:
    """Return a ViLT whose classes are ``ANSWERS``, and its processor."""
    model, processor = sample_models.vilt()
    model.config.id2label = dict(enumerate(ANSWERS))
    model.config.label2id = {label: number for number, label in enumerate(ANSWERS)}
    return model, processor


def write_table(path: Path, answers: bool) -> Path:
    """Write a table with a photo for each question and, if wanted, two answers."""
    rows = [dict(zip(("image", "text"), (f"{k}.png", text), strict=True)) for k, text in enumerate(QUESTIONS)]
    for k, row in enumerate(rows):
        photo(seed=k).save(path.parent / f"{k}.png")
        row |= {"answer_1": ANSWERS[k % 4], "answer_2": ""} if answers else {}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def of_table(model: Path, table: Path, *more: str) -> list[str]:
    """Return the overrides for a model of transformers on the samples of a table."""
    data = ["data=table", f"data.file={table}"]
    return ["model=huggingface", f"model.path={model}", *data, *QUIET, *more]


def scenes_of(tiny: Tiny) -> list[str]:
    """Return the overrides for the scenes that tiny runs share."""
    return [f"data.root={tiny.root / 'data' / 'shapes'}", *tiny.overrides[:4]]


def run_perturb(overrides: Sequence[str], run: Path) -> dict[str, Any]:
    run.mkdir(parents=True, exist_ok=True)
    config: PerturbModelConfig = typed(composed("perturb", *map(as_added, overrides)), PerturbModelConfig)
    with without_figures():
        return perturb(config, "weighted", run)


def samples_of(overrides: Sequence[str], split: str, dual: bool) -> list[Sample]:
    """Return the samples of the data that the overrides choose."""
    config: PerturbModelConfig = typed(composed("perturb", "model=open_clip", *overrides), PerturbModelConfig)
    return load_samples(config.data, split, dual)
