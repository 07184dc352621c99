"""All measures with a model that has a closed form: the single pass, the recorded tables, and the reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sum_reader import SumReader, explained

from clipmapper.errors import UserError
from perturbation.measures.areas import Areas
from perturbation.measures.base import ExplainedBatch, Measure, Name, Rows
from perturbation.measures.ceiling import Ceiling
from perturbation.measures.eraser import Eraser
from perturbation.measures.faithfulness import Faithfulness
from perturbation.measures.saco import SaCo
from perturbation.perturb.records import record_batch
from perturbation.perturb.results import write_results
from perturbation.removal.reader import Read, SubsetOutputs, Subsets, read_together

STEPS = (0.0, 0.25, 0.5, 1.0)
EFFECTS = {
    "image": np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 5.0, -2.0, 0.5]]),
    "text": np.array([[8.0, 16.0], [3.0, 7.0]]),
}
MEASURES: dict[str, Measure] = {
    "areas": Areas(STEPS, ["positive", "negative"], {"task": "sums"}),
    "eraser": Eraser([0.25, 0.5]),
    "faithfulness": Faithfulness(),
    "ceiling": Ceiling(1, 8, STEPS),
}


def perfect() -> ExplainedBatch:
    """Return samples scored by two explainers: ``truth`` gives the effects, ``lie`` their negatives."""
    return explained({m: {"truth": each, "lie": -each} for m, each in EFFECTS.items()})


def merged(measures: Mapping[str, Measure], batch: ExplainedBatch) -> dict[str, pa.Table]:
    tables = record_batch(measures, batch, SumReader(), EFFECTS, None)
    return {name: pa.concat_tables(each) for name, each in tables.items()}


def row(table: pa.Table, **about: Any) -> dict[str, Any]:
    found = [each for each in table.to_pylist() if all(each[key] == value for key, value in about.items())]
    assert len(found) == 1
    return found[0]


def test_curves_are_the_sums_of_the_kept_tokens() -> None:
    table = merged({"areas": MEASURES["areas"]}, perfect())["samples"]
    names = ["thing_id", "modality", "explainer", "seed", "direction", "control"]
    names += ["partner_id", "said", "worth", "doubled"]
    assert table.column_names == names
    about = {"thing_id": 0, "modality": "image", "explainer": "truth"}
    assert row(table, **about, direction="positive")["worth"] == [34.0, 30.0, 27.0, 24.0]
    assert row(table, **about, direction="negative")["worth"] == [34.0, 33.0, 31.0, 24.0]
    assert row(table, **about, direction="negative")["said"] == ["34.000", "33.000", "31.000", "24.000"]
    about = {"thing_id": 1, "modality": "text", "explainer": "lie"}
    assert row(table, **about, direction="positive")["doubled"] == [29.0, 23.0, 23.0, 9.0]


def test_records_of_equal_scores_do_not_depend_on_the_batch() -> None:
    effects = {"image": np.random.default_rng(0).normal(size=(6, 5)), "text": np.zeros((6, 1))}
    measures: dict[str, Measure] = {"areas": MEASURES["areas"], "eraser": MEASURES["eraser"], "saco": SaCo(2)}

    def recorded(*parts: slice) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for part in parts:
            own = {modality: each[part] for modality, each in effects.items()}
            batch = explained({"image": {"flat": np.zeros(own["image"].shape)}}, start=part.start)
            for name, tables in record_batch(measures, batch, SumReader(), own, None).items():
                found.setdefault(name, []).extend(row for table in tables for row in table.to_pylist())
        return {name: sorted(rows, key=str) for name, rows in found.items()}

    whole = recorded(slice(0, 6))
    assert recorded(slice(4, 6), slice(0, 1), slice(1, 4)) == whole
    curves = {row["thing_id"]: row["worth"] for row in whole["samples"]}
    by_position = np.concatenate([effects["image"].sum(1)[:, None], effects["image"][:, ::-1].cumsum(1)[:, ::-1]], 1)
    assert any(curves[k][1] != pytest.approx(by_position[k][2]) for k in range(6))


def test_measures_that_share_a_table_share_its_rows() -> None:
    tables = merged(MEASURES, perfect())
    names = ["thing_id", "modality", "explainer", "seed"]
    kept = ["full", "without_top", "only_top", "violation", "pearson", "spearman"]
    assert tables["faithfulness"].column_names == [*names, *kept]
    found = row(tables["faithfulness"], thing_id=0, modality="image", explainer="truth")
    assert (found["full"], found["violation"]) == (68.0, 0.0)
    assert found["without_top"] == [60.0, 54.0]
    assert found["only_top"] == [56.0, 62.0]
    assert found["pearson"] == pytest.approx(1)
    assert row(tables["faithfulness"], thing_id=1, modality="image", explainer="lie")["violation"] == 1.0
    alone = merged({"areas": MEASURES["areas"], "faithfulness": MEASURES["faithfulness"]}, perfect())
    assert alone["faithfulness"].column_names == [*names, "full", "violation", "pearson", "spearman"]


def test_the_ceiling_of_the_first_samples_bounds_their_curves() -> None:
    tables = merged(MEASURES, perfect())
    found = tables["ceiling"].to_pylist()
    assert [(each["thing_id"], each["modality"]) for each in found] == [(0, "image"), (0, "text")]
    assert found[0]["lowest_worth"] == [34.0, 30.0, 27.0, 24.0]
    assert found[0]["highest_worth"] == [34.0, 33.0, 31.0, 24.0]
    assert found[1]["mean_worth"] == [34.0, 22.0, 22.0, 10.0]
    later = explained({m: {"truth": each} for m, each in EFFECTS.items()}, start=2)
    assert "ceiling" not in merged(MEASURES, later)


def test_everything_except_the_search_is_read_in_one_pass() -> None:
    reader = SumReader()
    without_search = {name: each for name, each in MEASURES.items() if name != "ceiling"}
    record_batch(without_search, perfect(), reader, EFFECTS, None)
    assert len(reader.seen) == 1
    record_batch(MEASURES, perfect(), reader, EFFECTS, None)
    assert len(reader.seen) == 1 + 2 * 4 + 1  # each of the two searches removes 4 patches, one after the other


def test_the_reports_follow_from_the_records(tmp_path: Path) -> None:
    tables = merged(MEASURES, perfect())
    content: dict[str, Any] = {}
    for measure in MEASURES.values():
        content |= measure.report(tables, tmp_path)
    assert list(content) == ["rows", "gaps", "eraser", "faithfulness", "ceiling"]
    assert list(content["rows"][0])[:6] == ["explainer", "task", "modality", "direction", "samples", "steps"]
    truth = {g["modality"]: g["gap"] for g in content["gaps"] if (g["explainer"], g["measure"]) == ("truth", "worth")}
    lie = {g["modality"]: g["gap"] for g in content["gaps"] if (g["explainer"], g["measure"]) == ("lie", "worth")}
    assert truth["image"] > 0
    assert truth == pytest.approx({modality: -gap for modality, gap in lie.items()})
    assert all(each["share"] == pytest.approx(1) for each in content["ceiling"] if each["explainer"] == "truth")
    assert {r["spearman"]["mean"] for r in content["faithfulness"] if r["explainer"] == "lie"} == {-1.0}
    files = {file.name for file in tmp_path.iterdir()}
    assert files >= {"comparisons.json", "areas_worth.md", "curves_doubled.png", "ceiling.md"}


def test_measures_that_are_turned_off_ask_record_and_report_nothing(tmp_path: Path) -> None:
    batch = perfect()
    for measure in (Eraser([]), Faithfulness(wanted=False), Ceiling(0, 8, STEPS)):
        assert measure.ask(batch, lambda subsets: SumReader().read(EFFECTS, subsets, None)) == {}
        assert measure.record(batch, {}) == []
        assert measure.report(merged({"areas": MEASURES["areas"]}, batch), tmp_path) == {}


class Both(Measure):
    """A measure that asks for subsets of both modalities together: all tokens, none, and the first of each."""

    def ask(self, batch: ExplainedBatch, read: Read) -> dict[Name, Subsets]:
        image = np.zeros((len(batch.ids), 1, 4), dtype=bool)
        text = np.zeros((len(batch.ids), 1, 2), dtype=bool)
        first = [mask | (np.arange(mask.shape[2]) == 0) for mask in (image, text)]
        return {("all",): Subsets(), ("none",): Subsets(image, text), ("first",): Subsets(*first)}

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        columns = {name: each.responses[1:, 0] for (name,), each in outputs.items()}
        return [Rows("both", {"by": "me"}, columns, [1])]

    def report(self, tables: Mapping[str, pa.Table], run: Path) -> dict[str, Any]:
        return {"both": tables["both"].num_rows}


class Overwrites(Areas):
    """A measure that returns other values for a column of ``areas``."""

    def record(self, batch: ExplainedBatch, outputs: Mapping[Name, SubsetOutputs]) -> list[Rows]:
        return [replace(each, columns={"worth": 0 * each.columns["worth"]}) for each in super().record(batch, outputs)]


def test_a_measure_with_other_values_for_the_same_column_is_refused() -> None:
    both = {"areas": MEASURES["areas"], "mine": Overwrites(STEPS, ["positive", "negative"], {"task": "sums"})}
    with pytest.raises(UserError, match="measure=mine: another measure records other values in column worth of table"):
        merged(both, perfect())


def test_a_column_with_the_same_values_may_be_recorded_twice() -> None:
    """Both records contain text and NaN."""
    ours = {"areas": MEASURES["areas"]}
    twice = {**ours, "again": MEASURES["areas"], "correlations": Faithfulness(), "repeated": Faithfulness()}
    broken = explained({m: {"flat": np.zeros_like(each)} for m, each in EFFECTS.items()})
    tables = merged(twice, broken)
    assert np.isnan(tables["faithfulness"]["spearman"].to_numpy()).any()
    assert tables["samples"].equals(merged(ours, broken)["samples"])


def test_a_report_with_a_key_of_another_gets_the_name_of_its_measure(tmp_path: Path) -> None:
    measures = {"areas": MEASURES["areas"], "eraser": Eraser([0.25]), "mine": Eraser([0.5], seed=1)}
    tables = merged({name: measures[name] for name in ("areas", "eraser")}, perfect())
    content = write_results(tmp_path, tables, {}, measures, None)
    assert content["eraser"][0]["shares"] == [0.25]
    assert content["mine_eraser"][0]["shares"] == [0.5]


def test_a_measure_over_image_and_text() -> None:
    tables = merged({"areas": MEASURES["areas"], "both": Both()}, perfect())
    assert tables["both"].to_pylist() == [{"thing_id": 1, "by": "me", "all": 29.0, "none": 0.0, "first": 8.0}]


def test_scores_that_cannot_be_ranked_are_refused_with_their_place() -> None:
    broken = np.array([[1.0, 2.0, 3.0, 4.0], [1.0, np.nan, 3.0, np.inf]])
    removable = {"image": np.array([[True] * 4, [True, False, True, True]])}
    with pytest.raises(UserError, match="explainer=mine: image token 3 of thing 1 scores inf, which cannot be ranked"):
        merged(MEASURES, explained({"image": {"mine": broken}}, removable))


def test_requests_are_read_together_and_returned_by_name() -> None:
    image, text = np.eye(4, dtype=bool)[None].repeat(2, 0), np.eye(2, dtype=bool)[None].repeat(2, 0)
    requests = {"image": Subsets(image=image), "whole": Subsets(), "text": Subsets(text=text)}
    reader = SumReader()

    def read(subsets: Subsets) -> SubsetOutputs:
        return reader.read(EFFECTS, subsets, None)

    together = read_together(read, requests)
    assert [subsets.count for subsets in reader.seen] == [4 + 1 + 2]
    for name, subsets in requests.items():
        alone = read(subsets)
        np.testing.assert_array_equal(together[name].said, alone.said)
        for value in ("worth", "doubled"):
            np.testing.assert_allclose(together[name].values[value], alone.values[value])
    assert read_together(read, {}) == {}
    with pytest.raises(ValueError, match=r"image and text masks have \[2, 4\] subsets per sample"):
        _ = Subsets(image, text).count
