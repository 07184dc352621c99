"""Processes that torchrun or srun started: the place of each, and what they agree on before they read anything.

Such processes begin without knowing one another. Those of one machine that this project starts itself
(:mod:`clipmapper.training.processes`) get the run folder from the first one with their command line.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from clipmapper.errors import UserError
from clipmapper.process import together

if TYPE_CHECKING:
    from torch.distributed import Store

_NO_STEP = 0xFFFFFFF0  # numbers of Slurm's steps from here on are no steps of srun, but the script or a shell
_PORTS = 10000  # distance of the port of the meeting from that of PyTorch's group
_PATIENCE = 10.0  # seconds for which the first process waits for the errors of the others
_FAILED = "another process of this run has failed, so this one ends too"
_DEADLINE = timedelta(minutes=10)  # until all processes must have begun


@dataclass(frozen=True)
class Launched:
    """The place of this process among those of a run."""

    by: str  #: torchrun or srun
    rank: int
    local_rank: int  #: rank on its machine
    world: int  #: number of processes
    local_world: int  #: number of processes on this machine
    nodes: int  #: number of machines


@cache
def launched() -> Launched | None:
    """Return the place of this process, or None if neither torchrun nor srun started several.

    Raises:
        UserError: A number that they write into the environment is missing or is none.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE")
        return Launched("torchrun", *map(_number, names))
    tasks = _number("SLURM_NTASKS", "SLURM_NPROCS", otherwise=1)
    step = _number("SLURM_STEP_ID", "SLURM_STEPID", otherwise=_NO_STEP)
    if tasks == 1 or step >= _NO_STEP:
        return None
    nodes = max(1, _number("SLURM_STEP_NUM_NODES", "SLURM_NNODES", otherwise=1))
    here = _tasks_of_node(_number("SLURM_NODEID", otherwise=0)) or tasks // nodes
    return Launched("srun", _number("SLURM_PROCID"), _number("SLURM_LOCALID"), tasks, here, nodes)


def _tasks_of_node(node: int) -> int | None:
    """Return the number of tasks of a node by srun's list such as ``2(x3),1``; None if it is not given."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
    counts = [int(count) for count, nodes in found for _ in range(int(nodes or 1))]
    return counts[node] if node < len(counts) else None


def _number(*names: str, otherwise: int | None = None) -> int:
    """Return the whole number in the first of these variables of the environment that has a value."""
    found = next(((name, value) for name in names if (value := os.environ.get(name))), None)
    if found is None and otherwise is not None:
        return otherwise
    name, value = found or (names[0], "")
    if not re.fullmatch(r"\d{1,10}", value, re.ASCII):
        raise UserError(f"environment variable {name}={value} is no number; unset it, or start the processes again")
    return int(value)


def is_first() -> bool:
    """Return whether this process is the only one of its run, or the first: the one that prints and writes results."""
    place = launched()
    return place.rank == 0 if place else os.environ.get("LOCAL_RANK", "0") == "0"


running: tuple[str, ...] = ()  #: The program and the arguments with which another process runs the running command.
_OF_GROUP = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED")


@contextmanager
def own_environment() -> Iterator[None]:
    """Remove what Lightning writes into the environment for its processes: the next job of a sweep has others."""
    before = {name: os.environ.get(name) for name in _OF_GROUP}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_folders = 0  # run folders on which the processes have agreed


def tell_folder(folder: Path) -> None:
    """Tell the other processes the run folder, as soon as the first process may write to it."""
    global _folders
    if _several() is not None:
        _folders += 1
        _meeting().set(f"folder {_folders}", str(folder.resolve()))


def folder_of_first(own: Path) -> Path:
    """Return the run folder of the first process, and remove that of this one.

    Args:
        own: The run folder that Hydra made for this process; its name contains another time.

    Raises:
        UserError: The first process cannot be reached, or it has failed.
    """
    global _folders
    if _several() is None:
        return own
    _folders += 1
    try:
        told = _meeting().get(f"folder {_folders}").decode()
    except RuntimeError:
        told = ""
    theirs = Path(told)
    if not told or theirs != own.resolve():
        with suppress(OSError):  # it has files, or another process of this machine has removed it
            own.rmdir()
    if not told:
        raise UserError(_FAILED)
    theirs.mkdir(parents=True, exist_ok=True)  # a shared file system may show it later
    return theirs


def wait_for_all() -> None:
    """Wait until all processes have read their config and found their device.

    Raises:
        UserError: One has failed, or has not begun.
    """
    place = _several()
    if place is None:
        return
    store, until = _meeting(), time.monotonic() + _DEADLINE.total_seconds()
    here = store.add("here", 1)
    while here < place.world:
        if store.add("errors", 0):
            raise UserError(_FAILED)
        if time.monotonic() > until:
            raise UserError(f"{place.by} started {place.world} processes, but only {here} have begun; see their logs")
        time.sleep(0.05)
        here = store.add("here", 0)


def told_by_another() -> bool:
    """Return whether another process prints the error of this run, so that this one does not."""
    with suppress(UserError):  # the place is not known
        return _told(_several())
    return False


def _told(place: Launched | None) -> bool:
    if place is None:
        return False
    try:
        store = _meeting()
        number = store.add("errors", 1)
        if place.rank == 0:
            store.set(f"folder {_folders + 1}", "")  # the others may wait for it
        if place.rank == 0:
            together.leave()
        until = time.monotonic() + _PATIENCE
        while place.rank == 0 and place.by == "srun" and time.monotonic() < until:  # the store ends with this process
            if store.add("errors", 0) >= place.world:
                break
            time.sleep(0.05)
    except (RuntimeError, UserError):  # the first process has ended
        return place.rank != 1
    return number > 1


def _several() -> Launched | None:
    """Return the place of this process if torchrun or srun started others too."""
    place = launched()
    return None if place is None or place.world == 1 else place


@cache
def _meeting() -> Store:
    """Connect to the other processes.

    Raises:
        UserError: They cannot be reached.
    """
    from torch.distributed import PrefixStore, TCPStore

    place = launched()
    assert place is not None
    hosts = place.by == "srun" and place.rank == 0
    address, port = _address(place)
    try:
        store = TCPStore(address, port, None, hosts, _DEADLINE, wait_for_workers=False)
    except RuntimeError as error:
        raise UserError(
            f"the processes that {place.by} started cannot meet at {address}:{port}; give another free port in "
            "MASTER_PORT, and a reachable address in MASTER_ADDR"
        ) from error
    return PrefixStore(f"clipmapper {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)


def _address(place: Launched) -> tuple[str, int]:
    given = os.environ
    if place.by == "torchrun":
        return given["MASTER_ADDR"], _number("MASTER_PORT")
    from lightning_fabric.plugins.environments import SLURMEnvironment

    nodes = given.get("SLURM_STEP_NODELIST") or given.get("SLURM_NODELIST") or "127.0.0.1"
    first = given.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    if "MASTER_PORT" in given:
        return first, _number("MASTER_PORT") + 1
    return first, _number("SLURM_JOB_ID", otherwise=0) % 10_000 + 15000 + _PORTS
