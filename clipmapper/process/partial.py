"""Temporary files and folders beside the ones that they become: names that are never shared, and their removal."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from clipmapper.errors import UserError

_OLD = 24 * 3600.0  # seconds after which a temporary file of a process that cannot be looked up was left by it
_NAME = re.compile(r"\..*\.(?P<place>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{8}\.partial")


def partial_path(path: Path) -> Path:
    """Return a new temporary name for ``path``, hidden and in the same folder."""
    return path.with_name(f".{path.name}.{place()}-{os.getpid()}-{secrets.token_hex(4)}.partial")


@contextmanager
def filled(folder: Path) -> Iterator[Path]:
    """Provide a new temporary folder beside ``folder``, which is removed unless the body renames it.

    Those that killed processes have left there are removed first.

    Raises:
        OSError: Writing in the body failed; the error names ``folder`` if it names no file.
    """
    half = partial_path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_left_over(folder.parent.glob(".*.partial"))
    half.mkdir()
    try:
        with named_errors(folder):
            yield half
    finally:
        shutil.rmtree(half, ignore_errors=True)


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Add ``path`` to an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        if error.errno is None:  # such as NumPy's about a full disk
            raise OSError(errno.EIO, str(error), str(path)) from error
        error.filename = str(path)
        raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let only one process at a time run the body for a folder."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


@contextmanager
def alone_in(folder: Path, others: bool = False) -> Iterator[None]:
    """Refuse the run folder of another command that runs, and let others refuse this one while the body runs.

    Args:
        folder: The run folder.
        others: Whether commands that give it too may use the folder at the same time.

    Raises:
        UserError: Another process uses the folder.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            try:
                fcntl.flock(opened, (fcntl.LOCK_SH if others else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                why = "is used by a command that still runs; wait for its end, or give a new folder"
                raise UserError(f"hydra.run.dir={folder} {why}") from None
        yield
    finally:
        os.close(opened)


def remove_left_over(paths: Iterator[Path]) -> None:
    """Remove the temporary files and folders among ``paths`` whose process has ended."""
    for path in list(paths):
        if is_left_over(path):
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def has_ended(path: Path) -> bool | None:
    """Return whether the process that chose a temporary name has ended; None if it runs elsewhere."""
    found = _NAME.fullmatch(path.name)
    return not lives(int(found["process"])) if found and found["place"] == place() else None


def is_left_over(path: Path) -> bool:
    """Return whether a temporary file was left by a process that has ended, or is old if that cannot be seen."""
    ended = has_ended(path)
    if ended is not None:
        return ended
    try:
        return time.time() - path.stat().st_mtime > _OLD
    except OSError:
        return False


def lives(process: int) -> bool:
    """Return whether a process of this machine lives."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


@cache
def place() -> str:
    """Return a name of where ids of processes are unique: a running machine, or a container of it."""
    names = [platform.node()]
    with suppress(OSError):
        names += [os.readlink("/proc/self/ns/pid"), Path("/proc/sys/kernel/random/boot_id").read_text()]
    return hashlib.blake2b("\n".join(names).encode(), digest_size=4).hexdigest()
