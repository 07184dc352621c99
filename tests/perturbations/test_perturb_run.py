"""Whole perturbation runs: against a plain loop, killed and taken up, in two processes, and with bad input."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perturb_runs import Trained, mean, records, removed, results, trapezoid
from tiny_runs import Tiny, composed, finish, start

from clipmapper.checkpoint import load_vqa, read_checkpoint
from clipmapper.data.load import load_data
from clipmapper.encoder.load import FrozenClip, TextBatch
from clipmapper.errors import UserError
from clipmapper.explaining import explain
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.subject import QuestionBatch, Subject
from clipmapper.tokens import TokenSubset
from explain.explainers import Random, Weighted
from perturbation import module, questions
from perturbation.samples import deal, draw

STEPS = [0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5, 0.75, 1.0]
SHARES = [0.05, 0.1, 0.2, 0.5]


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    run = tmp_path_factory.mktemp("trained") / "run"
    tiny.train(run)
    checkpoint = run / "checkpoints" / "best.ckpt"
    undecided(checkpoint)
    return Trained(tiny, checkpoint)


def undecided(checkpoint: Path) -> None:
    """Makes the trained weights waver between yes and no, so that removed tokens change answers, right ones too."""
    content = read_checkpoint(checkpoint)
    answers, weights = content["clipmapper"]["answers"], content["state_dict"]
    draw = torch.Generator().manual_seed(0)
    for tensor in weights.values():
        tensor += 0.3 * torch.randn(tensor.shape, generator=draw)
    weights["model.head.1.bias"] = torch.tensor([4.0 * (answer in ("yes", "no")) - 2 for answer in answers])
    torch.save(content, checkpoint)


@pytest.fixture(scope="module")
def whole(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    run = tmp_path_factory.mktemp("whole") / "run"
    trained.perturb(run, "ceiling.samples=4")
    return run


@pytest.fixture(scope="module")
def subject(trained: Trained) -> Subject:
    config = trained.config()
    data = load_data(config.data).part("test")
    return Subject(load_vqa(trained.checkpoint), data.questions, data.images, trained.checkpoint, "fail")


class Plain:
    """One sample, one subset, one full forward pass in which nothing attends to a removed token."""

    def __init__(self, subject: Subject, batch: QuestionBatch, place: int):
        self.model, self.question = subject.model, batch.questions[place]
        own = int(batch.text.valid[place].sum())
        self.pixels = batch.pixels[place : place + 1]
        ids, valid = batch.text.ids[place : place + 1, :own], batch.text.valid[place : place + 1, :own]
        self.text = TextBatch(ids, valid, 0)
        self.seen: dict[tuple[str, frozenset[int]], torch.Tensor] = {}
        self.removable = {"image": list(range(36)), "text": list(range(1, own - 1))}
        self.answer = int(self.logits("image", set()).argmax())

    def logits(self, modality: str, gone: set[int]) -> torch.Tensor:
        """Places: patches, or the text stream."""
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


def test_every_record_equals_the_plain_loop(whole: Path, subject: Subject) -> None:
    samples = {key(row, "direction"): row for row in records(whole)}
    measured = {key(row): row for row in records(whole, "faithfulness")}
    explainers = {("weighted", 0): Weighted(), ("random", 0): Random(0), ("random", 1): Random(1)}
    for rows in deal(draw(len(subject.questions), 6, 0), 4):
        batch = subject.batch(rows)
        assert batch is not None
        found = explain(subject.model, batch, {f"{name}{seed}": e for (name, seed), e in explainers.items()})
        for place in range(len(rows)):
            plain = Plain(subject, batch, place)
            for name, seed in explainers:
                for modality in ("image", "text"):
                    scores = found.traced.scores(found.scores[f"{name}{seed}"], modality)[place].tolist()
                    about = (plain.question.question_id, modality, name, seed)
                    for direction in ("positive", "negative"):
                        check_curve(plain, modality, scores, samples.pop((*about, direction)))
                    check_measures(plain, modality, scores, measured.pop(about))
    assert not samples
    assert not measured


def key(row: dict[str, Any], *more: str) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("question_id", "modality", "explainer", "seed", *more))


def check_curve(plain: Plain, modality: str, scores: list[float], row: dict[str, Any]) -> None:
    gone = [removed(scores, plain.removable[modality], step, row["direction"]) for step in STEPS]
    assert row["probability"] == pytest.approx([plain.probability(modality, each) for each in gone], abs=1e-5)
    assert row["correct"] == pytest.approx([plain.correct(modality, each) for each in gone])
    assert row["answers"][0] == plain.model.answers[plain.answer]


def check_measures(plain: Plain, modality: str, scores: list[float], row: dict[str, Any]) -> None:
    own = plain.removable[modality]
    top = [removed(scores, own, share, "positive") for share in SHARES]
    assert row["without_top"] == pytest.approx([plain.probability(modality, each) for each in top], abs=1e-5)
    rest = [set(own) - each for each in top]
    assert row["only_top"] == pytest.approx([plain.probability(modality, each) for each in rest], abs=1e-5)
    assert row["full"] == pytest.approx(plain.probability(modality, set()), abs=1e-5)
    effects = [row["full"] - plain.probability(modality, {place}) for place in own]
    strongest = max(own, key=lambda place: abs(scores[place]))
    if abs(effects[own.index(strongest)]) > 1e-4:
        assert row["violation"] == float(scores[strongest] * effects[own.index(strongest)] < 0)
    if np.std(effects) > 1e-4:
        assert row["pearson"] == pytest.approx(np.corrcoef([scores[p] for p in own], effects)[0, 1], abs=0.02)


def test_the_summary_is_that_of_the_records(whole: Path) -> None:
    content = json.loads((whole / "perturbation.json").read_text())
    rows = records(whole)
    assert any(0 < sum(row["correct"]) < len(STEPS) for row in rows)  # else the accuracies say nothing
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


def test_no_explainer_passes_the_bounds(whole: Path) -> None:
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


def test_pictures_are_searched_for_an_order(whole: Path, subject: Subject) -> None:
    """The first step's two removals against plain forward passes; the whole search against random orders."""
    found = {row["question_id"]: row for row in records(whole, "ceiling") if row["modality"] == "image"}
    batch = subject.batch(deal(draw(len(subject.questions), 6, 0), 4)[0])
    assert batch is not None
    plain = Plain(subject, batch, 0)
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


