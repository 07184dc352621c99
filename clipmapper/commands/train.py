"""Command that trains a mapper: data, frozen features, Lightning fit, and evaluation of the best checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.schema import TrainConfig
from clipmapper.errors import UserError
from clipmapper.process import stopping
from clipmapper.tasks import TASKS

if TYPE_CHECKING:
    import pytorch_lightning as pl


EXAMPLES = 8  # pictures of the test split that are logged with the model's output


@command("train")
def main(config: DictConfig, run: Path) -> None:
    """Run one training."""
    train(typed(config, TrainConfig), run)


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

    from clipmapper.checkpoint import read_checkpoint
    from clipmapper.data.images import load_rgb
    from clipmapper.explaining.familiarity import FAMILIARITY
    from clipmapper.files import write_metrics
    from clipmapper.training.batches import Batches
    from clipmapper.training.logged import end_log, log_picture, log_scores, takes_more_than_numbers
    from clipmapper.training.resumable import check_resumable
    from clipmapper.training.trainer import build_trainer
    from clipmapper.weights import write_weights

    task = TASKS[config.task.name]
    # Built first, so that errors in its config are reported before the data is read.
    trainer = build_trainer(config, run, config.task.monitor)
    data = task.data(config)
    data.write_split(run / "split.json")
    last = _checkpoint_to_resume(config, data.card(config), run)
    pl.seed_everything(config.seed, verbose=False)  # before the model draws its weights
    module = task.module(config, data)
    module.card[FAMILIARITY] = data.familiarity
    if last is not None:
        check_resumable(read_checkpoint(Path(last)), trainer, module, Path(last))
    batches = Batches(data.train, data.val, config.task.optim.batch_size, config.trainer.max_steps, config.seed)
    trainer.fit(module, batches, ckpt_path=last, weights_only=True)
    stopping.check()
    if not trainer.is_global_zero:
        return {}
    _load_best(trainer, module)
    metrics = task.evaluate(config, data, module.model, run)
    write_metrics(run / "metrics.json", metrics, asdict(config))
    log_scores(trainer.logger, metrics, trainer.global_step)
    if takes_more_than_numbers(trainer.logger):
        for number, (image, text) in enumerate(task.examples(data, run, EXAMPLES)):
            log_picture(trainer.logger, f"examples/{number}", load_rgb(image), text)
    end_log(trainer.logger)
    if config.output is not None:
        scores = {split: _portable(scores) for split, scores in metrics.items()}
        about = {**module.card, "steps": config.trainer.max_steps, "metrics": scores}
        write_weights(Path(config.output), about, module.model.state_dict())
        print(f"weights are in {config.output}", flush=True)
    return metrics


def _load_best(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Load the weights of the best checkpoint into the module, if there is one (``fast_dev_run`` writes none)."""
    from clipmapper.checkpoint import read_checkpoint

    if path := getattr(trainer.checkpoint_callback, "best_model_path", ""):
        module.load_state_dict(read_checkpoint(Path(path))["state_dict"])


def _checkpoint_to_resume(config: TrainConfig, card: dict[str, Any], run: Path) -> str | None:
    """Return the last checkpoint of the run that ``config.resume`` names, None for a new run.

    Raises:
        UserError: The run has no checkpoint, or was trained with another config or other data.
    """
    from clipmapper.checkpoint import CARD, read_checkpoint
    from clipmapper.training.trainer import LAST, copy_checkpoints

    if config.resume is None:
        return None
    last = Path(config.resume) / "checkpoints" / f"{LAST}.ckpt"
    held = read_checkpoint(last)[CARD]
    differing = [key for key in card if card[key] != held.get(key)]
    if differing:
        raise UserError(
            f"resume={config.resume}: that run differs in {differing[0]}; resume with the config of that run"
        )
    return str(copy_checkpoints(Path(config.resume), run))


def _portable(scores: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a split without the notes about this machine, such as the paths of missing programs."""
    return {name: value for name, value in scores.items() if name != "notes"}
