"""A training run of the small LLaVA: scenes, training, the folder for ``transformers``, and its evaluation."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger

from clipmapper.config.data import ShapesConfig
from clipmapper.config.schema import EncoderConfig
from clipmapper.console import print_table
from clipmapper.encoder.hugging_face import as_hugging_face, check_folder, without_progress_bars, write_folder
from clipmapper.encoder.load import FrozenClip, load_encoder, use_threads
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL
from clipmapper.files import write_json, write_metrics
from clipmapper.llava.config import TrainLlavaConfig
from clipmapper.llava.conversations import (
    DESCRIBE,
    Conversations,
    Pictures,
    SingleQuestions,
    draw_picture,
    draw_pictures,
    patch_tokens,
)
from clipmapper.llava.evaluate import evaluate
from clipmapper.llava.model import Standard, build_model, start_from_clip
from clipmapper.llava.training import LlavaTraining
from clipmapper.llava.words import build_processor, build_tokenizer, vocabulary
from clipmapper.pretrained import LLAVA
from clipmapper.training.batches import Batches
from clipmapper.training.callbacks.divergence import StopAtDivergence
from clipmapper.training.callbacks.progress import FitProgress
from clipmapper.training.callbacks.step_log import StepLog
from clipmapper.training.trainer import LAST, AtomicCheckpointIO, KeptCheckpoint
from explain.sample.loaded import loaded

METRICS = "metrics.json"  # in the folder of the model, with the scores that metrics.json of a mapper's training has
LONGEST = 256  #: most tokens of a conversation
_SAMPLE = 1000  # scenes whose patch tokens set the projector's start


def run_training(config: TrainLlavaConfig, run: Path) -> dict[str, Any]:
    """Train the model, write its folder, evaluate what was written on the test scenes, and write ``llava.json``.

    The folder of the model gets its accuracy, in ``metrics.json``.

    Args:
        config: The command's config.
        run: The run folder; the model's folder is also written to ``config.output``, if given.

    Returns:
        The content of ``llava.json`` without config and versions.
    """
    folders = [run / LLAVA.name] + ([Path(config.output)] if config.output else [])
    for folder in folders:
        check_folder(folder)
    use_threads(config.threads)
    pl.seed_everything(config.seed, verbose=False)
    data = config.data
    assert isinstance(data, ShapesConfig)
    encoder = load_encoder(EncoderConfig(EMBEDDED_MODEL, "embedded", "float32", 128))
    clip, clip_processor = as_hugging_face(encoder)
    images = clip_processor.image_processor
    encode = partial(patch_tokens, clip.vision_model, images)
    train, val = (draw_pictures(data, split, encode) for split in ("train", "val"))
    vocab = vocabulary([DESCRIBE, *(text for item in train.items for text in item.texts)])
    model = build_model(clip, vocab, config.decoder, LONGEST)
    processor = build_processor(images, build_tokenizer(vocab, LONGEST), encoder.vision.visual.patch_size[0])
    trained = _fit(config, run, model, encoder, vocab, train, val)
    for folder in folders:
        write_folder(trained, processor, folder, half=True)
    test = [draw_picture(data, "test", index) for index in range(data.test_scenes)]
    with without_progress_bars():
        written = loaded(str(run / LLAVA.name), None)
    found = evaluate(*written, test, data.pixels)
    said = {name: found.pop(name) for name in ("answers", "captions")}
    write_json(run / "said_test.json", said)
    scores = {**found["vqa"], "true_captions": round(found["true_captions"] / 100, 6)}
    for folder in folders:
        write_json(folder / METRICS, {"test": scores})
    metrics = {"test": found, "parameters": sum(p.numel() for p in trained.parameters()), "words": len(vocab)}
    write_metrics(run / "llava.json", metrics, asdict(config))
    _print(found)
    return metrics


def _fit(
    config: TrainLlavaConfig,
    run: Path,
    model: Any,
    encoder: FrozenClip,
    vocab: dict[str, int],
    train: Pictures,
    val: Pictures,
) -> Any:
    """Train a model from its start, and return it with the projector that reads the vision tower's own tokens."""
    patches = train.patches[:_SAMPLE].float().flatten(0, 1)
    standard = Standard.of(patches)
    start_from_clip(model, encoder, vocab, patches, standard)
    module = LlavaTraining(model, standard, config)
    divergence = StopAtDivergence(f"lower lr={config.lr}", run / "checkpoints" / f"{LAST}.ckpt")
    log = StepLog(10, divergence)
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,  # one pass over the step sampler, which ends at max_steps
        max_steps=config.steps,
        val_check_interval=min(config.validate_every, config.steps),
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        logger=CSVLogger(run, name="", version="log"),
        callbacks=[KeptCheckpoint(run, LAST), divergence, log, FitProgress(10, log)],
        plugins=[AtomicCheckpointIO()],
    )
    conversations = Conversations(train, vocab, config.questions, config.seed)
    batches = Batches(conversations, SingleQuestions(val, vocab), config.batch_size, config.steps, config.seed)
    trainer.fit(module, batches)
    return module.finished()


def _print(found: dict[str, Any]) -> None:
    vqa = found["vqa"]
    parts = {"all": vqa["accuracy"], **vqa["by_answer_type"], **dict(sorted(vqa["by_question_type"].items()))}
    parts |= {"most common answer": found["exact"], "true captions": found["true_captions"]}
    print_table(
        f"generated answers to {vqa['questions']} test questions: official VQA accuracy, and true captions, in percent",
        ["type", "accuracy ↑"],
        [[name, f"{value:.2f}"] for name, value in parts.items()],
    )
