"""The sections of runs of the other commands: training and evaluation, explained samples, randomisation, and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipmapper.explaining.output import WARNINGS
from perturbation.page.charts import layer_chart
from perturbation.page.grid import grid_table
from perturbation.page.numbers import counted, interval, listed, number, with_interval
from perturbation.page.pictures import gallery
from perturbation.page.runs import Run
from perturbation.page.view import Cell, Part, Section, Table
from perturbation.report.rows import Row
from perturbation.report.tables import MISSING

METRICS = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "METEOR", "ROUGE-L", "CIDEr", "SPICE", "CLIPScore", "RefCLIPScore")
CAPTIONS = 8  # number of generated captions that are shown


def scores(run: Run) -> Section:
    """Return the section of a training or an evaluation: the scores of every split."""
    content = run.result()
    about = ("config", "versions")
    splits = {name: each for name, each in content.items() if isinstance(each, dict) and name not in about}
    answers = {name: each for name, each in splits.items() if "accuracy" in each}
    captions = {name: each for name, each in splits.items() if "CIDEr" in each}
    parts: list[Part] = []
    parts += [_accuracies(answers)] if answers else []
    parts += [_caption_scores(captions)] if captions else []
    for name, each in run.results.items():
        parts += [_generated(each, name)] if name.startswith("captions_") else []
    asked = f"How well does the model {'write captions of images' if captions else 'answer questions about images'}?"
    return Section(asked, _facts(content), _about_scores(answers, captions), parts)


def generation(run: Run) -> Section:
    """Return the section of a training of a LLaVA: what it generates about the test scenes."""
    content = run.result()
    found = content["test"]
    answers, true = found["vqa"], f"{number(found['true_captions'])} %"
    findings = [*_about_scores({"test": answers}, {}), f"Captions that are true of the scene, test: {true}."]
    facts = [("parameters", f"{content['parameters']:,}"), ("words", str(content["words"]))]
    if run.settings.get("blind"):
        facts.append(("blind", "all images are alike for this model"))
    asked = "How well does the model answer questions about images and describe them, by greedy generation?"
    return Section(asked, facts, findings, [_accuracies({"test": answers})])


def _facts(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("checkpoint", str(content["checkpoint"]))] if "checkpoint" in content else []


def _about_scores(answers: Mapping[str, Any], captions: Mapping[str, Any]) -> list[str]:
    found = [
        f"Accuracy of the answers, {split}: {number(each['accuracy'])} % of {counted(each['questions'], 'question')}."
        for split, each in answers.items()
    ]
    for split, each in captions.items():
        constant = each.get("constant")
        beside = f"; the best single caption for all images has {number(constant['CIDEr'], 3)}" if constant else ""
        found.append(f"CIDEr of the captions, {split}: {number(each['CIDEr'], 3)}{beside}.")
        if "true_captions" in each:
            share = f"{number(100 * each['true_captions'])} % of {counted(each['images'], 'caption')}"
            found.append(f"True captions, {split}: {share} say nothing false about the scene.")
    return found


def _accuracies(splits: Mapping[str, Any]) -> Table:
    """Return the official accuracy by type of answer and of question."""
    flat = {
        split: {"all questions": each["accuracy"], **each["by_answer_type"], **each["by_question_type"]}
        for split, each in splits.items()
    }
    names = list(dict.fromkeys(name for each in flat.values() for name in each))
    rows = [(name, [Cell(number(each.get(name))) for each in flat.values()]) for name in names]
    counts = ", ".join(f"{split}: {counted(each['questions'], 'question')}" for split, each in splits.items())
    recipe = (f"Official VQA accuracy in percent, ↑ larger is better, by type of answer and of question ({counts}).",)
    return Table("Accuracy of the answers ↑", recipe, [f"{split} ↑" for split in flat], rows, names="questions")


def _caption_scores(splits: Mapping[str, Any]) -> Table:
    rows = [
        (name, [Cell(number(each.get(name), 3)) for each in splits.values()])
        for name in METRICS
        if any(name in each for each in splits.values())
    ]
    if any("true_captions" in each for each in splits.values()):
        rows.append(("true of the scene", [Cell(number(each.get("true_captions"), 3)) for each in splits.values()]))
    if any("constant" in each for each in splits.values()):
        constant = [each.get("constant", {}).get("CIDEr") for each in splits.values()]
        rows.append(("CIDEr of the best single caption for all images", [Cell(number(each, 3)) for each in constant]))
    counts = ", ".join(f"{split}: {counted(each['images'], 'image')}" for split, each in splits.items())
    recipe = (f"Official metrics, ↑ larger is better ({counts}); {MISSING} where a metric was not computed.",)
    return Table("Scores of the captions ↑", recipe, [f"{split} ↑" for split in splits], rows, names="metric")


def _generated(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    """Return the first generated captions with one caption written for the image."""
    table = []
    for row in rows[:CAPTIONS]:
        true = {True: "yes", False: "no"}.get(row.get("true"), MISSING)  # type: ignore[arg-type]
        reference = row["references"][0] if row.get("references") else MISSING
        table.append((str(row["image_id"]), [Cell(row["caption"]), Cell(true), Cell(reference)]))
    recipe = (f"The first {len(table)} of {counted(len(rows), 'caption')} in {name}.",)
    return Table("Generated captions", recipe, ["caption", "true", "reference"], table, names="image", folded=True)


def explanations(run: Run, most: int) -> Section:
    """Return the section of explained samples, of which ``most`` are shown."""
    config, contents = run.settings, run.result()
    names = list(dict.fromkeys(each["explainer"] for content in contents for each in content["maps"]))
    caption = "by_word" in contents[0]["maps"][0] if contents and contents[0]["maps"] else False
    what = "each word of the model's captions" if caption else "the model's answers"
    asked = f"Which patches and words do the explainers hold responsible for {what}?"
    doubts = {_picture_of(each): each["warnings"] for each in run.results.get(WARNINGS, ())}  # of earlier versions
    doubts |= {each["name"]: each["warnings"] for each in contents if "warnings" in each}
    shown = gallery(contents, doubts, most, config.get("overlay") != "patches", config.get("scale") == "common")
    return Section(asked, [("explainers", listed(names))], (), [shown])


def _picture_of(entry: Mapping[str, Any]) -> str:
    """Return the name of the figure of the sample that an entry of the file of warnings is about."""
    return f"question_{entry['question_id']}" if "question_id" in entry else f"image_{entry['image_id']}"


def randomisation(run: Run) -> Section:
    """Return the section of the model randomisation test."""
    rows = run.result()["rows"]
    last = [row for row in rows if row["layer"] == rows[-1]["layer"]]
    cells = {
        (row["explainer"], row["modality"], "correlation ↓"): Cell(
            number(row["correlation"], 2), interval(row["ci95"], 2), marked=_around_zero(row)
        )
        for row in last
    }
    recipe = (
        "Spearman's rank correlation of the scores of the trained model with those of the same model after all its "
        "layers were made random, from −1 to 1. ↓ Near 0 is better: the explanation depends on what was learnt.",
        f"In brackets: 95 % bootstrap intervals over {counted(last[0]['samples'], 'sample')}.",
        "° not told apart from 0: the interval contains 0.",
    )
    parts: list[Part] = [layer_chart(rows), *grid_table("Rank correlation with all layers random ↓", recipe, cells)]
    asked = "Do the explanations depend on what the model learnt? Its layers are made random from the top down."
    return Section(asked, _facts(run.result()), _about_layers(last), parts)


def _around_zero(row: Row) -> bool:
    return bool(row["ci95"]) and row["ci95"][0] <= 0 <= row["ci95"][1]


def _about_layers(last: Sequence[Row]) -> list[str]:
    """Return which explanations still agree with the original ones when all layers are random."""
    found = []
    for modality in dict.fromkeys(row["modality"] for row in last):
        own = [row for row in last if row["modality"] == modality and row["ci95"]]
        about = f"{modality.capitalize()}, all layers random"
        zero = [row["explainer"] for row in own if _around_zero(row)]
        rest = [
            f"{r['explainer']} ({with_interval(r['correlation'], r['ci95'], 2)})" for r in own if not _around_zero(r)
        ]
        if zero:
            found.append(f"{about}: the correlation with the original is not told apart from 0 for {listed(zero)}.")
        if rest:
            found.append(f"{about}: the correlation with the original is not 0 for {listed(rest)}.")
    return found


def costs(run: Run) -> Section:
    """Return the section of a benchmark, or of a pre-training: its numbers by their descriptions."""
    content = run.result()
    numbers = content["figures"] if run.command == "pretrain_clip" else content
    rows = [(name, [Cell(number(value, 3))]) for name, value in numbers.items() if isinstance(value, int | float)]
    recipe = {
        "benchmark": "Ratios of times or of memory, measured in turns in one process; each description says which.",
        "pretrain_clip": "Share of correct predictions of probes on the encoder's tokens, ↑ larger is better.",
    }[run.command]
    return Section("", (), (), [Table("Measured numbers", (recipe,), ["value"], rows, names="number")])
