"""The processes of a run on several devices: how many there are, who starts them, and when they are connected.

This project starts the processes on one machine (``trainer=ddp``), or torchrun or Slurm's srun does. They are connected
before the data are read, so that they can share the work from then on (:mod:`clipmapper.process.together`).
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning_fabric.utilities.distributed import _set_num_threads_if_needed
from pytorch_lightning.strategies import DDPStrategy, Strategy
from pytorch_lightning.strategies.launchers.subprocess_script import _basic_subprocess_cmd, _SubprocessScriptLauncher

from clipmapper.config.trainer import TrainerConfig
from clipmapper.errors import UserError
from clipmapper.process import launched, stopping, together, workers
from clipmapper.process.launched import Launched, wait_for_all

# One process may wait for another that writes data or computes scores. When one has ended, the others are told at once.
_LONGEST_WAIT = timedelta(days=1)

# So many processes are accepted on the CPU of any machine, whatever its number of cores.
_ON_ANY_CPU = 4


def processes(t: TrainerConfig) -> dict[str, Any]:
    """Return the arguments ``devices``, ``num_nodes`` and ``strategy`` of Lightning's Trainer.

    Args:
        t: The config of the trainer. If torchrun or srun started this process, their numbers of processes hold, with
            which the config must not disagree.

    Raises:
        UserError: The config disagrees with the numbers of processes that were started, or these differ by node.
    """
    place = launched.launched()
    if place is None:
        if t.num_nodes > 1:
            raise UserError(
                f"trainer.num_nodes={t.num_nodes}: start the command by srun or torchrun, which start its processes on "
                "every node; docs/how-to/cluster.md has both"
            )
        return {"devices": t.devices, "num_nodes": 1, "strategy": _strategy(t.strategy, t.devices != 1)}
    _check_agrees(t, place)
    return {
        "devices": place.local_world,
        "num_nodes": place.nodes,
        "strategy": _strategy(t.strategy, place.world > 1),
    }


def environment() -> ClusterEnvironment:
    """Return Lightning's description of the program that starts the processes.

    Lightning would take any job of Slurm for processes of srun, and wait for others that are never started.
    """
    place = launched.launched()
    if place is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if place.by == "torchrun" else _OfSrun(place)


class _OfSrun(SLURMEnvironment):
    """The environment of srun. This project handles its signals, and takes any way to give the number of tasks."""

    def __init__(self, place: Launched) -> None:
        self._place = place
        super().__init__(auto_requeue=False)

    @staticmethod
    def _validate_srun_variables() -> None:
        """Accept any way to give the number of tasks."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Accept the numbers, which are those of srun."""

    def world_size(self) -> int:
        """Return the number of processes."""
        return self._place.world


def keep_signals(trainer: pl.Trainer) -> None:
    """Leave signals to this project.

    Lightning would take SIGTERM for a normal end, exchange at every step whether it came, and kill the first process
    without a word when another one ends.
    """
    trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def start_processes(trainer: pl.Trainer) -> None:
    """Start the further processes of a trainer, if this project does that, and connect all.

    Called again, for another trainer of the same run, this connects nothing new.

    Raises:
        UserError: There would be more processes on a CPU than it has cores, and more than four.
    """
    strategy = trainer.strategy
    launcher = strategy.launcher
    if isinstance(launcher, _SubprocessScriptLauncher):
        launcher.cluster_environment.validate_settings(launcher.num_processes, launcher.num_nodes)
        if not launcher.cluster_environment.creates_processes_externally:
            _check_number(launcher.num_processes, strategy.root_device)
            _start_others(launcher)
        strategy._launcher = None  # the trainer finds the processes started
    if together.world() == 1:
        wait_for_all()
    strategy.setup_environment()


def _check_number(number: int, device: torch.device) -> None:
    most = max(os.cpu_count() or 1, _ON_ANY_CPU)
    if device.type == "cpu" and number > most:
        raise UserError(f"trainer.devices={number}: on this machine's CPU give at most {most}")


def _start_others(launcher: _SubprocessScriptLauncher) -> None:
    """Start this command, or this job of a sweep, again for every further process.

    The processes end when this one does, their deaths are told in one line, and only this one prints errors.
    """
    place, number = launcher.cluster_environment, launcher.num_processes
    os.environ |= {
        "MASTER_ADDR": place.main_address,
        "MASTER_PORT": str(place.main_port),
        "NODE_RANK": str(place.node_rank()),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(number * launcher.num_nodes),
    }
    lines = Path(tempfile.mkdtemp(prefix="clipmapper-"))
    theirs = {**os.environ, stopping.PARENT: str(os.getpid()), workers.LINES: str(lines)}
    line = launched.running or _basic_subprocess_cmd()
    children = {
        f"rank {rank}": subprocess.Popen(line, env={**theirs, "LOCAL_RANK": str(rank)}) for rank in range(1, number)
    }
    workers.watched = workers.Watched(children, lines)
    _set_num_threads_if_needed(num_processes=number)


def _strategy(name: str, several: bool) -> str | Strategy:
    """Return Lightning's strategy: for ``ddp`` its variant that accepts unused parameters.

    Parts of a mapper's last layer don't influence the read-out token and get no gradient, which plain DDP refuses.
    """
    if not several or name not in ("auto", "ddp"):
        return name
    return DDPStrategy(find_unused_parameters=True, timeout=_LONGEST_WAIT)


def _check_agrees(t: TrainerConfig, place: Launched) -> None:
    if place.world != place.local_world * place.nodes:
        how = "--ntasks-per-node=N" if place.by == "srun" else "the same --nproc-per-node on every node"
        raise UserError(
            f"{place.by} started {place.world} processes on {place.nodes} nodes, of which {place.local_world} on this "
            f"one; every node needs equally many: give {place.by} {how}"
        )
    for key, given, there, what in (
        ("devices", t.devices, place.local_world, "processes on each node"),
        ("num_nodes", t.num_nodes, place.nodes, "nodes"),
    ):
        if str(given) not in ("1", "auto", "-1", str(there)):
            raise UserError(
                f"trainer.{key}={given}: {place.by} started {there} {what}; give trainer.{key}={there}, or leave it out"
            )
