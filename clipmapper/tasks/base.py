"""Interface of a task: everything that the commands use of it.

The task registry is imported to check configs, before torch is imported. Therefore the methods of a task import the
modules they need when they are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset

    from clipmapper.config.explain import PictureConfig
    from clipmapper.config.schema import Config, EvaluateConfig, TaskConfig, TrainConfig
    from clipmapper.data.records import ImageSource
    from clipmapper.encoder.load import FrozenClip
    from clipmapper.training.module import MapperTraining
    from explain import Explainer


@dataclass(frozen=True)
class Needed:
    """The images and texts that a training encodes."""

    images: Mapping[int, ImageSource]  #: by image id
    texts: Sequence[str]
    about: str  #: their numbers, as text for the user
    answers: int = 0  #: length of the answer list; 0 for a task that has none


class TrainingData(Protocol):
    """The datasets of a training run, with the frozen encoder's features."""

    @property
    def train(self) -> Dataset[Any]:
        """Training dataset, indexed by a list of rows, which returns a whole batch."""

    @property
    def val(self) -> Dataset[Any]:
        """Validation dataset, whose measure chooses the best checkpoint."""

    def card(self, config: TrainConfig) -> dict[str, Any]:
        """Return the description that is stored in checkpoints.

        It names the model, and everything that the order of the batches and the loss depend on.
        """

    @property
    def content(self) -> Mapping[str, str]:
        """Hashes of the encoder's weights, the images' features and the texts of each split, by their kind.

        They are part of the run's identity: a run is only resumed with the same content.
        """

    @property
    def familiarity(self) -> dict[str, Any]:
        """What warnings about unfamiliar inputs need (:func:`clipmapper.explaining.familiarity.describe`).

        It is stored next to the description, and not compared when a run is resumed, since its numbers are rounded
        differently on other machines.
        """

    def write_split(self, path: Path) -> None:
        """Write the sample ids of each split to a JSON file."""


class Trained(Protocol):
    """A trained model, and the samples of one split to run it on, numbered by row."""

    @property
    def model(self) -> nn.Module:
        """The model, frozen and in evaluation mode."""

    @property
    def checkpoint(self) -> Path:
        """The file that the model was loaded from."""

    @property
    def ids(self) -> Sequence[int]:
        """Id of each sample."""


class Task(Protocol):
    """One task: its config schemas, its data and Lightning module, its scores, and its explanations."""

    name: str
    samples: str  #: plural noun for its samples in messages, such as "questions"

    @property
    def schema(self) -> type[TaskConfig]:
        """Schema of the config group ``task``."""

    @property
    def explain_schema(self) -> type[PictureConfig]:
        """Schema of the config of ``scripts/explain.py``."""

    def data(self, config: TrainConfig) -> TrainingData:
        """Read the data and compute its features, or read them from the cache."""

    def needs(self, config: TrainConfig) -> Needed:
        """Read the data; return the images and texts of which features are needed."""

    def trial(
        self, config: TrainConfig, needs: Needed, encoder: FrozenClip, count: int
    ) -> tuple[MapperTraining[Any], Any]:
        """Return a module with new weights and ``count`` samples of random features, to time a step of so many."""

    def module(self, config: TrainConfig, data: Any) -> MapperTraining[Any]:
        """Build a new model to train; its weights are drawn from torch's global generator."""

    def evaluate(self, config: TrainConfig, data: Any, model: Any, run: Path) -> dict[str, Any]:
        """Write the trained model's predictions on validation and test, then print and return its scores."""

    def examples(self, data: Any, run: Path, count: int) -> list[tuple[ImageSource, str]]:
        """Return some images of the test split, or of validation, with what the trained model says about them.

        Args:
            data: What :meth:`data` returned.
            run: The run folder, after :meth:`evaluate`.
            count: Greatest number of images.
        """

    def score_checkpoint(self, config: EvaluateConfig, run: Path) -> dict[str, Any]:
        """Write a checkpoint's predictions on a split, and their scores.

        Returns:
            The scores by the name of the split; empty if there is nothing to score against, and in all processes but
            the first.
        """

    def score_files(self, config: EvaluateConfig, run: Path) -> dict[str, Any]:
        """Score a result file, from any model, against official annotation files, and return the scores."""

    def load(self, path: Path, config: Config | None = None) -> nn.Module:
        """Load the whole model of a checkpoint, frozen and in evaluation mode."""

    def trained(self, config: Any) -> Trained:
        """Load the checkpoint that the config names, with a split of its data or with the user's image."""

    def write_pictures(self, trained: Any, explainers: Mapping[str, Explainer], config: Any, run: Path) -> int:
        """Explain the samples that the config chooses; warn about those that are far from the training data.

        Args:
            trained: What :meth:`trained` returned.
            explainers: Explainers by name.
            config: Config of the schema ``explain_schema``.
            run: The run folder, which gets the figures, scores, contents of figures and warnings; the names of the
                files are in :mod:`clipmapper.explaining.output`.

        Returns:
            The number of explained samples.
        """
