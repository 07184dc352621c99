"""The model card has the numbers that the shipped files have."""

from __future__ import annotations

import re
from typing import Any

import pytest
from public import PROJECT

import clipmapper
from clipmapper.pretrained import LLAVA, pretrained_file
from clipmapper.weights import read_weights

PAGE = (PROJECT / "docs" / "model-card.md").read_text(encoding="utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
MODELS = [(task, mapper) for task in ("vqa", "caption") for mapper in "ab"]


def content(task: str, mapper: str) -> tuple[dict[str, Any], int]:
    """Return the card of a shipped model, and the number of its parameters."""
    path = pretrained_file(task, mapper)
    assert path is not None
    card, weights = read_weights(path)
    return card, sum(tensor.numel() for tensor in weights.values())


@pytest.mark.parametrize(("task", "mapper"), MODELS)
def test_scores_and_sizes_are_those_of_the_file(task: str, mapper: str) -> None:
    card, size = content(task, mapper)
    test = card["metrics"]["test"]
    [row] = [cells for cells in ROWS if f"`{task}-{mapper}.safetensors`" in cells]
    score = f"{test['accuracy']:.2f}" if task == "vqa" else f"{100 * test['true_captions']:.1f}"
    assert row[2:] == [f"{size:,}", f"{'accuracy' if task == 'vqa' else 'true of the scene'} {score} %"]


def test_the_llava_has_the_scores_of_its_folder() -> None:
    test = clipmapper.load(LLAVA.name).metrics["test"]
    [row] = [cells for cells in ROWS if f"`{LLAVA.name}`" in cells]
    assert row[3] == f"accuracy {test['accuracy']:.2f} %, true of the scene {100 * test['true_captions']:.1f} %"
    page = (PROJECT / "docs" / "results" / "llava.md").read_text(encoding="utf-8")
    for name, value in {**test["by_answer_type"], **test["by_question_type"]}.items():
        assert re.search(rf"^\| `?{name}`? \| {value:.2f} \|", page, re.MULTILINE)


@pytest.mark.parametrize("mapper", ["a", "b"])
def test_accuracies_are_those_of_the_file(mapper: str) -> None:
    test = content("vqa", mapper)[0]["metrics"]["test"]
    [row] = [cells for cells in ROWS if cells[0] == f"VQA, mapper {mapper.upper()}" and len(cells) == 5]
    assert row[1:] == [f"{value:.2f}" for value in (test["accuracy"], *test["by_answer_type"].values())]
    assert f"{test['by_question_type']['same']:.2f} % for mapper {mapper.upper()}" in PAGE


def test_the_number_of_answers() -> None:
    card, _ = content("vqa", "b")
    assert {int(number) for number in re.findall(r"(\d+) answers", PAGE)} == {len(card["answers"])}
