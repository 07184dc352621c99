"""The models that the demo offers: shipped ones, own runs, and models of Hugging Face."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

import clipmapper.tasks.vqa.explaining  # noqa: F401 - it lets explain.explain trace CLIPmapper
from clipmapper.any_model.load import load_hugging_face
from clipmapper.choice import Candidate, newest_checkpoint, newest_checkpoints
from clipmapper.encoder.load import use
from clipmapper.errors import UserError
from clipmapper.explaining.familiarity import unknown_parts
from clipmapper.pretrained import LLAVA, pretrained_file
from clipmapper.tasks.vqa.model import CLIPMapperVQA, load_vqa
from clipmapper.text import printable
from clipmapper.weights import SUFFIX
from explain.sample.inputs import OF_IMAGES
from perturbation.config import DemoConfig
from perturbation.pairs.reader import PairReader
from perturbation.pairs.scorers.choose import scorer_of

KEPT = 3  # models that stay in memory
BATCH = 16  # pairs that a model reads together


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model of the page, ready to answer."""

    model: Any
    processor: Any

    @cached_property
    def reader(self) -> PairReader:
        """The model without some cells and words: cells get the mean colour, and words are left out."""
        return PairReader(scorer_of(self.model, self.processor), "mean", "drop", BATCH, correct=True)

    @property
    def reads_text(self) -> bool:
        """Whether the model reads a text."""
        return getattr(getattr(self.model, "config", None), "model_type", None) not in OF_IMAGES

    @property
    def unknown(self) -> str:
        """What the model does not know about its training data, as a sentence; empty if it knows all or nothing."""
        return unknown_parts(self.model.familiarity, asked=True) if isinstance(self.model, CLIPMapperVQA) else ""


class Models:
    """The models by the names that the page shows; a model is loaded when it is first chosen.

    Args:
        config: The command's config.

    Raises:
        UserError: A folder that the config names holds no model.
    """

    def __init__(self, config: DemoConfig) -> None:
        self._device = use(config)
        self._seed = config.seed
        self._loaders = {**_shipped(), **_given(config.models), **_own_runs(Path(config.paths.runs))}
        self.load = lru_cache(KEPT)(self._load)

    @property
    def names(self) -> list[str]:
        """All names; the first one is chosen when the page opens."""
        return list(self._loaders)

    def _load(self, name: str) -> Loaded:
        """Return the model of a name.

        Raises:
            UserError: There is no such name, or the model cannot be loaded.
        """
        if name not in self._loaders:
            raise UserError("the page offers no such model: choose one of its list")
        torch.manual_seed(self._seed)  # some models draw at random
        model, processor = self._loaders[name]()
        return Loaded(model.to(self._device), processor)


Loader = Callable[[], tuple[Any, Any]]


def _shipped() -> dict[str, Loader]:
    files = {mapper: pretrained_file("vqa", mapper) for mapper in ("b", "a")}
    found = {f"CLIPmapper {mapper}, shipped": _of_checkpoint(file) for mapper, file in files.items() if file}
    if LLAVA.is_dir() and find_spec("transformers"):
        found["LLaVA for shapes, shipped"] = _of_hugging_face(str(LLAVA))
    return found


def _given(paths: list[str]) -> dict[str, Loader]:
    """Return the models that the config names: run folders, checkpoints, and folders or names of Hugging Face."""
    found: dict[str, Loader] = {}
    for path in paths:
        file = Path(path)
        if file.is_dir() and not (file / "config.json").is_file():
            checkpoint = newest_checkpoint(file)
            if checkpoint is None:
                raise UserError(f"models: {path} has no checkpoint and no config.json; give the folder of a model")
            found[printable(path)] = _of_checkpoint(checkpoint)
        elif file.is_file() and file.suffix in (".ckpt", SUFFIX):
            found[printable(path)] = _of_checkpoint(file)
        elif file.is_file():
            raise UserError(f"models: {path} is no checkpoint; give a .ckpt or {SUFFIX} file, or a folder with a model")
        else:
            found[printable(path)] = _of_hugging_face(path)
    return found


def _own_runs(folder: Path) -> dict[str, Loader]:
    """Return the finished trainings of models that answer questions about images, the newest first."""
    found: dict[str, Loader] = {}
    for path in newest_checkpoints(folder / "train"):
        candidate = Candidate(path)
        try:
            fits = candidate.finished and candidate.card["task"] == "vqa" and candidate.card.get("sees") == "both"
        except UserError as error:
            print(printable(f"left out: {error}"), file=sys.stderr)
            continue
        if fits:
            score = "" if candidate.score is None else f", {candidate.score[0]} {candidate.score[1]:.1f} %"
            found[printable(f"{path.parent.parent.relative_to(folder)}{score}")] = _of_checkpoint(path)
    return found


def _of_checkpoint(path: Path) -> Loader:
    return lambda: (load_vqa(path), None)


def _of_hugging_face(path: str) -> Loader:
    def load() -> tuple[Any, Any]:
        try:
            found = load_hugging_face(path)
        except UserError as error:
            raise UserError(f"models: {error}") from error
        return found.model, found.processor

    return load
