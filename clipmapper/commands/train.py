"""Command that trains a mapper: data, frozen features, Lightning fit, and evaluation of the best checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from clipmapper.cli import command, resumed, typed
from clipmapper.config.run_folder import IDENTITY
from clipmapper.config.schema import TrainConfig
from clipmapper.process import stopping
from clipmapper.tasks import TASKS

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from clipmapper.tasks.base import TrainingData
    from clipmapper.training.module import MapperTraining


EXAMPLES = 8  # pictures of the test split that are logged with the model's output


@command("train", shared=True)
def main(config: DictConfig, run: Path) -> float | None:
    """Run one training, and return its best monitored value, by which a sweeper chooses settings."""
    from clipmapper.training.trainer import best_score

    checked: TrainConfig = typed(config, TrainConfig)
    if checked.dry_run:
        dry_run(checked)
        return None
    checked.resume = resumed(checked.resume, run, "checkpoints/last.ckpt")
    train(checked, run)
    return best_score(run)


def dry_run(config: TrainConfig) -> None:
    """Read the data and check what a training needs; print the sizes, what is to be encoded, and the predicted times.

    Raises:
        UserError: The data or the encoder cannot be read, an image is missing, or the features do not fit on the disk.
    """
    from clipmapper.console import clock
    from clipmapper.features.sizing import print_sizes
    from clipmapper.training.timed import time_steps

    task = TASKS[config.task.name]
    needs = task.needs(config)
    print(needs.about, flush=True)
    encoder = print_sizes(config, needs.images, needs.texts)
    steps, size = config.trainer.max_steps, config.task.optim.batch_size
    seconds, timed = time_steps(config.trainer, size, lambda count: task.trial(config, needs, encoder, count))
    print(
        f"training: {steps:,} steps of {size * config.trainer.accumulate_grad_batches:,} samples, predicted time "
        f"{clock(steps * seconds)} on one device, from {timed} on random features; without validation",
        flush=True,
    )


def train(config: TrainConfig, run: Path) -> dict[str, Any]:
    """Train a mapper, evaluate its best checkpoint and write ``metrics.json``.

    Args:
        config: The command's config.
        run: The run folder.

    Returns:
        The metrics of the best checkpoint; empty in all processes but the first.

    Raises:
        UserError: The config, the data or the checkpoint to resume has an error that the user can fix.
    """
    import pytorch_lightning as pl

    from clipmapper.explaining.familiarity import FAMILIARITY
    from clipmapper.files import write_json
    from clipmapper.process.together import check_agreed
    from clipmapper.training.fitting import fit
    from clipmapper.training.identity import training_identity
    from clipmapper.training.resumable import check_resumable
    from clipmapper.training.resume import StoppedTraining
    from clipmapper.training.trainer import build_trainer
    from clipmapper.weights import check_output

    task = TASKS[config.task.name]
    if config.output is not None:
        check_output(Path(config.output))
    # Built first, so that errors in its config are reported before the data is read.
    trainer = build_trainer(config, run, config.task.monitor)
    identity = training_identity(config, trainer.strategy.root_device.type, trainer.world_size)
    stopped = None if config.resume is None else StoppedTraining.read(Path(config.resume))
    if stopped is not None:
        stopped.check_settings(identity)
    data = task.data(config)
    identity |= data.content
    check_agreed(lambda: {"settings": identity["config"], **data.content})
    if stopped is not None:
        stopped.check_content(identity, data.card(config))
    pl.seed_everything(config.seed, verbose=False)  # before the model draws its weights
    module = task.module(config, data)
    module.card[FAMILIARITY] = data.familiarity
    if stopped is not None:
        check_resumable(stopped.state, trainer, module, stopped.file)
    if trainer.is_global_zero:
        data.write_split(run / "split.json")
        write_json(run / IDENTITY, identity)
    fit(config, trainer, module, data, stopped, run)
    stopping.check()
    _load_best(run, module)
    metrics = task.evaluate(config, data, module.model.to(trainer.strategy.root_device), run)
    if not trainer.is_global_zero:
        return {}
    _write_results(config, trainer, module, data, metrics, run)
    return metrics


def _write_results(
    config: TrainConfig,
    trainer: pl.Trainer,
    module: MapperTraining[Any],
    data: TrainingData,
    metrics: dict[str, Any],
    run: Path,
) -> None:
    """Write ``metrics.json``, the end of the log and, if ``output`` is given, the weights file."""
    from clipmapper.data.images import load_rgb
    from clipmapper.files import write_metrics
    from clipmapper.training.logged import end_log, log_picture, log_scores, takes_more_than_numbers
    from clipmapper.weights import write_weights

    write_metrics(run / "metrics.json", metrics, asdict(config))
    log_scores(trainer.logger, metrics, trainer.global_step or config.trainer.max_steps)
    if takes_more_than_numbers(trainer.logger):
        for number, (image, text) in enumerate(TASKS[config.task.name].examples(data, run, EXAMPLES)):
            log_picture(trainer.logger, f"examples/{number}", load_rgb(image), text)
    end_log(trainer.logger)
    if config.output is not None:
        scores = {split: _portable(scores) for split, scores in metrics.items()}
        about = {**module.card, "steps": config.trainer.max_steps, "metrics": scores}
        write_weights(Path(config.output), about, module.model.cpu().state_dict())
        print(f"weights are in {config.output}", flush=True)


def _load_best(run: Path, module: pl.LightningModule) -> None:
    """Load the weights of the best checkpoint into the module, if there is one (``fast_dev_run`` writes none)."""
    from clipmapper.checkpoint import read_checkpoint
    from clipmapper.training.trainer import BEST

    path = run / "checkpoints" / f"{BEST}.ckpt"
    if path.is_file():
        module.load_state_dict(read_checkpoint(path)["state_dict"])


def _portable(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a split without the notes about this machine, such as the paths of missing programs."""
    return {name: value for name, value in scores.items() if name != "notes"}
