"""Official VQA accuracy, or a check, of a result file from any model; needs neither a checkpoint nor images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipmapper.config.schema import EvaluateConfig
from clipmapper.data.vqa_files import check_same_questions, read_questions
from clipmapper.errors import UserError
from clipmapper.files import ANSWERS, read_results, write_metrics
from clipmapper.metrics.vqa import VQAScore, print_score, score_predictions, summary
from clipmapper.tasks.submission import check_answers


def score_result_file(config: EvaluateConfig, run: Path) -> dict[str, Any]:
    """Print, write and return the official accuracy of the result file that the config names, or check the file.

    Raises:
        UserError: A file is not named in the config, or :func:`score_files` refuses the files.
    """
    if config.references:
        raise UserError("references=FILE belongs to captions: give task=caption, or questions=FILE annotations=FILE")
    if not (config.predictions and config.questions):
        raise UserError(
            "scoring a result file needs all three: predictions=FILE questions=FILE annotations=FILE; "
            "without annotations=FILE it is checked for the evaluation server"
        )
    if config.submission is not None:
        raise UserError("submission=NAME is for the answers of a checkpoint: leave it out with predictions=FILE")
    if not config.annotations:
        check_answers(Path(config.predictions), Path(config.questions))
        return {}
    score = score_files(Path(config.predictions), Path(config.questions), Path(config.annotations))
    scores = {"predictions": summary(score)}
    write_metrics(run / "metrics.json", scores, asdict(config))
    print_score(config.predictions, score)
    return scores


def score_files(predictions: Path, questions: Path, annotations: Path) -> VQAScore:
    """Score a result file, a JSON list of ``{"question_id", "answer"}``, on VQAv2's question and annotation files.

    Raises:
        UserError: A file is missing, is not JSON, doesn't have the official format, or has other question ids than the
            other files.
    """
    results = read_results(predictions, ANSWERS)
    asked = read_questions(questions, annotations)
    if not asked:
        raise UserError(f"{questions}: holds no questions; give the question file of the results")
    check_same_questions({question.question_id: None for question in asked}, results, f"{questions}", f"{predictions}")
    return score_predictions(results, asked)
