"""Command that lists, verifies and prunes the feature cache."""

from __future__ import annotations

import sys
from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.errors import UserError
from clipmapper.features.config import CacheConfig


@command("cache")
def main(config: DictConfig, run: Path) -> None:
    """List the parts of the cache, and verify or remove them; ``cache.json`` has what is there at the end."""
    checked: CacheConfig = typed(config, CacheConfig)
    from clipmapper.console import print_table
    from clipmapper.features.inventory import HEADS, entries, remove, size, unused
    from clipmapper.files import write_json

    cache = Path(checked.paths.cache)
    if checked.do == "verify":
        _verify(cache)
    found = entries(cache)
    if checked.do == "prune":
        going = unused(found, checked.unused_days)
        total = size(sum(entry.bytes for entry in going))
        print_table(f"What is removed from {cache}", HEADS, [entry.row(cache) for entry in going], text=(0, 1))
        if going and _agreed(len(going), total, checked.yes):
            remove(going)
            print(f"removed {len(going)} parts, {total}", flush=True)
            found = entries(cache)
    else:
        print_table(f"Parts of {cache}", HEADS, [entry.row(cache) for entry in found], text=(0, 1))
    parts = [
        {"path": str(entry.path), "kind": entry.kind, "items": entry.items, "bytes": entry.bytes} for entry in found
    ]
    write_json(run / "cache.json", {"parts": parts})


def _verify(cache: Path) -> None:
    from clipmapper.console import progress
    from clipmapper.features.catalogue import Catalogue
    from clipmapper.features.folders import HASHES, STORES
    from clipmapper.features.inventory import damaged, verify
    from clipmapper.storage.kept import TABLES

    folders = sorted(path for path in (cache / STORES).glob("*") if path.is_dir())
    with progress(len(folders) + 2, "verifying", "parts") as advance:
        for folder in folders:
            catalogue = Catalogue(folder)
            catalogue.refresh()
            lost = verify(catalogue)
            how = f"{lost} items were in damaged shards, which are removed" if lost else "intact"
            print(f"{folder.name}: {how}", flush=True)
            advance()
        for name in (HASHES, TABLES):
            files = damaged(cache / name)
            for path in files:
                print(f"{path}: damaged; what it has is read again when a command needs it", file=sys.stderr)
                path.unlink()
            print(f"{name}: {f'{len(files)} damaged files, which are removed' if files else 'intact'}", flush=True)
            advance()


def _agreed(count: int, total: str, yes: bool) -> bool:
    """Return whether the parts may be removed.

    Raises:
        UserError: There is no terminal to ask on.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UserError(
            f"{count} parts with {total} would be removed, and there is no terminal to ask on; give yes=true"
        )
    print(f"remove {count} parts, {total}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
