"""Image captioning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmapper.tasks.caption.config import CaptionTaskConfig, ExplainCaptionConfig

if TYPE_CHECKING:
    from clipmapper.config.schema import Config, EvaluateConfig, TrainConfig
    from clipmapper.tasks.caption.data import TaskData
    from clipmapper.tasks.caption.model import CaptionMapper, CLIPMapperCaption
    from clipmapper.tasks.caption.trained import CaptionSubject
    from clipmapper.tasks.caption.training import CaptionTraining
    from explain import Explainer


class CaptionTask:
    """Captions of pictures: next-token prediction over CLIP's BPE, decoded greedily."""

    name, samples, monitor = "caption", "captions", "val/CIDEr"
    schema, explain_schema = CaptionTaskConfig, ExplainCaptionConfig

    def data(self, config: TrainConfig) -> TaskData:
        from clipmapper.tasks.caption.data import prepare

        data = prepare(config)
        data.describe()
        return data

    def module(self, config: TrainConfig, data: TaskData) -> CaptionTraining:
        from clipmapper.tasks.caption.training import new_module

        return new_module(config, data)

    def evaluate(self, config: TrainConfig, data: TaskData, model: CaptionMapper, run: Path) -> dict[str, Any]:
        from clipmapper.tasks.caption.evaluation import evaluate_splits

        return evaluate_splits(model, data, config, run)

    def score_checkpoint(self, config: EvaluateConfig, run: Path) -> None:
        from clipmapper.tasks.caption.evaluation import score_checkpoint

        score_checkpoint(config, run)

    def score_files(self, config: EvaluateConfig, run: Path) -> None:
        from clipmapper.tasks.caption.scoring import score_result_file

        score_result_file(config, run)

    def load(self, path: Path, config: Config | None = None) -> CLIPMapperCaption:
        from clipmapper.tasks.caption.model import load_caption

        return load_caption(path, config)

    def trained(self, config: ExplainCaptionConfig) -> CaptionSubject:
        from clipmapper.tasks.caption.trained import load_caption_subject, own_picture

        if config.image is not None:
            return own_picture(config, config.image, config.checkpoint)
        return load_caption_subject(config, config.split, config.checkpoint)

    def write_pictures(
        self,
        trained: CaptionSubject,
        explainers: Mapping[str, Explainer],
        config: ExplainCaptionConfig,
        folder: Path,
        scores: Path,
    ) -> int:
        from clipmapper.tasks.caption.pictures import choose_pictures, make_caption_pictures

        return make_caption_pictures(trained, choose_pictures(trained, config), explainers, config, folder, scores)
