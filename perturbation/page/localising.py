"""The section of a run of ``evaluate_explanations``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perturbation.localise.deletion import DELETION
from perturbation.localise.tables import CHANCE
from perturbation.localise.words import ALL, RANDOM
from perturbation.page.charts import dot_chart
from perturbation.page.grid import grid_table
from perturbation.page.numbers import NBSP, counted, interval, listed, number, with_interval
from perturbation.page.runs import Run
from perturbation.page.view import Cell, Part, Section, Table
from perturbation.report.rows import Row

HEADS = {"mass_accuracy": "mass", "rank_accuracy": "rank", "pointing_game": "pointing"}
MAIN = "mass_accuracy"
METRICS = (
    "Mass ↑: share of the relevance that is on the evidence. Rank ↑: share of evidence among as many tokens with the "
    "highest scores as there is evidence. Pointing ↑: how often the token with the highest score is evidence. All are "
    "from 0 to 1, and larger is better."
)
REFERENCES = frozenset({CHANCE, DELETION, RANDOM})  # rows that are no explainers


def section(run: Run) -> Section:
    """Return the section of one run."""
    content = run.result()
    captions = "captions" in content
    rows = [row for row in content["rows"] if row.get("kind", ALL) == ALL]
    over = _over(content)
    parts: list[Part] = [*_table("Agreement with the evidence ↑", rows, over, False), dot_chart(rows, CHANCE, HEADS)]
    kinds = content["rows"] if captions else content["by_kind"]
    for kind in dict.fromkeys(row["kind"] for row in kinds if row["kind"] != ALL):
        own = [row for row in kinds if row["kind"] == kind]
        noun = "Words" if captions else "Questions"
        parts += _table(f"{noun} of the kind {kind} ↑", own, over, True)
    return Section(_asked(content, captions), _facts(content), findings(rows), parts)


def _over(content: Mapping[str, Any]) -> str:
    if "captions" in content:
        return (
            f"{counted(content['captions'], 'true caption')} with {counted(content['words'], 'word')} that name objects"
        )
    return counted(content["questions"], "correctly answered question")


def _asked(content: Mapping[str, Any], captions: bool) -> str:
    config = content["config"]
    what = "the objects that a caption's words name" if captions else "the objects and words that an answer depends on"
    data = f"{config['data']['name']}, {config['split']} split"
    return f"Is the relevance on {what}? The data ({data}) record them; {_over(content)} are used."


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    left = content["left_out"]
    if isinstance(left, dict):
        return [(f"left out, no evidence in the {name}", str(count)) for name, count in left.items()]
    return [
        ("words left out, without evidence", str(left)),
        ("true captions", f"{content['true']} of {content['pictures']}"),
    ]


def _table(title: str, rows: Sequence[Row], over: str, folded: bool) -> list[Table]:
    order = sorted(rows, key=lambda row: [row["explainer"] in REFERENCES, row["explainer"] == CHANCE])
    cells = {
        (row["explainer"], row["modality"], f"{HEADS[row['metric']]}{NBSP}↑"): Cell(
            number(row["value"], 3),
            interval(row["ci95"], 3),
            marked=row["explainer"] != CHANCE and not above_chance(row),
        )
        for row in order
    }
    counts = {row["modality"]: row["samples"] for row in rows}
    with_evidence = ", ".join(f"{modality}: {count}" for modality, count in counts.items())
    recipe = [
        METRICS,
        f"In brackets: 95 % bootstrap intervals over the samples with evidence ({with_evidence}) of {over}.",
        "° not told apart from chance, or below it: the interval of the paired difference to chance is not above 0.",
    ]
    if any(row["explainer"] == DELETION for row in rows):
        recipe.append(f"“{DELETION}”: fall of the probability when each token alone is removed.")
    return grid_table(title, recipe, cells, REFERENCES, folded)


def above_chance(row: Row) -> bool:
    """Return whether the interval of the paired difference to chance is above 0."""
    return bool(row["above_chance_ci95"]) and row["above_chance_ci95"][0] > 0


def findings(rows: Sequence[Row]) -> list[str]:
    """Return which explainers have more relevance on the evidence than chance, and which has the most."""
    found = []
    for modality in dict.fromkeys(row["modality"] for row in rows):
        own = [row for row in rows if (row["modality"], row["metric"]) == (modality, MAIN)]
        explainers = [row for row in own if row["explainer"] not in REFERENCES]
        chance = number(next(row["value"] for row in own if row["explainer"] == CHANCE), 3)
        about = f"{modality.capitalize()}, relevance on the evidence"
        above = [row["explainer"] for row in explainers if above_chance(row)]
        rest = [row["explainer"] for row in explainers if not above_chance(row)]
        if above:
            found.append(f"{about}: above chance ({chance}) for {listed(above)}.")
        if rest:
            found.append(f"{about}: not told apart from chance ({chance}), or below it, for {listed(rest)}.")
        found += _about_largest(about, explainers)
    return found


def _about_largest(about: str, rows: Sequence[Row]) -> list[str]:
    """Return which explainer has the most relevance on the evidence, and whose intervals overlap with its own."""
    if len(rows) < 2:
        return []
    best = max(rows, key=lambda row: row["value"])
    others = [row for row in rows if row is not best]
    near = [r["explainer"] for r in others if not (r["ci95"] and best["ci95"]) or r["ci95"][1] >= best["ci95"][0]]
    text = f"{about}: most for {best['explainer']}, {with_interval(best['value'], best['ci95'], 3)}"
    tail = f"not told apart by the intervals from {listed(near)}" if near else "no other interval overlaps with it"
    return [f"{text}; {tail}."]
