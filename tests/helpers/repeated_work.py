"""Work that every command repeats, and that tests do once per process. The results stay the same.

A command reads CLIP's vocabulary, and Hydra composes the configs of the explainers and measures that it runs. For the
tests' small runs, this takes as long as the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any
from unittest.mock import patch

import open_clip
from hydra.core.global_hydra import GlobalHydra

from clipmapper.config import groups
from clipmapper.places import CONFIGS

Compose = Callable[[str, Sequence[str]], dict[str, dict[str, Any]]]


@contextmanager
def done_once() -> Iterator[None]:
    """Inside the context, share what commands repeat."""
    with (
        patch.object(open_clip, "get_tokenizer", cache(open_clip.get_tokenizer)),
        patch.object(groups, "_compose", _remembered(groups._compose)),
    ):
        yield


def _remembered(compose: Compose) -> Compose:
    """Return a function that composes members of the project's config groups once; a user's folder may change."""
    known: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}

    def remembered(group: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        path = GlobalHydra.instance().config_loader().get_search_path().get_path()
        folders = {place.path for place in path if place.path.startswith("file://")}
        if folders != {f"file://{CONFIGS}"} or groups._search_path_overrides():
            return compose(group, names)
        key = (group, *names)
        if key not in known:
            known[key] = compose(group, names)
        return deepcopy(known[key])

    return remembered
