"""A disk that is full under two processes: one line names it, nothing is lost, and the command is finished later."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from perturb_runs import Trained, results
from processes import LINUX, end_soon
from tiny_runs import PROJECT, checkpoint_of
from two_processes import line

BLOCK = 4096
STEPS = ("encoder.batch_size=4", "trainer.max_steps=2", "trainer.val_check_interval=2")
TESTED = ("samples=24", "batch_samples=2", "measure.names=[areas]")
# The training command with small shards.
COMMAND = """
from clipmapper.features import filling
from perturbation.cli import run

if __name__ == "__main__":
    filling.ITEMS = 16
    run("train")
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("file systems may not be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def used(files: list[Path]) -> int:
    return sum(-(-path.stat().st_size // BLOCK) * BLOCK for path in files)


def run(arguments: list[str], mark: str) -> tuple[int, list[str], str]:
    """Run a command; return its status, the lines of its errors and all of stderr. All its processes have ended."""
    environment = {**os.environ, "CLIPMAPPER_TRACE": "0", "OMP_NUM_THREADS": "1", "MARK_OF_TEST": mark}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=200)
    assert end_soon(marked(mark), 10)
    return done.returncode, [each for each in done.stderr.splitlines() if each.startswith("error: ")], done.stderr


def marked(mark: str) -> list[int]:
    """Return the processes with a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"MARK_OF_TEST={mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                found.append(int(path.name))
        except OSError:
            continue
    return found


def files_of(folder: Path, pattern: str) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob(pattern)}


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize(("name", "by"), [("train", "torchrun"), ("perturb", "ddp")])
def test_it_is_one_line_and_the_same_command_finishes_later(
    name: str, by: str, trained: Trained, disk: Path, tmp_path: Path
) -> None:
    if name == "train":  # the cache is on the disk
        script, kept = tmp_path / "train.py", "shard-*"
        script.write_text(COMMAND)
        keys = [*line(by, script), *trained.tiny.overrides, *STEPS]
        places = {where: (tmp_path / f"run-{where.name}", where) for where in (tmp_path / "whole", disk)}
    else:  # the run folder is
        script, kept = PROJECT / "scripts" / "perturb.py", "part-*"
        keys = [*line(by, script), *trained.overrides, *TESTED]
        places = {where: (where / "run", trained.tiny.root / "cache") for where in (tmp_path / "whole", disk)}
    lines = {
        where: [*keys, f"hydra.run.dir={folder}", f"paths.cache={cache}", "resume=auto"]
        for where, (folder, cache) in places.items()
    }
    whole, mark = tmp_path / "whole", f"{tmp_path}"
    status, _, err = run(lines[whole], mark)
    assert status == 0, err
    many = list(whole.rglob(kept))
    assert len(many) > 8
    rest = [path for path in whole.rglob("*") if path.is_file() and path not in many] if name == "perturb" else []
    before_parts = [path for path in rest if path.name in ("config.yaml", "identity.json")]
    resize(disk, used(before_parts) + used(many) // 2)

    since = time.monotonic()
    status, errors, err = run(lines[disk], mark)
    print(f"{name} by {by}: ended after {time.monotonic() - since:.1f} s with {errors}")
    assert (status, len(errors)) == (1, 1), err
    assert re.match(rf"error: {disk}\S*: .*[Nn]o space left on device.*; check that the folder ", errors[0]), errors[0]
    assert "is writable and has space left" in errors[0]  # the line of another process also says how to resume
    before = files_of(disk, kept)
    assert len(before) > 2
    resize(disk, 64 << 20)
    status, errors, err = run(lines[disk], mark)
    assert (status, errors) == (0, []), err
    after = files_of(disk, kept)
    assert {path: after.get(path) for path in before} == before
    assert not [path for path in disk.rglob(".*") if path.name != ".lock"]
    if name == "perturb":
        assert results(places[disk][0]) == results(places[whole][0])
    else:
        found, expected = (checkpoint_of(places[where][0])["state_dict"] for where in (disk, whole))
        assert all((found[key] == expected[key]).all() for key in expected)
        assert len(after) == len(many)
