"""The model randomisation test of one model: explanations after every layer that is randomised, and their curves."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipmapper.console import progress
from clipmapper.errors import UserError
from clipmapper.results import write_metrics
from clipmapper.tasks.vqa.explaining import explain
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.trained import QuestionBatch, Subject, load_subject
from explain import Explainer
from explain.figures import save
from explain.targets import Target, given
from perturbation.config import SanityConfig
from perturbation.localise.vqa import MODALITIES, batches, removable
from perturbation.randomise.figure import draw_curves
from perturbation.randomise.layers import layers_from_the_top, rank_correlation, redraw
from perturbation.statistics import bootstrap_interval

Array = NDArray[np.float64]
UNTOUCHED = "none"  # what is randomised at a curve's first point


@dataclass(frozen=True, eq=False)
class Original:
    """A batch as the untouched model explains it: its answers [B], and by modality what takes part and the scores."""

    batch: QuestionBatch
    answers: Tensor
    eligible: Mapping[str, NDArray[np.bool_]]
    scores: Mapping[str, Mapping[str, Array]]


def run_sanity(config: SanityConfig, explainers: Mapping[str, Explainer], run: Path) -> None:
    """Writes ``sanity.json``, ``sanity.csv`` and the figure ``sanity.png`` and ``.pdf``.

    Raises ``UserError`` where there is no such model, or fewer questions than asked for.
    """
    subject = load_subject(config, config.split, config.checkpoint)
    print(f"checkpoint: {subject.checkpoint}", flush=True)
    chosen = _chosen(subject, config)
    total = len(chosen) * (1 + len(layers_from_the_top(subject.model)))
    with progress(total, "explaining", "batches") as advance:
        found = correlations(subject.model, chosen, explainers, config.seed, advance)
    rows = curve_rows(found, config.mapper.name, config.seed)
    write_metrics(run / "sanity.json", {"rows": rows, "checkpoint": str(subject.checkpoint)}, asdict(config))
    _write_csv(run / "sanity.csv", rows)
    save(draw_curves(rows), run / "sanity")
    for row in (row for row in rows if row["layer"] == rows[-1]["layer"]):
        value = "  –" if row["correlation"] is None else f"{row['correlation']:6.3f}"
        print(f"  {row['explainer']:<22} {row['modality']:<6} {value}  all layers random")


def _chosen(subject: Subject, config: SanityConfig) -> list[QuestionBatch]:
    """``config.samples`` questions drawn by the seed, in batches."""
    count = len(subject.questions)
    if config.samples > count:
        raise UserError(
            f"samples={config.samples}: split={config.split} has {count} questions; give samples={count} or fewer"
        )
    rows = np.random.default_rng(config.seed).permutation(count)[: config.samples].tolist()
    return [batch for part in batches(rows, config.batch_size) if (batch := subject.batch(part)) is not None]


def correlations(
    model: CLIPMapperVQA,
    chosen: Sequence[QuestionBatch],
    explainers: Mapping[str, Explainer],
    seed: int,
    done: Callable[[], object] = lambda: None,
) -> dict[tuple[str, str], dict[str, Array]]:
    """By modality and explainer, by layer: each sample's correlation with the untouched model's explanation, [samples].

    Layers stay random once they are. The class explained is the untouched model's answer throughout. What an explainer
    draws at random for a sample it draws anew after every layer: kept, it would agree with itself whatever the model.
    ``done`` is called after each batch. ``model`` stays as it is.
    """
    model = deepcopy(model)
    originals = []
    for batch in chosen:
        with torch.no_grad():
            answers = model(batch.pixels, batch.text).argmax(1)
        eligible, scores = _explained(model, batch, explainers, given(answers), batch.ids)
        originals.append(Original(batch, answers, eligible, scores))
        done()
    found: dict[tuple[str, str], dict[str, Array]] = {(m, name): {} for m in MODALITIES for name in explainers}
    _compare(found, UNTOUCHED, originals, [original.scores for original in originals])
    generator = torch.Generator().manual_seed(seed)
    for layer, parts in layers_from_the_top(model).items():
        redraw(parts, generator)
        scores_now = []
        for original in originals:
            names = [f"{number} {layer}" for number in original.batch.ids]
            scores_now.append(_explained(model, original.batch, explainers, given(original.answers), names)[1])
            done()
        _compare(found, layer, originals, scores_now)
    return found


def _explained(
    model: CLIPMapperVQA,
    batch: QuestionBatch,
    explainers: Mapping[str, Explainer],
    target: Target,
    names: Sequence[int | str],
) -> tuple[dict[str, NDArray[np.bool_]], dict[str, dict[str, Array]]]:
    """What takes part, and the scores by explainer, both by modality."""
    explained = explain(model, batch, explainers, target, names)
    traced = explained.traced
    scores = {
        modality: {
            name: traced.scores(whole, modality).cpu().double().numpy() for name, whole in explained.scores.items()
        }
        for modality in MODALITIES
    }
    return {modality: removable(traced, modality) for modality in MODALITIES}, scores


def _compare(
    found: Mapping[tuple[str, str], dict[str, Array]],
    layer: str,
    originals: Sequence[Original],
    scores: Sequence[Mapping[str, Mapping[str, Array]]],
) -> None:
    """Adds a point to every curve."""
    for (modality, name), curve in found.items():
        parts = [
            rank_correlation(original.scores[modality][name], now[modality][name], original.eligible[modality])
            for original, now in zip(originals, scores, strict=True)
        ]
        curve[layer] = np.concatenate(parts)


def curve_rows(found: Mapping[tuple[str, str], Mapping[str, Array]], mapper: str, seed: int) -> list[dict[str, Any]]:
    """A row a curve and layer, layers from the top: the mean over samples and its 95 % bootstrap interval.

    Samples whose original scores are all equal are left out; None where none is left, and where one has no interval.
    """
    rows = []
    for (modality, explainer), curve in found.items():
        table = np.stack(list(curve.values()), 1)
        table = table[~np.isnan(table).any(1)]
        interval = bootstrap_interval(table, seed=seed) if len(table) > 1 else None
        for number, layer in enumerate(curve):
            row = {"explainer": explainer, "mapper": mapper, "modality": modality, "layers": number, "layer": layer}
            row["correlation"] = float(table[:, number].mean()) if len(table) else None
            row["ci95"] = None if interval is None else interval[:, number].tolist()
            rows.append({**row, "samples": len(table)})
    return rows


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(name for name in rows[0] if name != "ci95"), "ci95_low", "ci95_high"])
        for row in rows:
            writer.writerow([*(value for name, value in row.items() if name != "ci95"), *(row["ci95"] or ("", ""))])
