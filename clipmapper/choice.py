"""Choice of the checkpoint that a command uses, and its description."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn
from yaml import YAMLError

from clipmapper.checkpoint import CARD, check_fits, read_checkpoint
from clipmapper.config.run_folder import CONFIG
from clipmapper.config.schema import Config
from clipmapper.encoder.load import use
from clipmapper.errors import UserError
from clipmapper.files import read_bytes, read_json
from clipmapper.pretrained import FOLDER, pretrained_file
from clipmapper.process.launched import is_first
from clipmapper.storage.card import Metrics
from clipmapper.storage.checksums import unsealed_text
from clipmapper.storage.validation import check
from clipmapper.text import check_text, printable

SHIPPED = "shipped"  # checkpoint=shipped
BEHIND = 5.0  # points of test accuracy below the best of its kind from which a checkpoint is not chosen by itself
#: Scores that compare checkpoints: key, name, and factor to percent. The first that a task has is used.
HEADLINES = (("accuracy", "accuracy", 1.0), ("true_captions", "true captions", 100.0), ("CIDEr", "CIDEr", 100.0))
_NOT_ENDED = "its training has not finished"
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint with what is known about its training."""

    path: Path

    @cached_property
    def card(self) -> dict[str, Any]:
        """Card of the checkpoint, which describes its model."""
        return dict(read_checkpoint(self.path)[CARD])

    @property
    def shipped(self) -> bool:
        """Whether the package contains it."""
        return self.path.parent == FOLDER

    @property
    def run(self) -> Path:
        """The run folder of its training, unless it was moved."""
        return self.path.parent.parent

    @cached_property
    def _read(self) -> tuple[dict[str, Any], str]:
        """Scores by split, empty if the training has not ended or is not known, and why they cannot be read."""
        if "metrics" in self.card:
            return dict(self.card["metrics"]), ""
        file = self.run / "metrics.json"
        if not file.exists():
            return {}, ""
        try:
            content = read_json(file)
            check(Metrics, content, str(file), "run the training's evaluation again")
        except UserError as error:
            return {}, str(error)
        return content, ""

    @property
    def metrics(self) -> dict[str, Any]:
        """Scores by split; empty if the training has not ended, or if they cannot be read."""
        return self._read[0]

    @cached_property
    def score(self) -> tuple[str, float, str] | None:
        """Name, value in percent and split of the score that compares checkpoints; None without one."""
        for split in ("test", "val"):
            for key, name, factor in HEADLINES:
                if (value := self.metrics.get(split, {}).get(key)) is not None:
                    return name, factor * value, split
        return None

    @cached_property
    def _steps(self) -> tuple[int, int] | None:
        """Number of training steps that were made, and the number that was configured; None if not known."""
        if "steps" in self.card:
            return self.card["steps"], self.card["steps"]
        file = self.run / CONFIG
        try:
            settings = OmegaConf.create(unsealed_text(read_bytes(file, "text").decode(), file))
            wanted = int(settings.trainer.max_steps)
            last = self.path.with_name("last.ckpt")
            return (wanted if self.metrics else int(read_checkpoint(last)["global_step"])), wanted
        except (OSError, AttributeError, KeyError, TypeError, ValueError, YAMLError, OmegaConfBaseException, UserError):
            return None

    @property
    def damage(self) -> str:
        """Why the scores of the run cannot be read; empty if they can, or if there are none."""
        return self._read[1]

    @property
    def finished(self) -> bool:
        """Whether the training reached its last step and its scores were written."""
        return bool(self.metrics)

    def describe(self) -> str:
        """Return the path with the score, the steps and the age."""
        about = []
        if self.score is not None:
            name, value, split = self.score
            about.append(f"{name} {value:.1f} % on {split}")
        if self._steps is not None:
            made, wanted = self._steps
            about.append(f"{made:,} steps" if made == wanted else f"unfinished: {made:,} of {wanted:,} steps")
        about.append("shipped with the package" if self.shipped else f"{_age(self.path)} old")
        return f"{self.path} ({', '.join(about)})"


