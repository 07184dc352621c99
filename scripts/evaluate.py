"""Scores a trained model, or anyone's result file, by the official metrics of its task.

``python scripts/evaluate.py task=vqa mapper=b`` takes the newest fitting checkpoint, as does ``task=caption``;
``python scripts/evaluate.py predictions=FILE questions=FILE annotations=FILE`` needs no model, nor does
``python scripts/evaluate.py task=caption predictions=FILE references=FILE``.
"""

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.schema import EvaluateConfig
from clipmapper.errors import UserError
from clipmapper.tasks.caption.config import CaptionTaskConfig


@command("evaluate")
def main(config: DictConfig, run: Path) -> None:
    """One evaluation."""
    checked: EvaluateConfig = typed(config, EvaluateConfig)
    files = (checked.predictions, checked.questions, checked.annotations, checked.references)
    if isinstance(checked.task, CaptionTaskConfig):
        score_caption_file(checked, run) if any(files) else score_caption_model(checked, checked.task, run)
    elif any(files):
        score_file(checked, run)
    else:
        score_model(checked, run)


def score_file(config: EvaluateConfig, run: Path) -> None:
    """Official accuracy of a result file."""
    from clipmapper.metrics.vqa import summary, table
    from clipmapper.results import write_metrics
    from clipmapper.tasks.vqa.scoring import score_files

    if config.references:
        raise UserError("references=FILE belongs to captions: give task=caption, or questions=FILE annotations=FILE")
    if not (config.predictions and config.questions and config.annotations):
        raise UserError("scoring a result file takes all three: predictions=FILE questions=FILE annotations=FILE")
    score = score_files(Path(config.predictions), Path(config.questions), Path(config.annotations))
    write_metrics(run / "metrics.json", {"predictions": summary(score)}, asdict(config))
    print(table(config.predictions, score))


def score_model(config: EvaluateConfig, run: Path) -> None:
    """Official accuracy of a checkpoint on a split."""
    from clipmapper.checkpoint import find_checkpoint
    from clipmapper.metrics.vqa import summary, table
    from clipmapper.results import write_metrics
    from clipmapper.tasks.vqa.answers import AnswerVocabulary
    from clipmapper.tasks.vqa.data import prepare
    from clipmapper.tasks.vqa.evaluation import evaluate
    from clipmapper.tasks.vqa.model import load_vqa

    checkpoint = find_checkpoint(config, config.checkpoint)
    print(f"checkpoint: {checkpoint}", flush=True)
    model = load_vqa(checkpoint, config)
    prepared = prepare(config, AnswerVocabulary(model.answers))
    score = evaluate(model.vqa, prepared.dataset(config.split), model.answers, run, config.split)
    if score is None:
        print(f"{config.data.name} {config.split} has no human answers: wrote the predictions only")
        return
    write_metrics(run / "metrics.json", {config.split: summary(score), "checkpoint": str(checkpoint)}, asdict(config))
    print(table(f"{config.data.name} {config.split}", score))


def score_caption_file(config: EvaluateConfig, run: Path) -> None:
    """The caption metrics of a result file."""
    from clipmapper.metrics.captions import summary
    from clipmapper.results import write_metrics
    from clipmapper.tasks.caption.evaluation import table
    from clipmapper.tasks.caption.scoring import score_caption_files

    if not (config.predictions and config.references) or config.questions or config.annotations:
        raise UserError("scoring captions takes these two: predictions=FILE references=FILE")
    found = score_caption_files(Path(config.predictions), Path(config.references), config.split)
    scores = summary(found)
    write_metrics(run / "metrics.json", {"predictions": scores}, asdict(config))
    print(table(config.predictions, scores))


def score_caption_model(config: EvaluateConfig, task: CaptionTaskConfig, run: Path) -> None:
    """The caption metrics of a checkpoint on a split."""
    from clipmapper.checkpoint import find_checkpoint
    from clipmapper.data.shapes.caption_words import caption_judge
    from clipmapper.results import write_metrics
    from clipmapper.tasks.caption.data import prepare_images
    from clipmapper.tasks.caption.decoding import check_length
    from clipmapper.tasks.caption.evaluation import evaluate_captions, table
    from clipmapper.tasks.caption.model import load_caption

    checkpoint = find_checkpoint(config, config.checkpoint)
    print(f"checkpoint: {checkpoint}", flush=True)
    model = load_caption(checkpoint, config)
    check_length(model.encoder, task.max_length)
    prepared = prepare_images(config)
    images, training = prepared.images(config.split), prepared.splits.train.images
    judge = caption_judge(config.data, config.split)
    scores = evaluate_captions(model, images, training, task.max_length, run, config.split, judge)
    if scores is None:
        print(f"{config.data.name} {config.split} has no captions by people: wrote the model's only")
        return
    write_metrics(run / "metrics.json", {config.split: scores, "checkpoint": str(checkpoint)}, asdict(config))
    print(table(f"{config.data.name} {config.split}", scores))


if __name__ == "__main__":
    main()
