"""Work that is shared out among connected processes gives the results of one process."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import pytest
from ranks import in_ranks

from clipmapper.errors import UserError
from clipmapper.process import together


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 5, 6])
def test_shares_are_put_together_in_order(world: int, count: int) -> None:
    items = list(range(count))
    assert together.in_turn([items[rank::world] for rank in range(world)]) == items


def test_alone_every_function_does_the_work() -> None:
    assert (together.rank(), together.world()) == (0, 1)
    assert together.shared_out([1, 2, 3], str) == ["1", "2", "3"]
    assert together.gathered("a") == ["a"]


def test_each_item_is_computed_once_and_all_processes_get_all_results(tmp_path: Path) -> None:
    def work(rank: int) -> list[tuple[int, int]]:
        return together.shared_out(list(range(5)), lambda item: (item, rank))

    expected = [(item, item % 2) for item in range(5)]
    assert in_ranks(tmp_path, work) == [expected, expected]


def test_the_first_process_goes_first(tmp_path: Path) -> None:
    written = tmp_path / "written"

    def work(rank: int) -> bool:
        with together.first_alone():
            found = written.exists()
            written.touch()
        return found

    assert in_ranks(tmp_path, work) == [False, True]


def test_processes_that_have_read_other_values_are_told_which(tmp_path: Path) -> None:
    def check(rank: int) -> str:
        together.check_agreed(lambda: {"questions": "a", "images": 2})
        try:
            together.check_agreed(lambda: {"questions": "a", "images": int(rank == 2)})
        except UserError as error:
            return str(error)
        return ""

    here = re.escape(platform.node())
    (said,) = {*in_ranks(tmp_path, check, world=3)}
    assert re.fullmatch(rf"rank 2 on {here} has other images than rank 0 on {here}: all processes must .*", said)


def test_one_process_has_nothing_to_compare() -> None:
    together.check_agreed(lambda: pytest.fail("it is computed"))


def test_inside_the_turn_of_a_process_nothing_waits(tmp_path: Path) -> None:
    written = tmp_path / "written"

    def work(rank: int) -> bool:
        with together.first_alone():
            found = written.exists()
            if not found:  # the first process alone does this
                with together.first_alone():
                    written.touch()
        with together.first_alone():  # and the turns after it are not confused
            return found

    assert in_ranks(tmp_path, work) == [False, True]
