"""A finished run's files: ``perturbation.json``, and the tables and figures of every measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pytorch_lightning.loggers import Logger

from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from perturbation.measures.areas import Areas
from perturbation.measures.base import SAMPLES, Measure
from perturbation.perturb.identity import IDENTITY, Identity, check_same
from perturbation.report.rows import Row, finite
from perturbation.report.tables import headline


def write_results(
    run: Path,
    records: Mapping[str, pa.Table],
    identity: Identity,
    measures: Mapping[str, Measure],
    logger: Logger | None,
) -> dict[str, Any]:
    """Writes what a run reports, ``perturbation.json`` last; the same records give the same bytes.

    Returns the content of ``perturbation.json``: what every measure reports, ``rows`` and ``gaps`` of the areas among
    it, and the run's identity.
    """
    content: dict[str, Any] = {}
    for measure in measures.values():
        content |= finite(measure.report(records, run))
    content |= finite(identity)
    _log(logger, content["rows"])
    write_json(run / "perturbation.json", content)
    print(headline(content["rows"], content["gaps"]), flush=True)
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
    about = {"task": config["task"]["name"], "mapper": config["mapper"]["name"]}
    areas = Areas(config["steps"], config["direction"], about, config["seed"])
    tables = [pq.read_table(folder / f"{SAMPLES}.parquet") for folder in runs]
    content = {**areas.report_runs(tables, run), "runs": identities}
    write_json(run / "pooled.json", content)
    print(headline(content["rows"], content["gaps"]), flush=True)
    return content


def _identity(folder: Path) -> Identity:
    if not (folder / "perturbation.json").is_file():
        raise UserError(f"runs: {folder} holds no finished perturbation run; give run folders of scripts/perturb.py")
    return read_json(folder / IDENTITY)


def _log(logger: Logger | None, rows: Sequence[Row]) -> None:
    if logger is None:
        return
    for name in [key for key in rows[0] if key.endswith("auc")]:
        logger.log_metrics({f"{name}/{r['explainer']}/{r['modality']}_{r['direction']}": r[name] for r in rows}, step=0)
    logger.save()
