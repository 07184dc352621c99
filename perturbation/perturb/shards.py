"""Shards of a perturbation run: jobs without a common scheduler that compute its parts in one folder.

Part p belongs to shard p mod n + 1 of n. A job claims its shard (:mod:`clipmapper.features.claims`) while it runs. The
last one merges the parts, which gives the bytes of one run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from clipmapper.config.run_folder import IDENTITY
from clipmapper.errors import UserError
from clipmapper.features.claims import EXPIRES, RENEWED, Claims
from perturbation.config import MARK, SHARD
from perturbation.perturb.parts import FOLDER
from perturbation.perturb.results import is_merged

_MANY = 8  # shards, or parts, that a message names
_LOOKS = 1.0  # seconds between two looks at the claim of another process


@dataclass(frozen=True)
class Shard:
    """One of ``of`` shards, which are counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str | None) -> Shard:
        """Return the shard that ``number/of`` means; None means the whole run, which is one shard."""
        found = SHARD.fullmatch(text or "1/1")
        assert found is not None
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def numbers(self, count: int) -> range:
        """Return the numbers of its parts, of ``count``."""
        return range(self.number - 1, count, self.of)

    def mark(self, run: Path) -> None:
        """Mark the run folder for other shards, as long as the identity of the run is not in it."""
        if self.of > 1 and not (run / IDENTITY).is_file():
            (run / FOLDER).mkdir(exist_ok=True)
            (run / MARK.format(self.of)).touch()

    @contextmanager
    def claimed(self, run: Path) -> Iterator[None]:
        """Claim the shard while the body runs; the whole run claims nothing.

        A process of another machine may have ended with it, as before a job is requeued: its claim then ends soon.

        Raises:
            UserError: Another process computes it.
        """
        if self.of == 1:
            yield
            return
        claims = _claims(run)
        (run / MARK.format(self.of)).touch()
        key, until = _key(str(self)), time.monotonic() + EXPIRES + RENEWED

        def refused(other: str | None) -> bool:
            if other and (key in claims.of_others(here=True) or time.monotonic() > until):
                raise UserError(f"shard={self}: {other} computes it in {run}; give another shard, or end that process")
            return False

        waits = f"{{}} has claimed shard {self}, and may have ended; this one waits for up to two minutes"
        with _claimed(claims, key, refused, waits):
            yield


@contextmanager
def preparing(run: Path, shard: Shard) -> Iterator[None]:
    """Let only one shard at a time run the body, which writes what all shards of a run share."""
    if shard.of == 1:
        yield
        return
    with _claims(run).locked():
        yield


@contextmanager
def opening(run: Path, shard: Shard) -> Iterator[None]:
    """Let only one shard at a time run the body, which writes the identity of the run or compares it."""
    with nullcontext() if (run / IDENTITY).is_file() else preparing(run, shard):  # it may be that of another command
        yield


@contextmanager
def merging(run: Path, shard: Shard) -> Iterator[bool]:
    """Let only one shard merge the parts, which are all finished, while the body runs; the others wait for its end.

    Yields:
        Whether this shard merges them: no other one has done it.
    """
    if shard.of == 1:
        yield True
        return
    waits = "all parts are finished; {} merges them, this one waits for the results"
    with _claimed(_claims(run), _key("merge"), lambda _: is_merged(run), waits) as merges:
        yield merges


def check_complete(source: Path, missing: Sequence[int]) -> None:
    """Check that all shards of a run are finished.

    Args:
        source: The folder of the shards.
        missing: Numbers of the parts that are missing or damaged.

    Raises:
        UserError: Parts are missing; the message names their shards.
    """
    if not missing:
        return
    known = sorted(int(path.name.rpartition("-")[2]) for path in source.glob(MARK.format("*")))
    if len(known) == 1:
        names = list(dict.fromkeys(f"{number % known[0] + 1}/{known[0]}" for number in missing))
        what, how = f"shards {_some(names)} are", f"shard={names[0]} hydra.run.dir={source}"
    else:
        what, how = f"parts {_some([str(number) for number in missing])} are", f"resume={source}"
    raise UserError(f"merge={source}: {what} not finished; compute what is missing with {how}")


@contextmanager
def _claimed(claims: Claims, key: bytes, given_up: Callable[[str | None], bool], waits: str) -> Iterator[bool]:
    """Claim a key, as soon as no other process has claimed it, while the body runs.

    Args:
        claims: The claims of the run.
        key: What is claimed.
        given_up: Returns whether this process need not claim the key, given the process that has claimed it, if any.
        waits: What is printed while this process waits, with ``{}`` for the other one.

    Yields:
        Whether the key is claimed.
    """
    told, claim = "", None
    while True:
        with claims.locked():
            other = claims.of_others().get(key)
            given = given_up(other)
            if other is None and not given:
                claim = claims.claim([key])
        if given or claim:
            break
        if other != told:
            print(waits.format(other), flush=True)
        told = str(other)
        time.sleep(_LOOKS)
    with claims.claimed(claim) if claim else nullcontext():
        yield claim is not None


def _claims(run: Path) -> Claims:
    (run / FOLDER).mkdir(exist_ok=True)
    return Claims(run / FOLDER)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return ", ".join(names[:_MANY]) + more
