"""Claims: on what a process works, such as items that it encodes, so that another takes others, or waits for these.

A claim is a file with the keys of the items. Its name has the process and where it runs, and its modification time is
renewed every few seconds. It ends when it is removed, when its process has ended (seen on the same machine), or when it
has not been renewed for two minutes, as after the end of another machine. Claims only avoid work that is done twice: a
shard is complete or not there, and an item may be in two of them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from clipmapper.features.shard import KEY
from clipmapper.process.partial import has_ended, named_errors, partial_path
from clipmapper.process.repeated import repeated
from clipmapper.storage.sharing import share

RENEWED = 10.0  #: seconds between two renewals of a claim
EXPIRES = 120.0  #: seconds without a renewal after which a claim has ended
_NAME = "claim"


class Claims:
    """The claims on the items of a store.

    Args:
        folder: The store's folder, which must be writable.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock = folder / ".lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let only one process at a time run the body, which must be short."""
        if not self._lock.exists():
            self._lock.touch()
            share(self._lock)
        with FileLock(self._lock, mode=self._lock.stat().st_mode & 0o777):
            yield

    def of_others(self, here: bool = False) -> dict[bytes, str]:
        """Return the keys that other processes have claimed, each with its process; claims that have ended are removed.

        It must be called inside :meth:`locked`.

        Args:
            here: Whether to return only those of processes that are seen to run on this machine. One elsewhere may have
                ended with its machine.
        """
        os.utime(self._lock)  # the clock of the file system, which may not be that of this machine
        now = self._lock.stat().st_mtime
        found: dict[bytes, str] = {}
        for path in self.folder.glob(f".{_NAME}.*.partial"):
            try:
                seen = has_ended(path)
                ended = seen or now - path.stat().st_mtime > EXPIRES
                content = b"" if ended else path.read_bytes()
            except OSError:  # removed meanwhile
                continue
            if ended:
                path.unlink(missing_ok=True)
                continue
            if here and seen is None:
                continue
            head, _, keys = content.partition(b"\n")
            with suppress(ValueError):
                found |= dict.fromkeys((keys[k : k + KEY] for k in range(0, len(keys), KEY)), _process(head))
        return found

    @contextmanager
    def claimed(self, path: Path) -> Iterator[None]:
        """Renew a claim while the body runs, and remove it at the end."""

        def renew() -> None:
            with suppress(OSError):
                os.utime(path)

        try:
            with repeated(renew, RENEWED):
                yield
        finally:
            path.unlink(missing_ok=True)

    def claim(self, keys: Iterable[bytes]) -> Path:
        """Write a claim on keys and return its file, for :meth:`claimed`; it must be called inside :meth:`locked`.

        Raises:
            OSError: The disk is full.
        """
        path = partial_path(self.folder / _NAME)
        head = json.dumps({"process": os.getpid(), "machine": platform.node()})
        try:
            with named_errors(self.folder):
                path.write_bytes(head.encode() + b"\n" + b"".join(keys))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path


def _process(head: bytes) -> str:
    about = json.loads(head)
    return f"process {about['process']} on {about['machine']}"
