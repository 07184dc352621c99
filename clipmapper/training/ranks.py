"""The processes of a distributed run on this machine: they end together, and only the first one prints errors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from clipmapper.process import stopping, workers


def use_own_processes(trainer: pl.Trainer) -> None:
    """Make a trainer start its further processes by :class:`RankLauncher`, and leave signals to this project.

    Lightning would take SIGTERM for a normal end, exchange at every step whether it came, and kill the first process
    without a word when another one ends.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        own = RankLauncher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        trainer.strategy._launcher = own


class RankLauncher(_SubprocessScriptLauncher):
    """Launcher whose processes end when this one does, and whose death is told in one line."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        """Start the further processes, then call the function; the processes are ended if it fails."""
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if self.cluster_environment.creates_processes_externally:
            return function(*args, **kwargs)
        lines = Path(tempfile.mkdtemp(prefix="clipmapper-"))
        with _environment(stopping.PARENT, str(os.getpid())), _environment(workers.LINES, str(lines)):
            self._call_children_scripts()
        children = {f"rank {rank}": each for rank, each in enumerate(self.procs, 1)}
        workers.watched = workers.Watched(children, lines)
        _set_num_threads_if_needed(num_processes=self.num_processes)
        return function(*args, **kwargs)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