def _age(path: Path) -> str:
    seconds = max(0.0, time.time() - path.stat().st_mtime)
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{int(seconds)} seconds"


def describe(path: Path) -> str:
    """Return a checkpoint's path with its score, its steps and its age."""
    return Candidate(path).describe()


def newest_checkpoints(folder: Path) -> Iterator[Path]:
    """Yield every ``best.ckpt`` below a folder, the newest first."""
    yield from sorted(folder.rglob("best.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest ``best.ckpt`` below a folder, of a training that has ended if there is one.

    Trainings that have not ended, killed or still running, are passed over and named on stderr.
    """
    candidates = [Candidate(path) for path in newest_checkpoints(folder)]
    ended = next((number for number, each in enumerate(candidates) if each.finished), None)
    if ended is None:
        return candidates[0].path if candidates else None
    for candidate in candidates[:ended]:
        _tell_passed_over(candidate, _NOT_ENDED)
    return candidates[ended].path


def find_checkpoint(config: Config, given: str | None) -> Path:
    """Return the path of the checkpoint to use.

    Args:
        config: The composed config, which names the folder of runs.
        given: A checkpoint file, a folder (:func:`newest_checkpoint`), or ``shipped`` for the model that the package
            contains. None: the newest run that fits the config, or the shipped model. A run that has not
            finished, or is far below the best checkpoint that fits, is passed over, and named on stderr.

    Raises:
        UserError: There is no such checkpoint.
    """
    identity = f"task={config.task.name} data={config.data.name} mapper={config.mapper.name}"
    shipped = pretrained_file(config.task.name, config.mapper.name)
    if given == SHIPPED:
        if shipped is None:
            raise UserError(f"checkpoint={SHIPPED}: no model of {identity} is shipped; give checkpoint=PATH")
        return shipped
    folder = Path(config.paths.runs) / "train" if given is None else Path(given)
    if given is not None and not folder.is_dir():
        return folder
    if given is not None:
        found = newest_checkpoint(folder)
    else:
        own = [path for path in newest_checkpoints(folder) if _fits(path, config)]
        found = _choose([*own, shipped] if shipped is not None and _fits(shipped, config) else own)
    if found is None:
        raise UserError(
            f"no trained checkpoint of {identity} in {folder}; run scripts/train.py first, or give checkpoint=PATH"
        )
    return found


def _choose(paths: list[Path]) -> Path | None:
    """Return the first path that is finished and not far below the best, after naming those passed over."""
    candidates = [Candidate(path) for path in paths]
    best = max((c.score[1] for c in candidates if c.finished and c.score), default=0.0)
    for candidate in candidates:
        score = candidate.score
        if candidate.damage:
            why = candidate.damage
        elif not candidate.finished:
            why = _NOT_ENDED
        elif score is not None and score[1] < best - BEHIND:
            why = f"{best - score[1]:.1f} points below the best that fits"
        else:
            return candidate.path
        _tell_passed_over(candidate, why)
    return None


def _tell_passed_over(candidate: Candidate, why: str) -> None:
    if is_first():  # once, not by every process of a run on several devices
        line = f"passed over, {why}: {candidate.describe()}; checkpoint={candidate.path} uses it"
        print(printable(line), file=sys.stderr)


def load_found(config: Config, given: str | None, load: Callable[[Path, Config], Model]) -> tuple[Model, Path]:
    """Load the model of the checkpoint that :func:`find_checkpoint` returns, on the device of the config's trainer.

    Returns:
        The model, and the path of its checkpoint.

    Raises:
        UserError: There is no such checkpoint, it cannot be loaded, or there is no such device.
    """
    device = use(config)
    path = find_checkpoint(config, given)
    check_text(str(path), "the path of the checkpoint", "rename its folder")
    return load(path, config).to(device), path


def _fits(path: Path, config: Config) -> bool:
    try:
        about = read_checkpoint(path)[CARD]
    except UserError as error:
        print(f"passed over: {error}", file=sys.stderr)
        return False
    try:
        check_fits(about, config, path)
    except UserError:
        return False
    return bool(about["data"] == config.data.name and about["encoder"]["weights"] == config.encoder.weights)
