"""The result files of a finished run, and of several runs pooled over training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pytorch_lightning.loggers import Logger

from clipmapper.console import progress
from clipmapper.errors import UserError
from clipmapper.files import finite, read_json, write_json
from clipmapper.storage.checksums import checksums_beside
from clipmapper.storage.tables import read_table
from clipmapper.training.identity import check_same
from perturbation.measures.areas import Areas
from perturbation.measures.base import SAMPLES, Measure
from perturbation.perturb.identity import comparable
from perturbation.perturb.logged import log_results
from perturbation.perturb.stored import Identity, check_pooled, read_identity
from perturbation.removal.steps import parse_steps
from perturbation.report.curves import value_columns
from perturbation.report.terminal import print_areas

#: Columns of ``samples.parquet`` that say what a row is about, with their types.
_COLUMNS = {name: pa.string() for name in ("explainer", "modality", "direction")} | {"seed": pa.int64()}
RESULTS = "perturbation.json"  #: the reports of all measures
_AGAIN = "run the test again"


def write_results(
    run: Path,
    records: Mapping[str, pa.Table],
    identity: Identity,
    measures: Mapping[str, Measure],
    logger: Logger | None,
) -> dict[str, Any]:
    """Write the reports of all measures, and ``perturbation.json`` last; the same records give the same bytes.

    Returns:
        The content of ``perturbation.json``: the entries of every measure, including ``rows`` and ``gaps`` of the
        measure ``areas``, the identity of the run, and what is known of its samples. An entry with a key that an
        earlier measure has already used gets the measure's name in front.
    """
    content = reports(run, records, measures) | finite(identity)
    content |= checksums_beside(run, "comparisons.json")
    write_json(run / RESULTS, content)
    log_results(logger, content["rows"], run)
    print_areas(content["rows"], content["gaps"])
    return content


def is_merged(run: Path) -> bool:
    """Return whether a run has results: ``perturbation.json``, the last of its files, is there and undamaged."""
    try:
        return bool(read_json(run / RESULTS, own=True))
    except UserError:
        return False


def reports(run: Path, records: Mapping[str, pa.Table], measures: Mapping[str, Measure]) -> dict[str, Any]:
    """Return the entries of all measures' reports, which may write files to ``run``."""
    content: dict[str, Any] = {}
    for name, measure in measures.items():
        with progress(None, f"computing intervals of {name}"):
            report = finite(measure.report(records, run))
        content |= {f"{name}_{key}" if key in content else key: value for key, value in report.items()}
    return content


def pool(runs: Sequence[Path], run: Path) -> dict[str, Any]:
    """Write one report of several runs, which test models of different training seeds on the same samples.

    The tables, figures and comparisons are those of a single run, but the intervals cover samples and training seeds
    (``perturbation.statistics.seed_interval``).

    Args:
        runs: Folders of finished runs.
        run: The folder to write to.

    Returns:
        The content of ``pooled.json``.

    Raises:
        UserError: A run is not finished, two runs have the same checkpoint, or they differ in more than the checkpoint.
    """
    identities = [_read_identity(folder) for folder in runs]
    for folder, identity in zip(runs[1:], identities[1:], strict=True):
        these, those = ({**each, "checkpoint": None} for each in map(comparable, (identity, identities[0])))
        check_same(folder, these, those, str(runs[0]), "pool runs that differ in the checkpoint only")
    if len({identity["checkpoint"] for identity in identities}) < len(runs) or len(runs) < 2:
        raise UserError("runs: give two or more runs, each with a different checkpoint")
    config = identities[0]["config"]
    about = {key: config[key]["name"] for key in ("task", "mapper", "model") if key in config}
    areas = Areas(config["steps"], config["direction"], about, config["seed"])
    tables = [read_table(folder / f"{SAMPLES}.parquet", _COLUMNS) for folder in runs]
    if old := [folder for folder, table in zip(runs, tables, strict=True) if "control" not in table.column_names]:
        raise UserError(f"runs: {old[0]} does not record which explainers are controls: run its test again")
    _check_rows(runs, tables, len(parse_steps(config["steps"])))
    with progress(None, "computing intervals"):
        content = {**areas.report_runs(tables, run), "runs": identities}
    content |= checksums_beside(run, "comparisons.json")
    write_json(run / "pooled.json", content)
    print_areas(content["rows"], content["gaps"])
    return content


def _read_identity(folder: Path) -> Identity:
    if not (folder / RESULTS).is_file():
        raise UserError(f"runs: {folder} contains no finished perturbation run; give run folders of scripts/perturb.py")
    identity = read_identity(folder)
    check_pooled(folder, identity["config"])
    return identity


def _check_rows(runs: Sequence[Path], tables: Sequence[pa.Table], steps: int) -> None:
    """Raise UserError if a table lacks values, has other steps, or is about other samples than the first one."""
    first = tables[0].select([*_COLUMNS])
    for folder, table in zip(runs, tables, strict=True):
        file = folder / f"{SAMPLES}.parquet"
        values = value_columns(table)
        if not values:
            raise UserError(f"{file}: has no values over the steps; {_AGAIN}")
        for column in values.values():
            if table[column].null_count or pc.unique(pc.list_value_length(table[column])).to_pylist() != [steps]:
                raise UserError(f"{file}: column {column} does not have {steps} values in every row; {_AGAIN}")
        if not table.select([*_COLUMNS]).equals(first):
            raise UserError(f"{file}: tests other explainers or other samples than {runs[0]}; give runs that fit")
