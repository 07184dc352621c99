"""Runs small enough for a test: 240 training questions, a random encoder, and a mapper of one layer and width 16."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

import clipmapper.cli  # noqa: F401  (it registers the configs' resolvers)
from clipmapper.cli import typed
from clipmapper.commands.train import train
from clipmapper.config.schema import EvaluateConfig, TrainConfig
from clipmapper.training.module import MapperTraining

PROJECT = Path(__file__).resolve().parents[2]
SMALL_MAPPER = ("mapper.width=16", "mapper.heads=2", "mapper.layers=1")
QUIET = ("trainer.enable_progress_bar=false", "trainer.accelerator=cpu", "threads=1")


@dataclass(frozen=True)
class Tiny:
    """A root folder with the data and features of tiny runs, and the overrides that use it."""

    root: Path
    weights: Path

    @property
    def overrides(self) -> tuple[str, ...]:
        scenes = ("data.train_scenes=40", "data.val_scenes=10", "data.test_scenes=10", "data.workers=1")
        return *scenes, *self.base

    @property
    def base(self) -> tuple[str, ...]:
        """Overrides that fit any dataset."""
        steps = ("trainer.max_steps=8", "trainer.val_check_interval=4", "task.optim.batch_size=32")
        exact = ("trainer.precision=32-true",)
        return f"paths.root={self.root}", f"encoder.weights={self.weights}", *SMALL_MAPPER, *QUIET, *steps, *exact

    def config(self, *overrides: str) -> TrainConfig:
        checked: TrainConfig = typed(composed("train", *self.overrides, *overrides), TrainConfig)
        return checked

    def evaluation(self, *overrides: str) -> EvaluateConfig:
        checked: EvaluateConfig = typed(composed("evaluate", *self.overrides, *overrides), EvaluateConfig)
        return checked

    def train(self, run: Path, *overrides: str) -> dict[str, Any]:
        run.mkdir(parents=True)
        return train(self.config(*overrides), run)


def falls(patch: pytest.MonkeyPatch, module: type[MapperTraining[Any]], hook: str, measure: str) -> None:
    """Replace a validation hook, so that the measure that chooses the best checkpoint falls: it is 1 / step."""

    def log(training: MapperTraining[Any], *_: object) -> None:
        training.log(measure, 1 / max(1, training.global_step), batch_size=1)

    patch.setattr(module, hook, log)


def composed(name: str, *overrides: str) -> DictConfig:
    return deepcopy(_composed(name, *overrides))


@cache
def _composed(name: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(PROJECT / "configs"), version_base=None):
        return compose(name, list(overrides), return_hydra_config=False)


def weights_of(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    """Return a checkpoint's weights."""
    return checkpoint_of(run, name)["state_dict"]


def checkpoint_of(run: Path, name: str = "last") -> dict[str, Any]:
    """Return the content of a checkpoint without its checksum, so that changed content can be saved."""
    content: dict[str, Any] = torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)
    content.pop("checksum", None)
    return content


def assert_same_weights(these: dict[str, torch.Tensor], those: dict[str, torch.Tensor]) -> None:
    assert these.keys() == those.keys()
    for name, tensor in these.items():
        torch.testing.assert_close(tensor, those[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def script(name: str) -> ModuleType:
    """Import ``scripts/{name}.py`` as a module."""
    spec = importlib.util.spec_from_file_location(f"{name}_script", PROJECT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(name: str, arguments: Sequence[str], **environment: str) -> subprocess.Popen[str]:
    """Start a command in a separate process."""
    return subprocess.Popen(
        [sys.executable, str(PROJECT / "scripts" / f"{name}.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CLIPMAPPER_TRACE": "0", **environment},
    )


def finish(name: str, arguments: Sequence[str], **environment: str) -> tuple[int, str, str]:
    """Run a command in a separate process and return its exit status, stdout and stderr."""
    process = start(name, arguments, **environment)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def write_vqav2(root: Path, images: int = 6, splits: Sequence[str] = ("train2014", "val2014")) -> None:
    """Write VQAv2's official files for some splits, with a few noise images and two questions about each."""
    for split, start in zip(splits, count(1, 100), strict=False):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        questions, annotations = [], []
        for image_id in range(start, start + images):
            noise = np.random.default_rng(image_id).integers(0, 255, (40, 60, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"COCO_{split}_{image_id:012d}.jpg")
            for k, answer in enumerate(("yes", "kite")):
                ids = {"image_id": image_id, "question_id": image_id * 1000 + k}
                questions.append({**ids, "question": f"is it so {k}?"})
                given = [{"answer": answer, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
                kind = {"question_type": "is it", "answer_type": "other", "multiple_choice_answer": answer}
                annotations.append({**ids, **kind, "answers": given})
        (root / f"v2_OpenEnded_mscoco_{split}_questions.json").write_text(json.dumps({"questions": questions}))
        (root / f"v2_mscoco_{split}_annotations.json").write_text(json.dumps({"annotations": annotations}))
