"""A finished run's files: ``perturbation.json``, comparisons, tables and figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pytorch_lightning.loggers import Logger

from clipmapper.data.json_files import write_json
from clipmapper.whole_files import write_whole
from explain.figures.saving import save
from perturbation.config import PerturbConfig
from perturbation.figures import curve_figure
from perturbation.identity import Identity
from perturbation.parts import CEILING, FAITHFULNESS, SAMPLES
from perturbation.summary import (
    MEASURES,
    Row,
    area_rows,
    ceiling_rows,
    comparison_rows,
    curves_of,
    eraser_rows,
    faithfulness_rows,
    gap_rows,
)
from perturbation.tables import area_table


def write_results(
    run: Path,
    records: Mapping[str, pa.Table],
    identity: Identity,
    config: PerturbConfig,
    steps: Sequence[float],
    logger: Logger | None,
) -> dict[str, Any]:
    """Writes what a run reports, ``perturbation.json`` last; the same records give the same bytes.

    Returns the content of ``perturbation.json``: ``rows``, one for every explainer, modality and direction, and
    ``gaps``, ``eraser``, ``faithfulness`` and ``ceiling``, where they were asked for.
    """
    curves = curves_of(records[SAMPLES], steps, config.seed)
    rows = area_rows(curves, config.task.name, config.mapper.name)
    content: dict[str, Any] = {"rows": rows, "gaps": gap_rows(curves)}
    if FAITHFULNESS in records and config.eraser:
        content["eraser"] = eraser_rows(records[FAITHFULNESS], config.eraser, config.seed)
    if FAITHFULNESS in records and config.faithfulness:
        content["faithfulness"] = faithfulness_rows(records[FAITHFULNESS], config.seed)
    if CEILING in records:
        content["ceiling"] = ceiling_rows(records[SAMPLES], records[CEILING], steps, config.seed)
    content = _finite({**content, **identity})
    write_json(run / "comparisons.json", _finite(comparison_rows(curves)))
    for measure in MEASURES:
        for suffix, text in area_table(content["rows"], content["gaps"], measure).items():
            write_whole(run / f"areas_{measure}.{suffix}", text.encode())
        save(curve_figure(content["rows"], measure), run / f"curves_{measure}")
    _log(logger, rows)
    write_json(run / "perturbation.json", content)
    print(area_table(content["rows"], content["gaps"], "accuracy")["md"], flush=True)
    return content


def _log(logger: Logger | None, rows: Sequence[Row]) -> None:
    if logger is None:
        return
    for name in ("auc", "probability_auc"):
        logger.log_metrics({f"{name}/{r['explainer']}/{r['modality']}_{r['direction']}": r[name] for r in rows}, step=0)
    logger.save()


def _finite(value: Any) -> Any:
    """JSON has no NaN: null says that a number is not defined."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
