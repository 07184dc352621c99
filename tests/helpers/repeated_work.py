"""Work that every command repeats, and that tests do once per process. The results stay the same.

A command reads CLIP's vocabulary, and Hydra composes the configs of the explainers and measures that it runs. Hydra
also composes the command's config once more to read ``hydra.mode``, which no config of the project sets. For the tests'
small runs, this takes longer than the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from typing import Any
from unittest.mock import patch

import open_clip
from hydra._internal.hydra import Hydra
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
        patch.object(Hydra, "get_mode", lambda *_, **__: None),
    ):
        yield


def _remembered(compose: Compose) -> Compose:
    """Return a function that composes members of the project's config groups once; a user's folder may change."""
    known: dict[tuple[str, ...], dict[str, dict[str, Any]]] = {}

    def remembered(group: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        path = GlobalHydra.instance().config_loader().get_search_path().get_path()
        folders = {place.path.removeprefix("file://") for place in path}
        if {folder for folder in folders if "://" not in folder} != {str(CONFIGS)} or groups._search_path_overrides():
            return compose(group, names)
        key = (group, *names)
        if key not in known:
            known[key] = compose(group, names)
        return deepcopy(known[key])

    return remembered
