"""The ceiling measure: the best and the worst subsets, and an explainer's share of the best area."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from clipmapper.errors import UserError
from perturbation.measures.ceiling import Ceiling, all_subsets, bounds, ceiling_rows, ceiling_table, few_enough


def test_bounds_are_those_of_all_subsets_of_a_size() -> None:
    """Compare with values computed by hand for a function of the removed tokens."""
    removable = np.array([[0, 1, 1, 0, 1, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=bool)
    assert few_enough(removable, 3) == [0, 1]
    kept = all_subsets(removable, [0, 1])
    assert kept.shape == (4, 8, 6)
    assert kept[2:].all()
    assert kept[1, 2:].all()

    def worth(mask: np.ndarray) -> float:
        return float(sum(1.0 / (place + 1) ** 2 for place in np.flatnonzero(~mask)))

    found = bounds(np.array([worth(mask) for mask in kept[0]]), (0.0, 0.3, 0.5, 1.0))
    values = {1: 1 / 4, 2: 1 / 9, 4: 1 / 25}
    pairs = [values[1] + values[2], values[1] + values[4], values[2] + values[4]]
    np.testing.assert_allclose(found["lowest"], [0, min(values.values()), min(pairs), sum(values.values())])
    np.testing.assert_allclose(found["highest"], [0, max(values.values()), max(pairs), sum(values.values())])
    means = [0, sum(values.values()) / 3, sum(pairs) / 3, sum(values.values())]
    np.testing.assert_allclose(found["mean"], means)


def one_row(modality: str, question: int, low: float, mean: float, high: float) -> dict[str, object]:
    row: dict[str, object] = {"question_id": question, "modality": modality}
    for column in ("correct", "probability"):
        row |= {f"{end}_{column}": [v, v] for end, v in (("lowest", low), ("mean", mean), ("highest", high))}
    return row


def test_shares_use_only_the_searched_samples_of_a_modality() -> None:
    """The curves are flat, so their area is their height. Two images are searched, but only the first text."""
    ceiling = [
        one_row("image", 1, 0.2, 0.4, 0.9),
        one_row("image", 2, 0.0, 0.4, 0.5),
        one_row("text", 1, 0.5, 0.5, 0.7),
    ]
    heights = {("image", 1): 0.3, ("image", 2): 0.1, ("image", 3): 1.0, ("text", 1): 0.6, ("text", 2): 0.0}
    rows = [
        {"question_id": q, "modality": m, "explainer": "e", "seed": 0, "direction": d, "correct": [h, h]}
        | {"probability": [h, h]}
        for (m, q), h in heights.items()
        for d in ("positive", "negative")
    ]
    found = ceiling_rows(pa.Table.from_pylist(rows), pa.Table.from_pylist(ceiling), (0.0, 1.0))
    assert len(found) == 2 * 2 * 2
    at = {(r["modality"], r["direction"]): r for r in found if r["measure"] == "accuracy"}
    positive, negative = at["image", "positive"], at["image", "negative"]
    assert [positive[key] for key in ("samples", "auc", "random_auc", "best_auc")] == pytest.approx([2, 20, 40, 10])
    assert positive["share"] == pytest.approx(2 / 3)
    assert negative["share"] == pytest.approx(-20 / 30)
    assert np.isnan(at["text", "positive"]["share"])  # the best is no better than random
    assert at["text", "negative"]["share"] == pytest.approx(0.5)
    lines = ceiling_table([r | {"share": None if np.isnan(r["share"]) else r["share"]} for r in found]).splitlines()
    assert lines[3] == "| accuracy | image | positive ↓ | e | 2 | 40.0 | 20.0 | 10.0 | 66.7 |"
    assert lines[5] == "| accuracy | text | positive ↓ | e | 1 | 50.0 | 60.0 | 50.0 | – |"
    assert {line.count("|") for line in lines[:10]} == {10}


def test_refused_options() -> None:
    with pytest.raises(UserError, match=r"ceiling\.samples=-1 must be 0 or more"):
        Ceiling(-1, 8, "paper")
    with pytest.raises(UserError, match=r"ceiling\.words=13 must be 1 to 12"):
        Ceiling(1, 13, "paper")
