"""The paper's tables, with runs on VQAv2 and COCO beside the literature: accuracies, caption scores and findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from perturbation.page.areas import turned
from perturbation.page.numbers import interval, number, p_value
from perturbation.page.runs import Run
from perturbation.page.view import Cell, Table
from perturbation.report.tables import MISSING

FILE = Path(__file__).with_name("literature.yaml")
ANSWERS, CAPTIONS = ("yes/no", "number", "other", "overall"), ("BLEU-4", "CIDEr", "METEOR", "SPICE")
TITLES = {
    "vqa": "Accuracy of answers in percent, beside the literature ↑",
    "caption": "Scores of captions × 100, beside the literature ↑",
    "findings": "Findings of the paper: differences of gaps of the accuracy, in points of area",
}
HEADS = {"vqa": ANSWERS, "caption": CAPTIONS}
SPLITS = {"vqa": ": servers score test-dev and test-std, a run scores what it kept for itself", "caption": ""}
#: Datasets of the literature, and what the names of their official files contain.
DATASETS = {"vqav2": "VQAv2", "vqav2_hub": "VQAv2", "coco": "COCO"}
OFFICIAL = {"mscoco": "VQAv2", "coco": "COCO", "captions_train2014": "COCO", "captions_val2014": "COCO"}


@dataclass(frozen=True)
class Scored:
    """The scores of one model on one split."""

    model: str
    data: str  #: dataset and split
    scores: Sequence[float | None]  #: in percent, in the order of the columns; None if unknown
    setup: str  #: how the model was made, and what it differs in
    source: str  #: where the numbers stand


@cache
def literature() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Return the scores of other models by task, and the findings of the paper, from ``literature.yaml``."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return found


def tables(runs: Mapping[str, Run]) -> list[Table]:
    """Return a table for each task of which runs of ``train`` or ``evaluate`` have scores on VQAv2 or COCO.

    Args:
        runs: The runs by their names on the page.
    """
    ours: dict[str, list[Scored]] = {"vqa": [], "caption": []}
    for name, run in runs.items():
        for split, scores in run.result().items():
            if not isinstance(scores, Mapping) or not (data := _data(run.settings, split)):
                continue
            if "accuracy" in scores:
                ours["vqa"].append(_scored(name, run.settings, data, _of_answers(scores), scores["questions"]))
            elif "CIDEr" in scores:
                ours["caption"].append(_scored(name, run.settings, data, _of_captions(scores), scores["images"]))
    return [beside(task, found) for task, found in ours.items() if found]


def beside(task: str, ours: Sequence[Scored]) -> Table:
    """Return the table of a task: these models above those of the literature, which are grey."""
    others = [Scored(**row) for row in literature()[task]]
    recipe = (
        "The rows in grey are quoted from the sources in the last column; the others are runs of this page. Compare "
        f"scores on the same split only{SPLITS[task]}.",
    )
    rows = [_row(each, [number(score, 2) for score in each.scores]) for each in ours]
    rows += [_row(each, [MISSING if score is None else str(score) for score in each.scores]) for each in others]
    heads = ["data", *HEADS[task], "setup", "source"]
    return Table(TITLES[task], recipe, heads, rows, names="model", muted=frozenset(each.model for each in others))


def _row(each: Scored, scores: Sequence[str]) -> tuple[str, Sequence[Cell]]:
    data, setup, source = (Cell(text, words=True) for text in (each.data, each.setup, each.source))
    return each.model, [data, *map(Cell, scores), setup, source]


def findings_table(runs: Mapping[str, Run]) -> list[Table]:
    """Return the table of the paper's findings beside runs of ``perturb`` on the answers of VQAv2, if there are any.

    Args:
        runs: The runs by their names on the page.
    """
    columns = {}
    for name, run in runs.items():
        config = run.result()["config"]
        if DATASETS.get(config["data"]["name"]) == "VQAv2" and "mapper" in config:
            columns[f"{name}, mapper {config['mapper']['name']}"] = run.results.get("comparisons.json", ())
    return [findings(columns)] if columns else []


def findings(columns: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Return the table of the paper's findings beside the paired comparisons of runs, by the names of their columns."""
    recipe = (
        "The paper shows areas in figures only, without numbers, so its column says which explainer is ahead. The "
        "others are the gap of the first explainer minus that of the second, paired over the same questions, with "
        "95 % intervals and p-values after Holm's correction. ↑ The finding holds where the interval is above 0.",
    )
    rows = []
    for each in literature()["findings"]:
        first, second = each["first"], each["second"]
        mappers = " and ".join(name.upper() for name in each["mappers"])
        said = Cell(f"{first} ahead of {second}, mapper {mappers}", words=True)
        cells = [_difference(found, each["modality"], first, second) for found in columns.values()]
        rows.append((f"{each['modality']}: {first} − {second}", [said, *cells, Cell(each["source"], words=True)]))
    return Table(TITLES["findings"], recipe, ["Huang et al. 2023", *columns, "source"], rows, names="difference")


def _difference(comparisons: Sequence[Mapping[str, Any]], modality: str, first: str, second: str) -> Cell:
    for row in comparisons:
        place = (row["modality"], row["direction"], row["measure"], {row["first"], row["second"]})
        if place == (modality, "gap", "accuracy", {first, second}):
            found = dict(row) if row["first"] == first else turned(dict(row))
            ends, p = interval(found["ci95"], signed=True), p_value(found["p_holm"])
            return Cell(number(found["difference"], signed=True), ends, p)
    return Cell(MISSING)


def _scored(name: str, settings: Mapping[str, Any], data: str, scores: Sequence[float | None], count: int) -> Scored:
    if settings.get("predictions"):
        return Scored(name, data, scores, f"a result file; {count:,} scored", "this page")
    mapper, encoder = settings["mapper"]["name"], settings["encoder"]
    setup = f"frozen {encoder['model']}, weights {encoder['weights']}; {count:,} scored"
    setup += "; greedy decoding" if settings["task"]["name"] == "caption" else ""
    return Scored(f"{name}, mapper {mapper}", data, scores, setup, "this page")


def _data(settings: Mapping[str, Any], split: str) -> str:
    """Return the dataset and the split of scores; empty if the literature has no such data."""
    if settings.get("predictions"):
        file = Path(settings.get("annotations") or settings.get("references") or "").name
        dataset = next((name for part, name in OFFICIAL.items() if part in file), "")
        return f"{dataset}, {file}" if split == "predictions" and dataset else ""
    data = settings.get("data", {})
    if split not in ("train", "val", "test") or not (dataset := DATASETS.get(data.get("name"), "")):
        return ""
    if data.get("karpathy"):
        return f"{dataset} Karpathy {split}"
    if split == "val" and data.get("reserved"):
        return f"{dataset} {data['reserve_from']}, questions kept from training"
    return f"{dataset} {data.get(f'{split}_split') or split}"


def _of_answers(scores: Mapping[str, Any]) -> list[float | None]:
    return [*(scores["by_answer_type"].get(kind) for kind in ANSWERS[:-1]), scores["accuracy"]]


def _of_captions(scores: Mapping[str, Any]) -> list[float | None]:
    return [None if scores.get(name) is None else 100 * scores[name] for name in CAPTIONS]
