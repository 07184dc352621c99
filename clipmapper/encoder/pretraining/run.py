"""A pre-training run: it draws the pool, trains with a progress bar, runs the probes and writes the files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from clipmapper.console import print_table, progress
from clipmapper.encoder.load import use_threads
from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.encoder.pretraining.pool import draw_pool
from clipmapper.encoder.pretraining.probes import probe
from clipmapper.encoder.pretraining.train import Pretraining, pretrain
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, shorten_token_table
from clipmapper.files import versions, write_json

PIXELS = 60


def run_pretraining(config: PretrainConfig, run: Path) -> None:
    """Pre-train the encoder and write its weights and ``{model}.report.json``.

    The report contains the accuracies of the probes, the last losses (as running means), the config and the versions.

    Args:
        config: Config of the pre-training.
        run: The run folder; the files are also written to ``config.output``, if given.
    """
    use_threads(config.threads)
    pool = draw_pool(config.pool_scenes, PIXELS, config.seed, config.workers)
    recent: dict[str, float] = {}
    with progress(config.steps, "pre-training", "steps") as advance:

        def report(step: int, parts: dict[str, float], model: Pretraining) -> None:
            for name, value in parts.items():
                recent[name] = 0.98 * recent.get(name, value) + 0.02 * value
            advance(note=", ".join(f"{name} {value:.3f}" for name, value in recent.items()))
            if step % config.save_every == config.save_every - 1:
                save(model, run)

        model = pretrain(config, pool, report)
    save(model, run)
    with progress(None, "testing what can be read from the tokens"):
        figures = probe(model.weights(), config.probe_scenes)
    content = {"figures": figures, "last": recent, "config": asdict(config), "versions": versions()}
    for folder in [run] + ([Path(config.output)] if config.output else []):
        save(model, folder)
        write_json(folder / f"{EMBEDDED_MODEL}.report.json", content)
    print_table(
        "what can be read from the encoder's tokens: accuracy from 0 to 1 on scenes that are not part of the training",
        ["test", "accuracy ↑"],
        [[name, f"{value:.3f}"] for name, value in figures.items()],
    )


def save(model: Pretraining, folder: Path) -> None:
    """Save the weights in half precision, with only those rows of the token table that were trained."""
    state = shorten_token_table(model.weights(), torch.tensor(model.words.used))
    half = {n: (t.half() if t.is_floating_point() else t).contiguous() for n, t in state.items() if t.ndim or t.numel()}
    save_file(half, folder / f"{EMBEDDED_MODEL}.safetensors", metadata={"model": EMBEDDED_MODEL})
