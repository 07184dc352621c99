"""Localisation metrics: closed forms, brute force over orders, and the command with a small trained model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_runs import Tiny, composed

from clipmapper.data.shapes.evidence import sub_word_spans
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.tasks.vqa.explaining import explain
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch, load_trained
from clipmapper.training.batches import even_batches
from explain import explainers
from perturbation.benchmark.plain_loop import plain_logits
from perturbation.localise.metrics import METRICS, chance, mass_accuracy, pointing_game, rank_accuracy
from perturbation.localise.samples import read_samples
from perturbation.localise.tables import localisation_rows, markdown
from perturbation.localise.vqa import too_few_correct
from perturbation.statistics import bootstrap_interval

Command = Callable[..., tuple[int, str, list[str]]]
Bools = NDArray[np.bool_]
EVERY = list(METRICS.values())


def masks(random: np.random.Generator, samples: int, tokens: int) -> tuple[Bools, Bools]:
    """Return random masks of eligible tokens and of evidence, with at least one token and not all of them."""
    eligible = random.random((samples, tokens)) < 0.8
    eligible[:, :2] = True
    evidence = eligible & (random.random((samples, tokens)) < 0.4)
    evidence[:, 0], evidence[:, 1] = True, False
    return eligible, evidence


@pytest.mark.parametrize("measure", EVERY)
def test_all_relevance_inside_is_one_and_all_outside_is_zero(measure: Any) -> None:
    random = np.random.default_rng(0)
    eligible, evidence = masks(random, 50, 9)
    strength = random.uniform(0.1, 5, evidence.shape)
    assert measure(strength * evidence, eligible, evidence) == pytest.approx(1)
    outside = eligible & ~evidence
    enough = outside.sum(1) >= evidence.sum(1)  # else the K highest can't all be outside
    assert measure(strength * outside, eligible, evidence)[enough] == pytest.approx(0)


@pytest.mark.parametrize("level", [0.0, 1.0, 1e-30, 1e300])
@pytest.mark.parametrize("measure", EVERY)
def test_uniform_scores_are_at_chance(measure: Any, level: float) -> None:
    eligible, evidence = masks(np.random.default_rng(1), 50, 9)
    expected = [sum(e) / sum(p) for e, p in zip(evidence.tolist(), eligible.tolist(), strict=True)]
    assert measure(np.full(eligible.shape, level), eligible, evidence) == pytest.approx(expected)
    assert chance(eligible, evidence) == pytest.approx(expected)


@pytest.mark.parametrize("measure", EVERY)
def test_random_scores_are_at_chance_on_average(measure: Any) -> None:
    random = np.random.default_rng(2)
    eligible, evidence = masks(random, 20000, 9)
    gain = measure(random.random(eligible.shape), eligible, evidence) - chance(eligible, evidence)
    assert abs(gain.mean()) < 4 * gain.std() / math.sqrt(len(gain))
    assert gain.std() > 0.05


def test_negative_scores_have_no_mass_but_an_order() -> None:
    eligible, evidence = np.ones((1, 4), bool), np.array([[True, False, False, False]])
    below = np.array([[-1.0, -2.0, -3.0, -4.0]])
    assert mass_accuracy(below, eligible, evidence).tolist() == [0.25]
    assert rank_accuracy(below, eligible, evidence).tolist() == [1]
    assert pointing_game(-below, eligible, evidence).tolist() == [0]
    mixed = np.array([[3.0, 1.0, -4.0, 0.0]])
    assert mass_accuracy(mixed, eligible, evidence).tolist() == [0.75]


def test_ties_count_as_the_average_over_their_orders() -> None:
    """Compare rank accuracy and pointing game with every order that sorts the scores."""
    random = np.random.default_rng(3)
    eligible, evidence = masks(random, 60, 6)
    scores = random.integers(-1, 2, eligible.shape).astype(float)
    ranks, hits = rank_accuracy(scores, eligible, evidence), pointing_game(scores, eligible, evidence)
    for b in range(60):
        tokens = np.flatnonzero(eligible[b])
        orders = [o for o in permutations(tokens) if all(scores[b, i] >= scores[b, j] for i, j in zip(o, o[1:]))]  # noqa: B905, RUF007
        count = int(evidence[b].sum())
        assert ranks[b] == pytest.approx(np.mean([evidence[b, list(o[:count])].mean() for o in orders]))
        assert hits[b] == pytest.approx(np.mean([evidence[b, o[0]] for o in orders]))


def test_mass_equals_a_slow_loop() -> None:
    random = np.random.default_rng(4)
    eligible, evidence = masks(random, 40, 7)
    scores = random.normal(size=eligible.shape).astype(np.float32)
    found = mass_accuracy(scores, eligible, evidence)
    for b in range(40):
        inside = whole = 0.0
        for k in range(7):
            if eligible[b, k] and scores[b, k] > 0:
                whole += float(scores[b, k])
                inside += float(scores[b, k]) * bool(evidence[b, k])
        expected = inside / whole if whole else evidence[b].sum() / eligible[b].sum()
        assert found[b] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("measure", EVERY)
def test_scale_position_and_tokens_that_are_not_eligible_do_not_matter(measure: Any) -> None:
    random = np.random.default_rng(5)
    eligible, evidence = masks(random, 30, 8)
    scores = random.normal(size=eligible.shape)
    found = measure(scores, eligible, evidence)
    assert measure(scores * 1e-20, eligible, evidence) == pytest.approx(found)
    order = random.permutation(8)
    assert measure(scores[:, order], eligible[:, order], evidence[:, order]) == pytest.approx(found)
    spoilt = np.where(eligible, scores, np.nan)
    assert measure(spoilt, eligible, evidence) == pytest.approx(found)


@pytest.mark.parametrize("measure", EVERY)
def test_no_evidence_gives_nan_and_bad_arrays_are_refused(measure: Any) -> None:
    eligible = np.array([[True, True, False], [False, False, False]])
    nothing = np.zeros_like(eligible)
    assert np.isnan(measure(np.ones((2, 3)), eligible, nothing)).all()
    assert np.isnan(chance(eligible, nothing)).all()
    with pytest.raises(ValueError, match="true only at eligible tokens"):
        measure(np.ones((2, 3)), eligible, ~eligible)
    with pytest.raises(UserError, match="token 1 of sample 0 is nan"):
        measure(np.array([[1, np.nan, 1], [1, 1, 1]]), eligible, nothing)


def test_batches_contain_every_row_once_and_at_least_two() -> None:
    for count in range(2, 40):
        for size in range(2, 9):
            parts = even_batches(list(range(count)), size, least=True)
            assert [row for part in parts for row in part] == list(range(count))
            assert min(map(len, parts)) >= min(size, count)
            assert max(map(len, parts)) < 2 * size


def test_rows_are_means_and_paired_gains_over_questions_with_evidence() -> None:
    random = np.random.default_rng(6)
    table = {name: random.random((30, 3)) for name in ("good", "chance")}
    for column in table.values():
        column[[3, 7]] = np.nan
    kinds = ["a"] * 29 + ["b"]
    found = localisation_rows({"image": table}, kinds, {"mapper": "b"}, seed=0)
    assert found["left_out"] == {"image": 2}
    assert [(row["explainer"], row["metric"]) for row in found["rows"]] == [(e, m) for e in table for m in METRICS]
    known = [k for k in range(30) if k not in (3, 7)]
    row = found["rows"][1]
    assert row["value"] == pytest.approx(table["good"][known, 1].mean())
    assert row["ci95"] == pytest.approx(bootstrap_interval(table["good"][known, 1]).tolist())
    gain = table["good"][known, 1] - table["chance"][known, 1]
    assert row["above_chance"] == pytest.approx(gain.mean())
    assert row["above_chance_ci95"] == pytest.approx(bootstrap_interval(gain).tolist())
    assert (row["samples"], row["mapper"], row["modality"]) == (28, "b", "image")
    alone = [row for row in found["by_kind"] if row["kind"] == "b"]
    assert [row["value"] for row in alone] == pytest.approx([*table["good"][29], *table["chance"][29]])
    assert all(row["ci95"] is None and row["samples"] == 1 for row in alone)


def test_the_table_marks_values_that_are_not_above_chance() -> None:
    steady = np.full((20, 3), 0.4)
    values = {"good": steady + 0.2, "none": steady, "chance": steady}
    found = localisation_rows({"text": values}, ["a"] * 20, {"mapper": "b"}, seed=0)
    lines = markdown(found["rows"], found["left_out"], "shapes test", 20).splitlines()
    assert lines[0] == "| explainer | text mass | text rank | text pointing |"
    assert lines[2] == "| good | 0.600 [0.600, 0.600] | 0.600 [0.600, 0.600] | 0.600 [0.600, 0.600] |"
    assert lines[3].count("0.400° [0.400, 0.400]") == 3
    assert "°" not in lines[4]


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("localised") / "run"
    rate = ("task.optim.warmup_steps=5", "task.optim.lr=0.01")
    tiny.train(run, "trainer.max_steps=60", "trainer.val_check_interval=60", *rate)
    return run


def arguments(tiny: Tiny, trained: Path, folder: Path, *more: str) -> tuple[str, ...]:
    few = ("explainer.names=[weighted,random,shuffled]", "samples=9", "batch_size=4", "patch_share=0.2")
    return (*tiny.overrides, f"checkpoint={trained}", f"hydra.run.dir={folder}", *few, *more)


@pytest.mark.slow
def test_the_command_equals_one_question_at_a_time(tiny: Tiny, trained: Path, command: Command, tmp_path: Path) -> None:
    status, out, errors = command("evaluate_explanations", *arguments(tiny, trained, tmp_path / "one"))
    assert (status, errors) == (0, [])
    found = read_json(tmp_path / "one" / "localisation.json")
    printed = [line.split("  ") for line in out.splitlines()]
    for row in found["rows"]:
        mark = "°" if row["explainer"] != "chance" and row["above_chance_ci95"][0] <= 0 else ""
        cell = f"{row['value']:.3f}{mark} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
        assert any(line[0] == row["explainer"] and cell in map(str.strip, line) for line in printed)
    names = list(dict.fromkeys(row["explainer"] for row in found["rows"]))
    assert names == ["weighted", "random", "shuffled", "deletion", "chance"]
    assert found["questions"] == 9
    assert found["versions"].keys() >= {"python", "torch", "numpy"}
    expected = _by_hand(tiny, trained, samples=9)
    for name, modality in product(("weighted", "deletion"), ("image", "text")):
        rows = {row["metric"]: row for row in found["rows"] if (row["explainer"], row["modality"]) == (name, modality)}
        values = [value for value in expected[name, modality] if value is not None]
        assert rows["mass_accuracy"]["samples"] == len(values)
        assert found["left_out"][modality] == 9 - len(values)
        rounding = 1e-5 if name == "weighted" else 2e-4  # the falls are differences of almost equal probabilities
        assert rows["mass_accuracy"]["value"] == pytest.approx(np.mean([mass for mass, _ in values]), abs=rounding)
        assert rows["pointing_game"]["value"] == pytest.approx(np.mean([hit for _, hit in values]), abs=1e-5)
    ids, kinds, values = read_samples(tmp_path / "one" / "localisation.parquet")
    assert len(set(ids.tolist())) == 9
    tables = localisation_rows(values, kinds, {"task": "vqa", "mapper": "b"}, 0)
    assert {name: tables[name] for name in ("rows", "by_kind")} == {name: found[name] for name in ("rows", "by_kind")}
    again = command("evaluate_explanations", *arguments(tiny, trained, tmp_path / "two"))
    assert again[0] == 0
    assert read_json(tmp_path / "two" / "localisation.json")["rows"] == found["rows"]
    assert read_json(tmp_path / "two" / "localisation.json")["by_kind"] == found["by_kind"]


def test_explainers_have_rows_only_in_the_modalities_they_score(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path
) -> None:
    few = arguments(tiny, trained, tmp_path, "explainer.names=[first_to_last,centre_first]", "samples=4")
    assert command("evaluate_explanations", *few)[0] == 0
    found = read_json(tmp_path / "localisation.json")
    rows = {(row["explainer"], row["modality"]) for row in found["rows"]}
    assert rows == {
        ("first_to_last", "text"),
        ("centre_first", "image"),
        ("chance", "image"),
        ("chance", "text"),
        ("deletion", "image"),
        ("deletion", "text"),
    }
    lines = (tmp_path / "localisation.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| centre_first",
        "| first_to_last",
        "| deletion",
        "| chance",
    ]
    assert lines[3].startswith("| first_to_last | – | – | – | 0.")


@pytest.mark.slow
def test_controls_with_partners_do_not_depend_on_the_batches(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path
) -> None:
    found = []
    for size in (1, 4, 9):
        run = tmp_path / str(size)
        more = ("explainer.names=[shuffled,depth_matched]", f"batch_size={size}")
        status, _, errors = command("evaluate_explanations", *arguments(tiny, trained, run, *more))
        assert (status, errors) == (0, [])
        found.append([row["value"] for row in read_json(run / "localisation.json")["rows"]])
    assert found[1] == pytest.approx(found[0], abs=5e-5)
    assert found[2] == pytest.approx(found[0], abs=5e-5)


Values = dict[tuple[str, str], list[tuple[float, float] | None]]


def _by_hand(tiny: Tiny, trained: Path, samples: int) -> Values:
    """Return mass and hits of the weighted method and of the deletion oracle, with the evidence read from the files.

    There is one question at a time, and a full forward pass for each removed token.
    """
    trained = load_trained(tiny.config(), "test", str(trained))
    folder = next(iter((tiny.root / "cache" / "data" / "shapes").glob("v*-40-10-10x*")))
    side = read_json(folder / "shapes_test_evidence.json")["questions"]
    found: Values = {key: [] for key in product(("weighted", "deletion"), ("image", "text"))}
    for row in np.random.default_rng(0).permutation(len(trained.questions)).tolist():
        batch = trained.batch([row])
        assert batch is not None
        question = batch.questions[0]
        explained = explain(trained.model, batch, {"weighted": explainers.Weighted()})
        answer = int(explained.traced.answers)
        if vqa_accuracy(trained.model.answers[answer], question.answers) < 0.5:
            continue
        scores = explained.scores["weighted"][0].tolist()
        entry = side[str(question.question_id)]
        spans = sub_word_spans(question.question, trained.model.encoder.tokenizer)
        words = [any(a <= s and e <= b for a, b in entry["words"]) for s, e in spans]
        mask = np.asarray(Image.open(folder / f"masks/test/shapes_test_{question.image_id:012d}.png"))
        shown = np.kron(np.isin(mask, [k + 1 for k in entry["objects"]]), np.ones((6, 6)))
        patches = (shown.reshape(6, 128, 6, 128).mean((1, 3)) >= 0.2).ravel().tolist()
        found["weighted", "image"].append(_mass_and_hit(scores[1:37], patches))
        found["weighted", "text"].append(_mass_and_hit(scores[38 : 38 + len(words)], words))
        for modality, truth in (("image", patches), ("text", words)):
            falls = _falls(trained.model, batch, answer, modality, len(truth))
            found["deletion", modality].append(_mass_and_hit(falls, truth))
        if len(found["weighted", "text"]) == samples:
            return found
    raise AssertionError("the model answers too few questions")


def _falls(model: CLIPMapperVQA, batch: QuestionBatch, answer: int, modality: str, count: int) -> list[float]:
    """Return p(x) − p(x without token) of the answer, for each of ``count`` tokens after the class or start token."""
    tokens = 37 if modality == "image" else batch.text.ids.shape[1]
    kept = torch.ones(1, count + 1, tokens, dtype=torch.bool)
    for token in range(count):
        kept[0, token + 1, token + 1] = False
    whole, *without = plain_logits(model, batch.pixels, batch.text, **{modality: kept})[0, :, answer].sigmoid().tolist()
    return [whole - each for each in without]


def _mass_and_hit(scores: list[float], truth: list[bool]) -> tuple[float, float] | None:
    if not any(truth):
        return None
    positive = [max(score, 0.0) for score in scores]
    inside = sum(score for score, there in zip(positive, truth, strict=True) if there)
    return inside / sum(positive), float(truth[scores.index(max(scores))])


def test_a_model_without_a_correct_answer_is_to_be_replaced(tiny: Tiny) -> None:
    config = composed("evaluate_explanations", *tiny.overrides, "samples=6")
    assert str(too_few_correct(config, 0, 60)).endswith("correctly; give the checkpoint of a better model")  # type: ignore[arg-type]
    assert str(too_few_correct(config, 2, 60)).endswith("correctly; give samples=2 or fewer")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("samples=61", r"samples=61: the model answers only \d+ of the 60 questions of split=test correctly; give"),
        ("split=dev", "split=dev: data=shapes has evidence for train, val, test"),
        ("samples=1", "samples=1 must be 2 or more"),
        ("patch_share=0", "patch_share=0.0 must be above 0 and at most 1"),
        ("explainer.names=[none]", "explainer.names: none is not one of: "),
        ("task.sees=image", "task.sees=image: only models that see both image and text can be explained"),
        ("task=caption", r"has task=vqa, the config task=caption: give task=vqa or another checkpoint"),
    ],
)
def test_bad_input_is_one_line(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path, override: str, message: str
) -> None:
    status, _, errors = command("evaluate_explanations", *arguments(tiny, trained, tmp_path / "run", override))
    assert status == 1
    assert len(errors) == 1
    assert re.search(message, errors[0])


def test_a_trace_that_an_explainer_refuses_is_one_line(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path
) -> None:
    odd = ("explainer.names=[odd]", "explainer.odd={_target_:odd_explainers.Refusing}")
    few = arguments(tiny, trained, tmp_path / "run", *odd, "samples=4")
    status, _, errors = command("evaluate_explanations", *few)
    assert (status, errors) == (1, [f"error: {trained}/checkpoints/best.ckpt can't be explained: step 2 holds NaN"])


@pytest.mark.parametrize("name", ["deletion", "chance"])
def test_an_explainer_with_the_name_of_a_row_is_refused(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path, name: str
) -> None:
    odd = (f"explainer.names=[{name}]", f"explainer.{name}={{_target_:explain.explainers.Uniform}}")
    status, _, errors = command("evaluate_explanations", *arguments(tiny, trained, tmp_path / "run", *odd))
    expected = f"error: the tables have a row {name} already: give the explainer of this name another one"
    assert (status, errors) == (1, [expected])


def test_other_data_is_refused_by_name(tiny: Tiny, command: Command, tmp_path: Path) -> None:
    place = (f"hydra.run.dir={tmp_path / 'run'}", f"data.root={tmp_path}")
    status, _, errors = command("evaluate_explanations", *tiny.base, "data=vqav2", *place)
    assert status == 1
    assert errors == ["error: data=vqav2 does not say what its answers depend on: give data=shapes, which does"]
