"""Scores a trained model, or anyone's result file, by the official VQA accuracy.

``python scripts/evaluate.py task=vqa mapper=b`` takes the newest fitting checkpoint;
``python scripts/evaluate.py predictions=FILE questions=FILE annotations=FILE`` needs no model.
"""

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import command
from clipmapper.config import EvaluateConfig, typed
from clipmapper.errors import UserError


@command("evaluate")
def main(config: DictConfig, run: Path) -> None:
    """One evaluation."""
    checked: EvaluateConfig = typed(config, EvaluateConfig)
    files = (checked.predictions, checked.questions, checked.annotations)
    if any(files):
        score_file(checked, run)
    else:
        score_model(checked, run)


def score_file(config: EvaluateConfig, run: Path) -> None:
    """Official accuracy of a result file."""
    from clipmapper.metrics.vqa import score_files, summary, table
    from clipmapper.results import write_metrics

    if not (config.predictions and config.questions and config.annotations):
        raise UserError("scoring a result file takes all three: predictions=FILE questions=FILE annotations=FILE")
    score = score_files(Path(config.predictions), Path(config.questions), Path(config.annotations))
    write_metrics(run / "metrics.json", {"predictions": summary(score)}, asdict(config))
    print(table(config.predictions, score))


def score_model(config: EvaluateConfig, run: Path) -> None:
    """Official accuracy of a checkpoint on a split."""
    from clipmapper.checkpoint import find_checkpoint, load_vqa
    from clipmapper.data.answers import AnswerVocabulary
    from clipmapper.evaluation import evaluate
    from clipmapper.metrics.vqa import summary, table
    from clipmapper.prepared import prepare
    from clipmapper.results import write_metrics

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


if __name__ == "__main__":
    main()
