"""The model randomisation test of one model (docs/method.md, Randomisation).

The samples are explained once with the original model and again after each layer is randomised. The results are curves
of the rank correlation between both explanations.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from clipmapper.console import Advance, print_table, progress
from clipmapper.errors import UserError
from clipmapper.escapes import csv_text
from clipmapper.explaining.explainers import print_lrp_precision, scoring
from clipmapper.explaining.partners import Partners
from clipmapper.files import write_metrics
from clipmapper.training.batches import even_batches
from explain import Explainer
from explain.figures import save
from perturbation.arrays import Array
from perturbation.config import SanityBaseConfig
from perturbation.measures.base import ScoredBy, TokenScores
from perturbation.randomise.figure import draw_curves
from perturbation.randomise.layers import rank_correlation, redraw
from perturbation.randomise.samples import Curves, write_samples
from perturbation.statistics import bootstrap_interval
from perturbation.tasks import task_of

UNTOUCHED = "none"  # name of the first point of a curve, where no layer is randomised


def run_sanity(config: SanityBaseConfig, explainers: Mapping[str, Explainer], run: Path) -> None:
    """Run the test, and write ``sanity.json``, ``.csv``, ``.parquet`` and the figure ``sanity.png`` and ``.pdf``.

    Raises:
        UserError: No checkpoint fits, the split has fewer samples than ``config.samples``, or none can be explained.
    """
    task = task_of(config).randomise
    trained = task.load(config)
    print(task.name_of(trained), flush=True)
    chosen = _draw_batches(task, trained, config)
    explainers = task.usable(trained, chosen, scoring(explainers, task.MODALITIES))
    print_lrp_precision(explainers.values(), trained.model)
    total = sum(len(batch.ids) for batch in chosen) * (1 + len(task.layers(trained.model)))
    with progress(total, "explaining", task.UNIT) as advance:
        found = correlations(task, trained.model, chosen, explainers, config.seed, advance)
    with progress(None, "computing intervals"):
        rows = curve_rows(found, config.about, config.seed)
    write_samples(run / "sanity.parquet", [number for batch in chosen for number in batch.ids], found)
    write_metrics(run / "sanity.json", {"rows": rows, "checkpoint": str(trained.checkpoint)}, asdict(config))
    _write_csv(run / "sanity.csv", rows)
    save(draw_curves(rows), run / "sanity")
    _print_last(rows, f"{config.data.name} {config.split}")


def _print_last(rows: Sequence[Mapping[str, Any]], data: str) -> None:
    """Print the ends of the curves, where all layers are random."""
    last = [row for row in rows if row["layer"] == rows[-1]["layer"]]
    cells = {(row["explainer"], row["modality"]): _cell(row) for row in last}
    modalities = list(dict.fromkeys(row["modality"] for row in last))
    print_table(
        f"{data}, {max(row['samples'] for row in last)} samples: rank correlation of explanations before and after all "
        "layers are made random, with 95 % intervals",
        ["explainer", *(f"{modality} ↓" for modality in modalities)],
        [[name, *(cells.get((name, m), "–") for m in modalities)] for name in dict.fromkeys(name for name, _ in cells)],
        "↓ near 0 if an explanation depends on what the model has learnt; sanity.csv has the curves over the layers",
    )


def _cell(row: Mapping[str, Any]) -> str:
    if row["correlation"] is None:
        return "–"
    interval = "" if row["ci95"] is None else f" [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
    return f"{row['correlation']:.3f}{interval}"


def _draw_batches(task: Any, trained: Any, config: SanityBaseConfig) -> list[Any]:
    """Draw ``config.samples`` samples and return them in batches, with the answers or captions to explain."""
    count, what = len(trained.ids), task.UNIT
    if config.samples > count:
        raise UserError(
            f"samples={config.samples}: split={config.split} has {count} {what}; give samples={count} or fewer"
        )
    rows = np.random.default_rng(config.seed).permutation(count)[: config.samples].tolist()
    found = [task.fixed(trained, part) for part in even_batches(rows, config.batch_size, least=True)]
    if not (readable := [batch for batch in found if batch is not None]):
        raise UserError(f"samples={config.samples}: none of these {what} can be explained; check data.root")
    return readable


def correlations(
    task: Any,
    model: nn.Module,
    chosen: Sequence[Any],
    explainers: Mapping[str, Explainer],
    seed: int,
    done: Advance = lambda count=1, note=None: None,
) -> Curves:
    """Correlate the explanations after each randomised layer with those of the original model.

    Randomised layers stay random. The explained answers or captions are those of the original model throughout. An
    explainer that draws at random for a sample draws again after every layer; with the same draws, it would agree with
    itself for every model.

    Args:
        task: The module that loads and explains a task's samples (``perturbation.tasks.PerturbTask.randomise``).
        model: The model; it is copied, not changed.
        chosen: Batches returned by ``task.fixed``.
        explainers: Explainers by name.
        seed: Seed of the random weights.
        done: A function that is called after each batch with its number of samples.

    Returns:
        Correlations [samples], by (modality, explainer) and then by the name of the last randomised layer; the first
        layer is ``UNTOUCHED``.
    """
    model = deepcopy(model)
    originals = list(_explained(task, model, chosen, explainers, seed, "", done))
    found: Curves = {(m, name): {} for m in originals[0] for name, each in explainers.items() if m in each.modalities}
    _compare(found, UNTOUCHED, originals, originals)
    generator = torch.Generator().manual_seed(seed)
    for layer, parts in task.layers(model).items():
        redraw(parts, generator)
        now = list(_explained(task, model, chosen, explainers, seed, f" {layer}", done))
        _compare(found, layer, originals, now)
    return found


def _explained(
    task: Any,
    model: nn.Module,
    chosen: Sequence[Any],
    explainers: Mapping[str, Explainer],
    seed: int,
    suffix: str,
    done: Advance,
) -> Iterator[Mapping[str, TokenScores]]:
    """Yield the scores of each batch; ``suffix`` follows the samples' ids in the names that seed random draws."""
    partners = None
    if any(each.partners for each in explainers.values()):
        images = {n: image for batch in chosen for n, image in zip(batch.ids, batch.picture_ids, strict=True)}
        partners = Partners(images, seed, partial(task.trace, model, chosen))
    for batch in chosen:
        bound = explainers if partners is None else partners.bind(explainers, batch.items)[0]
        yield task.explained(model, batch, bound, [f"{number}{suffix}" for number in batch.ids])
        done(len(batch.ids))


