"""Batches that a thread reads before they are needed, so that the device does not wait for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sized
from typing import Generic, Protocol, TypeVar


class Pinnable(Protocol):
    """A batch that can be copied to memory from which a GPU copies while it computes."""

    def pin_memory(self) -> Pinnable:
        """Return the batch in pinned memory."""
        ...


Batch = TypeVar("Batch", bound=Pinnable)


class ReadAhead(Generic[Batch]):
    """The batches of a loader in their order, of which some are read ahead.

    An error of the loader is raised when its batch is taken. The thread ends when the iteration ends, also early.

    Args:
        loader: The loader.
        pin: Whether the batches are copied to pinned memory, for a GPU.
        depth: Number of batches that are read ahead.
    """

    def __init__(self, loader: Iterable[Batch], pin: bool, depth: int = 3) -> None:
        self.loader, self._pin, self._depth = loader, pin, depth

    def __len__(self) -> int:
        assert isinstance(self.loader, Sized)
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        read: queue.Queue[Batch | BaseException | None] = queue.Queue(self._depth)
        stopped = threading.Event()
        thread = threading.Thread(target=self._read, args=(read, stopped), name="read ahead", daemon=True)
        thread.start()
        try:
            while (found := read.get()) is not None:
                if isinstance(found, BaseException):
                    raise found
                yield found
        finally:
            stopped.set()
            while thread.is_alive():  # it may wait for room in the queue
                _take_all(read)
                thread.join(0.01)

    def _read(self, read: queue.Queue[Batch | BaseException | None], stopped: threading.Event) -> None:
        try:
            for batch in self.loader:
                if stopped.is_set():
                    return
                read.put(batch.pin_memory() if self._pin else batch)  # type: ignore[arg-type]
            read.put(None)
        except BaseException as error:  # raised again by the thread that takes the batches
            read.put(error)


def _take_all(read: queue.Queue[Batch | BaseException | None]) -> None:
    while True:
        try:
            read.get_nowait()
        except queue.Empty:
            return
