"""What the processes of a distributed run do together: take turns, share work out and gather its results.

In a run of one process, every function does the work alone.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from clipmapper.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
_alone = False  # whether the body of first_alone runs


def rank() -> int:
    """Return the number of this process in its run."""
    group = _group()
    return 0 if group is None else int(group.get_rank())


def world() -> int:
    """Return the number of processes of this run that are connected."""
    group = _group()
    return 1 if group is None else int(group.get_world_size())


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process run the body, and then the others, which find what it has written.

    Inside another such body it changes nothing.
    """
    global _alone
    if _alone:
        yield
        return
    if rank() > 0:
        barrier()
    _alone = True
    try:
        yield
    finally:
        _alone = False
    if rank() == 0:
        barrier()


def mine(items: Sequence[Item]) -> Sequence[Item]:
    """Return the share of this process: every n-th item of n processes."""
    return items[rank() :: world()]


def shared_out(items: Sequence[Item], work: Callable[[Item], Result]) -> list[Result]:
    """Return the results of all items in their order, of which every process computes its share.

    Args:
        items: The same items in every process.
        work: Returns the result of an item, which is sent to all processes.
    """
    return in_turn(gathered([work(item) for item in mine(items)]))


def in_turn(shares: Sequence[Sequence[Result]]) -> list[Result]:
    """Return the results in the order of the items, of which :func:`mine` gave each process a share."""
    count = sum(map(len, shares))
    return [shares[place % len(shares)][place // len(shares)] for place in range(count)]


def gathered(value: Result) -> list[Result]:
    """Return the values of all processes, by their number."""
    group = _group()
    if group is None:
        return [value]
    found: list[Any] = [None] * world()
    group.all_gather_object(found, value)
    return found


def check_agreed(content: Callable[[], Mapping[str, object]]) -> None:
    """Check that all processes have read the same, before they share work on it; a single process checks nothing.

    Args:
        content: Returns plain values or hashes by the name of what they are of, a plural.

    Raises:
        UserError: A process has other values than the first one; it is raised in all of them.
    """
    if world() == 1:
        return
    (first_machine, first), *others = gathered((platform.node(), dict(content())))
    for number, (machine, values) in enumerate(others, 1):
        if differing := sorted(name for name in first.keys() | values.keys() if first.get(name) != values.get(name)):
            raise UserError(
                f"rank {number} on {machine} has other {differing[0]} than rank 0 on {first_machine}: all processes "
                "must read the same files; check data.root, encoder.weights and checkpoint on both"
            )


def barrier() -> None:
    """Wait until all processes are here."""
    gathered(None)


def part() -> None:
    """End the connection of the processes, so that the next run of a sweep can make its own."""
    group = _group()
    if group is not None:
        group.destroy_process_group()


def leave() -> None:
    """End the connections of gloo, so that processes that wait for this one end too; those of GPUs end with it."""
    group = _group()
    if group is not None and group.get_backend() == "gloo":
        group.destroy_process_group()


def _group() -> Any:
    """Return ``torch.distributed`` if several processes are connected."""
    group = sys.modules.get("torch.distributed")
    return group if group is not None and group.is_available() and group.is_initialized() else None
