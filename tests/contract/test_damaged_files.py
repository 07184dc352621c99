"""Damaged files: every kind that a command reads is damaged by a seed, and read by the function that commands use.

A damage is refused in one line, or the file is made again, or the result is identical: never another result, and never
another error. ``python tests/contract/test_damaged_files.py`` prints the counts by kind of file.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning.loggers import CSVLogger

from clipmapper.checkpoint import read_checkpoint
from clipmapper.cli.written_config import write_config
from clipmapper.config.data import ShapesConfig
from clipmapper.data.images import FileImage, load_rgb
from clipmapper.data.shapes.evidence import read_evidence
from clipmapper.data.shapes.write import EVIDENCE, LAYOUT, write_shapes
from clipmapper.errors import UserError
from clipmapper.explaining.output import CONTENTS
from clipmapper.features.catalogue import Catalogue
from clipmapper.features.hashes import Hashes
from clipmapper.features.shard import as_keys, write_shard
from clipmapper.features.store import FeatureStore
from clipmapper.files import ANSWERS, read_json, read_results, write_json, write_metrics, write_results
from clipmapper.storage.checksums import checksums_beside, sealed
from clipmapper.storage.curves import checksum_of_curves, keep_curves
from clipmapper.storage.tables import parquet, read_table
from clipmapper.training.checkpoint_file import write_checkpoint
from perturbation.localise.samples import read_samples as read_localised
from perturbation.localise.samples import write_samples as write_localised
from perturbation.page.runs import read_run
from perturbation.perturb.parts import finished, merge, write_part
from perturbation.perturb.stored import read_captions, read_engine_batch, read_identity
from perturbation.randomise.samples import read_samples as read_randomised
from perturbation.randomise.samples import write_samples as write_randomised
from perturbation.reproduce.stages import DONE, STAGES, Stage, read_stages, save

GOLDEN = Path(__file__).with_name("golden")
SEEDS = range(30)
Damage = Callable[[bytes, random.Random], bytes]


def flip(content: bytes, draw: random.Random) -> bytes:
    """Return the content with one bit changed."""
    place = draw.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]


def cut(content: bytes, draw: random.Random) -> bytes:
    """Return the beginning of the content."""
    return content[: draw.randrange(len(content))]


def empty(content: bytes, draw: random.Random) -> bytes:
    """Return no content."""
    return b""


def swap(content: bytes, draw: random.Random) -> bytes:
    """Return the content with two bytes exchanged."""
    changed, places = bytearray(content), draw.sample(range(len(content)), 2)
    changed[places[0]], changed[places[1]] = changed[places[1]], changed[places[0]]
    return bytes(changed)


def zeros(content: bytes, draw: random.Random) -> bytes:
    """Return the content with a block of zeros, as a disk leaves it after a loss of power."""
    start = draw.randrange(len(content))
    return content[:start] + bytes(min(64, len(content) - start)) + content[start + 64 :]


DAMAGES: tuple[Damage, ...] = (flip, flip, flip, cut, swap, zeros)


@dataclass(frozen=True)
class Kind:
    """A kind of file: how an example is written into a folder, and how it is read."""

    write: Callable[[Path], Path]  #: writes into a folder and returns the file to damage
    read: Callable[[Path], Any]  #: reads the file as the commands do; None means that it is made again


def same(one: Any, other: Any) -> bool:
    """Return whether two results are equal in every bit."""
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one == other)


def shapes(folder: Path) -> ShapesConfig:
    return ShapesConfig(
        name="shapes",
        root=str(folder),
        on_bad_image="fail",
        min_answer_questions=1,
        answers_file=None,
        reserved=0,
        seed=0,
        train_scenes=2,
        val_scenes=2,
        test_scenes=3,
        questions_per_scene=3,
        pixels=32,
        workers=1,
        extra_questions={},
        extra_captions=0,
        disagreement="none",
    )


@cache
def generated() -> TemporaryDirectory[str]:
    """A folder with a generated dataset, from which the examples are copied."""
    folder = TemporaryDirectory()
    write_shapes(shapes(Path(folder.name)), "test")
    return folder


def _data_file(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        shutil.copytree(generated().name, folder, dirs_exist_ok=True)
        [file] = folder.rglob(name)
        return file

    return write


def _evidence(file: Path) -> Any:
    evidence = read_evidence(shapes(file.parents[1]), "test")
    return {key: (each.objects, each.words) for key, each in evidence.questions.items()}


def _mask(file: Path) -> Any:
    return read_evidence(shapes(file.parents[3]), "test").mask(20_000_000)


def _checkpoint(folder: Path) -> Path:
    content = read_checkpoint(GOLDEN / "vqa-b.ckpt")
    weights = dict(list(content["state_dict"].items())[:12])
    file = folder / "last.ckpt"
    write_checkpoint(file, {**content, "state_dict": weights, "epoch": 0, "global_step": 8})
    return file


def _earlier_checkpoint(folder: Path) -> Path:
    content = read_checkpoint(_checkpoint(folder))
    torch.save(content, folder / "best.ckpt")
    return folder / "best.ckpt"


def _weights(folder: Path) -> Path:
    from clipmapper.weights import write_weights

    content = read_checkpoint(_checkpoint(folder))
    write_weights(folder / "model.safetensors", content["clipmapper"], content["state_dict"])
    return folder / "model.safetensors"


def table(rows: int = 40) -> pa.Table:
    values = np.random.default_rng(rows).random((rows, 5))
    return pa.table(
        {
            "question_id": np.arange(rows),
            "explainer": ["weighted", "random"] * (rows // 2),
            "control": [False, True] * (rows // 2),
            "correct": list(values),
            "answers": [["yes", "no"]] * rows,
        }
    )


def _samples(folder: Path) -> Path:
    (folder / "samples.parquet").write_bytes(parquet([table()]))
    return folder / "samples.parquet"


def _part(name: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_part(folder, 0, {"samples": [table()], "ceiling": [table(20)]})
        return folder / "parts" / f"part-000000.{name}.parquet"

    return write


def _merged(file: Path) -> Any:
    run = file.parents[1]
    if not finished(run, range(1)):
        return None
    return {name: each.to_pydict() for name, each in merge(run, 1).items()}


def _own(file: Path) -> Any:
    return read_json(file, own=True)


def _json(name: str, content: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        write_json(folder / name, content)
        return folder / name

    return write


ROWS = [{"explainer": "weighted", "auc": 0.25 + k, "auc_ci95": [0.125, 0.5]} for k in range(8)]
IDENTITY = {"config": {"steps": "paper", "seed": 0}, "checkpoint": "ab" * 8, "versions": {"torch": "2.9.0"}}
CAPTION = {"ids": [320, 7], "caption": "a ring", "words": ["a", "ring"], "weights": {"equal": [0.5, 0.5]}}


def _run(name: str) -> Callable[[Path], Path]:
    """Write a run of ``perturb`` and return one of its files."""

    def write(folder: Path) -> Path:
        (folder / "config.yaml").write_text("# python scripts/perturb.py mapper=b\nseed: 0\n", encoding="utf-8")
        write_json(folder / "comparisons.json", ROWS)
        write_json(folder / "perturbation.json", {"rows": ROWS, **checksums_beside(folder, "comparisons.json")})
        return folder / name

    return write


def _page_run(file: Path) -> Any:
    run = read_run(file.parent)
    if run.problem:
        raise UserError(run.problem)  # the page names it, and shows the others
    return run.results


def _explained(folder: Path) -> Path:
    (folder / "config.yaml").write_text("# python scripts/explain.py mapper=b\nseed: 0\n", encoding="utf-8")
    lines = [json.dumps(sealed({"name": f"question_{k}", "maps": ROWS})) for k in range(3)]
    (folder / CONTENTS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / CONTENTS


def _localised(folder: Path) -> Path:
    values = {"image": {"weighted": np.random.default_rng(0).random((6, 3))}}
    write_localised(folder / "localisation.parquet", "question_id", range(6), ["color"] * 6, values)
    return folder / "localisation.parquet"


def _randomised(folder: Path) -> Path:
    write_randomised(folder / "sanity.parquet", range(6), {("image", "weighted"): {"none": np.ones(6)}})
    return folder / "sanity.parquet"


def _stages(folder: Path) -> Path:
    stages = [Stage(name, f"do {name}", "explain", ["samples=2"], [], DONE, 1.5) for name in ("one", "two")]
    save(stages, folder)
    return folder / STAGES


def _config(folder: Path) -> Path:
    _run("perturbation.json")(folder)
    write_config(folder, OmegaConf.create({"seed": 0, "threads": 1}), "scripts/perturb.py mapper=b")
    return folder / "config.yaml"


def _page_config(file: Path) -> Any:
    with redirect_stderr(StringIO()) as said:
        run = read_run(file.parent)
    if run.problem or "has no checksum" in said.getvalue():  # either is shown in one line
        raise UserError(run.problem or said.getvalue().strip().replace(":", ";"))
    return run.line, run.config


def _submission(folder: Path) -> Path:
    write_results(folder / "submission_test.json", ANSWERS, dict.fromkeys(range(100, 120), "yes"))
    write_metrics(folder / "metrics.json", {"test": {"accuracy": 61.25}}, {})
    return folder / "submission_test.json"


def _curves(folder: Path) -> Path:
    logger = CSVLogger(folder, name="", version="log")
    for step in range(6):
        logger.log_metrics({"train/loss": 1 / (step + 3)}, step)
    logger.save()
    write_json(folder / "state.json", {"global_step": 6, **checksum_of_curves(logger, 6)})
    return folder / "log" / "metrics.csv"


def _kept_curves(file: Path) -> Any:
    """Read the curves as a training does that is resumed in its folder, and put the file back."""
    content, folder = file.read_bytes(), file.parents[1]
    keep_curves(CSVLogger(folder, name="", version="log"), read_json(folder / "state.json"))
    kept = file.read_bytes()
    file.write_bytes(content)
    return kept


ITEMS = [bytes([number] * 16) for number in range(4)]  # keys of features


def _shard(folder: Path) -> Path:
    return write_shard(
        folder, folder.name, ITEMS, list(torch.rand(4, 3, 4, generator=torch.Generator().manual_seed(0)))
    )


def _features(file: Path) -> Any:
    catalogue = Catalogue(file.parent)
    catalogue.refresh()

    def again() -> None:
        raise LookupError

    if not catalogue.has(as_keys(ITEMS)).all():
        return None
    try:
        return FeatureStore(catalogue, as_keys(ITEMS), again).gather(np.arange(4)).features
    except LookupError:
        return None


def _hashed(folder: Path) -> Path:
    image = FileImage(_image(folder))
    os.utime(image.path, (0, 0))
    with patch("clipmapper.features.hashes.SETTLED", 0):
        hashes = Hashes(folder / "hashes")
        hashes.read(image)
        hashes.save()
    return next((folder / "hashes").glob("*.arrow"))


def _hash(file: Path) -> Any:
    return Hashes(file.parent).known(FileImage(file.parent.parent / "image.png"))


def _image(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    return folder / "image.png"


KINDS: dict[str, Kind] = {
    "checkpoint": Kind(_checkpoint, read_checkpoint),
    "checkpoint of an earlier version": Kind(_earlier_checkpoint, read_checkpoint),
    "weights": Kind(_weights, read_checkpoint),
    "samples.parquet": Kind(_samples, lambda file: read_table(file).to_pydict()),
    "part, samples": Kind(_part("samples"), _merged),
    "part, another table": Kind(_part("ceiling"), _merged),
    "identity.json": Kind(_json("identity.json", IDENTITY), lambda file: read_identity(file.parent)),
    "engine.json": Kind(_json("engine.json", {"engine_batch": 32}), lambda file: read_engine_batch(file.parent)),
    "captions.json": Kind(_json("captions.json", {7: CAPTION, 8: CAPTION}), lambda file: read_captions(file.parent)),
    "split.json": Kind(_json("split.json", {"train": [1, 2, 30], "val": [4]}), _own),
    "metrics.json": Kind(_json("metrics.json", {"val": {"accuracy": 61.25}, "config": {"seed": 0}}), _own),
    "perturbation.json": Kind(_run("perturbation.json"), _page_run),
    "comparisons.json": Kind(_run("comparisons.json"), _page_run),
    CONTENTS: Kind(_explained, _page_run),
    "localisation.parquet": Kind(_localised, read_localised),
    "sanity.parquet": Kind(_randomised, lambda file: list(read_randomised(file).items())),
    STAGES: Kind(_stages, lambda file: read_stages(file.parent)),
    "config.yaml": Kind(_config, _page_config),
    "submission_test.json": Kind(_submission, lambda file: read_results(file, ANSWERS)),
    "log/metrics.csv": Kind(_curves, _kept_curves),
    "evidence": Kind(_data_file(EVIDENCE.format(split="test")), _evidence),
    "questions": Kind(_data_file(LAYOUT.questions.format(split="test")), _evidence),
    "annotations": Kind(_data_file(LAYOUT.annotations.format(split="test")), _evidence),
    "captions of the data": Kind(_data_file("captions_shapes_test.json"), _evidence),
    "checksums of the data": Kind(_data_file("shapes_test.b2"), _evidence),
    "mask": Kind(_data_file("masks/test/*000000.png"), _mask),
    "image": Kind(_image, lambda file: np.asarray(load_rgb(FileImage(file)))),
    "features": Kind(_shard, _features),
    "hashes of images": Kind(_hashed, _hash),
}


def damaged(kind: Kind, folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what every damage is, and how it ends: ``refused``, ``made again``, ``identical``, or what is wrong."""
    file = kind.write(folder)
    good, content = kind.read(file), file.read_bytes()
    for seed in (None, *SEEDS):
        draw = random.Random(seed)
        how: Damage = empty if seed is None else DAMAGES[seed % len(DAMAGES)]
        file.write_bytes(how(content, draw))
        yield f"{how.__name__} {seed}", _ending(kind, file, good)
    file.write_bytes(content)
    assert same(kind.read(file), good)


