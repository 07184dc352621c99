"""The line about a run that a signal stopped: what was stopped, what is kept, and how to go on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipmapper.arguments import double_quoted

#: For each command that continues a stopped run: the files from which it does.
_CONTINUED = {"train": "checkpoints/last.ckpt", "perturb": "parts/*.samples.parquet", "reproduce": "stages.json"}


_OF_LIGHTNING = ('hydra.run.dir="', "hydra.job.name=", "hydra.output_subdir=")  # for processes of a distributed run


@dataclass(frozen=True)
class StartedRun:
    """A run that has begun."""

    command: str
    folder: Path
    given: Sequence[str]  #: the arguments as typed

    def stopped(self, signal: str) -> str:
        """Return the line about this run after a signal."""
        return f"stopped by {signal}: {self.command}{self.going_on()}"

    def going_on(self) -> str:
        """Return what is kept and how to go on, as the end of a line."""
        kept = self.folder.rglob(_CONTINUED.get(self.command, "[!.]*.*"))
        if not any(path.is_file() and path.name != "config.yaml" for path in kept):
            return f"; nothing is kept; run the same command again: {self._line(self.given)}"
        if self.command not in _CONTINUED:
            again = self._line(self.given)
            return f"; what was finished is in {self.folder}; it cannot be continued, run it again: {again}"
        if self.command == "reproduce":
            return f"; the finished stages are in {self.folder}; to go on run the same command again"
        if any(each.startswith("shard=") for each in self.given):
            return f"; its state is in {self.folder}; to go on run the same command again"
        others = [each for each in self.given if not each.startswith(("resume=", "hydra.run.dir="))]
        return f"; its state is in {self.folder}; to go on: {self._line([*others, f'resume={self.folder}'])}"

    def in_another_process(self) -> tuple[str, ...]:
        """Return the program and the arguments that run this command, or this job of a sweep, in the same folder."""
        script = Path(sys.argv[0])
        of_script = script.stem == self.command and script.suffix == ".py"
        program = [str(script.resolve())] if of_script else ["-m", "perturbation.cli", self.command]
        others = [each for each in self.given if not each.startswith("hydra.run.dir=")]
        return (sys.executable, *program, *others, f"hydra.run.dir={double_quoted(str(self.folder))}")

    def _line(self, arguments: Sequence[str]) -> str:
        script = Path(sys.argv[0]).stem == self.command
        arguments = [each for each in arguments if not each.startswith(_OF_LIGHTNING)]
        return shlex.join([*(["python", sys.argv[0]] if script else ["clipmapper", self.command]), *arguments])
