"""Runs of two processes that are killed again and again at random times: they end with the files of another run.

``KILLS=10 pytest -n 0 -s -m slow tests/commands/test_kills.py`` kills each of the four runs ten times, and tells when.
Results hold the commit, so commit nothing meanwhile.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from perturb_runs import Trained, results
from processes import LINUX
from tiny_runs import PROJECT, checkpoint_of
from two_processes import kill_some, line, steps_of_last_job

from clipmapper.files import read_json
from perturbation.perturb.parts import finished

KILLS = int(os.environ.get("KILLS", "2"))  # of each run
SEED = os.environ.get("SEED", "0")
ONCE = 3  # most kills of one folder, after which the run may end
MAX_STEPS = 60
STEPS = (
    *(f"trainer.max_steps={MAX_STEPS}", "trainer.val_check_interval=20", "trainer.checkpoint_every_steps=5"),
    *("task.optim.name=adam", "trainer.log_every_n_steps=1", "encoder.batch_size=4", "trainer.profiler=simple"),
)
PARTS = 12
TESTED = (f"samples={2 * PARTS}", "batch_samples=2", "measure.names=[areas]")


@dataclass
class Runner:
    """A command of two processes in a folder, with a cache of its own."""

    line: list[str]
    folder: Path
    random: random.Random
    told: list[str] = field(default_factory=list)
    _before: dict[Path, float] = field(default_factory=dict)  # files when the run was started
    works: float = 0.0  # seconds between the first file and the end of the run that was not killed
    step: int = 0  # of the last checkpoint at the last kill
    _kept: dict[Path, float] = field(default_factory=dict)  # files of the parts that were finished at the kills

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self) -> subprocess.Popen[str]:
        keys = (f"hydra.run.dir={self.run}", f"paths.cache={self.folder / 'cache'}", "resume=auto")
        environment = {**os.environ, "CLIPMAPPER_TRACE": "0", "OMP_NUM_THREADS": "1"}
        self.log = (self.folder / "log.txt").open("a")
        return subprocess.Popen([*self.line, *keys], stdout=self.log, stderr=self.log, text=True, env=environment)

    def finish(self) -> None:
        """Run without a kill."""
        process, began = self.start(), 0.0
        while process.poll() is None:
            began = began or (time.monotonic() if self._has_begun() else 0.0)
            time.sleep(0.02)
        assert process.returncode == 0, self.said()
        self.works = time.monotonic() - began

    def kill(self) -> bool:
        """Start, and kill one process or all at a random time; return False if the run ended before."""
        self._before = self._files()
        process, since = self.start(), time.monotonic()
        until = since + self.random.uniform(0, 10)
        if self.random.random() < 0.8:  # otherwise often while modules are imported
            while process.poll() is None and not self._has_begun():
                time.sleep(0.02)
            until = time.monotonic() + self.random.uniform(0, 1.2 * self.works)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        if process.poll() is not None:
            assert process.returncode == 0, self.said()
            return False
        chosen = kill_some(process, self.random)
        kept = len(self._files())
        self.step = checkpoint_of(self.run)["global_step"] if (self.run / "checkpoints/last.ckpt").is_file() else 0
        ready = finished(self.run, range(PARTS)) if (self.run / "parts").is_dir() else []
        files = [path for n in ready for path in (self.run / "parts").glob(f"part-{n:06d}.*")]
        self._kept |= {path: path.stat().st_mtime for path in files}
        self.told.append(f"{chosen} killed after {time.monotonic() - since:.1f} s, with {kept} files")
        print(self.told[-1], flush=True)
        return True

    def computed_again(self) -> list[Path]:
        """Return the parts that were finished at a kill and are not the same files now."""
        return [path for path, changed in self._kept.items() if path.stat().st_mtime != changed]

    def said(self) -> str:
        return "\n".join([*self.told, (self.folder / "log.txt").read_text()[-3000:]])

    def _files(self) -> dict[Path, float]:
        """Return the files of the run and of its cache, with the times of their last change."""
        found = {}
        for path in (*self.run.rglob("*"), *(self.folder / "cache").rglob("*")):
            with suppress(FileNotFoundError):  # it was temporary
                found[path] = path.stat().st_mtime
        return found

    def _has_begun(self) -> bool:
        return self._files() != self._before


def outcome(name: str, run: Path) -> dict[str, Any]:
    """Return what a run must end with: bytes of all results, or weights, metrics and curves."""
    if name == "perturb":
        return {**results(run)}
    metrics = {key: value for key, value in read_json(run / "metrics.json").items() if key != "config"}
    weights = {
        f"{kept} {key}": value.numpy().tobytes()
        for kept in ("best", "last")
        for key, value in checkpoint_of(run, kept)["state_dict"].items()
    }
    return {**metrics, **weights, "predictions": (run / "predictions_test.json").read_bytes()}


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("by", ["ddp", "torchrun"])
@pytest.mark.parametrize("name", ["train", "perturb"])
def test_a_run_that_is_killed_at_random_ends_as_another(by: str, name: str, trained: Trained, tmp_path: Path) -> None:
    keys = [*trained.tiny.overrides, *STEPS] if name == "train" else [*trained.overrides, *TESTED]
    draws = random.Random(f"{by} {name} {SEED}")

    def runner(folder: str) -> Runner:
        (tmp_path / folder).mkdir()
        return Runner([*line(by, PROJECT / "scripts" / f"{name}.py"), *keys], tmp_path / folder, draws)

    whole = runner("whole")
    whole.finish()
    expected, killed, number = outcome(name, whole.run), 0, 0
    print(f"\n{name} by {by}: {whole.works:.1f} s from its first file to its end", flush=True)
    while killed < KILLS:
        number += 1
        each = runner(f"killed-{number}")
        each.works = whole.works
        for _ in range(min(ONCE, KILLS - killed)):
            if not each.kill():
                break
            killed += 1
        else:
            each.finish()
            if 0 < each.step < MAX_STEPS:
                assert steps_of_last_job(each.run) == MAX_STEPS - each.step, each.said()
        assert not each.computed_again()
        found = outcome(name, each.run)
        differing = [key for key in expected if found.get(key) != expected[key]]
        assert (differing, found.keys()) == ([], expected.keys()), each.said()
        shutil.rmtree(each.folder)
