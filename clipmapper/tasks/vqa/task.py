"""Visual question answering."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmapper.tasks.vqa.config import ExplainConfig, VQATaskConfig

if TYPE_CHECKING:
    from clipmapper.config.schema import Config, EvaluateConfig, TrainConfig
    from clipmapper.tasks.vqa.data import TaskData
    from clipmapper.tasks.vqa.model import CLIPMapperVQA, VQAMapper
    from clipmapper.tasks.vqa.trained import Subject
    from clipmapper.tasks.vqa.training import VQATraining
    from explain import Explainer


class VQATask:
    """Answers to questions about pictures: soft-label classification over the data's answers."""

    name, samples, monitor = "vqa", "questions", "val/accuracy"
    schema, explain_schema = VQATaskConfig, ExplainConfig

    def data(self, config: TrainConfig) -> TaskData:
        from clipmapper.tasks.vqa.data import prepare

        data = prepare(config)
        data.describe()
        return data

    def module(self, config: TrainConfig, data: TaskData) -> VQATraining:
        from clipmapper.tasks.vqa.training import new_module

        return new_module(config, data)

    def evaluate(self, config: TrainConfig, data: TaskData, model: VQAMapper, run: Path) -> dict[str, Any]:
        from clipmapper.tasks.vqa.evaluation import evaluate_splits

        return evaluate_splits(model, data, config.data.name, run)

    def score_checkpoint(self, config: EvaluateConfig, run: Path) -> None:
        from clipmapper.tasks.vqa.evaluation import score_checkpoint

        score_checkpoint(config, run)

    def score_files(self, config: EvaluateConfig, run: Path) -> None:
        from clipmapper.tasks.vqa.scoring import score_result_file

        score_result_file(config, run)

    def load(self, path: Path, config: Config | None = None) -> CLIPMapperVQA:
        from clipmapper.tasks.vqa.model import load_vqa

        return load_vqa(path, config)

    def trained(self, config: ExplainConfig) -> Subject:
        from clipmapper.tasks.vqa.selection import own_subject
        from clipmapper.tasks.vqa.trained import load_subject

        return load_subject(config, config.split, config.checkpoint) if config.image is None else own_subject(config)

    def write_pictures(
        self, trained: Subject, explainers: Mapping[str, Explainer], config: ExplainConfig, folder: Path, scores: Path
    ) -> int:
        from clipmapper.tasks.vqa.pictures import make_pictures
        from clipmapper.tasks.vqa.selection import choose

        return make_pictures(trained, choose(trained, config), explainers, config, folder, scores)
