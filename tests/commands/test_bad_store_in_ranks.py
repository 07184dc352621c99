"""A feature store with bad files, or on a full disk, under two processes: one line each, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from ranks import in_ranks
from tiny_runs import PROJECT, Tiny, composed, write_vqav2

from clipmapper.cli import typed
from clipmapper.config.schema import TrainConfig
from clipmapper.features import claims
from clipmapper.features.claims import Claims
from clipmapper.features.shard import Shard
from clipmapper.tasks.vqa.data import prepare

SRUN = str(PROJECT / "tests" / "helpers" / "slurm" / "srun")
SMALL = ("data=vqav2", "data.min_answer_questions=1", "data.reserved=2", "data.test_split=null")


@pytest.fixture
def keys(tiny: Tiny, tmp_path: Path) -> tuple[str, ...]:
    """Arguments of a training on twelve images, with a cache of its own."""
    write_vqav2(tmp_path / "data")
    return (*tiny.base, *SMALL, f"data.root={tmp_path / 'data'}", f"paths.cache={tmp_path / 'cache'}")


def features(keys: tuple[str, ...]) -> tuple[list[np.ndarray], list[str]]:
    """Return the features of all images, which are encoded if the store lacks them, and the lines on stderr."""
    said = StringIO()
    with redirect_stderr(said), redirect_stdout(StringIO()):
        images = prepare(typed(composed("train", *keys), TrainConfig)).images
        found = [images.store.gather(np.array([place])).features.numpy() for place in images.place.values()]
    return found, said.getvalue().splitlines()


def image_shard(cache: Path) -> Path:
    (found,) = cache.glob("stores/*-images-*/shard-*")
    return found


def flip_a_bit(cache: Path, keys: tuple[str, ...]) -> None:
    content = bytearray(image_shard(cache).read_bytes())
    content[-1] ^= 1
    image_shard(cache).write_bytes(content)


def copy_of_another_encoder(cache: Path, keys: tuple[str, ...]) -> None:
    mine, other = image_shard(cache), cache.with_name("other")
    features((*keys, "encoder.weights=embedded", f"paths.cache={other}"))
    shutil.copy(image_shard(other), mine)


def lock_of_a_dead_host(cache: Path, keys: tuple[str, ...]) -> None:
    store = image_shard(cache).parent
    items = Shard(image_shard(cache), store.name).keys
    image_shard(cache).unlink()
    claim = Claims(store).claim([key.tobytes() for key in items])
    left = claim.rename(claim.with_name(claim.name.replace(claim.name.split(".")[2], "00000000-1-12345678")))
    old = time.time() - claims.EXPIRES - 1
    os.utime(left, (old, old))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (flip_a_bit, "its rows do not have the checksum that is written in it"),
        (copy_of_another_encoder, "it belongs to the store "),
        (lock_of_a_dead_host, None),
    ],
)
def test_two_processes_encode_again_what_a_bad_file_should_have(
    spoil: object, named: str | None, keys: tuple[str, ...], tmp_path: Path
) -> None:
    expected, _ = features(keys)
    spoil(tmp_path / "cache", keys)  # type: ignore[operator]
    both = in_ranks(tmp_path, lambda rank: features(keys))
    for found, said in both:
        assert len(found) == len(expected)
        assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
        assert len(said) <= 1
    lines = [line for _, said in both for line in said]
    if named is None:
        assert lines == []
    else:  # the other process may find that the first one has removed the file
        assert any(named in line for line in lines)
        assert all(named in line or "it has been removed" in line for line in lines)
    assert features(keys)[1] == []


@pytest.mark.slow
def test_a_full_disk_of_one_process_is_one_line_and_the_next_run_goes_on(keys: tuple[str, ...], tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(
        '#!/bin/bash\n[ "$SLURM_PROCID" = "$FULL" ] && ulimit -f 8\n'
        f'exec {sys.executable} {PROJECT}/scripts/train.py "$@"\n'
    )
    script.chmod(0o755)
    line = [SRUN, "--ntasks=2", str(script), *keys, f"hydra.run.dir={tmp_path / 'run'}", "resume=auto"]
    environment = {**os.environ, "CLIPMAPPER_TRACE": "0", "SLURM_JOB_ID": "4321", "SLURM_NNODES": "1"}
    for full in ("0", "1"):
        done = subprocess.run(line, capture_output=True, text=True, env={**environment, "FULL": full}, timeout=300)
        errors = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
        if full == "1" and not done.returncode:  # rank 0 has encoded all, and only it writes further files
            continue
        assert (done.returncode, len(errors)) == (1, 1), done.stderr[-6000:]
        assert "Traceback" not in done.stderr
        assert "check that the folder exists, is writable and has space left" in errors[0]
    done = subprocess.run(line, capture_output=True, text=True, env={**environment, "FULL": "none"}, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "metrics.json").is_file()
