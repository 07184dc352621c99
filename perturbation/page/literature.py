"""The paper's tables of accuracies and caption scores, with the models of the page beside those of the literature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from perturbation.page.numbers import number
from perturbation.page.runs import Run
from perturbation.page.view import Cell, Table

FILE = Path(__file__).with_name("literature.yaml")
ANSWERS, CAPTIONS = ("yes/no", "number", "other", "overall"), ("BLEU-4", "CIDEr", "METEOR", "SPICE")


@cache
def rows_of_literature() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return the scores of other models by task, from ``literature.yaml``."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def tables(runs: Mapping[str, Run]) -> list[Table]:
    """Return a table for each task that runs of ``train`` or ``evaluate`` have scores of.

    Args:
        runs: The runs by their names on the page.
    """
    answers, captions = [], []
    for name, run in runs.items():
        data = run.settings.get("data", {}).get("name", "own predictions")
        model = f"{name}, mapper {run.settings['mapper']['name']}" if "mapper" in run.settings else name
        for split, scores in run.result().items():
            if split in ("train", "val", "test") and "accuracy" in scores:
                answers.append((model, f"{data} {split}", _of_answers(scores)))
            elif split in ("train", "val", "test") and "CIDEr" in scores:
                captions.append((model, f"{data} {split}", _of_captions(scores)))
    found = []
    if answers:
        found.append(_table("Accuracy of answers in percent, beside the literature ↑", 1, ANSWERS, answers, "vqa"))
    if captions:
        found.append(_table("Scores of captions × 100, beside the literature ↑", 2, CAPTIONS, captions, "caption"))
    return found


def _of_answers(scores: Mapping[str, Any]) -> list[float | None]:
    return [*(scores["by_answer_type"].get(kind) for kind in ANSWERS[:-1]), scores["accuracy"]]


def _of_captions(scores: Mapping[str, Any]) -> list[float | None]:
    return [None if scores.get(name) is None else 100 * scores[name] for name in CAPTIONS]


def _table(
    title: str,
    number_in_paper: int,
    heads: Sequence[str],
    ours: Sequence[tuple[str, str, Sequence[float | None]]],
    task: str,
) -> Table:
    others = [(row["model"], row["data"], row["scores"]) for row in rows_of_literature()[task]]
    recipe = (
        f"The rows in grey are quoted from Huang et al. (2023), Table {number_in_paper}; the others are runs of this "
        "page. Scores on different data can't be compared.",
    )
    rows = [
        (model, [Cell(data), *(Cell(number(score)) for score in scores)]) for model, data, scores in (*ours, *others)
    ]
    return Table(
        title,
        recipe,
        ["data", *heads],
        rows,
        names="model",
        muted=frozenset(model for model, _, _ in others),
    )
