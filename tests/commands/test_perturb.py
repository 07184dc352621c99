"""Whole perturbation runs: every record compared with a plain loop, and the summaries of the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perturb_runs import Trained, key, mean, records, removed, trapezoid

from clipmapper.data.datasets import load_data
from clipmapper.encoder.load import TextBatch
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.nn import TokenSubset
from clipmapper.tasks.vqa.explaining import explain
from clipmapper.tasks.vqa.model import load_vqa
from clipmapper.tasks.vqa.trained import QuestionBatch, TrainedVQA
from clipmapper.training.batches import even_batches
from clipmapper.training.checkpoint_file import write_checkpoint
from explain.explainers import Random, Weighted
from perturbation.perturb.samples import sample_rows
from perturbation.removal.order import draw_ties

STEPS = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75, 1.0]
SHARES = [0.05, 0.1, 0.2, 0.5]


@pytest.fixture(scope="module")
def loaded(trained: Trained) -> TrainedVQA:
    config = trained.config()
    data = load_data(config.data).part("test")
    return TrainedVQA(load_vqa(trained.checkpoint), data.questions, data.images, trained.checkpoint, "fail")


class Plain:
    """A slow reader of one sample: a full forward pass per subset, in which nothing attends to a removed token."""

    def __init__(self, loaded: TrainedVQA, batch: QuestionBatch, place: int):
        self.model, self.question = loaded.model, batch.questions[place]
        own = int(batch.text.valid[place].sum())
        self.pixels = batch.pixels[place : place + 1]
        ids, valid = batch.text.ids[place : place + 1, :own], batch.text.valid[place : place + 1, :own]
        self.text = TextBatch(ids, valid, 0)
        self.seen: dict[tuple[str, frozenset[int]], torch.Tensor] = {}
        self.removable = {"image": list(range(36)), "text": list(range(1, own - 1))}
        self.answer = int(self.logits("image", set()).argmax())

    def logits(self, modality: str, gone: set[int]) -> torch.Tensor:
        """Return the logits without the tokens ``gone``: places of patches, or in the text stream."""
        if (modality, frozenset(gone)) not in self.seen:
            self.seen[modality, frozenset(gone)] = self.forward(modality, gone)
        return self.seen[modality, frozenset(gone)]

    def forward(self, modality: str, gone: set[int]) -> torch.Tensor:
        count = 37 if modality == "image" else self.text.ids.shape[1]
        places = {place + 1 for place in gone} if modality == "image" else gone
        kept = torch.tensor([[place not in places for place in range(count)]])
        subset = TokenSubset(torch.arange(count)[None], kept)
        with torch.no_grad():
            return self.model(self.pixels, self.text, **{f"{modality}_subset": subset})[0]

    def probability(self, modality: str, gone: set[int]) -> float:
        return float(self.logits(modality, gone)[self.answer].sigmoid())

    def correct(self, modality: str, gone: set[int]) -> float:
        return vqa_accuracy(self.model.answers[int(self.logits(modality, gone).argmax())], self.question.answers)


def test_every_record_equals_the_plain_loop(whole: Path, loaded: TrainedVQA) -> None:
    samples = {key(row, "direction"): row for row in records(whole)}
    measured = {key(row): row for row in records(whole, "faithfulness")}
    explainers = {("weighted", 0): Weighted(), ("random", 0): Random(0), ("random", 1): Random(1)}
    for rows in even_batches(sample_rows(len(loaded.questions), 6, 0), 4):
        batch = loaded.batch(rows)
        assert batch is not None
        found = explain(loaded.model, batch, {f"{name}{seed}": e for (name, seed), e in explainers.items()})
        for place in range(len(rows)):
            plain = Plain(loaded, batch, place)
            for name, seed in explainers:
                for modality in ("image", "text"):
                    scores = found.traced.scores(found.scores[f"{name}{seed}"], modality)[place].tolist()
                    about = (plain.question.question_id, modality, name, seed)
                    ties = draw_ties(0, [plain.question.question_id], modality, len(scores))[0].tolist()
                    for direction in ("positive", "negative"):
                        check_curve(plain, modality, scores, samples.pop((*about, direction)), ties)
                    check_measures(plain, modality, scores, measured.pop(about), ties)
    assert not samples
    assert not measured


def check_curve(plain: Plain, modality: str, scores: list[float], row: dict[str, Any], ties: list[float]) -> None:
    gone = [removed(scores, plain.removable[modality], step, row["direction"], ties) for step in STEPS]
    assert row["probability"] == pytest.approx([plain.probability(modality, each) for each in gone], abs=1e-5)
    assert row["correct"] == pytest.approx([plain.correct(modality, each) for each in gone])
    assert row["answers"][0] == plain.model.answers[plain.answer]


def check_measures(plain: Plain, modality: str, scores: list[float], row: dict[str, Any], ties: list[float]) -> None:
    own = plain.removable[modality]
    top = [removed(scores, own, share, "positive", ties) for share in SHARES]
    assert row["without_top"] == pytest.approx([plain.probability(modality, each) for each in top], abs=1e-5)
    rest = [set(own) - each for each in top]
    assert row["only_top"] == pytest.approx([plain.probability(modality, each) for each in rest], abs=1e-5)
    assert row["full"] == pytest.approx(plain.probability(modality, set()), abs=1e-5)
    effects = [row["full"] - plain.probability(modality, {place}) for place in own]
    strongest = max(own, key=lambda place: (abs(scores[place]), -ties[place]))
    if abs(effects[own.index(strongest)]) > 1e-4:
        assert row["violation"] == float(scores[strongest] * effects[own.index(strongest)] < 0)
    if np.std(effects) > 1e-4:
        assert row["pearson"] == pytest.approx(np.corrcoef([scores[p] for p in own], effects)[0, 1], abs=0.02)


def test_the_summary_follows_from_the_records(whole: Path) -> None:
    content = json.loads((whole / "perturbation.json").read_text())
    rows = records(whole)
    assert any(0 < sum(row["correct"]) < len(STEPS) for row in rows)  # else the accuracies test nothing
    assert len(content["rows"]) == 2 * 2 * 2
    for row in content["rows"]:
        own = [r for r in rows if all(r[k] == row[k] for k in ("explainer", "modality", "direction"))]
        assert (row["task"], row["mapper"], row["samples"], row["steps"]) == ("vqa", "b", 6, STEPS)
        assert len(own) == 6 * (2 if row["explainer"] == "random" else 1)
        for name, column, prefix in (("accuracy", "correct", ""), ("probability", "probability", "probability_")):
            curve = mean([r[column] for r in own])
            assert row[name] == pytest.approx(curve)
            assert row[f"{prefix}auc"] == pytest.approx(trapezoid(curve, STEPS))
            low, high = row[f"{prefix}auc_ci95"]
            assert low <= row[f"{prefix}auc"] <= high
    area = {(r["explainer"], r["modality"], r["direction"]): r["probability_auc"] for r in content["rows"]}
    for gap in (g for g in content["gaps"] if g["measure"] == "probability"):
        about = gap["explainer"], gap["modality"]
        assert gap["gap"] == pytest.approx(area[*about, "negative"] - area[*about, "positive"])
    for pair in json.loads((whole / "comparisons.json").read_text()):
        assert (pair["first"], pair["second"]) == ("weighted", "random")
        if pair["measure"] == "probability" and pair["direction"] != "gap":
            difference = [area[name, pair["modality"], pair["direction"]] for name in ("weighted", "random")]
            assert pair["difference"] == pytest.approx(difference[0] - difference[1])
    assert {"config", "versions", "checkpoint", "eraser", "faithfulness", "ceiling"} <= content.keys()


def test_measures_of_single_tokens_are_summarised_over_samples(whole: Path) -> None:
    content = json.loads((whole / "perturbation.json").read_text())
    measured = records(whole, "faithfulness")
    for row in content["eraser"]:
        own = [r for r in measured if (r["explainer"], r["modality"]) == (row["explainer"], row["modality"])]
        falls = mean([[r["full"] - p for p in r["without_top"]] for r in own])
        assert row["comprehensiveness"] == pytest.approx(falls)
        assert row["mean_sufficiency"] == pytest.approx(np.mean([[r["full"] - p for p in r["only_top"]] for r in own]))
    for row in content["faithfulness"]:
        own = [r for r in measured if (r["explainer"], r["modality"]) == (row["explainer"], row["modality"])]
        defined = [r["violation"] for r in own if not np.isnan(r["violation"])]
        assert row["violation"]["mean"] == pytest.approx(np.mean(defined))
        assert row["violation"]["samples"] + row["violation"]["left_out"] == 6


def test_no_explainer_exceeds_the_bounds(whole: Path) -> None:
    content = json.loads((whole / "perturbation.json").read_text())
    bounds = {(row["question_id"], row["modality"]): row for row in records(whole, "ceiling")}
    assert [modality for _, modality in bounds].count("image") == 4
    for row in records(whole):
        if row["modality"] == "text" and (row["question_id"], "text") in bounds:
            bound = bounds[row["question_id"], "text"]
            for column in ("correct", "probability"):
                assert np.all(np.array(bound[f"lowest_{column}"]) <= np.array(row[column]) + 1e-6)
                assert np.all(np.array(row[column]) <= np.array(bound[f"highest_{column}"]) + 1e-6)
    for row in content["ceiling"]:
        assert row["modality"] == "image" or row["share"] is None or row["share"] <= 1 + 1e-6


def test_an_order_of_patches_is_searched_for_images(whole: Path, loaded: TrainedVQA) -> None:
    """Compare the two removals of the first step with plain forward passes, and the search with random orders."""
    found = {row["question_id"]: row for row in records(whole, "ceiling") if row["modality"] == "image"}
    batch = loaded.batch(even_batches(sample_rows(len(loaded.questions), 6, 0), 4)[0])
    assert batch is not None
    plain = Plain(loaded, batch, 0)
    row = found[plain.question.question_id]
    for end, best in (("lowest", min), ("highest", max)):
        gone: set[int] = set()
        for _ in range(2):
            worth = {patch: plain.probability("image", gone | {patch}) for patch in set(range(36)) - gone}
            gone = gone | {best(worth, key=lambda patch: worth[patch])}
        for step, removed_ones in ((0, set()), (1, gone), (-1, set(range(36)))):
            assert row[f"{end}_probability"][step] == pytest.approx(plain.probability("image", removed_ones), abs=1e-5)
            assert row[f"{end}_correct"][step] == pytest.approx(plain.correct("image", removed_ones))
    for row in found.values():
        low, mean_, high = (trapezoid(row[f"{end}_probability"], STEPS) for end in ("lowest", "mean", "highest"))
        assert low < mean_ < high
    shares = [r for r in json.loads((whole / "perturbation.json").read_text())["ceiling"] if r["modality"] == "image"]
    assert len(shares) == 2 * 2 * 2
    assert {r["samples"] for r in shares} == {4}
    assert len((whole / "ceiling.md").read_text().splitlines()) == 2 + 2 * 2 * 2 * 2 + 2


def test_tables_and_figures_are_written(whole: Path) -> None:
    for measure in ("accuracy", "probability"):
        assert (whole / f"curves_{measure}.png").read_bytes()[:4] == b"\x89PNG"
        assert (whole / f"curves_{measure}.pdf").read_bytes()[:4] == b"%PDF"
        lines = (whole / f"areas_{measure}.md").read_text().splitlines()
        assert lines[0].startswith(
            "| explainer | image positive ↓ | image negative ↑ | image gap ↑ | text positive ↓ |"
        )
        assert [line.split(" | ")[0] for line in lines[2:4]] == ["| weighted", "| random"]
        assert lines[5].split(" | ") == ["| gap minus that of", "image: random", "text: random |"]
        assert lines[7].startswith("| weighted | ")
        assert len((whole / f"areas_{measure}.csv").read_text().splitlines()) == 1 + 2 * 2 * 3
        latex = (whole / f"areas_{measure}.tex").read_text()
        assert latex.count(r"\\") == 3
        assert latex.count(r"\textbf") >= 6
    assert "auc/weighted/image_positive" in (whole / "log" / "metrics.csv").read_text()


def test_batch_sizes_change_only_rounding(trained: Trained, whole: Path, tmp_path: Path) -> None:
    trained.perturb(tmp_path / "run", "measure.names=[areas]", "batch_samples=6", "engine_batch=3")
    there = {key(row, "direction"): row for row in records(whole)}
    for row in records(tmp_path / "run"):
        assert row["probability"] == pytest.approx(there[key(row, "direction")]["probability"], abs=1e-5)
        assert row["correct"] == there[key(row, "direction")]["correct"]


def test_the_words_that_no_training_question_has_are_counted(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(trained.checkpoint, weights_only=True)
    content["clipmapper"]["familiarity"]["words"].remove("the")
    write_checkpoint(tmp_path / "changed.ckpt", content)
    quick = ("samples=6", "steps=[0,1]", "controls=[]", "measure.names=[areas]", "explainer=uniform")
    trained.perturb(tmp_path / "run", *quick, f"checkpoint={tmp_path / 'changed.ckpt'}")
    found = json.loads((tmp_path / "run" / "perturbation.json").read_text())["question_words"]
    asked = [record["question_id"] for record in records(tmp_path / "run")]
    data = load_data(trained.config().data).part("test")
    questions = {q.question_id: q.question for q in data.questions if q.question_id in asked}
    affected = sum("the" in question.split() for question in questions.values())
    assert affected
    assert (found["questions"], found["affected"], found["unknown"]) == (6, affected, {"the": affected})
    assert f"they are in {affected} of 6 questions: the ({affected})" in capsys.readouterr().out
