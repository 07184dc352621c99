"""The section of a perturbation run, or of several runs that were pooled over training seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from perturbation.page.areas import Scope, area_table, control_table, pair_table, told_apart, turned
from perturbation.page.charts import curve_chart
from perturbation.page.grid import grid_table
from perturbation.page.measures import measure_tables
from perturbation.page.numbers import counted, interval, listed, number, plain, unit, with_interval
from perturbation.page.runs import Run
from perturbation.page.view import Cell, Part, Section, Table
from perturbation.perturb.identity import Identity
from perturbation.report.rows import Row


def values_of(rows: Sequence[Row]) -> list[str]:
    """Return the names of the values that have curves; the first one is the main value."""
    return [name for name in rows[0] if f"{name}_ci95" in rows[0] and isinstance(rows[0][name], list)]


NOUNS = {"vqa": ("question", "answer"), "caption": ("image", "caption")}  # a sample of a task, and the model's output
TOKENS = {"image": "patches", "text": "words"}
SAMPLES = ("questions", "images", "samples")  # names of the hash of the samples


def identities(run: Run) -> list[Identity]:
    """Return the identity of a run of ``perturb``, or those of the runs that ``pool_seeds`` joined."""
    content = run.result()
    return list(content["runs"]) if run.command == "pool_seeds" else [content]


def section(run: Run) -> Section:
    """Return the section of one run."""
    content, models = run.result(), identities(run)
    rows, gaps, values = content["rows"], content["gaps"], values_of(content["rows"])
    noun, output = _nouns(models[0])
    over = counted(rows[0]["samples"], noun)
    over += f" and {len(models)} training seeds" if len(models) > 1 else ""
    controls = frozenset(row["explainer"] for row in rows if row["control"])
    parts: list[Part] = []
    for value in values:
        scope = Scope(value, over, len(models), controls, folded=value != values[0])
        parts += [*area_table(rows, gaps, scope), curve_chart(rows, value, scope.folded)]
        parts += control_table(gaps, scope) + pair_table(run.results.get("comparisons.json", ()), scope)
    parts += measure_tables(content, controls)
    tokens = listed([TOKENS[each] for each in dict.fromkeys(row["modality"] for row in rows)])
    return Section(_asked(models[0]["config"], over, tokens, output), _facts(models, rows), findings(run), parts)


def _nouns(identity: Identity) -> tuple[str, str]:
    """Return what a sample and the model's output are called."""
    task = identity["config"].get("task")  # other models than CLIPmapper have none
    return NOUNS[task["name"]] if task else ("sample", "output")


def _asked(config: Mapping[str, Any], over: str, tokens: str, output: str) -> str:
    return (
        f"Which {tokens} did the model use for its {output}s? On {over} ({config['data']['name']}, {config['split']} "
        f"split), the {tokens} are removed step by step in the order of each explainer's scores, and the model gives "
        f"its {output} again. If an explanation is faithful, the {output} changes early when the highest scores are "
        "removed first, and late when they are removed last."
    )


def _facts(models: Sequence[Identity], rows: Sequence[Row]) -> list[tuple[str, str]]:
    value = values_of(rows)[0]
    config = models[0]["config"]
    return [
        (f"{plain(value)} without removal, {unit(value)}", number(100 * rows[0][value][0])),
        ("explained", f"{config['target']} answer" if "target" in config else f"the model's {_nouns(models[0])[1]}"),
        ("removal", ", ".join(f"{name}: {how}" for name, how in config["removal"].items())),
        ("hash of the checkpoint", listed([model["checkpoint"] for model in models])),
        ("hash of the samples", next(str(models[0][name]) for name in SAMPLES if name in models[0])),
    ]


def findings(run: Run) -> list[str]:
    """Return what the gaps of the main value say, by modality: about the controls, and about the largest gap."""
    content, models = run.result(), len(identities(run))
    value = values_of(content["rows"])[0]
    comparisons = [
        row for row in run.results.get("comparisons.json", ()) if (row["direction"], row["measure"]) == ("gap", value)
    ]
    found = []
    for modality in dict.fromkeys(row["modality"] for row in content["gaps"]):
        gaps = [row for row in content["gaps"] if (row["modality"], row["measure"]) == (modality, value)]
        about = f"{modality.capitalize()}, gap of the {plain(value)}"
        paired = [row for row in comparisons if row["modality"] == modality]
        found += [f"{about}: {text}" for text in (*_about_controls(gaps), *_about_largest(gaps, paired))]
    if found:
        scope = "one trained model" if models == 1 else f"{models} training seeds"
        found.append(f"These statements are about {scope} and these samples.")
    return found