def test_tables_and_figures_are_there(whole: Path) -> None:
    for measure in ("accuracy", "probability"):
        assert (whole / f"curves_{measure}.png").read_bytes()[:4] == b"\x89PNG"
        assert (whole / f"curves_{measure}.pdf").read_bytes()[:4] == b"%PDF"
        lines = (whole / f"areas_{measure}.md").read_text().splitlines()
        assert lines[0].startswith(
            "| explainer | image positive ↓ | image negative ↑ | image gap ↑ | text positive ↓ |"
        )
        assert [line.split(" | ")[0] for line in lines[2:]] == ["| weighted", "| random"]
        assert len((whole / f"areas_{measure}.csv").read_text().splitlines()) == 1 + 2 * 2 * 3
        latex = (whole / f"areas_{measure}.tex").read_text()
        assert latex.count(r"\\") == 3
        assert latex.count(r"\textbf") >= 6
    assert "auc/weighted/image_positive" in (whole / "log" / "metrics.csv").read_text()


def test_batches_change_rounding_only(trained: Trained, whole: Path, tmp_path: Path) -> None:
    trained.perturb(tmp_path / "run", "ceiling.samples=4", "batch_samples=6", "engine_batch=3")
    there = {key(row, "direction"): row for row in records(whole)}
    for row in records(tmp_path / "run"):
        assert row["probability"] == pytest.approx(there[key(row, "direction")]["probability"], abs=1e-5)
        assert row["correct"] == there[key(row, "direction")]["correct"]


