"""The loop that runs the stages of an experiment, one process each, several at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from clipmapper.config.run_folder import IDENTITY
from clipmapper.console import clock, progress
from clipmapper.process import stopping
from clipmapper.process.stopping import PARENT
from perturbation.reproduce.stages import DONE, FAILED, SKIPPED, WAITING, Stage, restore, save

LOGS = "logs"  # folder of the stages' output
COMMAND = (sys.executable, "-m", "perturbation.cli")
_STATES = {"train": "checkpoints/last.ckpt", "perturb": IDENTITY}  # what a stopped run is continued from
_POLL = 0.1  # seconds
_PATIENCE = 20.0  # seconds that stages get to end after a signal, before they are killed


@dataclass(eq=False)
class _Running:
    """A stage whose process runs."""

    stage: Stage
    process: subprocess.Popen[bytes]
    log: Path
    start: float

    def end(self) -> None:
        """Set the state of the stage after its process has ended."""
        self.stage.seconds = round(time.monotonic() - self.start, 1)
        self.stage.status, self.stage.error = DONE, None
        if code := self.process.wait():
            self.stage.status, self.stage.error = FAILED, _last_line(self.log) or f"exit status {code}"


def run_stages(stages: Sequence[Stage], folder: Path, jobs: int) -> list[Stage]:
    """Run the stages in order; those that ended well before are not run again.

    A stage that fails does not stop the others, except those that need its folder.

    Args:
        stages: The stages.
        folder: Folder of the experiment, with the state and one folder for each stage.
        jobs: Number of stages that run at the same time.

    Returns:
        The stages that failed or were skipped.
    """
    changed = restore(stages, folder)
    for stage in stages:
        stage.status = DONE if stage.status == DONE and (folder / stage.name).is_dir() else WAITING
    save(stages, folder)
    (folder / LOGS).mkdir(exist_ok=True)
    if before := sum(stage.status == DONE for stage in stages):
        print(f"{before} of {len(stages)} stages were done before", flush=True)
    running: list[_Running] = []
    with progress(len(stages), "experiment", "stages") as advance:
        advance(before)
        try:
            while any(stage.status == WAITING for stage in stages):
                for stage in _skipped(stages):
                    _tell(stage, stages, f"{SKIPPED}: {stage.error}")
                    advance()
                running += [_start(stage, folder, stage.name in changed) for stage in _next(stages, running, jobs)]
                advance(0, ", ".join(each.stage.name for each in running))
                time.sleep(_POLL)
                for each in [each for each in running if each.process.poll() is not None]:
                    running.remove(each)
                    each.end()
                    save(stages, folder)
                    stage = each.stage
                    _tell(stage, stages, clock(stage.seconds) if stage.status == DONE else f"{FAILED}: {stage.error}")
                    advance()
        except BaseException:
            stopping.defer(True)  # the stages' end takes some time
            _end(running)
            stopping.defer(False)
            raise
    save(stages, folder)
    return [stage for stage in stages if stage.status != DONE]


def _end(running: Sequence[_Running]) -> None:
    """End the stages that run: a training writes its checkpoint first."""
    for each in running:
        each.process.terminate()
    until = time.monotonic() + _PATIENCE
    for each in running:
        with suppress(subprocess.TimeoutExpired):
            each.process.wait(max(0.0, until - time.monotonic()))
        each.process.kill()


def _tell(stage: Stage, stages: Sequence[Stage], what: str) -> None:
    """Print what became of a stage, and how many are left."""
    left = sum(each.status == WAITING for each in stages)
    place = f"[{len(stages) - left}/{len(stages)}]"
    print(f"{place} {stage.title}: {what}{f'; {left} left' if left else ''}", flush=True)


def _skipped(stages: Sequence[Stage]) -> Iterator[Stage]:
    """Mark and yield the stages that need one that failed or was skipped."""
    bad = {stage.name for stage in stages if stage.status in (FAILED, SKIPPED)}
    for stage in stages:
        if stage.status == WAITING and (missing := [need for need in stage.needs if need in bad]):
            stage.status, stage.error = SKIPPED, f"it needs the stage {missing[0]}, which did not end well"
            bad.add(stage.name)
            yield stage


def _next(stages: Sequence[Stage], running: Sequence[_Running], jobs: int) -> list[Stage]:
    """Return the stages to start now: the first ones whose needs are there."""
    done = {stage.name for stage in stages if stage.status == DONE}
    started = [each.stage for each in running]
    ready = [each for each in stages if each.status == WAITING and each not in started and done >= set(each.needs)]
    return ready[: jobs - len(running)]


def _start(stage: Stage, folder: Path, changed: bool) -> _Running:
    arguments = [*stage.filled(folder), *_continued(stage, folder, changed), f"hydra.run.dir={folder / stage.name}"]
    log = folder / LOGS / f"{stage.name}.txt"
    with log.open("w", encoding="utf-8") as output:
        line = [*COMMAND, stage.command, *arguments]
        environment = {**os.environ, PARENT: str(os.getpid())}  # it ends with this process, and leaves Ctrl-C to it
        process = subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    return _Running(stage, process, log, time.monotonic())


def _continued(stage: Stage, folder: Path, changed: bool) -> list[str]:
    """Rename the folder of an earlier run of a stage; return the argument that continues it, if it can be continued."""
    run = folder / stage.name
    if not any(path.is_file() for path in run.rglob("*")):
        return []
    number = next(n for n in count(1) if not run.with_name(f"{stage.name}.stopped-{n}").exists())
    before = run.rename(run.with_name(f"{stage.name}.stopped-{number}"))
    state = _STATES.get(stage.command)
    return [f"resume={before}"] if state and (before / state).is_file() and not changed else []


def _last_line(log: Path) -> str:
    """Return the last error line of a log, or else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1]
