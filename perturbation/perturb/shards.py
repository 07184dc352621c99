"""Shards of a perturbation run: jobs without a common scheduler that compute its parts in one folder.

Part p belongs to shard p mod n + 1 of n. A job claims its shard (:mod:`clipmapper.features.claims`) while it runs. The
last one merges the parts, which gives the bytes of one run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from clipmapper.config.run_folder import IDENTITY
from clipmapper.errors import UserError
from clipmapper.features.claims import Claims
from perturbation.config import MARK, SHARD
from perturbation.perturb.parts import FOLDER
from perturbation.perturb.results import is_merged

_MANY = 8  # shards, or parts, that a message names
_LOOKS = 1.0  # seconds between two looks whether another shard has merged the parts


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

        Raises:
            UserError: Another process computes it.
        """
        if self.of == 1:
            yield
            return
        claims = _claims(run)
        (run / MARK.format(self.of)).touch()
        with claims.locked():
            if (other := claims.of_others().get(key := _key(str(self)))) is not None:
                raise UserError(f"shard={self}: {other} computes it in {run}; give another shard, or end that process")
            claim = claims.claim([key])
        with claims.claimed(claim):
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
    claims, key, told = _claims(run), _key("merge"), False
    while True:
        with claims.locked():
            if is_merged(run):
                claim = None
                break
            if (other := claims.of_others().get(key)) is None:
                claim = claims.claim([key])
                break
        if not told:
            print(f"all parts are finished; {other} merges them, this one waits for the results", flush=True)
        told = True
        time.sleep(_LOOKS)
    with nullcontext() if claim is None else claims.claimed(claim):
        yield claim is not None


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


def _claims(run: Path) -> Claims:
    (run / FOLDER).mkdir(exist_ok=True)
    return Claims(run / FOLDER)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MANY} more" if len(names) > _MANY else ""
    return ", ".join(names[:_MANY]) + more
