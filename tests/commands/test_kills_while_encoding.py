"""Runs of two processes that are killed while they encode: what is in a shard is never computed again.

``KILLS=10 pytest -n 0 -s -m slow tests/commands/test_kills_while_encoding.py`` kills each of the two runs ten times,
and tells when.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from processes import LINUX
from tiny_runs import Tiny
from two_processes import kill_some, line

from clipmapper.features.shard import Shard

KILLS = int(os.environ.get("KILLS", "2"))  # of each run
SEED = os.environ.get("SEED", "0")
ONCE = 3  # most kills of one cache, after which the run may end
SHARD = 16  # items
# The training command with small shards, slowed down, which notes what each process encodes.
COMMAND = f"""
import os
import time
from pathlib import Path

from clipmapper.features import filling
from perturbation.cli import run

if __name__ == "__main__":
    filling.ITEMS = {SHARD}
    log, add = Path(__file__).with_name("encoded") / str(os.getpid()), filling.Writer.add

    def slow(writer, key, features):
        time.sleep(0.01)
        with log.open("a") as file:
            file.write(f"{{writer._name}} {{key.hex()}}\\n")
        add(writer, key, features)

    filling.Writer.add = slow
    run("train")
"""
MORE = ("data.train_scenes=120", "encoder.batch_size=4", "trainer.max_steps=2", "trainer.val_check_interval=2")
Item = tuple[str, str]  # the names of a store and of an item


@dataclass
class Encoding:
    """A training of two processes in a folder, with a cache of its own."""

    by: str
    keys: tuple[str, ...]
    folder: Path
    random: random.Random
    items: int = 0  # of both stores
    told: list[str] = field(default_factory=list)
    seconds: float = 0.0  # between the first claim and the last shard of the run that was not killed

    def __post_init__(self) -> None:
        (self.folder / "encoded").mkdir(parents=True)
        self.script = self.folder / "train.py"
        self.script.write_text(COMMAND)

    def start(self) -> subprocess.Popen[str]:
        self.before, self.marks = self.stored(), {*self.stores(".claim*"), *self.stores("shard-*")}
        shutil.rmtree(self.folder / "encoded")
        (self.folder / "encoded").mkdir()
        own = (f"hydra.run.dir={self.folder / 'run'}", f"paths.cache={self.folder / 'cache'}", "resume=auto")
        log = (self.folder / "log.txt").open("a")
        environment = {**os.environ, "CLIPMAPPER_TRACE": "0", "OMP_NUM_THREADS": "1"}
        arguments = [*line(self.by, self.script), *self.keys, *own]
        return subprocess.Popen(arguments, stdout=log, stderr=log, text=True, env=environment)

    def finish(self) -> None:
        """Run without a kill; nothing but the shards stays."""
        process, began, ended, count = self.start(), 0.0, 0.0, 0
        while process.poll() is None:
            began = began or (time.monotonic() if self.encodes() else 0.0)
            if count != (count := len(self.stores("shard-*"))):
                ended = time.monotonic()
            time.sleep(0.02)
        assert process.returncode == 0, self.said()
        self.seconds = ended - began
        self.check_encoded()
        assert [path for path in self.folder.rglob(".*") if path.name != ".lock"] == [], self.said()
        assert {*Counter(self.shards()).values()} == {1}  # no item is in two shards

    def kill(self) -> None:
        """Start, and kill one process or all when a random number of the open items has been encoded."""
        process, chosen = self.start(), self.random.uniform(0, self.items - len(self.before))
        while process.poll() is None and not (self.encodes() and len(self.encoded()) >= chosen):
            time.sleep(0.005)
        assert process.poll() is None, self.said()
        which = kill_some(process, self.random)
        left, new = self.items - len(self.before), len(self.stored() - self.before)
        what = f"{which} killed after {chosen:.0f} of {left} open items, when {len(self.encoded())} were encoded"
        self.told.append(f"{what}: {new} are in shards, and {len(self.stores('.claim*'))} claims are left")
        print(self.told[-1], flush=True)
        self.check_encoded()

    def check_encoded(self) -> None:
        """Check that no item of a shard was encoded again, and that each process has lost one shard at most."""
        stored = self.stored()
        assert not {*self.encoded()} & self.before, self.said()
        for log in (self.folder / "encoded").iterdir():
            assert len({*self.encoded(log)} - stored) <= SHARD, self.said()

    def encoded(self, *logs: Path) -> list[Item]:
        """Return what all processes have encoded since the last start, or some of them."""
        texts = [log.read_text() for log in logs or (self.folder / "encoded").iterdir()]
        return [(name, key) for text in texts for name, key in map(str.split, text.splitlines())]

    def encodes(self) -> bool:
        return bool({*self.stores(".claim*"), *self.stores("shard-*")} - self.marks)

    def stores(self, pattern: str) -> list[Path]:
        return list((self.folder / "cache").glob(f"stores/*/{pattern}"))

    def shards(self) -> Iterator[Item]:
        for path in self.stores("shard-*"):
            yield from ((path.parent.name, key.tobytes().hex()) for key in Shard(path, path.parent.name).keys)

    def stored(self) -> set[Item]:
        return {*self.shards()}

    def features(self) -> dict[Item, bytes]:
        found = {}
        for path in self.stores("shard-*"):
            shard = Shard(path, path.parent.name)
            for number, key in enumerate(shard.keys):
                rows = bytearray(shard.size(number))
                shard.read(number, memoryview(rows))
                found[path.parent.name, key.tobytes().hex()] = bytes(rows)
        return found

    def said(self) -> str:
        return "\n".join([*self.told, (self.folder / "log.txt").read_text()[-3000:]])


@LINUX
@pytest.mark.slow
@pytest.mark.parametrize("by", ["ddp", "torchrun"])
def test_the_features_are_those_of_a_run_that_was_not_killed(by: str, tiny: Tiny, tmp_path: Path) -> None:
    draws, keys = random.Random(f"{by} {SEED}"), (*tiny.overrides, *MORE)
    whole = Encoding(by, keys, tmp_path / "whole", draws)
    whole.finish()
    expected, killed, number = whole.features(), 0, 0
    print(f"\n{by}: {len(expected)} items were encoded in {whole.seconds:.1f} s", flush=True)
    while killed < KILLS:
        number += 1
        each = Encoding(by, keys, tmp_path / f"killed-{number}", draws, len(expected))
        for _ in range(min(ONCE, KILLS - killed)):
            if len(each.stored()) < len(expected):
                each.kill()
                killed += 1
        each.finish()
        assert each.features() == expected, each.said()
        shutil.rmtree(each.folder)
