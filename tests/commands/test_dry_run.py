"""A dry run of a training says what it needs and names what is missing, and encodes and trains nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import Tiny, write_vqav2

Command = Callable[..., tuple[int, str, list[str]]]


@pytest.mark.parametrize("task", ["vqa", "caption"])
def test_it_counts_what_is_to_be_encoded_before_and_after(
    task: str, tiny: Tiny, command: Command, tmp_path: Path
) -> None:
    keys = [*tiny.overrides, f"task={task}", f"paths.cache={tmp_path / 'cache'}", f"paths.runs={tmp_path / 'runs'}"]
    status, out, errors = command("train", *keys, "dry_run=true")
    assert (status, errors) == (0, [])
    assert "training: 8 steps of 32 samples" in out
    assert re.search(r"images +60 +60 +[\d.]+ [KM]iB +0:00:\d\d", out), out
    assert not list((tmp_path / "runs").rglob("*.ckpt"))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_missing_images_and_a_full_disk_are_one_line(tiny: Tiny, command: Command, tmp_path: Path) -> None:
    write_vqav2(tmp_path / "data", splits=("train2014", "val2014", "test2015"))
    keys = [*tiny.base, "data=vqav2", f"data.root={tmp_path / 'data'}", f"paths.root={tmp_path}", "dry_run=true"]
    small = ["data.min_answer_questions=1", "data.reserved=2", "data.test_split=null"]
    gone = sorted((tmp_path / "data" / "images" / "val2014").iterdir())[0]
    gone.unlink()
    status, _, errors = command("train", *keys, *small)
    assert status == 1
    assert errors == [f"error: {gone}: no such image, as 1 of 12; check data.root"]
