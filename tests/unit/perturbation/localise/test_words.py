"""Tables of word localisation: values computed by hand, chance, and intervals over captions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perturbation.localise.metrics import METRICS
from perturbation.localise.words import word_localisation_rows, word_values
from perturbation.statistics import bootstrap_interval

Row = dict[str, Any]


def table_of(
    relevance: dict[str, np.ndarray], evidence: np.ndarray, kinds: list[str], captions: list[int]
) -> dict[str, Any]:
    return word_localisation_rows(word_values(relevance, evidence, 0), kinds, captions, {"mapper": "b"}, seed=0)


def rows_of(found: dict[str, Any]) -> dict[tuple[str, str, str], Row]:
    return {(row["explainer"], row["kind"], row["metric"]): row for row in found["rows"]}


# Four words over four patches, from two captions: caption 7 has three words, caption 3 has one.
EVIDENCE = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]], bool)
SCORES = np.array([[3.0, 1, 0, 0], [0, 0.5, 0.5, 1], [4, 3, 2, 1], [1, 2, 3, 4]])
KINDS = ["color", "shape", "color", "color"]
CAPTIONS = [7, 7, 7, 3]
# Computed by hand. Mass: relevance on the evidence / all relevance. Rank: share of the K highest scores on the evidence
# (second word: two tied tokens share one place, which gives 1/2). Pointing: 1 if the highest score is on the evidence.
MASS = [3 / 4, 1 / 2, 1 / 10, 3 / 10]
RANK = [1, 1 / 2, 0, 0]
POINTING = [1, 0, 0, 0]


def test_a_table_computed_by_hand() -> None:
    found = rows_of(table_of({"good": SCORES}, EVIDENCE, KINDS, CAPTIONS))
    for metric, (a, b, c, d) in zip(METRICS, (MASS, RANK, POINTING), strict=True):
        expected = {"all": ((a + b + c) / 3 + d) / 2, "color": ((a + c) / 2 + d) / 2, "shape": b}
        for kind, value in expected.items():
            row = found["good", kind, metric]
            assert row["value"] == pytest.approx(value), (kind, metric)
            assert (row["mapper"], row["modality"]) == ("b", "image")
        share = {"all": ((1 / 4 + 1 / 2 + 1 / 4) / 3 + 1 / 2) / 2, "color": (1 / 4 + 1 / 2) / 2, "shape": 1 / 2}
        assert {kind: found["chance", kind, metric]["value"] for kind in share} == pytest.approx(share)
        assert found["good", "all", metric]["above_chance"] == pytest.approx(expected["all"] - share["all"])
    counts = {kind: (row["words"], row["samples"]) for (_, kind, _), row in found.items()}
    assert counts == {"all": (4, 2), "color": (3, 2), "shape": (1, 1)}
    assert found["good", "shape", "mass_accuracy"]["ci95"] is None  # one caption has no spread
    assert {explainer for explainer, _, _ in found} == {"good", "random", "chance"}


def random_words(captions: int, seed: int, words: int = 6) -> tuple[np.ndarray, np.ndarray, list[str], list[int]]:
    """Return scores, evidence, kinds and captions; all words of a caption share their evidence.

    The scores favour the evidence more in some captions than in others.
    """
    random = np.random.default_rng(seed)
    evidence = np.repeat(random.random((captions, 16)) < 0.25, words, 0)
    evidence[:, 0] = True
    favour = np.repeat(random.random(captions), words)
    scores = random.random(evidence.shape) * 0.01 + evidence * favour[:, None] + 0.2
    return (
        scores,
        evidence,
        [("color", "shape")[k % 2] for k in range(len(scores))],
        np.repeat(range(captions), words).tolist(),
    )


def test_intervals_are_over_captions() -> None:
    """Six equal words per caption give the same interval as one word per caption."""
    scores, evidence, kinds, captions = random_words(40, 0)
    scores = np.repeat(scores[::6], 6, 0)
    six = rows_of(table_of({"good": scores}, evidence, kinds, captions))
    one = rows_of(table_of({"good": scores[::6]}, evidence[::6], ["x"] * 40, captions[::6]))
    for metric, measure in METRICS.items():
        row, alone = six["good", "all", metric], one["good", "all", metric]
        assert row["ci95"] == pytest.approx(alone["ci95"])
        assert (row["samples"], row["words"], alone["words"]) == (40, 240, 40)
        values = measure(scores[::6], np.ones_like(evidence[::6]), evidence[::6])
        assert row["ci95"] == pytest.approx(bootstrap_interval(values, seed=0).tolist())


def test_the_order_of_words_and_the_captions_keys_do_not_matter() -> None:
    scores, evidence, kinds, captions = random_words(12, 1)
    order = np.random.default_rng(2).permutation(len(scores))
    plain = rows_of(table_of({"good": scores}, evidence, kinds, captions))
    mixed = rows_of(
        table_of(
            {"good": scores[order]},
            evidence[order],
            [kinds[k] for k in order],
            [5 * captions[k] - 9 for k in order],
        )
    )
    for key, row in plain.items():
        if key[0] == "good":
            assert mixed[key]["value"] == pytest.approx(row["value"])
            assert mixed[key]["ci95"] == pytest.approx(row["ci95"])


def test_random_scores_are_at_chance_and_perfect_ones_are_perfect() -> None:
    _, evidence, kinds, captions = random_words(400, 3)
    found = rows_of(table_of({"perfect": evidence * 1.0}, evidence, kinds, captions))
    for metric in METRICS:
        row, chance = found["random", "all", metric], found["chance", "all", metric]
        assert row["value"] == pytest.approx(chance["value"], abs=0.03)
        assert row["value"] != chance["value"]
        assert chance["above_chance_ci95"] == [0, 0]
        assert found["perfect", "color", metric]["value"] == 1
        assert found["perfect", "color", metric]["above_chance_ci95"][0] > 0.5
    assert found["chance", "all", "mass_accuracy"]["value"] == pytest.approx(evidence[::6].mean())


def test_words_without_evidence_patches_are_left_out_and_counted() -> None:
    evidence = EVIDENCE.copy()
    evidence[[1, 3]] = False
    found = table_of({"good": SCORES}, evidence, KINDS, CAPTIONS)
    rows = rows_of(found)
    assert found["left_out"] == 2
    assert {kind for _, kind, _ in rows} == {"all", "color"}
    assert rows["good", "all", "mass_accuracy"]["value"] == pytest.approx((MASS[0] + MASS[2]) / 2)
    assert (rows["good", "all", "mass_accuracy"]["samples"], rows["good", "all", "mass_accuracy"]["words"]) == (1, 2)
    nothing = table_of({"good": SCORES}, np.zeros_like(evidence), KINDS, CAPTIONS)
    assert nothing == {"rows": [], "left_out": 4}


def test_wrong_counts_and_names_are_refused() -> None:
    for kinds, captions in ((KINDS[1:], CAPTIONS), (KINDS, CAPTIONS[1:])):
        with pytest.raises(ValueError, match="must be equal and above 0"):
            table_of({"good": SCORES}, EVIDENCE, kinds, captions)
    with pytest.raises(ValueError, match="must be equal and above 0"):
        table_of({"good": SCORES[:0]}, EVIDENCE[:0], [], [])
    for name in ("random", "chance"):
        with pytest.raises(ValueError, match=f"the explainer {name} is added by this function"):
            table_of({name: SCORES}, EVIDENCE, KINDS, CAPTIONS)