def _ending(kind: Kind, file: Path, good: Any) -> str:
    try:
        found = kind.read(file)
    except UserError as error:
        text = str(error)
        return "refused" if "\n" not in text and ";" in text else f"not one line with a fix: {text!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "made again" if found is None else "identical" if same(found, good) else "ANOTHER RESULT"


@pytest.mark.parametrize("name", KINDS)
def test_damage_is_refused_or_made_anew_or_changes_nothing(name: str, tmp_path: Path) -> None:
    endings = list(damaged(KINDS[name], tmp_path))
    assert [each for each in endings if each[1] not in ("refused", "made again", "identical")] == []
    assert sum(ending != "identical" for _, ending in endings) >= 5


def test_every_kind_is_damaged_often() -> None:
    assert len(KINDS) * (len(SEEDS) + 1) >= 400


def counts() -> dict[str, Counter[str]]:
    """Return how the damages of every kind of file ended."""
    found = {}
    for name, kind in KINDS.items():
        with TemporaryDirectory() as folder:
            found[name] = Counter(ending for _, ending in damaged(kind, Path(folder)))
    return found


if __name__ == "__main__":
    endings = counts()
    for name, each in endings.items():
        print(f"{name:34} {', '.join(f'{ending}: {count}' for ending, count in sorted(each.items()))}")
    print(f"{'all':34} {dict(sum(endings.values(), Counter()))}")
