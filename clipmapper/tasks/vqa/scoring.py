"""The official accuracy of anyone's result file; needs no model and no images."""

from __future__ import annotations

from pathlib import Path

from clipmapper.data.result_files import ANSWERS, read_results
from clipmapper.data.vqa_files import check_same_questions, read_questions
from clipmapper.errors import UserError
from clipmapper.metrics.vqa import VQAScore, score_predictions


def score_files(predictions: Path, questions: Path, annotations: Path) -> VQAScore:
    """Scores a result file, a JSON list of ``{"question_id", "answer"}``, on VQAv2's question and annotation files.

    Raises ``UserError`` where a file is missing, is not JSON, has not the official layout or does not fit the others.
    """
    results = read_results(predictions, ANSWERS)
    asked = read_questions(questions, annotations)
    if not asked:
        raise UserError(f"{questions}: holds no questions; give the question file that the results answer")
    check_same_questions({question.question_id: None for question in asked}, results, f"{questions}", f"{predictions}")
    return score_predictions(results, asked)
