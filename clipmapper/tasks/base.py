"""What a task gives the commands, which know nothing else of it.

Tasks are made when the registry is imported, and configs are checked before torch is: what a method needs it imports
when it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.data import Dataset

    from clipmapper.config.explain import PictureConfig
    from clipmapper.config.schema import Config, EvaluateConfig, TaskConfig, TrainConfig
    from clipmapper.training.module import MapperTraining
    from explain import Explainer


class TrainingData(Protocol):
    """The data of a training run, with their frozen features."""

    @property
    def train(self) -> Dataset[Any]:
        """What is trained on, fetched a whole batch at a time."""

    @property
    def val(self) -> Dataset[Any]:
        """What chooses the best checkpoint."""

    def card(self, config: TrainConfig) -> dict[str, Any]:
        """What a checkpoint says of itself: the model, and what the order of the batches and the loss follow from."""

    def write_split(self, path: Path) -> None:
        """Notes the ids of each part."""


class Trained(Protocol):
    """A trained model, and the samples of one split that it is asked about, by row."""

    @property
    def model(self) -> nn.Module:
        """Frozen, in evaluation mode."""

    @property
    def checkpoint(self) -> Path:
        """Where it came from."""

    @property
    def ids(self) -> Sequence[int]:
        """The samples' ids."""


class Task(Protocol):
    """One task: its config schemas, its data and Lightning module, its scores, and its explanations."""

    name: str
    samples: str  #: what messages call its samples
    monitor: str  #: the measure whose greatest value chooses the best checkpoint

    @property
    def schema(self) -> type[TaskConfig]:
        """What the config group ``task`` holds."""

    @property
    def explain_schema(self) -> type[PictureConfig]:
        """What the config of ``scripts/explain.py`` holds."""

    def data(self, config: TrainConfig) -> TrainingData:
        """Reads the data and computes their features, or finds them in the cache."""

    def module(self, config: TrainConfig, data: Any) -> MapperTraining[Any]:
        """A new model, ready to be trained; draws its weights from torch's generator."""

    def evaluate(self, config: TrainConfig, data: Any, model: Any, run: Path) -> dict[str, Any]:
        """Writes what a trained part says of validation and test, prints and returns its scores."""

    def score_checkpoint(self, config: EvaluateConfig, run: Path) -> None:
        """Writes what a checkpoint says of a split, and its scores."""

    def score_files(self, config: EvaluateConfig, run: Path) -> None:
        """Scores anyone's result file against official files."""

    def load(self, path: Path, config: Config | None = None) -> nn.Module:
        """The whole model of a checkpoint, frozen and in evaluation mode."""

    def trained(self, config: Any) -> Trained:
        """The checkpoint that the config names, with a split of its data or with one's own picture."""

    def write_pictures(
        self, trained: Any, explainers: Mapping[str, Explainer], config: Any, folder: Path, scores: Path
    ) -> int:
        """A figure for every sample that the config chooses in ``folder``, and all scores in one Parquet file.

        Returns how many samples were explained.
        """
