"""Write the tables of the results again, from the per-sample results in ``data``.

``python docs/results/write_tables.py`` replaces what stands between ``<!-- table NAME -->`` and ``<!-- end -->`` in the
pages of this folder and in the README. Each folder of ``data`` has the per-sample files of one run, and those of its
JSON files that say what was run; ``NAME-SEED`` are runs of models of several training seeds.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
DATA = HERE / "data"
POOLED = ("perturb-vqa-b", "perturb-vqa-a")
MAIN = "weighted"
PAGES = (
    *(HERE / f"{name}.md" for name in ("perturbation", "localisation", "captions", "randomisation", "llava")),
    HERE / "literature.md",
    PROJECT / "README.md",
)
#: The order of the explainers in tables with all of them; names that are not here come last.
ORDER = (
    *("weighted", "uniform", "constant", "shuffled", "depth_matched", "genatt", "rollout", "trans_att"),
    *("raw_attention", "partial_lrp", "attention_gradcam", "input_x_gradient", "integrated_gradients", "random"),
    *("first_to_last", "last_to_first", "centre_first"),
)
#: Names in the README, in the order of its table.
NAMES = {
    "weighted": "`weighted` (Huang et al. 2023)",
    "uniform": "`uniform` (both weights ½)",
    "shuffled": "`shuffled` (weights of a sample of another image)",
    "rollout": "`rollout` (Abnar and Zuidema 2020)",
    "genatt": "`genatt` (Chefer et al. 2021)",
    "random": "`random` order",
}
#: Columns of the table of all explainers: the entry of a run's report, its key, the factor and the number of decimals.
MEASURES = {
    "gap": ("gaps", "gap", 1, 1),
    "compr.": ("eraser", "mean_comprehensiveness", 1, 2),
    "suff.": ("eraser", "mean_sufficiency", 1, 2),
    "viol.": ("faithfulness", "violation", 100, 0),
    "ρ": ("faithfulness", "spearman", 1, 2),
}
#: Stages of the randomisation tables: the last layer that is random.
STAGES = {
    "head": "head random",
    "mapper 1": "head and mapper",
    "encoder 1": "… and encoder blocks",
    "embeddings": "all",
}


#: The values of two runs on the same samples, [samples] each.
Pair = tuple[Any, Any]


def tables() -> dict[str, str]:
    """Return all tables as Markdown, by name."""
    return {
        **pooled_tables(),
        "explainers-vqa-b": explainers_table(report("explainers-vqa-b")),
        "perturb-caption-b": weightings_table(report("perturb-caption-b")),
        **{f"localise-vqa-{mapper}": localisation_table(f"localise-vqa-{mapper}", mapper) for mapper in "ab"},
        "localise-caption-b": words_table("localise-caption-b"),
        "randomise-vqa-b": randomisation_table("randomise-vqa-b", "randomise-vqa-b-integrated"),
        "randomise-vqa-a": randomisation_table("randomise-vqa-a"),
        **llava_tables(),
        **literature_tables(),
    }


def pooled_tables() -> dict[str, str]:
    """Return the tables of the runs that are pooled over training seeds."""
    from clipmapper.files import read_json
    from perturbation.perturb.results import pool

    found = {}
    for study in POOLED:
        with tempfile.TemporaryDirectory() as folder:
            content = pool(sorted(DATA.glob(f"{study}-[0-9]")), Path(folder))
            text = (Path(folder) / "areas_accuracy.md").read_text(encoding="utf-8")
            found[f"{study} accuracy"] = text.split("\n\n")[0] + "\n"  # the comparisons with controls follow
            found[f"{study} differences"] = differences(read_json(Path(folder) / "comparisons.json"))
        found[f"{study} gaps"] = gaps(content)
    return found


def llava_tables() -> dict[str, str]:
    """Return the tables of the small LLaVA."""
    content = report("perturb-llava")
    return {
        "llava accuracy": areas_table(content),
        "llava differences": differences(content["comparisons"]),
        "llava localise": localisation_table("localise-llava", "llava"),
        "llava words": words_table("localise-caption-llava"),
        "llava slots": slots_table(),
        "llava randomise": all_random_table("randomise-llava"),
    }


def literature_tables() -> dict[str, str]:
    """Return the tables of the literature, in which the rows of this project are empty: nothing was measured."""
    from perturbation.page.literature import HEADS, Scored, beside, findings

    none = "not measured"
    places = {
        "vqa": ("VQAv2 val2014, questions kept from training", "VQAv2 test-dev", "VQAv2 test-std"),
        "caption": ("COCO Karpathy test",),
    }
    found = {}
    for task, splits in places.items():
        empty: list[float | None] = [None] * len(HEADS[task])
        models = [(f"this project, mapper {mapper}", data) for mapper in "ab" for data in splits]
        found[task] = beside(task, [Scored(*model, empty, f"experiment=paper_{task}", none) for model in models])
    found["findings"] = findings({f"this project, mapper {mapper}: {none}": () for mapper in "ab"})
    return {
        f"literature {name}": markdown(
            [table.names, *table.heads], [[row, *(cell.text for cell in cells)] for row, cells in table.rows]
        )
        for name, table in found.items()
    }


def report(name: str) -> dict[str, Any]:
    """Return what the measures of one perturbation run report of its records, with its ``comparisons``."""
    from clipmapper.files import read_json
    from clipmapper.storage.tables import read_table
    from perturbation.perturb.measures import build_measures
    from perturbation.perturb.results import reports

    measures = build_measures(read_json(DATA / name / "identity.json")["config"]["measures"])
    records = {file.stem: read_table(file) for file in (DATA / name).glob("*.parquet")}
    with tempfile.TemporaryDirectory() as folder:
        content = reports(Path(folder), records, measures)
        return {**content, "comparisons": read_json(Path(folder) / "comparisons.json")}


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table whose first column has names."""
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def in_order(names: Iterable[str]) -> list[str]:
    """Return distinct names in the order ``ORDER``."""
    return sorted(dict.fromkeys(names), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


def number(value: float, decimals: int) -> str:
    """Return a number as text, without the sign of a rounded zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def with_interval(value: float, interval: Sequence[float], decimals: int = 1) -> str:
    """Return a value and its interval as text."""
    low, high = (number(end, decimals) for end in interval)
    return f"{number(value, decimals)} [{low}, {high}]"


def gaps(content: Mapping[str, Any]) -> str:
    """Return the README's table: the gaps of the accuracy of each explainer."""
    cells = {(row["explainer"], row["modality"]): row for row in content["gaps"] if row["measure"] == "accuracy"}
    lines = ["| explainer | image gap ↑ | text gap ↑ |", "| --- | ---: | ---: |"]
    for name, shown in NAMES.items():
        values = []
        for modality in ("image", "text"):
            low, high = cells[name, modality]["gap_ci95"]
            values.append(f"{cells[name, modality]['gap']:.1f} [{low:.1f}, {high:.1f}]")
        lines.append(f"| {shown} | {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def differences(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the gap of ``weighted`` minus that of every other explainer, with a star for p < 0.05."""
    columns = [(modality, value) for modality in ("image", "text") for value in ("accuracy", "probability")]
    found: dict[str, dict[tuple[str, str], str]] = {}
    for row in comparisons:
        if row["direction"] == "gap" and MAIN in (row["first"], row["second"]):
            sign = 1 if row["first"] == MAIN else -1
            other = row["second"] if sign == 1 else row["first"]
            low, high = sorted(sign * end for end in row["ci95"])
            star = "*" if row["p_holm"] < 0.05 else ""
            text = f"{sign * row['difference']:+.2f}{star} [{low:+.2f}, {high:+.2f}]"
            found.setdefault(other, {})[row["modality"], row["measure"]] = text
    lines = [f"| against | {' | '.join(map(', '.join, columns))} |", f"| --- |{' --- |' * len(columns)}"]
    lines += [
        f"| `{other}` | {' | '.join(cells.get(column, '–') for column in columns)} |" for other, cells in found.items()
    ]
    return "\n".join(lines) + "\n"


def explainers_table(content: Mapping[str, Any]) -> str:
    """Return the table of all explainers: for each modality, the columns ``MEASURES`` and the share of the ceiling."""
    cells: dict[tuple[str, str], str] = {}
    for head, (entry, key, factor, decimals) in MEASURES.items():
        for row in content[entry]:
            if row.get("measure", "accuracy") == "accuracy":
                value = row[key]["mean"] if isinstance(row[key], dict) else row[key]
                text = number(factor * value, decimals)
                text = with_interval(value, row["gap_ci95"]) if entry == "gaps" else text
                cells[row["explainer"], f"{row['modality']} {head}"] = text
    for row in content["ceiling"]:
        if (row["modality"], row["measure"]) == ("image", "probability"):
            cells[row["explainer"], f"ceiling share (image), {row['direction']}"] = number(100 * row["share"], 0)
    heads = [f"{modality} {head}" for modality in ("image", "text") for head in MEASURES]
    heads += [f"ceiling share (image), {direction}" for direction in ("positive", "negative")]
    names = in_order(name for name, _ in cells)
    lines = [[f"`{name}`", *(cells.get((name, column), "–") for column in heads)] for name in names]
    return markdown(["explainer", *heads], lines)


def areas_table(content: Mapping[str, Any]) -> str:
    """Return the areas under the accuracy of every explainer, by modality and direction, and their gaps."""
    cells: dict[tuple[str, str], str] = {}
    for row in content["rows"]:
        name = (
            row["explainer"],
            f"{row['modality']} {row['direction']} {'↓' if row['direction'] == 'positive' else '↑'}",
        )
        cells[name] = number(row["auc"], 1)
    for row in content["gaps"]:
        if row["measure"] == "accuracy":
            cells[row["explainer"], f"{row['modality']} gap ↑"] = with_interval(row["gap"], row["gap_ci95"])
    kinds = ("positive ↓", "negative ↑", "gap ↑")
    heads = [f"{modality} {kind}" for modality in ("image", "text") for kind in kinds]
    lines = [
        [f"`{name}`", *(cells.get((name, head), "–") for head in heads)] for name in in_order(name for name, _ in cells)
    ]
    return markdown(["explainer", *heads], lines)


def weightings_table(content: Mapping[str, Any]) -> str:
    """Return the areas under the CLIPScore of captions, one line per weighting of the words or control."""
    areas = {(row["explainer"], row["direction"]): (row["auc"], row["auc_ci95"]) for row in content["rows"]}
    lines = []
    for row in content["gaps"]:
        if row["measure"] == "clip_score":
            values = [areas[row["explainer"], direction] for direction in ("positive", "negative")]
            values.append((row["gap"], row["gap_ci95"]))
            lines.append([f"`{row['explainer']}`", *(with_interval(*value) for value in values)])
    return markdown(["explainer, weighting", "positive ↓", "negative ↑", "gap ↑"], lines)


def localisation_table(name: str, mapper: str) -> str:
    """Return the table of a run of ``evaluate_explanations`` on answers."""
    from perturbation.localise import tables as localise
    from perturbation.localise.samples import read_samples

    _, kinds, values = read_samples(DATA / name / "localisation.parquet")
    ordered = {modality: {name: columns[name] for name in in_order(columns)} for modality, columns in values.items()}
    found = localise.localisation_rows(ordered, kinds, {"mapper": mapper}, 0)
    return localise.markdown(found["rows"], found["left_out"], "shapes test", len(kinds)).split("\n\n")[0] + "\n"


def words_table(name: str) -> str:
    """Return the table of a run of ``evaluate_explanations`` on captions."""
    from perturbation.localise.caption import KINDS
    from perturbation.localise.samples import read_samples
    from perturbation.localise.tables import cell
    from perturbation.localise.words import ALL, word_localisation_rows

    captions, kinds, values = read_samples(DATA / name / "word_localisation.parquet")
    rows = word_localisation_rows(values["image"], kinds, captions.tolist(), {"mapper": "b"}, 0)["rows"]
    cells = {(row["explainer"], row["kind"], row["metric"]): cell(row) for row in rows}
    columns = [*((kind, "mass_accuracy") for kind in KINDS), (ALL, "pointing_game")]
    lines = [
        [f"`{name}`", *(text if kind == ALL else text.split(" ")[0] for kind, text in each)]
        for name in in_order(values["image"])
        for each in [[(kind, cells[name, kind, metric]) for kind, metric in columns]]
    ]
    return markdown(["explainer", *KINDS[:-1], "all words", "pointing"], lines)


def randomisation_table(*names: str) -> str:
    """Return the rank correlations of runs of ``sanity_check`` at the stages ``STAGES``."""
    from perturbation.randomise.run import curve_rows
    from perturbation.randomise.samples import read_samples

    rows = [row for name in names for row in curve_rows(read_samples(DATA / name / "sanity.parquet"), {}, 0)]
    cells = {(row["explainer"], row["modality"], row["layer"]): number(row["correlation"], 2) for row in rows}
    columns = [(modality, layer) for modality in ("image", "text") for layer in STAGES]
    heads = [f"{modality}: {STAGES[layer]}" for modality, layer in columns]
    lines = [
        [f"`{name}`", *(cells[name, *column] for column in columns)]
        for name in dict.fromkeys(row["explainer"] for row in rows)
    ]
    return markdown(["explainer", *heads], lines)


def all_random_table(name: str) -> str:
    """Return the rank correlations of a run of ``sanity_check`` with all layers random, with intervals."""
    from perturbation.randomise.run import curve_rows
    from perturbation.randomise.samples import read_samples

    rows = curve_rows(read_samples(DATA / name / "sanity.parquet"), {}, 0)
    last = [row for row in rows if row["layer"] == rows[-1]["layer"]]
    cells = {(row["explainer"], row["modality"]): with_interval(row["correlation"], row["ci95"], 2) for row in last}
    lines = [
        [f"`{name}`", *(cells.get((name, modality), "–") for modality in ("image", "text"))]
        for name in in_order(row["explainer"] for row in last)
    ]
    return markdown(["explainer", "image ↓", "text ↓"], lines)


def slots_table() -> str:
    """Return what relevance loses on the image if it ends at the decoder's image tokens, by explainer and metric."""
    from perturbation.localise.metrics import METRICS
    from perturbation.localise.samples import read_samples

    columns: dict[str, dict[str, Pair]] = {"gap (accuracy)": slot_gaps()}
    runs = {
        "": ("localise-llava", "localisation"),
        ", words of captions": ("localise-caption-llava", "word_localisation"),
    }
    for about, (name, file) in runs.items():
        (ids, _, tower), (own, _, slots) = (
            read_samples(DATA / f"{name}{end}" / f"{file}.parquet") for end in ("", "-slots")
        )
        assert (ids == own).all()
        for place, metric in enumerate(METRICS):
            if not about or metric == "rank_accuracy":
                head = f"{metric.partition('_')[0]}{about}"
                columns[head] = {
                    each: (means(ids, tower["image"][each][:, place]), means(ids, slots["image"][each][:, place]))
                    for each in slots["image"]
                    if each in columns["gap (accuracy)"]
                }
    lines = [
        [f"`{name}`", *(compared(*pairs[name], 1 if head.startswith("gap") else 3) for head, pairs in columns.items())]
        for name in in_order(columns["gap (accuracy)"])
    ]
    return markdown(["explainer", *columns], lines)


def slot_gaps() -> dict[str, Pair]:
    """Return the image gap of each sample down to the patches, and at the image tokens, by explainer."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from clipmapper.files import read_json
    from perturbation.removal.steps import parse_steps
    from perturbation.report.curves import curves_of, direction_gaps

    tower, slots = (pq.read_table(DATA / name / "samples.parquet") for name in ("perturb-llava", "perturb-llava-slots"))
    tower = tower.filter(pc.is_in(tower["sample_id"], slots["sample_id"]))
    steps = parse_steps(read_json(DATA / "perturb-llava" / "identity.json")["config"]["steps"])
    found = [curves_of([table], steps, 0) for table in (tower, slots)]
    names = [name for name in found[1].explainers("image") if name not in found[1].controls or name == "uniform"]

    def gaps(curves: Any, name: str) -> Any:
        positive, negative = (
            curves.values[name, "image", direction]["accuracy"][0] for direction in ("positive", "negative")
        )
        return direction_gaps(positive, negative, steps)

    return {name: (gaps(found[0], name), gaps(found[1], name)) for name in names}


def means(ids: Any, values: Any) -> Any:
    """Return the mean over the rows of each id, without those that are NaN."""
    import pandas as pd

    return pd.Series(values).groupby(ids, sort=True).mean().dropna().to_numpy()


def compared(first: Any, second: Any, decimals: int) -> str:
    """Return two means over samples, and the difference with its 95 % interval, as text."""
    from perturbation.statistics import bootstrap_interval

    difference = second - first
    about = with_interval(difference.mean(), bootstrap_interval(difference).tolist(), decimals)
    return f"{number(first.mean(), decimals)} → {number(second.mean(), decimals)}, {about}"


def filled(text: str, known: Mapping[str, str]) -> str:
    """Return a page with its tables replaced.

    Raises:
        KeyError: The page names a table that does not exist.
    """
    pattern = re.compile(r"(<!-- table ([\w -]+) -->\n).*?(<!-- end -->\n)", re.DOTALL)
    return pattern.sub(lambda found: f"{found[1]}\n{known[found[2]]}\n{found[3]}", text)


def main() -> None:
    """Write all pages again."""
    known = tables()
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8"), known), encoding="utf-8")
        print(f"wrote {page.relative_to(PROJECT)}", file=sys.stderr)


if __name__ == "__main__":
    main()
