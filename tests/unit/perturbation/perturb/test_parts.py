"""Parts on disk, the identity of a run, and the choice of samples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from small_disk import small_disk

from clipmapper.errors import UserError
from perturbation.measures.base import SAMPLES
from perturbation.perturb import parts
from perturbation.perturb.identity import IDENTITY, open_run
from perturbation.perturb.parts import copy_parts, finished, merge, write_part
from perturbation.perturb.samples import sample_rows
from perturbation.perturb.stored import read_captions, read_engine_batch, write_captions, write_engine_batch


def table(*ids: int) -> pa.Table:
    return pa.table({"question_id": list(ids), "correct": [[0.5, float(i)] for i in ids]})


def test_parts_are_merged_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        write_part(tmp_path, number, {SAMPLES: [table(10 * number), table(10 * number + 1)]})
    merged = merge(tmp_path, 3)
    assert merged.keys() == {SAMPLES}
    assert merged[SAMPLES]["question_id"].to_pylist() == [0, 1, 10, 11, 20, 21]
    assert merged[SAMPLES]["correct"].to_pylist()[3] == [0.5, 11.0]


def test_a_part_without_records_counts_as_finished(tmp_path: Path) -> None:
    write_part(tmp_path, 0, {})
    write_part(tmp_path, 1, {SAMPLES: [table(1)], "ceiling": [table(1)]})
    assert finished(tmp_path, range(3)) == [0, 1]
    merged = merge(tmp_path, 2)
    assert {kind: found.num_rows for kind, found in merged.items()} == {SAMPLES: 1, "ceiling": 1}
    write_part(tmp_path, 1, {})
    with pytest.raises(UserError, match="no image of the chosen samples is readable"):
        merge(tmp_path, 1)


def test_a_damaged_part_counts_as_missing(tmp_path: Path) -> None:
    for number in range(3):
        write_part(tmp_path, number, {SAMPLES: [table(number)]})
    whole = (tmp_path / "parts" / "part-000001.samples.parquet").read_bytes()
    (tmp_path / "parts" / "part-000001.samples.parquet").write_bytes(whole[:-9])
    assert finished(tmp_path, range(3)) == [0, 2]
    with pytest.raises(UserError, match="part 1 is missing; continue the run with resume="):
        merge(tmp_path, 3)


def test_a_full_disk_leaves_only_complete_parts(tmp_path: Path) -> None:
    write_part(tmp_path, 0, {SAMPLES: [table(0)]})
    with small_disk(50), pytest.raises(OSError, match="File too large"):
        write_part(tmp_path, 1, {SAMPLES: [table(1)], "ceiling": [table(1)]})
    assert [file.name for file in (tmp_path / parts.FOLDER).iterdir()] == ["part-000000.samples.parquet"]


def block_writing(patch: pytest.MonkeyPatch, *files: Path) -> None:
    """Make writing these files fail."""
    write = parts.write_atomic

    def refusing(path: Path, content: bytes) -> None:
        if path in files:
            raise IsADirectoryError(path)
        write(path, content)

    patch.setattr(parts, "write_atomic", refusing)


def test_samples_are_the_last_file_of_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that counts as finished also has its other tables, and so has a copied part."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    for number in range(2):
        write_part(tmp_path, number, {SAMPLES: [table(1)], "ceiling": [table(1)]})
        block_writing(monkeypatch, one / parts.FOLDER / f"part-00000{number}.ceiling.parquet")
        with pytest.raises(IsADirectoryError):
            write_part(one, number, {SAMPLES: [table(1)], "ceiling": [table(1)]})
    block_writing(monkeypatch, two / parts.FOLDER / "part-000001.ceiling.parquet")
    with pytest.raises(IsADirectoryError):
        copy_parts(tmp_path, two)
    assert list(one.rglob("*.samples.parquet")) == list(two.rglob("*.samples.parquet")) == []
    assert [file.name for file in two.rglob("part-*")] == ["part-000000.ceiling.parquet"]


IDENTITY_OF: dict[str, Any] = {
    "config": {"samples": 3, "removal": {"text": "mask"}},
    "checkpoint": "ab",
    "versions": {"torch": "1"},
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"config": {"samples": 4, "removal": {"text": "mask"}}}, "samples=3, but this run has samples=4"),
        ({"config": {"samples": 3, "removal": {"text": "drop"}}}, "removal.text=mask, but"),
        ({"checkpoint": "cd"}, "checkpoint=ab, but this run has checkpoint=cd"),
        ({"versions": {"torch": "2"}}, "versions.torch=1, but this run has versions.torch=2"),
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


def test_a_missing_run_and_another_command_s_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no perturbation run found"):
        open_run(tmp_path, str(tmp_path / "nothing"), IDENTITY_OF)
    (tmp_path / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="contains the results of another command"):
        open_run(tmp_path, None, IDENTITY_OF)


def test_samples_are_drawn_without_replacement_and_depend_on_the_seed() -> None:
    rows = sample_rows(50, 20, 3)
    assert rows == sorted(set(rows)) == sample_rows(50, 20, 3)
    assert len(rows) == 20
    assert rows != sample_rows(50, 20, 4)
    assert sample_rows(5, None, 0) == sample_rows(5, 5, 1) == [0, 1, 2, 3, 4]
    with pytest.raises(UserError, match="samples=6: the split has 5 questions; give samples=5 or null"):
        sample_rows(5, 6, 0)


def test_a_finished_part_without_one_of_its_files_is_computed_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        write_part(tmp_path, number, {SAMPLES: [table(number)], "ceiling": [table(number)]})
    (tmp_path / "parts" / "part-000001.ceiling.parquet").unlink()
    assert finished(tmp_path, range(2)) == [0]
    assert "part 1 is damaged and is computed again" in capsys.readouterr().err
    with pytest.raises(UserError, match="part 1 is missing"):
        merge(tmp_path, 2)


def opened(folder: Path, checkpoint: str) -> Path:
    """Return the folder of a run of a checkpoint, with one part of two tables, a batch size and captions."""
    folder.mkdir()
    open_run(folder, None, IDENTITY_OF | {"checkpoint": checkpoint})
    write_part(folder, 0, {SAMPLES: [table(1)], "ceiling": [table(1)]})
    write_engine_batch(folder, 32)
    write_captions(folder, {7: {"ids": [1], "caption": "a", "words": ["a"], "weights": {}}})
    return folder


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_run_made_before_a_key_existed_is_continued(elsewhere: bool, tmp_path: Path) -> None:
    held = opened(tmp_path / "held", "ab")
    now = {**IDENTITY_OF, "config": {**IDENTITY_OF["config"], "encoder": {"precision": "float32"}}}
    run = tmp_path / "new" if elsewhere else held
    run.mkdir(exist_ok=True)
    open_run(run, str(held), now)
    assert finished(run, range(1)) == [0]
    assert read_engine_batch(run) == 32
    assert read_captions(run).keys() == {7}
    with pytest.raises(UserError, match=r"encoder\.precision=float32, but this run has .*=bfloat16"):
        open_run(run, str(held), {**now, "config": {**now["config"], "encoder": {"precision": "bfloat16"}}})


def resume(folder: Path) -> Path:
    """Continue the run of the checkpoint ``ab`` in a new folder."""
    new = folder.with_name("new")
    new.mkdir()
    open_run(new, str(folder), IDENTITY_OF)
    return new


@pytest.mark.parametrize("name", ["samples", "ceiling"])
@pytest.mark.parametrize("read", [lambda run: finished(run, range(1)), lambda run: merge(run, 1), resume])
def test_a_part_of_another_run_is_refused(name: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one", "ab"), opened(tmp_path / "other", "cd")
    file = f"parts/part-000000.{name}.parquet"
    shutil.copy(other / file, one / file)
    said = f"^{one / file}: is of another run, copied here; remove it, and part 0 is computed again$"
    with pytest.raises(UserError, match=said):
        read(one)
    assert finished(other, range(1)) == [0]


def test_another_part_under_the_number_of_a_part_is_refused(tmp_path: Path) -> None:
    one = opened(tmp_path / "one", "ab")
    for name in ("ceiling", "samples"):
        shutil.copy(one / f"parts/part-000000.{name}.parquet", one / f"parts/part-000001.{name}.parquet")
    with pytest.raises(UserError, match=r"part-000001.samples.parquet: is of another part, copied here; remove it"):
        merge(one, 2)


@pytest.mark.parametrize(("file", "read"), [("engine.json", read_engine_batch), ("captions.json", read_captions)])
def test_what_another_run_has_prepared_is_refused(file: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one", "ab"), opened(tmp_path / "other", "cd")
    assert read(one) == read(other)
    shutil.copy(other / file, one / file)
    with pytest.raises(UserError, match=rf"^{one / file}: is of another run; remove it, and the \w+ (size )?(is|are) "):
        read(one)


def test_the_parts_of_a_run_are_taken_over_in_another_folder(tmp_path: Path) -> None:
    one = opened(tmp_path / "one", "ab")
    new = resume(one)
    assert finished(new, range(1)) == [0]
    assert (read_engine_batch(new), read_captions(new)) == (32, read_captions(one))
