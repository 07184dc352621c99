"""Run folders: which command made them, how, and their results."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from clipmapper.errors import UserError
from clipmapper.explaining.output import CONTENTS, WARNINGS
from clipmapper.files import parse_json, read_bytes, read_json
from clipmapper.storage.checksums import check_beside, note_unsealed, unsealed, unsealed_text
from perturbation.reproduce.stages import DONE, Stage, read_stages

CONFIG, OWN = "config.yaml", "report"
#: The files of each command that are written last; one of them is enough.
RESULTS = {
    "train": ("metrics.json",),
    "train_llava": ("llava.json",),
    "evaluate": ("metrics.json",),
    "explain": (CONTENTS,),
    "perturb": ("perturbation.json",),
    "pool_seeds": ("pooled.json",),
    "evaluate_explanations": ("localisation.json", "word_localisation.json"),
    "sanity_check": ("sanity.json",),
    "benchmark": ("benchmark.json",),
    "pretrain_clip": ("shapes-tiny.report.json",),
}
#: Further files that are read if they exist.
MORE = ("comparisons.json", WARNINGS, *(f"captions_{split}.json" for split in ("train", "val", "test")))


@dataclass(frozen=True)
class Run:
    """A run folder."""

    folder: Path
    command: str  #: name of the command; empty if it is not known
    line: str  #: the command line; empty if the run does not record it
    config: str  #: the resolved config as YAML
    results: dict[str, Any]  #: content of the result files by name; empty for an unfinished run
    problem: str = ""  #: why the run has no results

    @property
    def settings(self) -> dict[str, Any]:
        """The config as nested dicts; empty if it cannot be read."""
        try:
            found = OmegaConf.to_container(OmegaConf.create(self.config), resolve=True)
        except (YAMLError, OmegaConfBaseException, OSError):
            return {}
        return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}

    def result(self) -> Any:
        """Return the content of the file that the command writes last."""
        return next(self.results[name] for name in RESULTS[self.command] if name in self.results)


def read_run(folder: Path) -> Run:
    """Read a run folder; a run that is unfinished or damaged has a ``problem`` instead of results.

    Raises:
        UserError: There is no such folder, or it is not a run folder.
    """
    if not folder.is_dir():
        raise UserError(f"runs: {folder}: no such folder; give run folders")
    config = folder / CONFIG
    text, damage = _config_of(config)
    first, _, rest = text.partition("\n")
    line = first.removeprefix("# ") if first.startswith("# python scripts/") else ""
    name = line.removeprefix("python scripts/").partition(".py")[0]
    name = name if name in RESULTS else _command_of(folder) or name
    if not name and not text and not (folder / "parts").is_dir():
        raise UserError(f"runs: {folder} contains neither results nor {CONFIG}; give run folders")
    run = Run(folder, name, line, rest if line else text, {})
    if damage:
        return replace(run, problem=f"unreadable: {damage}")
    files = [each for each in RESULTS.get(name, ()) if (folder / each).is_file()]
    if not files:
        return replace(run, problem="unfinished: it was stopped or is still running")
    files += [each for each in MORE if (folder / each).is_file()]
    try:
        results = {each: _content(folder / each) for each in files}
        for each in files[1:]:
            check_beside(folder / each, read_bytes(folder / each, "JSON"), results[files[0]])
        return replace(run, results=results)
    except UserError as error:
        return replace(run, problem=f"unreadable: {error}")


def _config_of(file: Path) -> tuple[str, str]:
    """Return the text of a config, empty if there is none, and why it is not what was written."""
    if not file.is_file():
        return "", ""
    text = read_bytes(file, "text").decode("utf-8", "replace")
    try:
        bare = unsealed_text(text, file)
    except UserError as error:
        return text, str(error)
    if bare == text:
        note_unsealed(file)
    return bare, ""


def runs_of(folder: Path) -> list[Run]:
    """Return the run of a folder, or the runs of all stages of an experiment's folder."""
    stages = read_stages(folder)
    return [_run_of_stage(stage, folder) for stage in stages] if stages else [read_run(folder)]


def _run_of_stage(stage: Stage, folder: Path) -> Run:
    run = Run(
        folder / stage.name,
        stage.command,
        shlex.join(["python", f"scripts/{stage.command}.py", *stage.filled(folder)]),
        "",
        {},
    )
    if run.folder.is_dir():
        run = replace(read_run(run.folder), command=stage.command)
    if stage.status != DONE:
        return replace(run, results={}, problem=f"{stage.status}: {stage.error}")
    return run if run.folder.is_dir() else replace(run, problem="its folder is missing")


def _command_of(folder: Path) -> str:
    """Return the command that the result files belong to, or an empty text."""
    if (folder / "metrics.json").is_file():
        return "train" if (folder / "checkpoints").is_dir() else "evaluate"
    return next((name for name, files in RESULTS.items() if any((folder / each).is_file() for each in files)), "")


def _content(path: Path) -> Any:
    """Return the content of a JSON file, or of a file with JSON in each line."""
    if path.suffix != ".jsonl":
        return read_json(path, own=True)
    try:
        encoded = read_bytes(path, "JSON")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give a readable file") from error
    if not encoded.endswith(b"\n"):
        raise UserError(f"{path}: is empty, or its last line is cut off; run the command again that wrote it")
    contents = [parse_json(line, f"{path}: line {number}") for number, line in enumerate(encoded.splitlines(), 1)]
    return [unsealed(each, path, own=True) if isinstance(each, dict) else each for each in contents]


def newest_runs(root: Path) -> list[Run]:
    """Return the newest finished run of every command below the folder of runs, or the newest one if none is finished.

    The runs of one command are in one folder below ``root``.
    """
    found = []
    for folder in sorted(_folders(root)) if root.is_dir() else ():
        if folder.name != OWN and (runs := sorted(_run_folders(folder), key=_started, reverse=True)):
            read = map(read_run, runs)
            found.append(next((run for run in read if not run.problem), None) or read_run(runs[0]))
    return found


def _run_folders(folder: Path) -> Iterator[Path]:
    """Yield the run folders in a folder; files in a run folder are not looked at."""
    if (folder / CONFIG).is_file():
        yield folder
    else:
        for each in _folders(folder):
            yield from _run_folders(each)


def _folders(folder: Path) -> Iterator[Path]:
    return (each for each in folder.iterdir() if each.is_dir())


def _started(run: Path) -> int:
    return (run / CONFIG).stat().st_mtime_ns
