"""Tables of the localisation metrics: rows for JSON, and Markdown to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clipmapper.console import print_table
from perturbation.arrays import Array
from perturbation.localise.deletion import DELETION
from perturbation.localise.metrics import METRICS
from perturbation.report.tables import markdown_table
from perturbation.statistics import bootstrap_interval

CHANCE = "chance"
_HEADS = {"mass_accuracy": "mass", "rank_accuracy": "rank", "pointing_game": "pointing"}
_NOTE = (
    "mass: share of the relevance that is on the evidence; rank: share of evidence among as many tokens with the "
    "highest scores; pointing: how often the highest score is on the evidence; ° not above chance (95 % interval of "
    "the difference)"
)


def localisation_rows(
    values: Mapping[str, Mapping[str, Array]], kinds: Sequence[str], about: Mapping[str, str], seed: int
) -> dict[str, Any]:
    """Return the rows of the tables, one per explainer, modality and metric.

    Args:
        values: [samples, metrics] by modality and explainer, one of which is ``chance``; NaN if there is no evidence.
        kinds: The kind of each question, [samples].
        about: Columns of every row that name the model.
        seed: Seed of the bootstrap.

    Returns:
        ``rows`` over all questions, ``by_kind`` over the questions of each kind, and ``left_out``, the number of
        questions without evidence by modality.
    """
    rows: list[dict[str, Any]] = []
    by_kind: list[dict[str, Any]] = []
    for modality, columns in values.items():
        rows += _rows(columns, {**about, "modality": modality}, seed)
        for kind in sorted(set(kinds)):
            chosen = np.array([each == kind for each in kinds])
            of_kind = {name: table[chosen] for name, table in columns.items()}
            by_kind += _rows(of_kind, {**about, "modality": modality, "kind": kind}, seed)
    left_out = {modality: int(np.isnan(columns[CHANCE][:, 0]).sum()) for modality, columns in values.items()}
    return {"rows": rows, "by_kind": by_kind, "left_out": left_out}


def _rows(columns: Mapping[str, Array], about: Mapping[str, str], seed: int) -> list[dict[str, Any]]:
    """Return a row per explainer and metric; ``above_chance`` is the mean over samples of the difference to K/P."""
    known = ~np.isnan(columns[CHANCE][:, 0])
    if not known.any():
        return []
    table = np.stack([column[known] for column in columns.values()], 1)  # [samples, explainers, metrics]
    gain = table - columns[CHANCE][known][:, None]
    mean = np.stack([table.mean(0), gain.mean(0)])
    interval = bootstrap_interval(np.stack([table, gain], 1), seed=seed)  # [2, 2, explainers, metrics]
    return [
        {
            "explainer": name,
            **about,
            "metric": metric,
            "value": float(mean[0, e, m]),
            "ci95": _interval_or_none(interval[:, 0, e, m]),
            "above_chance": float(mean[1, e, m]),
            "above_chance_ci95": _interval_or_none(interval[:, 1, e, m]),
            "samples": int(known.sum()),
        }
        for e, name in enumerate(columns)
        for m, metric in enumerate(METRICS)
    ]


def _interval_or_none(interval: Array) -> list[float] | None:
    """Return an interval as a list, or None if it is NaN because there is only one sample."""
    return None if np.isnan(interval).any() else interval.tolist()


def markdown(rows: Sequence[Mapping[str, Any]], left_out: Mapping[str, int], data: str, questions: int) -> str:
    """Return a table with a line per explainer and a column per modality and metric, with 95 % intervals."""
    cells = {(row["explainer"], row["modality"], row["metric"]): row for row in rows}
    columns = list(dict.fromkeys((row["modality"], row["metric"]) for row in rows))
    names = _names(rows)
    head = ["explainer", *(f"{modality} {_HEADS[metric]}" for modality, metric in columns)]
    lines = [[name, *(cell(cells.get((name, *column))) for column in columns)] for name in names]
    counts = {row["modality"]: row["samples"] for row in rows}
    used = ", ".join(f"{modality}: {count} ({left_out[modality]} left out)" for modality, count in counts.items())
    note = (
        f"{data}, {questions} correctly answered questions; with evidence, {used}. 95 % bootstrap intervals over "
        "questions. ° not above chance: the interval of the paired difference to chance is not above 0.\n"
    )
    return markdown_table(head, lines, names=len(head)) + "\n" + note


def print_localisation(rows: Sequence[Mapping[str, Any]], data: str, note: str) -> None:
    """Print a table for each modality, with a line per explainer and a column per metric.

    Args:
        rows: One row per explainer, modality and metric.
        data: What the samples are, for the title.
        note: Further text below the tables.
    """
    cells = {(row["explainer"], row["modality"], row["metric"]): cell(row) for row in rows}
    heads = ["explainer", *(f"{_HEADS[metric]} ↑" for metric in METRICS)]
    for modality in dict.fromkeys(row["modality"] for row in rows):
        own = [row for row in rows if row["modality"] == modality]
        title = f"{data}, {own[0]['samples']} samples: relevance of {modality} tokens on the evidence, from 0 to 1"
        lines = [[name, *(cells[name, modality, metric] for metric in METRICS)] for name in _names(own)]
        print_table(f"{title}, with 95 % intervals", heads, lines, f"{_NOTE}; {note}")


def _names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the explainers in their order, with the deletion oracle and chance last."""
    found = dict.fromkeys(row["explainer"] for row in rows)
    return sorted(found, key=lambda name: (name == CHANCE, name == DELETION))


def cell(row: Mapping[str, Any] | None) -> str:
    """Return a value with its interval as text, marked with ° if it is not above chance; – if there is no row."""
    if row is None:
        return "–"
    if row["ci95"] is None:
        return f"{row['value']:.3f}"
    mark = "°" if row["explainer"] != CHANCE and row["above_chance_ci95"][0] <= 0 else ""
    return f"{row['value']:.3f}{mark} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
