"""Benchmark of the start of a training: CPU seconds, time and memory of each stage up to the first step.

``python -m clipmapper.benchmarks.starting experiment=paper_vqa data.root=FOLDER/vqav2`` takes the overrides of
``train``; with the files of :mod:`clipmapper.benchmarks.full_size` it shows what VQAv2 and COCO need. Run it twice: the
second start has the features and tables of the first.
"""

from __future__ import annotations

import re
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir

from clipmapper.cli import typed
from clipmapper.config.schema import TrainConfig
from clipmapper.places import CONFIGS
from clipmapper.tasks import TASKS
from clipmapper.training.fitting import fit
from clipmapper.training.trainer import build_trainer

_MEMORY = {
    "Pss": "PSS",
    "Anonymous": "anonymous",
}  # names in /proc and in the table; features and tables are not anonymous


def starting(config: TrainConfig) -> list[tuple[str, float, float, dict[str, int]]]:
    """Return for each stage its name, CPU seconds and seconds since the start, and memory in MiB at its end."""
    rows: list[tuple[str, float, float, dict[str, int]]] = []
    begin, cpu = time.monotonic(), time.process_time()

    def stage(name: str, work: Callable[[], Any]) -> Any:
        found = work()
        rows.append((name, time.process_time() - cpu, time.monotonic() - begin, _memory()))
        return found

    task = TASKS[config.task.name]
    stage("imports", lambda: import_module(f"clipmapper.tasks.{config.task.name}.training"))
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder)
        trainer = stage("trainer", lambda: build_trainer(config, run, config.task.monitor))
        data = stage("data and features", lambda: task.data(config))
        stage("identity", lambda: (data.content, data.card(config)))
        module = stage("model", lambda: task.module(config, data))
        stage("familiarity", lambda: data.familiarity)
        stage("split.json", lambda: data.write_split(run / "split.json"))
        stage("first step", lambda: _until_the_first_step(config, trainer, module, data, run))
    return rows


class _Reached(Exception):
    """The first step would begin now."""


def _until_the_first_step(config: TrainConfig, trainer: Any, module: Any, data: Any, run: Path) -> None:
    """Fit as the command does, and end when the first batch is on the device, before the module computes anything."""

    def reached(*_: Any) -> None:
        raise _Reached

    with patch.object(type(module), "on_train_batch_start", reached), suppress(_Reached):
        fit(config, trainer, module, data, None, run)


def _memory() -> dict[str, int]:
    text = Path("/proc/self/smaps_rollup").read_text()
    sizes = {key: int(size) >> 10 for key, size in re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)}
    return {name: sizes[key] for key, name in _MEMORY.items()} | {
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    }


def main(overrides: Sequence[str] | None = None) -> None:
    """Print the stages of a start with the overrides of ``train``."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config = typed(compose("train", list(sys.argv[1:] if overrides is None else overrides)), TrainConfig)
    for name, cpu, seconds, memory in starting(config):
        held = ", ".join(f"{key} {size} MiB" for key, size in memory.items())
        print(f"{name:20} {cpu:8.1f} CPU seconds {seconds:8.1f} seconds   {held}", flush=True)


if __name__ == "__main__":
    main()
