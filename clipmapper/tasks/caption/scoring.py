"""Caption metrics, or a check, of a result file from any model; needs neither a checkpoint nor images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipmapper.config.schema import EvaluateConfig
from clipmapper.data.caption_files import IMAGE_INFO, CaptionData, read_coco_captions, read_karpathy
from clipmapper.errors import UserError
from clipmapper.files import CAPTIONS, read_json, read_results, write_metrics
from clipmapper.metrics.captions import CaptionScores, score_captions, summary
from clipmapper.tasks.caption.evaluation import print_scores
from clipmapper.tasks.submission import check_captions


def score_result_file(config: EvaluateConfig, run: Path) -> dict[str, Any]:
    """Print, write and return the caption metrics of the result file that the config names, or check the file.

    Raises:
        UserError: A file is not named in the config, or :func:`score_caption_files` refuses the files.
    """
    if not (config.predictions and config.references) or config.questions or config.annotations:
        raise UserError("scoring captions needs these two: predictions=FILE references=FILE")
    if config.submission is not None:
        raise UserError("submission=NAME is for the captions of a checkpoint: leave it out with predictions=FILE")
    if Path(config.references).name.startswith(IMAGE_INFO):
        check_captions(Path(config.predictions), Path(config.references))
        return {}
    scores = summary(score_caption_files(Path(config.predictions), Path(config.references), config.split))
    write_metrics(run / "metrics.json", {"predictions": scores}, asdict(config))
    print_scores(config.predictions, scores)
    return {"predictions": scores}


def score_caption_files(predictions: Path, references: Path, split: str) -> CaptionScores:
    """Score a result file, ``[{image_id, caption}]``, against COCO's caption file or a split of Karpathy's file.

    Raises:
        UserError: A file is missing or malformed, the files have different images, or an image has no reference.
    """
    return score_captions(read_results(predictions, CAPTIONS), _references(references, split).references())


def _references(path: Path, split: str) -> CaptionData:
    """Read COCO's or Karpathy's format, which differ in the field that contains the captions."""
    content, nowhere = read_json(path), Path()  # a dummy image folder: no image is opened
    if isinstance(content, dict) and "annotations" not in content and "images" in content:
        return read_karpathy(path, nowhere, split)
    return read_coco_captions(path, nowhere)
