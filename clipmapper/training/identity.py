"""The identity of a run: everything that its numbers depend on, the settings and the content of the data.

It is saved in the run folder as ``identity.json``, so that a run is only resumed with the same settings and content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipmapper.config.schema import TrainConfig
from clipmapper.errors import UserError
from clipmapper.files import read_bytes, versions

Identity = dict[str, Any]

Ignored = Mapping[str, tuple[str, ...] | None]  #: keys by section; None is the whole section

#: Keys of the commands that change no number, or whose effect is part of the identity in another form: texts, images,
#: features and weights by their content, and the steps and validations of a training as keys of the trainer.
IGNORED: Ignored = {
    "paths": None,
    "logger": None,
    "resume": None,
    "dry_run": None,
    "data": ("root", "file", "workers", "answers_file"),
    "encoder": ("weights", "batch_size"),
    "task": ("steps", "validate_every"),
}
_IGNORED_IN_TRAINING: Ignored = {
    **IGNORED,
    "output": None,
    "trainer": (
        *("strategy", "num_nodes", "num_workers", "log_every_n_steps", "enable_progress_bar", "profiler"),
        *("max_time", "checkpoint_every_steps", "checkpoint_every_minutes"),
    ),
}

# What runs of earlier versions did, whose identities do not have these keys.
_BEFORE = {"config.encoder.precision": "float32", "config.trainer.accumulate_grad_batches": 1}


def training_identity(config: TrainConfig, accelerator: str, devices: int) -> Identity:
    """Return the settings and versions on which the numbers of a training depend, without the content of its data.

    Args:
        config: The config of the training.
        accelerator: Kind of the device that it runs on.
        devices: Number of processes.
    """
    kept = without(asdict(config), _IGNORED_IN_TRAINING)
    kept["trainer"] |= {"accelerator": accelerator, "devices": devices}
    packages = {name: version for name, version in versions().items() if name != "commit"}
    return plain({"config": kept, "versions": packages})


def without(config: Mapping[str, Any], ignored: Ignored) -> dict[str, Any]:
    """Return a config, or that of an identity, without the keys that are ignored."""
    sections = {name: value for name, value in config.items() if ignored.get(name, ()) is not None}
    return {
        name: {key: each for key, each in value.items() if key not in (ignored.get(name) or ())}
        if isinstance(value, dict)
        else value
        for name, value in sections.items()
    }


def plain(identity: Mapping[str, Any]) -> Identity:
    """Return an identity as it is read from its file."""
    found: Identity = json.loads(json.dumps(identity))
    return found


def check_same(
    folder: Path,
    held: Identity,
    wanted: Identity,
    other: str = "this run",
    fix: str = "resume with the same value, or start in another folder",
) -> None:
    """Compare the run in ``folder`` with another one. A key that a run of an earlier version lacks has its value then.

    Args:
        folder: The run folder.
        held: Its identity.
        wanted: That of the other run.
        other: The name of the other run, for the message.
        fix: What the user can do, for the message.

    Raises:
        UserError: The identities differ; the message has the first key.
    """
    before, now = (_BEFORE | dict(_flatten(each)) for each in (held, wanted))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            name = key.removeprefix("config.")
            raise UserError(
                f"{folder} contains a run with {name}={before.get(key)}, but {other} has {name}={now.get(key)}: {fix}"
            )


def _flatten(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _flatten(each, f"{key}.{name}" if key else name)
    else:
        yield key, value


def digest(samples: Iterable[Sequence[object]]) -> str:
    """Return a hash of the samples' content, which must be plain values."""
    found = hashlib.blake2b(digest_size=16)
    for sample in samples:
        found.update(json.dumps(sample).encode())
    return found.hexdigest()


def digest_of_file(path: Path) -> str:
    """Return a hash of the content of a file of weights."""
    return hashlib.blake2b(read_bytes(path, "weights"), digest_size=16).hexdigest()
