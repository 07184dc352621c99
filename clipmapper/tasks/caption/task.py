"""Image captioning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmapper.tasks.base import Needed
from clipmapper.tasks.caption.config import CaptionTaskConfig, ExplainCaptionConfig

if TYPE_CHECKING:
    from clipmapper.config.schema import Config, EvaluateConfig, TrainConfig
    from clipmapper.data.records import ImageSource
    from clipmapper.encoder.load import FrozenClip
    from clipmapper.tasks.caption.data import CaptionBatch, TaskData
    from clipmapper.tasks.caption.model import CaptionMapper, CLIPMapperCaption
    from clipmapper.tasks.caption.trained import TrainedCaptioner
    from clipmapper.tasks.caption.training import CaptionTraining
    from explain import Explainer


class CaptionTask:
    """Captioning images: next-token prediction over CLIP's BPE tokens, with greedy decoding.

    The loss is in :mod:`clipmapper.tasks.caption.training`.
    """

    name, samples = "caption", "captions"
    schema, explain_schema = CaptionTaskConfig, ExplainCaptionConfig

    def data(self, config: TrainConfig) -> TaskData:
        """Read the images and captions and compute their features; print how many there are."""
        from clipmapper.tasks.caption.data import prepare

        data = prepare(config)
        data.describe()
        return data

    def needs(self, config: TrainConfig) -> Needed:
        """Read the captions; return the images by id, the captions of training and validation, and their numbers."""
        from clipmapper.data.datasets import load_captions
        from clipmapper.tasks.caption.data import captions_of

        splits = load_captions(config.data)
        texts = [text for part in ("train", "val") for text in captions_of(splits.part(part).images)]
        counts = ", ".join(f"{len(part.images):,} {name}" for name, part in splits.parts.items())
        return Needed(splits.images, texts, f"images: {counts}; captions: {len(texts):,}")

    def trial(
        self, config: TrainConfig, needs: Needed, encoder: FrozenClip, count: int
    ) -> tuple[CaptionTraining, CaptionBatch]:
        """Return a module with new weights and ``count`` samples of random features, to time a step of so many."""
        from clipmapper.tasks.caption.training import trial

        return trial(config, needs, encoder, count)

    def module(self, config: TrainConfig, data: TaskData) -> CaptionTraining:
        """Build the Lightning module, which has the next-token cross-entropy loss."""
        from clipmapper.tasks.caption.training import new_module

        return new_module(config, data)

    def evaluate(self, config: TrainConfig, data: TaskData, model: CaptionMapper, run: Path) -> dict[str, Any]:
        """Caption validation and test, then print and return the caption metrics."""
        from clipmapper.tasks.caption.evaluation import evaluate_splits

        return evaluate_splits(model, data, config, run)

    def examples(self, data: TaskData, run: Path, count: int) -> list[tuple[ImageSource, str]]:
        """Return some images with the model's caption."""
        from clipmapper.tasks.caption.evaluation import examples

        return examples(data, run, count)

    def score_checkpoint(self, config: EvaluateConfig, run: Path) -> dict[str, Any]:
        """Write a checkpoint's captions of a split, and their caption metrics."""
        from clipmapper.tasks.caption.evaluation import score_checkpoint

        return score_checkpoint(config, run)

    def score_files(self, config: EvaluateConfig, run: Path) -> dict[str, Any]:
        """Score a caption result file against a file of reference captions."""
        from clipmapper.tasks.caption.scoring import score_result_file

        return score_result_file(config, run)

    def load(self, path: Path, config: Config | None = None) -> CLIPMapperCaption:
        """Load the whole model of a checkpoint, frozen and in evaluation mode."""
        from clipmapper.tasks.caption.model import load_caption

        return load_caption(path, config)

    def trained(self, config: ExplainCaptionConfig) -> TrainedCaptioner:
        """Load the model with a split's images, or with the user's image."""
        from clipmapper.tasks.caption.trained import load_trained, own_picture

        if config.image is not None:
            return own_picture(config, config.image, config.checkpoint)
        return load_trained(config, config.split, config.checkpoint)

    def write_pictures(
        self, trained: TrainedCaptioner, explainers: Mapping[str, Explainer], config: ExplainCaptionConfig, run: Path
    ) -> int:
        """Explain the captions of the images that the config chooses; return their number."""
        from clipmapper.tasks.caption.pictures import select, write_pictures

        return write_pictures(trained, select(trained, config), explainers, config, run)
