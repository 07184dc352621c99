"""A pre-training run: it draws the pool, trains with a progress bar, runs the probes and writes the files."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from clipmapper.console import print_table, progress
from clipmapper.encoder.load import use_threads
from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.encoder.pretraining.pool import draw_pool
from clipmapper.encoder.pretraining.probes import probe
from clipmapper.encoder.pretraining.saving import check_space, save, save_result
from clipmapper.encoder.pretraining.train import Pretraining, pretrain
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL
from clipmapper.files import versions, write_json

PIXELS = 60


def run_pretraining(config: PretrainConfig, run: Path) -> None:
    """Pre-train the encoder and write its weights and ``{model}.report.json``.

    The report contains the accuracies of the probes, the last losses (as running means), the config and the versions.

    Args:
        config: Config of the pre-training.
        run: The run folder; the files are also written to ``config.output``, if given.

    Raises:
        UserError: There is no space for the weights, before the training or after it; then they are kept elsewhere.
    """
    folders = [run, *([Path(config.output)] if config.output else [])]
    check_space(folders)
    use_threads(config.threads)
    pool = draw_pool(config.pool_scenes, PIXELS, config.seed, config.workers)
    recent: dict[str, float] = {}
    with progress(config.steps, "pre-training", "steps") as advance:

        def report(step: int, parts: dict[str, float], model: Pretraining) -> None:
            for name, value in parts.items():
                recent[name] = 0.98 * recent.get(name, value) + 0.02 * value
            advance(note=", ".join(f"{name} {value:.3f}" for name, value in recent.items()))
            if step % config.save_every == config.save_every - 1:
                with suppress(OSError):  # of a disk that is full for the moment; the end reports it
                    save(model, run)

        model = pretrain(config, pool, report)
    save_result(model, folders)
    with progress(None, "testing what can be read from the tokens"):
        figures = probe(model.weights(), config.probe_scenes)
    content = {"figures": figures, "last": recent, "config": asdict(config), "versions": versions()}
    for folder in folders:
        write_json(folder / f"{EMBEDDED_MODEL}.report.json", content)
    print_table(
        "what can be read from the encoder's tokens: accuracy from 0 to 1 on scenes that are not part of the training",
        ["test", "accuracy ↑"],
        [[name, f"{value:.3f}"] for name, value in figures.items()],
    )
