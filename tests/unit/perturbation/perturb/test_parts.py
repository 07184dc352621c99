"""Parts on disk, what a run is known by, and how samples are drawn."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from small_disk import small_disk

from clipmapper.errors import UserError
from perturbation.measures.base import SAMPLES
from perturbation.perturb import parts
from perturbation.perturb.identity import IDENTITY, open_run
from perturbation.perturb.parts import copy_parts, finished, merge, write_part
from perturbation.perturb.samples import sample_rows


def table(*ids: int) -> pa.Table:
    return pa.table({"question_id": list(ids), "correct": [[0.5, float(i)] for i in ids]})


def test_parts_are_merged_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write_part(tmp_path, number, {SAMPLES: [table(10 * number), table(10 * number + 1)]})
    merged = merge(tmp_path, 3)
    assert merged.keys() == {SAMPLES}
    assert merged[SAMPLES]["question_id"].to_pylist() == [0, 1, 10, 11, 20, 21]
    assert merged[SAMPLES]["correct"].to_pylist()[3] == [0.5, 11.0]


def test_a_part_without_records_counts_as_done(tmp_path: Path) -> None:
    write_part(tmp_path, 0, {})
    write_part(tmp_path, 1, {SAMPLES: [table(1)], "ceiling": [table(1)]})
    assert finished(tmp_path, 3) == [0, 1]
    merged = merge(tmp_path, 2)
    assert {kind: found.num_rows for kind, found in merged.items()} == {SAMPLES: 1, "ceiling": 1}
    write_part(tmp_path, 1, {})
    with pytest.raises(UserError, match="no picture of the chosen questions could be read"):
        merge(tmp_path, 1)


def test_a_damaged_part_is_done_again(tmp_path: Path) -> None:
    for number in range(3):
        write_part(tmp_path, number, {SAMPLES: [table(number)]})
    whole = (tmp_path / "parts" / "part-000001.samples.parquet").read_bytes()
    (tmp_path / "parts" / "part-000001.samples.parquet").write_bytes(whole[:-9])
    assert finished(tmp_path, 3) == [0, 2]
    with pytest.raises(UserError, match="part 1 is missing; go on with resume="):
        merge(tmp_path, 3)


def test_a_disk_that_fills_up_leaves_whole_parts_only(tmp_path: Path) -> None:
    write_part(tmp_path, 0, {SAMPLES: [table(0)]})
    with small_disk(50), pytest.raises(OSError, match="File too large"):
        write_part(tmp_path, 1, {SAMPLES: [table(1)], "ceiling": [table(1)]})
    assert [file.name for file in (tmp_path / parts.FOLDER).iterdir()] == ["part-000000.samples.parquet"]


def in_the_way(file: Path) -> None:
    """Makes writing the file fail: a folder stands where it is written before it is renamed."""
    file.with_name(f".{file.name}.{os.getpid()}.partial").mkdir(parents=True)


def test_samples_are_the_last_file_of_a_part(tmp_path: Path) -> None:
    """So a part that counts as done has its other records too, also where parts are taken over."""
    one, two = tmp_path / "one", tmp_path / "two"
    for number in range(2):
        write_part(tmp_path, number, {SAMPLES: [table(1)], "ceiling": [table(1)]})
        in_the_way(one / parts.FOLDER / f"part-00000{number}.ceiling.parquet")
        with pytest.raises(IsADirectoryError):
            write_part(one, number, {SAMPLES: [table(1)], "ceiling": [table(1)]})
    in_the_way(two / parts.FOLDER / "part-000001.ceiling.parquet")
    with pytest.raises(IsADirectoryError):
        copy_parts(tmp_path, two)
    assert list(one.rglob("*.samples.parquet")) == list(two.rglob("*.samples.parquet")) == []
    assert [file.name for file in two.rglob("part-*")] == ["part-000000.ceiling.parquet"]


IDENTITY_OF = {"config": {"samples": 3, "removal": {"text": "mask"}}, "checkpoint": "ab", "versions": {"torch": "1"}}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"config": {"samples": 4, "removal": {"text": "mask"}}}, "samples=3, and this one has samples=4"),
        ({"config": {"samples": 3, "removal": {"text": "drop"}}}, "removal.text=mask, and"),
        ({"checkpoint": "cd"}, "checkpoint=ab, and this one has checkpoint=cd"),
        ({"versions": {"torch": "2"}}, "versions.torch=1, and this one has versions.torch=2"),
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_belongs_to_one_run(tmp_path: Path, changed: dict[str, object], named: str, resume: bool) -> None:
    held, new = tmp_path / "held", tmp_path / "new"
    held.mkdir()
    new.mkdir()
    open_run(held, None, IDENTITY_OF)
    open_run(held, None, IDENTITY_OF)
    before = (held / IDENTITY).read_bytes()
    with pytest.raises(UserError, match=named):
        open_run(new if resume else held, str(held) if resume else None, IDENTITY_OF | changed)
    assert list(new.iterdir()) == []
    assert (held / IDENTITY).read_bytes() == before


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no perturbation run is there"):
        open_run(tmp_path, str(tmp_path / "nothing"), IDENTITY_OF)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="holds the results of another command"):
        open_run(tmp_path, None, IDENTITY_OF)


def test_questions_are_drawn_by_the_seed_without_replacement() -> None:
    rows = sample_rows(50, 20, 3)
    assert rows == sorted(set(rows)) == sample_rows(50, 20, 3)
    assert len(rows) == 20
    assert rows != sample_rows(50, 20, 4)
    assert sample_rows(5, None, 0) == sample_rows(5, 5, 1) == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="samples=6: the split has 5 questions; give samples=5 or null"):
        sample_rows(5, 6, 0)
