"""Result files for the evaluation servers of VQA and COCO: their official names, and a check before they are sent.

EvalAI takes a JSON file with an answer to every question of ``test2015``, also in its phase Test-Dev
(visualqa.org/challenge.html). COCO's server takes ``results.zip`` with ``captions_val2014_NAME_results.json`` and
``captions_test2014_NAME_results.json`` (cocodataset.org/#captions-eval). Neither states a limit of the size. Both read
the files with their official Python programs, which refuse a file whose ids are not those of the split.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipmapper.config.data import CocoConfig, VQAv2Config
from clipmapper.config.schema import EvaluateConfig
from clipmapper.data.caption_files import coco_file
from clipmapper.data.vqa_files import VQAV2, read_questions
from clipmapper.errors import UserError
from clipmapper.files import (
    ANSWERS,
    CAPTIONS,
    ResultFields,
    read_bytes,
    read_field,
    read_id,
    read_json,
    read_results,
    write_atomic,
)
from clipmapper.metrics.vqa import normalize_answer

_CAPTION_FILE = re.compile(r"captions_(val|test)2014_.+_results\.json")


@dataclass(frozen=True)
class Submission:
    """The result file that is to be sent to a server.

    Attributes:
        file: Its official name.
        official: The official file that has the ids of the split: VQAv2's question file, or COCO's caption file or
            list of images.
    """

    file: str
    official: Path

    @classmethod
    def planned(cls, config: EvaluateConfig) -> Submission | None:
        """Return the file that ``submission`` asks for; None if it is null.

        Raises:
            UserError: ``split`` is not a whole split that a server scores.
        """
        name, data = config.submission, config.data
        if name is None:
            return None
        if config.task.name == "vqa":
            if not isinstance(data, VQAv2Config) or config.split != "test" or data.test_split is None:
                raise UserError(
                    f"submission={name}: the server takes whole splits of VQAv2; "
                    "give data=vqav2 split=test data.test_split=test2015"
                )
            file = f"vqa_OpenEnded_mscoco_{data.test_split}_{name}_results.json"
            return cls(file, Path(data.root) / VQAV2.questions.format(split=data.test_split))
        splits = {"val": data.val_split, "test": data.test_split} if isinstance(data, CocoConfig) else {}
        split = splits.get(config.split)
        if not isinstance(data, CocoConfig) or data.karpathy is not None or split is None:
            raise UserError(
                f"submission={name}: the server takes COCO's own splits; give data=coco data.karpathy=null, "
                "and split=val, or split=test data.test_split=test2014"
            )
        return cls(f"captions_{split}_{name}_results.json", coco_file(data, split))

    def write(self, results: Path, fields: ResultFields) -> None:
        """Write the texts of a run's result file under the official name beside it, and check what was written.

        Raises:
            UserError: The results are not those of a whole split.
        """
        rows = [{fields.id: id_, fields.text: text} for id_, text in read_results(results, fields).items()]
        path = results.with_name(self.file)
        write_atomic(path, json.dumps(rows).encode())
        check_answers(path, self.official) if fields is ANSWERS else check_captions(path, self.official)


def check_answers(path: Path, questions: Path) -> None:
    """Check a result file for the server of the VQA Challenge; warn about answers that may lose points there.

    Args:
        path: The result file.
        questions: VQAv2's question file of the split.

    Raises:
        UserError: The server would refuse the file; the message names the first problem.
    """
    if path.suffix != ".json":
        raise UserError(f"{path}: the server takes a file named NAME.json; rename it")
    _check_encoding(path)
    answers = read_results(path, ANSWERS)
    _check_ids(path, answers, questions, read_questions(questions, None).ids.tolist(), "question_id")
    if "test-dev" in questions.name:
        _warn(f"{path}: the server takes the answers to all of test2015, also in its phase Test-Dev")
    if other := [answer for answer in answers.values() if normalize_answer(answer) != answer]:
        _warn(
            f"{path}: {len(other):,} answers are not in the evaluator's form, such as {other[0]!r:.60} for "
            f"{normalize_answer(other[0])!r:.60}; where all people agree, they are compared as they are"
        )
    _said(path, len(answers), "questions", sum(not answer.strip() for answer in answers.values()))


def check_captions(path: Path, images: Path) -> None:
    """Check a result file for COCO's caption server.

    Args:
        path: The result file.
        images: COCO's caption file of the split, or its ``image_info_SPLIT.json``.

    Raises:
        UserError: The server would refuse the file; the message names the first problem.
    """
    if not _CAPTION_FILE.fullmatch(path.name):
        raise UserError(
            f"{path}: the server takes captions_val2014_NAME_results.json and captions_test2014_NAME_results.json; "
            "rename it"
        )
    split = path.name.split("_")[1]
    if split not in images.name:
        raise UserError(f"{path}: is named after {split}, but {images} is of another split; give the file of {split}")
    _check_encoding(path)
    captions = read_results(path, CAPTIONS)
    _check_ids(path, captions, images, image_ids(images), "image_id")
    _said(path, len(captions), "images", sum(not caption.strip() for caption in captions.values()))


def image_ids(path: Path) -> list[int]:
    """Return the ids of the images of a caption file or of a list of images of COCO."""
    entries = read_field(read_json(path), "images", list, f"{path}")
    return [read_id(entry, "id", f"{path}: images[{number}]") for number, entry in enumerate(entries)]


def _check_encoding(path: Path) -> None:
    try:
        encoding = json.detect_encoding(read_bytes(path, "JSON")[:4])
    except OSError:
        return  # read_results says so
    if encoding != "utf-8":
        raise UserError(f"{path}: is in {encoding}, which the server cannot read; save it in UTF-8 without a mark")


def _check_ids(path: Path, given: Collection[int], official: Path, ids: Sequence[int], name: str) -> None:
    if missing := [each for each in ids if each not in given]:
        raise UserError(
            f"{path}: has no {name} {missing[0]} of {official} ({len(missing):,} such in total); add all of them"
        )
    known = set(ids)
    if other := [each for each in given if each not in known]:
        raise UserError(
            f"{path}: {name} {other[0]} is not in {official} ({len(other):,} such in total); "
            "remove them, or give the file of the same split"
        )


def _said(path: Path, count: int, what: str, empty: int) -> None:
    gaps = f", {empty:,} of them empty" if empty else ""
    print(f"{path} can be sent: it has all {count:,} {what}{gaps}, each once", flush=True)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
