"""Visual question answering."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmapper.tasks.base import Needed
from clipmapper.tasks.vqa.config import ExplainConfig, VQATaskConfig

if TYPE_CHECKING:
    from clipmapper.config.schema import Config, EvaluateConfig, TrainConfig
    from clipmapper.data.records import ImageSource
    from clipmapper.encoder.load import FrozenClip
    from clipmapper.tasks.vqa.data import TaskData, VQABatch
    from clipmapper.tasks.vqa.model import CLIPMapperVQA, VQAMapper
    from clipmapper.tasks.vqa.trained import TrainedVQA
    from clipmapper.tasks.vqa.training import VQATraining
    from explain import Explainer


class VQATask:
    """Answering questions about images: soft-label classification over the answer vocabulary.

    The loss is in :mod:`clipmapper.tasks.vqa.training`.
    """

    name, samples = "vqa", "questions"
    schema, explain_schema = VQATaskConfig, ExplainConfig

    def data(self, config: TrainConfig) -> TaskData:
        """Read the questions and compute their features; print how many there are."""
        from clipmapper.tasks.vqa.data import prepare

        data = prepare(config)
        data.describe()
        return data

    def needs(self, config: TrainConfig) -> Needed:
        """Read the questions; return the images by id, the distinct texts of the questions, and their numbers."""
        from clipmapper.data.datasets import load_data
        from clipmapper.data.question_table import QuestionTable
        from clipmapper.tasks.vqa.answers import vocabulary

        splits = load_data(config.data)
        _, texts = QuestionTable.joined(part.questions for part in splits.parts.values()).texts("question")
        counts = ", ".join(f"{len(part.questions):,} {name}" for name, part in splits.parts.items())
        answers = len(vocabulary(config.data, splits))
        return Needed(splits.images, texts, f"questions: {counts}", answers)

    def trial(
        self, config: TrainConfig, needs: Needed, encoder: FrozenClip, count: int
    ) -> tuple[VQATraining, VQABatch]:
        """Return a module with new weights and ``count`` samples of random features, to time a step of so many."""
        from clipmapper.tasks.vqa.training import trial

        return trial(config, needs, encoder, count)

    def module(self, config: TrainConfig, data: TaskData) -> VQATraining:
        """Build the Lightning module, which has the soft-label binary cross-entropy loss."""
        from clipmapper.tasks.vqa.training import new_module

        return new_module(config, data)

    def evaluate(self, config: TrainConfig, data: TaskData, model: VQAMapper, run: Path) -> dict[str, Any]:
        """Write the answers to validation and test, then print and return their official accuracy."""
        from clipmapper.tasks.vqa.evaluation import evaluate_splits

        return evaluate_splits(model, data, config.data.name, run)

    def examples(self, data: TaskData, run: Path, count: int) -> list[tuple[ImageSource, str]]:
        """Return some images with a question, the model's answer and its probability."""
        from clipmapper.tasks.vqa.evaluation import examples

        return examples(data, run, count)

    def score_checkpoint(self, config: EvaluateConfig, run: Path) -> dict[str, Any]:
        """Write a checkpoint's answers to a split, and their official accuracy."""
        from clipmapper.tasks.vqa.evaluation import score_checkpoint

        return score_checkpoint(config, run)

    def score_files(self, config: EvaluateConfig, run: Path) -> dict[str, Any]:
        """Score a VQA result file against official question and annotation files."""
        from clipmapper.tasks.vqa.scoring import score_result_file

        return score_result_file(config, run)

    def load(self, path: Path, config: Config | None = None) -> CLIPMapperVQA:
        """Load the whole model of a checkpoint, frozen and in evaluation mode."""
        from clipmapper.tasks.vqa.model import load_vqa

        return load_vqa(path, config)

    def trained(self, config: ExplainConfig) -> TrainedVQA:
        """Load the model with a split's questions, or with the user's image and question."""
        from clipmapper.tasks.vqa.selection import own_question
        from clipmapper.tasks.vqa.trained import load_trained

        return load_trained(config, config.split, config.checkpoint) if config.image is None else own_question(config)

    def write_pictures(
        self, trained: TrainedVQA, explainers: Mapping[str, Explainer], config: ExplainConfig, run: Path
    ) -> int:
        """Explain the questions that the config chooses; return their number."""
        from clipmapper.tasks.vqa.pictures import write_pictures
        from clipmapper.tasks.vqa.selection import select

        return write_pictures(trained, select(trained, config), explainers, config, run)