def _compare(
    found: Mapping[tuple[str, str], dict[str, Array]],
    layer: str,
    originals: Sequence[Mapping[str, TokenScores]],
    others: Sequence[Mapping[str, TokenScores]],
) -> None:
    """Add the correlations after one layer to every curve."""
    for (modality, name), curve in found.items():
        pairs = [(before[modality], now[modality]) for before, now in zip(originals, others, strict=True)]
        by = ScoredBy(name)
        parts = [rank_correlation(before.scores[by], now.scores[by], before.removable) for before, now in pairs]
        curve[layer] = np.concatenate(parts)


def curve_rows(
    found: Mapping[tuple[str, str], Mapping[str, Array]], about: Mapping[str, str], seed: int
) -> list[dict[str, Any]]:
    """Return one row per curve and layer: the mean over samples and its 95 % bootstrap interval.

    Samples whose original scores are all equal are left out. The correlation is None if no sample remains; the interval
    is None if fewer than two remain.
    """
    rows = []
    for (modality, explainer), curve in found.items():
        table = np.stack(list(curve.values()), 1)
        table = table[~np.isnan(table).any(1)]
        interval = bootstrap_interval(table, seed=seed) if len(table) > 1 else None
        for number, layer in enumerate(curve):
            row: dict[str, Any] = {"explainer": explainer, **about, "modality": modality}
            row |= {"layers": number, "layer": layer}
            row["correlation"] = float(table[:, number].mean()) if len(table) else None
            row["ci95"] = None if interval is None else interval[:, number].tolist()
            rows.append({**row, "samples": len(table)})
    return rows


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*(name for name in rows[0] if name != "ci95"), "ci95_low", "ci95_high"])
        for row in rows:
            values = (csv_text(value) for name, value in row.items() if name != "ci95")
            writer.writerow([*values, *(row["ci95"] or ("", ""))])
