"""Training, end to end: data, frozen features, the Lightning fit, and the evaluation of the best checkpoint."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

from clipmapper.checkpoint import build_vqa, card, read_checkpoint
from clipmapper.config import Config, TrainConfig
from clipmapper.data.batches import StepSampler, VQADataset, in_order
from clipmapper.data.splits import write_split
from clipmapper.errors import UserError
from clipmapper.evaluation import evaluate
from clipmapper.loggers import build_logger
from clipmapper.metrics.vqa import summary, table
from clipmapper.prepared import Prepared, prepare
from clipmapper.results import write_metrics
from clipmapper.vqa_training import VQATraining


class Batches(pl.LightningDataModule):
    """Training batches by step, so that a resumed run goes on with the very batch it would have seen next."""

    def __init__(self, train: VQADataset, val: VQADataset, batch_size: int, max_steps: int, seed: int):
        super().__init__()
        self.train, self.val = train, val
        self.batch_size, self.max_steps, self.seed = batch_size, max_steps, seed

    def train_dataloader(self) -> DataLoader[Any]:
        trainer = self.trainer
        assert trainer is not None
        sampler = StepSampler(
            len(self.train), self.batch_size, self.max_steps, self.seed, trainer.global_rank, trainer.world_size
        )
        sampler.start = trainer.global_step
        return DataLoader(self.train, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, sampler=in_order(len(self.val), 256), batch_size=None)


def train(config: TrainConfig, run: Path) -> dict[str, Any]:
    """Trains, evaluates the best checkpoint by validation accuracy, writes ``metrics.json``; returns its metrics.

    Raises ``UserError`` for what the user can mend.
    """
    pl.seed_everything(config.seed, verbose=False)
    prepared = prepare(config)
    write_split(run / "split.json", prepared.splits.parts)
    datasets = {part: prepared.dataset(part) for part in prepared.splits.parts}
    _describe(prepared, datasets)
    model = build_vqa(config.mapper, prepared.encoder, len(prepared.answers))
    about = card(config, prepared.encoder, prepared.answers)
    module = VQATraining(model, config.task.optim, config.trainer.max_steps, about)
    trainer = build_trainer(config, run)
    batches = Batches(
        datasets["train"], datasets["val"], config.task.optim.batch_size, config.trainer.max_steps, config.seed
    )
    trainer.fit(module, batches, ckpt_path=_to_resume(config, about), weights_only=True)
    if not trainer.is_global_zero:
        return {}
    _best(trainer, module)
    metrics: dict[str, Any] = {}
    for part in ("val", "test"):
        if part in datasets and (score := evaluate(model, datasets[part], prepared.answers.answers, run, part)):
            metrics[part] = summary(score)
            print(table(f"{config.data.name} {part}", score), flush=True)
    write_metrics(run / "metrics.json", metrics, asdict(config))
    return metrics


def build_trainer(config: Config, run: Path) -> pl.Trainer:
    """Lightning's Trainer as the config says, with checkpoints and logs in the run folder."""
    t = config.trainer
    callbacks: list[Callback] = [
        ModelCheckpoint(run / "checkpoints", "best", monitor="val/accuracy", mode="max", enable_version_counter=False),
        ModelCheckpoint(
            run / "checkpoints", "last", every_n_train_steps=t.val_check_interval, enable_version_counter=False
        ),
    ]
    if t.patience is not None:
        callbacks.append(EarlyStopping("val/accuracy", mode="max", patience=t.patience))
    return pl.Trainer(
        max_steps=t.max_steps,
        accelerator=t.accelerator,
        devices=t.devices,
        strategy=t.strategy,
        precision=t.precision,  # type: ignore[arg-type]
        gradient_clip_val=t.gradient_clip_val,
        val_check_interval=min(t.val_check_interval, t.max_steps),
        limit_val_batches=t.limit_val_batches,
        log_every_n_steps=t.log_every_n_steps,
        fast_dev_run=t.fast_dev_run,
        enable_progress_bar=t.enable_progress_bar,
        enable_model_summary=False,
        use_distributed_sampler=False,
        logger=build_logger(config.logger, run),
        callbacks=callbacks,
    )


def _best(trainer: pl.Trainer, module: VQATraining) -> None:
    """Puts the weights of the best checkpoint into the module; after ``fast_dev_run`` there is none."""
    checkpoint = trainer.checkpoint_callback
    path = getattr(checkpoint, "best_model_path", "")
    if path:
        module.load_state_dict(read_checkpoint(Path(path))["state_dict"])


def _to_resume(config: TrainConfig, about: dict[str, Any]) -> str | None:
    """The last checkpoint of the run to go on with; raises ``UserError`` where there is none or it does not fit."""
    if config.resume is None:
        return None
    last = Path(config.resume) / "checkpoints" / "last.ckpt"
    held = read_checkpoint(last)["clipmapper"]
    differing = [key for key in about if about[key] != held.get(key)]
    if differing:
        raise UserError(f"resume={config.resume}: that run has another {differing[0]}; resume with its own config")
    return str(last)


def _describe(prepared: Prepared, datasets: dict[str, VQADataset]) -> None:
    sizes = ", ".join(f"{len(dataset)} {part}" for part, dataset in datasets.items())
    print(f"questions: {sizes}; answers: {len(prepared.answers)}", flush=True)
    if without := datasets["train"].without_target:
        print(f"{without} training questions have no answer in the vocabulary", file=sys.stderr)
