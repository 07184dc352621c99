"""Batches that are read ahead are those of the loader, in its order, and are read before they are taken."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from clipmapper.training.read_ahead import ReadAhead


@dataclass
class Numbered:
    number: int
    pinned: bool = False

    def pin_memory(self) -> Numbered:
        return Numbered(self.number, True)


class Loader:
    """Counts the batches that were read, and lets a test wait for a count."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.count, self.fails_at, self.read = count, fails_at, 0
        self.changed = threading.Condition()

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Numbered]:
        for number in range(self.count):
            if number == self.fails_at:
                raise ValueError(f"batch {number} is damaged")
            with self.changed:
                self.read = number + 1
                self.changed.notify_all()
            yield Numbered(number)

    def wait_for(self, count: int) -> bool:
        with self.changed:
            return self.changed.wait_for(lambda: self.read >= count, timeout=10)


@pytest.mark.parametrize("count", [0, 1, 3, 20])
def test_the_batches_are_those_of_the_loader_in_its_order(count: int) -> None:
    ahead = ReadAhead(Loader(count), pin=False)
    assert len(ahead) == count
    assert [batch.number for batch in ahead] == list(range(count))
    assert [batch.number for batch in ahead] == list(range(count))


def test_batches_are_read_before_they_are_taken_and_no_more_than_asked_for() -> None:
    loader = Loader(20)
    batches = iter(ReadAhead(loader, pin=False, depth=3))
    next(batches)
    assert loader.wait_for(5)  # one taken, three that wait, and one for which there is no room yet
    assert loader.read == 5
    next(batches)
    assert loader.wait_for(6)
    assert loader.read == 6


def test_batches_for_a_gpu_are_in_pinned_memory() -> None:
    assert all(batch.pinned for batch in ReadAhead(Loader(3), pin=True))
    assert not any(batch.pinned for batch in ReadAhead(Loader(3), pin=False))


def test_an_error_of_the_loader_is_raised_when_its_batch_is_taken() -> None:
    taken: list[int] = []
    with pytest.raises(ValueError, match="batch 2 is damaged"):
        taken.extend(batch.number for batch in ReadAhead(Loader(5, fails_at=2), pin=False))
    batches = iter(ReadAhead(Loader(5, fails_at=2), pin=False))
    assert [next(batches).number for _ in range(2)] == [0, 1]


def test_the_thread_ends_with_an_iteration_that_ends_early() -> None:
    before = threading.active_count()
    batches = iter(ReadAhead(Loader(1000), pin=False))
    next(batches)
    assert threading.active_count() == before + 1
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
