"""A finished run's files: ``perturbation.json``, comparisons, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pytorch_lightning.loggers import Logger

from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json, write_whole
from explain.figures.saving import save
from perturbation.config import PerturbConfig, TestsConfig
from perturbation.perturb.identity import IDENTITY, Identity, check_same
from perturbation.perturb.parts import CEILING, FAITHFULNESS, SAMPLES
from perturbation.removal.steps import parse_steps
from perturbation.report.figures import curve_figure
from perturbation.report.rows import (
    Curves,
    Row,
    area_rows,
    ceiling_rows,
    comparison_rows,
    curves_of,
    eraser_rows,
    faithfulness_rows,
    gap_rows,
)
from perturbation.report.tables import area_table, ceiling_table


def write_results(
    run: Path,
    records: Mapping[str, pa.Table],
    identity: Identity,
    config: TestsConfig,
    steps: Sequence[float],
    logger: Logger | None,
) -> dict[str, Any]:
    """Writes what a run reports, ``perturbation.json`` last; the same records give the same bytes.

    Returns the content of ``perturbation.json``: ``rows``, one for every explainer, modality and direction, and
    ``gaps``, ``eraser``, ``faithfulness`` and ``ceiling``, where they were asked for.
    """
    curves = curves_of([records[SAMPLES]], steps, config.seed, config.task.name)
    rows = area_rows(curves, config.task.name, config.mapper.name)
    content: dict[str, Any] = {"rows": rows, "gaps": gap_rows(curves)}
    if isinstance(config, PerturbConfig):
        content |= _of_answers(records, config, steps)
    content = _finite({**content, **identity})
    _write_areas(run, curves, content)
    if "ceiling" in content:
        write_whole(run / "ceiling.md", ceiling_table(content["ceiling"]).encode())
    _log(logger, rows)
    write_json(run / "perturbation.json", content)
    print(area_table(content["rows"], content["gaps"], curves.measures[0])["md"], flush=True)
    return content


def _of_answers(records: Mapping[str, pa.Table], config: PerturbConfig, steps: Sequence[float]) -> dict[str, Any]:
    """What is reported of answers alone."""
    content: dict[str, Any] = {}
    if FAITHFULNESS in records and config.eraser:
        content["eraser"] = eraser_rows(records[FAITHFULNESS], config.eraser, config.seed)
    if FAITHFULNESS in records and config.faithfulness:
        content["faithfulness"] = faithfulness_rows(records[FAITHFULNESS], config.seed)
    if CEILING in records:
        content["ceiling"] = ceiling_rows(records[SAMPLES], records[CEILING], steps)
    return content


def pool(runs: Sequence[Path], run: Path) -> dict[str, Any]:
    """One report of several runs that test models of other training seeds on the same samples.

    Writes the tables, figures and comparisons of a run, with intervals that cover samples and training seeds
    (``perturbation.statistics.seed_interval``), and ``pooled.json``, whose content is returned.

    Raises ``UserError`` where a run is not finished, or two differ in more than the checkpoint.
    """
    identities = [_identity(folder) for folder in runs]
    for folder, identity in zip(runs[1:], identities[1:], strict=True):
        check_same(folder, {**identity, "checkpoint": None}, {**identities[0], "checkpoint": None})
    if len({identity["checkpoint"] for identity in identities}) < len(runs) or len(runs) < 2:
        raise UserError("runs: give two or more runs, each of a checkpoint of its own")
    config = identities[0]["config"]
    tables = [pq.read_table(folder / f"{SAMPLES}.parquet") for folder in runs]
    curves = curves_of(tables, parse_steps(config["steps"]), config["seed"], config["task"]["name"])
    rows = area_rows(curves, config["task"]["name"], config["mapper"]["name"])
    content = _finite({"rows": rows, "gaps": gap_rows(curves), "runs": identities})
    _write_areas(run, curves, content)
    write_json(run / "pooled.json", content)
    print(area_table(content["rows"], content["gaps"], curves.measures[0])["md"], flush=True)
    return content


def _identity(folder: Path) -> Identity:
    if not (folder / "perturbation.json").is_file():
        raise UserError(f"runs: {folder} holds no finished perturbation run; give run folders of scripts/perturb.py")
    return read_json(folder / IDENTITY)


def _write_areas(run: Path, curves: Curves, content: Mapping[str, Any]) -> None:
    """Comparisons, tables and figures."""
    write_json(run / "comparisons.json", _finite(comparison_rows(curves)))
    for measure in curves.measures:
        for suffix, text in area_table(content["rows"], content["gaps"], measure).items():
            write_whole(run / f"areas_{measure}.{suffix}", text.encode())
        save(curve_figure(content["rows"], measure), run / f"curves_{measure}")


def _log(logger: Logger | None, rows: Sequence[Row]) -> None:
    if logger is None:
        return
    for name in [key for key in rows[0] if key.endswith("auc")]:
        logger.log_metrics({f"{name}/{r['explainer']}/{r['modality']}_{r['direction']}": r[name] for r in rows}, step=0)
    logger.save()


def _finite(value: Any) -> Any:
    """JSON has no NaN: null says that a number is not defined."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
