"""What training and evaluation both start from: the data, the frozen encoder and its features."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from clipmapper.config import Config, TrainerConfig
from clipmapper.data.answers import AnswerVocabulary
from clipmapper.data.batches import VQADataset
from clipmapper.data.load import Splits, load_data, vocabulary
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.errors import UserError
from clipmapper.features.frozen import FrozenFeatures, image_features, text_features


@dataclass(frozen=True)
class Prepared:
    """A data set with its answers and its frozen features."""

    splits: Splits
    answers: AnswerVocabulary
    encoder: FrozenClip
    images: FrozenFeatures
    texts: FrozenFeatures
    sees: str

    def dataset(self, part: str) -> VQADataset:
        """Raises ``UserError`` where the data has no such part, or no picture of it could be read."""
        dataset = VQADataset(self.splits.part(part), self.images, self.texts, self.answers, self.sees)
        if not len(dataset):
            raise UserError(f"no image of the {part} split could be read; check the image folder in data.root")
        return dataset


def prepare(config: Config, answers: AnswerVocabulary | None = None) -> Prepared:
    """Reads the data and computes its features, or finds them in the cache.

    ``answers`` is a checkpoint's list; without one, the data's own is built. Raises ``UserError`` as the readers do,
    and where the config names an answer file that holds another list than the checkpoint.
    """
    splits = load_data(config.data)
    if answers and config.data.answers_file and vocabulary(config.data, splits) != answers:
        raise UserError(
            f"the checkpoint was trained on another answer list than data.answers_file={config.data.answers_file}; "
            "give its own list, or none"
        )
    texts = [question.question for part in splits.parts.values() for question in part.questions]
    encoder, device, cache = ready_encoder(config)
    images = image_features(encoder, config.encoder, splits.images, cache, config.data.on_bad_image, device)
    prepared_texts = text_features(encoder, config.encoder, texts, cache, device)
    answers = answers or vocabulary(config.data, splits)
    return Prepared(splits, answers, encoder.cpu(), images, prepared_texts, config.task.sees)


def ready_encoder(config: Config) -> tuple[FrozenClip, torch.device, Path]:
    """The frozen encoder, the device it was put on, and the folder of its features; raises as ``load_encoder``."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    encoder = load_encoder(config.encoder)
    device = pick_device(config.trainer)
    return encoder.to(device), device, Path(config.paths.cache) / f"{config.data.name}-{config.encoder.model}"


def pick_device(trainer: TrainerConfig) -> torch.device:
    """Where the encoder runs: on the trainer's kind of device; raises ``UserError`` where there is none."""
    if trainer.accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available():
        return torch.device("cuda")
    if trainer.accelerator in ("gpu", "cuda"):
        raise UserError(f"trainer.accelerator={trainer.accelerator}: torch finds no GPU here; give cpu or auto")
    return torch.device("cpu")
