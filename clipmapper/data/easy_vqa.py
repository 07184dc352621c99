"""The third-party dataset easy-VQA (github.com/vzhou842/easy-VQA, PyPI ``easy-vqa``): one shape per image, 13 answers.

It is written once in VQAv2's format and then read like VQAv2: ``read_vqav2(root, ["train"], EASY_VQA)``.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clipmapper.data.vqa_files import VQALayout
from clipmapper.errors import UserError
from clipmapper.files import write_json

EASY_VQA = VQALayout(
    questions="v2_OpenEnded_easy_vqa_{split}_questions.json",
    annotations="v2_easy_vqa_{split}_annotations.json",
    image="images/{folder}/easy_vqa_{folder}_{image_id:012d}.png",
    folders={},
    unlabelled=(),
)
SPLITS = ("train", "test")

_Columns = tuple[list[str], list[str], list[int]]  # questions, answers, image ids
_Split = tuple[_Columns, dict[int, str]]  # the columns, and the path of each image by image id


def write_easy_vqa(root: Path) -> None:
    """Write the splits ``train`` and ``test`` of the package to ``root``, unless they are already there.

    The files are written to a temporary folder next to ``root``, which is then renamed, so an interrupted run leaves no
    ``root``. The image ids of the test split continue those of the training split, so that the two can be merged. The
    question type consists of the first two words of the question.

    Raises:
        UserError: The package is missing, ``root`` contains other files, or ``root`` cannot be written.
    """
    if _occupied(root):
        return _check_complete(root)
    splits = _package_splits()
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
            folder = Path(scratch) / root.name
            _write(folder, splits)
            folder.rename(root)
    except OSError as error:
        if _occupied(root):  # another process was faster
            return _check_complete(root)
        raise UserError(f"{root}: easy_vqa cannot be written ({error.strerror}); choose another folder") from error


def _occupied(root: Path) -> bool:
    return root.is_dir() and any(root.iterdir())


def _check_complete(root: Path) -> None:
    names = [name.format(split=split) for name in (EASY_VQA.questions, EASY_VQA.annotations) for split in SPLITS]
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise UserError(
            f"{root}: contains other files than those of easy_vqa (no {missing[0]}); empty it or choose another folder"
        )


def _package_splits() -> dict[str, _Split]:
    try:
        import easy_vqa
    except ImportError as error:
        raise UserError("the package easy-vqa is missing; install it: pip install easy-vqa") from error
    return {
        "train": (easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()),
        "test": (easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()),
    }


def _write(root: Path, splits: dict[str, _Split]) -> None:
    offset = 0
    for split, (columns, image_paths) in splits.items():
        questions, annotations = _official_entries(columns, offset)
        write_json(root / EASY_VQA.questions.format(split=split), {"task_type": "Open-Ended", "questions": questions})
        write_json(root / EASY_VQA.annotations.format(split=split), {"annotations": annotations})
        for image_id, path in image_paths.items():
            copy = root / EASY_VQA.image.format(folder=split, image_id=image_id + offset)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        offset += max(image_paths) + 1


def _official_entries(columns: _Columns, offset: int) -> tuple[list[Any], list[Any]]:
    """Return the entries of a question and an annotation file; question ids are 1000 · image id + question number."""
    questions, annotations = [], []
    asked: Counter[int] = Counter()
    for text, answer, image in zip(*columns, strict=True):
        image_id = image + offset
        ids = {"image_id": image_id, "question_id": 1000 * image_id + asked[image_id]}
        asked[image_id] += 1
        questions.append({**ids, "question": text})
        annotations.append(
            {
                **ids,
                "question_type": " ".join(text.split()[:2]),
                "answer_type": "yes/no" if answer in ("yes", "no") else "other",
                "multiple_choice_answer": answer,
                "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": id_} for id_ in range(1, 11)],
            }
        )
    return questions, annotations
