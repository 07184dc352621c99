"""What the numbers of a run follow from, kept in its folder, so that a run is only ever resumed as itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipmapper.encoder.load import pick_device
from clipmapper.errors import UserError
from clipmapper.files import read_json, versions, write_json
from perturbation.config import PerturbBaseConfig
from perturbation.perturb.parts import copy_parts

IDENTITY = "identity.json"
CHOSEN, CAPTIONS = "engine.json", "captions.json"  # worked out once: a resumed run takes them over

# Where results go, how many devices share the work, and what only training reads.
_CHANGES_NOTHING = ("paths", "logger", "trainer", "resume", "checkpoint", "explainer", "controls", "measure")
_TRAINS = ("optim", "steps", "validate_every")  # of the task

Identity = dict[str, Any]


def identify(
    config: PerturbBaseConfig,
    explainers: Mapping[str, Any],
    measures: Mapping[str, Any],
    checkpoint: Path,
    samples: Mapping[str, str],
) -> Identity:
    """Config, checkpoint, samples and versions, as plain values.

    Args:
        config: The run's.
        explainers: Each explainer's config, by name.
        measures: Each measure's.
        checkpoint: The file.
        samples: What they are, and their ``digest``.
    """
    whole = {key: value for key, value in asdict(config).items() if key not in _CHANGES_NOTHING}
    whole["task"] = {key: value for key, value in whole["task"].items() if key not in _TRAINS}
    device = pick_device(config.trainer).type
    identity = {
        "config": {
            **whole,
            "explainers": dict(explainers),
            "measures": dict(measures),
            "precision": config.trainer.precision,
            "device": device,
        },
        "checkpoint": hashlib.blake2b(checkpoint.read_bytes(), digest_size=16).hexdigest(),
        **samples,
        "versions": versions(),
    }
    plain: Identity = json.loads(json.dumps(identity))
    return plain


def open_run(run: Path, resume: str | None, identity: Identity) -> None:
    """Makes the run folder one of this identity, with the parts of the run to resume.

    Raises ``UserError`` where there is nothing to resume, or the folder holds a run of another identity; nothing is
    written then.
    """
    source = run if resume is None else Path(resume)
    if (source / IDENTITY).is_file():
        check_same(source, read_json(source / IDENTITY), identity)
    elif resume is not None:
        raise UserError(f"resume={resume}: no perturbation run is there; give the run folder of one that was stopped")
    if (run / IDENTITY).is_file():
        check_same(run, read_json(run / IDENTITY), identity)
    elif (run / "metrics.json").exists() or (run / "checkpoints").exists():
        raise UserError(f"{run} holds the results of another command; give hydra.run.dir=… a folder of its own")
    if source.resolve() != run.resolve():
        for name in (CHOSEN, CAPTIONS):
            if (source / name).is_file():
                write_json(run / name, read_json(source / name))
        copy_parts(source, run)
    write_json(run / IDENTITY, identity)


def check_same(folder: Path, held: Identity, wanted: Identity) -> None:
    """Raises ``UserError`` naming the first key in which a folder's run differs from the one that is wanted."""
    before, now = dict(_flat(held)), dict(_flat(wanted))
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            name = key.removeprefix("config.")
            raise UserError(
                f"{folder} holds a run with {name}={before.get(key)}, and this one has {name}={now.get(key)}: "
                "resume with the same, or start in another folder"
            )


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, each in value.items():
            yield from _flat(each, f"{key}.{name}" if key else name)
    else:
        yield key, value


def digest(samples: Iterable[Sequence[object]]) -> str:
    """Hash of the samples' content, which is plain values."""
    found = hashlib.blake2b(digest_size=16)
    for sample in samples:
        found.update(json.dumps(sample).encode())
    return found.hexdigest()