class Killed(BaseException):
    """Nothing catches it but the test."""


def no_merge(*_: Any) -> None:
    raise Killed


@pytest.mark.parametrize(("parts", "in_place"), [(0, True), (1, True), (1, False), (2, False)])
def test_a_killed_run_ends_with_the_same_bytes(
    trained: Trained, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int, in_place: bool
) -> None:
    stopped, resumed = tmp_path / "stopped", tmp_path / ("stopped" if in_place else "resumed")
    written: list[int] = []
    original = module.write_part

    def dying(run: Path, number: int, tables: Any) -> None:
        if len(written) == parts:
            raise Killed
        original(run, number, tables)
        written.append(number)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_part", dying)
        patch.setattr("perturbation.run.merge", no_merge)
        with pytest.raises(Killed):
            trained.perturb(stopped, "ceiling.samples=4")
    assert not (stopped / "perturbation.json").exists()
    monkeypatch.setattr(module, "write_part", lambda *a: (written.append(a[1]), original(*a)))
    trained.perturb(resumed, "ceiling.samples=4", *(() if in_place else (f"resume={stopped}",)))
    assert sorted(written) == [0, 1]  # nothing was done twice
    assert results(resumed) == results(whole)


def test_the_engine_s_batch_is_measured_once(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(questions, "fastest", lambda *_: sizes.append(1) or 64)
    small = ("engine_batch=null", "samples=2", "modality=[text]", "faithfulness=false")
    trained.perturb(tmp_path / "one", *small)
    assert json.loads((tmp_path / "one" / "engine.json").read_text()) == {"engine_batch": 64}
    trained.perturb(tmp_path / "two", *small, f"resume={tmp_path / 'one'}")
    assert sizes == [1]
    assert results(tmp_path / "one") == results(tmp_path / "two")


def test_another_config_is_not_resumed(trained: Trained, whole: Path, tmp_path: Path) -> None:
    for override, named in (
        ("steps=chefer", "steps"),
        ("seed=1", "questions|seed"),
        ("removal.text=drop", "removal.text"),
    ):
        with pytest.raises(UserError, match=f"holds a run with .*({named})"):
            trained.perturb(tmp_path, "ceiling.samples=4", override, f"resume={whole}")
    with pytest.raises(UserError, match="explainers"):
        trained.perturb(tmp_path, "ceiling.samples=4", f"resume={whole}", explainer="genatt")
    assert list(tmp_path.glob("parts/*")) == []


@pytest.mark.parametrize(
    "options", [("target=margin", "eraser=[]"), ("removal.image=mean", "removal.text=drop", "eraser=[]")]
)
def test_other_options_run(trained: Trained, tmp_path: Path, options: tuple[str, ...]) -> None:
    reduced = ("samples=3", "steps=[0,0.5,1]", "faithfulness=false", "direction=[positive]", "controls=[]")
    content = trained.perturb(tmp_path, *reduced, *options)
    assert [row["modality"] for row in content["rows"]] == ["image", "text"]
    assert content["gaps"] == []
    assert not (tmp_path / "faithfulness.parquet").exists()


def test_a_question_without_words_has_a_flat_curve(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    original = FrozenClip.tokenize
    monkeypatch.setattr(FrozenClip, "tokenize", lambda self, texts: original(self, ["", *texts[1:]]))
    content = trained.perturb(tmp_path, "samples=3", "modality=[text]")
    first = records(tmp_path)[0]["question_id"]
    for row in records(tmp_path):
        if row["question_id"] == first:
            assert len(set(row["probability"])) == len(set(row["correct"])) == 1
    assert {row["violation"]["left_out"] for row in content["faithfulness"]} == {1}


def test_scores_that_cannot_be_ranked_are_named(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Weighted.scores

    def broken(self: Weighted, trace: Any, rows: torch.Tensor) -> torch.Tensor:
        scores = original(self, trace, rows).clone()
        scores[1, 5] = float("nan")
        return scores

    monkeypatch.setattr(Weighted, "scores", broken)
    second = r"explainer=weighted: image token 4 of question \d+ scores nan"
    with pytest.raises(UserError, match=second):
        trained.perturb(tmp_path)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("samples=0", "samples=0 must be 1 or more; null takes them all"),
        ("samples=100000", "the split has .* questions; give samples="),
        ("steps=[0,0.5,0.2]", "steps is not sorted"),
        ("steps=[0,1.5]", "outside 0..1"),
        ("steps=papr", "did you mean paper"),
        ("modality=[]", "modality is an empty list"),
        ("modality=[audio]", "modality: audio is not one of: image, text"),
        ("direction=[positive,positive]", "names one twice"),
        ("removal.image=drop", "removal.image: drop is not one of: mask, mean"),
        ("controls=[nothing]", "nothing is none of"),
        ("split=dev", "split=dev: this data has"),
        ("eraser=[0]", "must be above 0 and at most 1"),
        ("resume=/nowhere", "no perturbation run is there"),
        ("checkpoint=/nowhere.ckpt", "no such file"),
        ("mapper=a", "mapper.name=b"),
    ],
)
def test_bad_input_is_one_line(
    trained: Trained, tmp_path: Path, command: Callable[..., tuple[int, str, list[str]]], override: str, named: str
) -> None:
    status, _, errors = command("perturb", *trained.overrides, override, f"hydra.run.dir={tmp_path}")
    assert status == 1
    assert len(errors) == 1
    assert re.search(named, errors[0]), errors[0]


def test_several_explainers_from_the_command_line(
    trained: Trained, tmp_path: Path, command: Callable[..., tuple[int, str, list[str]]]
) -> None:
    quick = ("samples=2", "steps=[0,0.5,1]", "modality=[text]", "faithfulness=false", f"hydra.sweep.dir={tmp_path}")
    status, out, errors = command("perturb", *trained.overrides, *quick, "explainer=weighted,genatt", "--multirun")
    assert (status, errors) == (0, [])
    folders = [
        Path(line.removeprefix("results are in ")) for line in out.splitlines() if line.startswith("results are")
    ]
    first = [json.loads((folder / "perturbation.json").read_text())["rows"][0]["explainer"] for folder in folders]
    assert first == ["weighted", "genatt"]


@pytest.mark.slow
def test_two_processes_write_the_same_files(trained: Trained, whole: Path, tmp_path: Path) -> None:
    arguments = [*trained.overrides, "ceiling.samples=4", "trainer.devices=2", "trainer.strategy=ddp"]
    status, _, err = finish("perturb", [*arguments, f"hydra.run.dir={tmp_path}"])
    assert status == 0, err
    assert results(tmp_path) == results(whole)


@pytest.mark.slow
def test_a_run_killed_by_the_system_ends_with_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    arguments = [*trained.overrides, "samples=24", "batch_samples=2"]
    stopped = tmp_path / "stopped"
    process = start("perturb", [*arguments, f"hydra.run.dir={stopped}"])
    while len(list(stopped.glob("parts/*"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (stopped / "perturbation.json").exists()
    for folder, resume in (("resumed", [f"resume={stopped}"]), ("whole", [])):
        status, _, err = finish("perturb", [*arguments, *resume, f"hydra.run.dir={tmp_path / folder}"])
        assert status == 0, err
    assert results(tmp_path / "resumed") == results(tmp_path / "whole")


def test_the_paper_s_explainers_have_configs() -> None:
    assert composed("perturb", "explainer=paper").explainer.names == ["weighted", "uniform", "rollout", "genatt"]
    assert composed("perturb", "trainer=ddp").trainer.devices == 2