def _about_controls(gaps: Sequence[Row]) -> list[str]:
    """Return how the explainers that are no controls compare with the controls; equal statements are joined."""
    said: dict[str, list[str]] = {}
    controls = listed([row["explainer"] for row in gaps if row["control"]])
    for row in gaps:
        if row["control"] or row["above_controls"] is None:
            continue
        similar = [each["control"] for each in row["controls"] if not told_apart(each)]
        larger = [each["control"] for each in row["controls"] if told_apart(each) and each["difference"] < 0]
        parts = [f"above every control ({controls})"] if row["above_controls"] else []
        parts += [f"not told apart from {listed(similar)}"] if similar else []
        parts += [f"below {listed(larger)}"] if larger else []
        said.setdefault(" and ".join(parts), []).append(row["explainer"])
    return [f"{listed(names)} {'is' if len(names) == 1 else 'are'} {text}." for text, names in said.items()]


def _about_largest(gaps: Sequence[Row], paired: Sequence[Row]) -> list[str]:
    """Return which explainer has the largest gap, and from which of the others it is told apart."""
    best = max(gaps, key=lambda row: row["gap"])
    name, text = best["explainer"], with_interval(best["gap"], best["gap_ci95"])
    others = {row["second"]: row for row in paired if row["first"] == name}
    others |= {row["first"]: turned(row) for row in paired if row["second"] == name}
    above = [other for other, row in others.items() if told_apart(row)]
    open_ = [other for other, row in others.items() if not told_apart(row)]
    sentence = f"{name} has the largest gap, {text}"
    sentence += f"; it is told apart from {listed(above)}" if above else ""
    sentence += f"; it is not told apart from {listed(open_)}" if open_ else ""
    return [f"{sentence}."]


def sample_key(content: Mapping[str, Any]) -> str:
    """Return a text that is the same for two runs if they removed the same shares of tokens of the same samples.

    Args:
        content: The content of ``perturbation.json``.
    """
    config = content["config"]
    keys = ("split", "samples", "seed", "removal", "target", "modality", "direction")
    about = {key: config.get(key) for key in keys} | {"steps": content["rows"][0]["steps"]}
    about |= {"task": config.get("task", {}).get("name"), "data": config["data"]["name"]}
    return json.dumps([about, *(content.get(name) for name in SAMPLES)], sort_keys=True)


def shared_tables(runs: Mapping[str, Run]) -> list[Table]:
    """Return a table for each set of runs that tested the same samples; runs of different samples share none.

    Args:
        runs: Runs of ``perturb`` by their names on the page.
    """
    same: dict[str, list[str]] = {}
    for name, run in runs.items():
        same.setdefault(sample_key(run.result()), []).append(name)
    return [table for names in same.values() if len(names) > 1 for table in _shared({n: runs[n] for n in names})]


def _shared(runs: Mapping[str, Run]) -> list[Table]:
    """Return the table of the gaps of runs on the same samples, if they have gaps."""
    contents = {name: run.result() for name, run in runs.items()}
    first = next(iter(contents.values()))
    value = values_of(first["rows"])[0]
    cells = {
        (row["explainer"], row["modality"], name): Cell(number(row["gap"]), interval(row["gap_ci95"]))
        for name, content in contents.items()
        for row in content["gaps"]
        if row["measure"] == value
    }
    samples = counted(first["rows"][0]["samples"], _nouns(first)[0])
    recipe = (
        f"Gap of the {plain(value)}: area in the negative order minus area in the positive order, {unit(value)}. "
        "↑ Larger is better. The recipe of the areas is with each run.",
        f"All runs of this table tested the same {samples}. In brackets: 95 % bootstrap intervals over them. The runs "
        "are not tested against each other.",
    )
    controls = frozenset(row["explainer"] for content in contents.values() for row in content["gaps"] if row["control"])
    return grid_table(f"Gap of the {plain(value)} in runs on the same samples ↑", recipe, cells, controls)
