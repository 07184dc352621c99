"""The identity of a run: everything that its numbers depend on.

It is saved in the run folder, so that a run is only resumed with the same config, checkpoint, samples and versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipmapper.config.run_folder import IDENTITY
from clipmapper.console import progress
from clipmapper.data.records import ImageSource
from clipmapper.encoder.load import pick_device
from clipmapper.errors import UserError
from clipmapper.features.folders import HASHES
from clipmapper.features.hashes import Hashes
from clipmapper.files import versions, write_json
from clipmapper.places import real_path
from clipmapper.process.together import first_alone
from clipmapper.training.identity import IGNORED, Ignored, check_same, plain, without
from perturbation.config import PerturbBaseConfig
from perturbation.perturb.parts import copy_parts
from perturbation.perturb.stored import (
    CAPTIONS,
    CHOSEN,
    Identity,
    read_captions,
    read_engine_batch,
    read_identity,
    write_captions,
    write_engine_batch,
)

IMAGES = "image contents"  #: the key of the hash of the images
RECORDS = 3  # version of the records; it rises when their form, columns or the meaning of an explainer change

# Keys of the command that change no number, or are part of the identity in another form. Features are not read from a
# store, and of the task's config, some keys are for training only.
_IGNORED: Ignored = {
    **IGNORED,
    **dict.fromkeys(("trainer", "shard", "merge", "checkpoint", "explainer", "controls", "measure")),
    "encoder": ("weights", "batch_size", "feature_dtype"),
    "task": ("optim", "steps", "validate_every"),
    "model": ("path", "weights"),
}


def identify(
    config: PerturbBaseConfig,
    explainers: Mapping[str, Any],
    measures: Mapping[str, Any],
    content: Mapping[str, str],
    lrp_precision: str | None = None,
) -> Identity:
    """Return config, checkpoint, samples and versions as plain values.

    Args:
        config: The config of the run.
        explainers: The config of each explainer, by name.
        measures: The config of each measure, by name.
        content: Hashes of the checkpoint or the model's weights, of the samples and of their images, by name.
        lrp_precision: Precision of the LRP pass; None if there is none.
    """
    device = pick_device(config.trainer).type
    identity = {
        "config": {
            **without(asdict(config), _IGNORED),
            "explainers": dict(explainers),
            "measures": dict(measures),
            "precision": config.trainer.precision,
            "float32_matmul": config.trainer.float32_matmul,
            "lrp_precision": lrp_precision,
            "device": device,
        },
        **content,
        "records": RECORDS,
        "versions": versions(),
    }
    return plain(identity)


def open_run(run: Path, resume: str | None, identity: Identity) -> None:
    """Write the identity to the run folder, and copy the parts of the run to resume into it.

    A run that is continued keeps its identity as it is, also if an earlier version wrote it: its parts name its hash.

    Args:
        run: The run folder.
        resume: The folder of the run to resume; None resumes the one in ``run``, if there is one.
        identity: The identity of this run.

    Raises:
        UserError: There is nothing to resume, or a folder contains a run with a different identity. Nothing is written
            in this case.
    """
    source = run if resume is None else Path(resume)
    held = identity
    if (source / IDENTITY).is_file():
        held = read_identity(source)
        _check_same(source, held, identity)
    elif resume is not None:
        raise UserError(f"{resume}: no perturbation run found; give the run folder of a run that was stopped")
    if (run / "metrics.json").exists() or (run / "checkpoints").exists():
        raise UserError(f"{run} contains the results of another command; set hydra.run.dir=… to another folder")
    if (run / IDENTITY).is_file():
        _check_same(run, read_identity(run), identity)
    write_json(run / IDENTITY, held)
    if real_path(source) != real_path(run):
        if (source / CHOSEN).exists():
            write_engine_batch(run, read_engine_batch(source))
        if (source / CAPTIONS).exists():
            write_captions(run, read_captions(source))
        copy_parts(source, run)


def _check_same(folder: Path, held: Identity, identity: Identity) -> None:
    check_same(folder, comparable(held), comparable(identity))


def comparable(identity: Identity) -> Identity:
    """Return an identity without the keys that change no number, which those of earlier versions have."""
    return identity | {"config": without(identity["config"], _IGNORED)}


def digest_of_images(images: Iterable[ImageSource], cache: Path) -> str:
    """Return a hash of the contents of images; one that cannot be read counts as missing.

    A file is read only if the index that the feature store uses does not know its content, or if it has changed since.
    In a run of several processes, the first one reads it, and the others find its content in the index.

    Args:
        images: The images, in the order of the samples.
        cache: The folder ``paths.cache``, which has the index.
    """
    sources, hashes = list(images), Hashes(cache / HASHES)
    with first_alone():
        known = [hashes.known(source) for source in sources]
        unknown = [place for place, key in enumerate(known) if key is None]
        try:
            with progress(len(unknown), "reading images", "images") as advance:
                for place in unknown:
                    with suppress(UserError):
                        known[place] = hashes.read(sources[place])
                    advance()
        finally:
            hashes.save()
    found = hashlib.blake2b(digest_size=16)
    for key in known:
        found.update(f"{'missing' if key is None else key.hex()}\n".encode())
    return found.hexdigest()
