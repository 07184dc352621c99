"""Perturbation runs of captions that are small enough for a test."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from no_figures import without_figures
from tiny_runs import Tiny, composed

from clipmapper.checkpoint import card
from clipmapper.cli import typed
from clipmapper.data.datasets import load_captions
from clipmapper.encoder.load import load_encoder
from clipmapper.tasks.caption.data import captions_of
from clipmapper.tasks.caption.model import build_caption
from clipmapper.tasks.caption.vocabulary import build_vocabulary
from perturbation.config import PerturbCaptionsConfig
from perturbation.perturb.run import perturb

STEPS = [0.0, 0.1, 0.5, 1.0]
LENGTH = 6
TASK = ("task=caption", f"task.max_length={LENGTH}")
SMALL = (
    *("samples=5", "batch_samples=3", "engine_batch=7", "random_seeds=2", "controls=[random]"),
    *("weightings=[equal,cider]", f"steps={STEPS}"),
)


def make_quick(patch: pytest.MonkeyPatch) -> None:
    """Hide Java, which takes seconds to start; PTB and METEOR are tested with the metrics."""
    patch.setenv("PATH", "")
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Captioner:
    """A checkpoint with random weights, and the overrides to use it."""

    tiny: Tiny
    checkpoint: Path

    @property
    def overrides(self) -> tuple[str, ...]:
        return *self.tiny.overrides, *TASK, f"checkpoint={self.checkpoint}", *SMALL

    def perturb(self, run: Path, *overrides: str, explainer: str = "weighted", figures: bool = False) -> dict[str, Any]:
        run.mkdir(parents=True, exist_ok=True)
        config = composed("perturb", *self.overrides, f"explainer={explainer}", *overrides)
        with nullcontext() if figures else without_figures():
            return perturb(typed(config, PerturbCaptionsConfig), explainer, run)


def random_captioner(tiny: Tiny, checkpoint: Path) -> Captioner:
    """Write a checkpoint of a captioner whose weights are so large that patches affect words."""
    config = tiny.config(*TASK)
    encoder = load_encoder(config.encoder)
    captions = captions_of(load_captions(config.data).part("train").images)
    vocabulary = build_vocabulary("training", map(encoder.tokenizer.encode, captions), encoder.tokenizer)
    torch.manual_seed(0)
    model = build_caption(config.mapper, encoder, len(vocabulary))
    weights = {f"model.{name}": tensor + 0.3 * torch.randn(tensor.shape) for name, tensor in model.state_dict().items()}
    weights = {
        name: tensor * (8 if name.endswith(("query.weight", "out.weight")) else 1) for name, tensor in weights.items()
    }
    about = card(config, encoder) | {"tokens": list(vocabulary.ids)}
    torch.save({"clipmapper": about, "state_dict": weights}, checkpoint)
    return Captioner(tiny, checkpoint)
