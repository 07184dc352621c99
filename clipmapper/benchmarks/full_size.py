"""Synthetic files with the names, formats and counts of VQAv2 and of COCO with Karpathy's splits.

``python -m clipmapper.benchmarks.full_size FOLDER`` writes ``FOLDER/vqav2`` and ``FOLDER/coco``, with the same images.
Questions, answers and captions are random words; images are small noise, and no two have the same bytes. With
``--test`` it writes the questions of VQAv2's test2015 and test-dev2015 instead, their images, and a result file with an
answer to every question of test2015.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipmapper.console import progress
from clipmapper.data.vqa_files import VQAV2

#: Images and questions of VQAv2's splits.
SPLITS = {"train2014": (82783, 443757), "val2014": (40504, 214354)}
#: The split without public answers: its images and questions, and those of the latter that are in test-dev2015.
TEST, TEST_DEV = (81434, 447793), 107394
#: Images of Karpathy's splits of val2014; the rest of it is ``restval``.
KARPATHY = {"val": 5000, "test": 5000}
_WORDS = 12000  # of the questions and captions
_DISTINCT = 0.4  # share of the questions that occur once, about
_ANSWERS, _RARE = 3200, 0.06  # frequent answers, and the share of human answers that are none of them
_TYPES = ("yes/no", "number", "other")
_TASK = {"task_type": "Open-Ended"}
_PHOTOS = 64  # different images; the others differ from one of them in a comment


def write(folder: Path, share: float, pixels: int, seed: int = 0) -> None:
    """Write the files of both datasets.

    Args:
        folder: The folder, which gets ``vqav2``, ``coco`` and ``images``.
        share: Share of the full numbers of images and questions, above 0 and at most 1.
        pixels: Width and height of the images.
        seed: Seed of everything that is random.
    """
    draw = np.random.default_rng(seed)
    text = _Texts(draw)
    for name in ("vqav2", "coco"):
        _make_folder(folder / name)
    ids = {split: np.arange(1, int(images * share) + 1) * 7 for split, (images, _) in SPLITS.items()}
    ids["val2014"] += int(ids["train2014"].max())
    for split, (_, count) in SPLITS.items():
        write_images(folder / "images" / split, split, ids[split].tolist(), pixels, draw)
        _write_questions(folder / "vqav2", split, ids[split], int(count * share), text, draw)
    _write_karpathy(folder / "coco" / "dataset_coco.json", ids, share, text, draw)


def write_test(folder: Path, share: float, pixels: int, seed: int = 0) -> None:
    """Write the questions of test2015 and test-dev2015, the images, and answers to all questions.

    The arguments are those of :func:`write`.
    """
    draw = np.random.default_rng(seed)
    text = _Texts(draw)
    split, (images, count) = "test2015", (int(number * share) for number in TEST)
    ids = np.arange(1, images + 1) * 7 + 7 * sum(number for number, _ in SPLITS.values())
    root = _make_folder(folder / "vqav2")
    write_images(folder / "images" / split, split, ids.tolist(), pixels, draw)
    entries = _questions(ids, count, text, draw)
    for name, number in ((split, count), ("test-dev2015", int(TEST_DEV * share))):
        _write(root / VQAV2.questions.format(split=name), {**_head(name), **_TASK, "questions": entries[:number]})
    answers = zip(entries, text.sentences(count, 1, 2), strict=True)
    results = [{"question_id": entry["question_id"], "answer": answer} for entry, answer in answers]
    _write(root / f"vqa_OpenEnded_mscoco_{split}_synthetic_results.json", results)


def _make_folder(folder: Path) -> Path:
    """Create the folder of a dataset, with a link to the images of all."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "images").is_symlink():
        (folder / "images").symlink_to("../images")
    return folder


def write_images(folder: Path, split: str, ids: Sequence[int], pixels: int, draw: np.random.Generator) -> None:
    """Write a noise image for each id; each has the id as a comment, so that no two files are equal."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = []
    for _ in range(_PHOTOS):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).resize((pixels, pixels))
        encoded = io.BytesIO()
        coarse.save(encoded, "JPEG", quality=90)
        photos.append(encoded.getvalue())
    with progress(len(ids), f"writing {split}", "images") as advance:
        for number, image_id in enumerate(ids):
            photo, comment = photos[number % _PHOTOS], str(image_id).encode()
            note = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment  # JPEG's comment segment
            (folder / f"COCO_{split}_{image_id:012d}.jpg").write_bytes(photo[:2] + note + photo[2:])
            advance()


class _Texts:
    """Random texts of a vocabulary in which few words are frequent."""

    def __init__(self, draw: np.random.Generator):
        self._draw = draw
        letters = np.array(list("abcdefghijklmnoprstuvw"))
        self._words = ["".join(draw.choice(letters, n)) for n in draw.integers(2, 9, _WORDS)]
        weight = 1 / np.arange(1, _WORDS + 1)
        self._share = weight / weight.sum()

    def sentences(self, count: int, least: int, most: int) -> Iterator[str]:
        """Yield sentences of ``least`` to ``most`` words."""
        lengths = self._draw.integers(least, most + 1, count)
        words = iter(self._draw.choice(_WORDS, int(lengths.sum()), p=self._share).tolist())
        for length in lengths.tolist():
            yield " ".join(self._words[next(words)] for _ in range(length))


def _head(split: str) -> dict[str, Any]:
    return {"info": {"description": "synthetic"}, "license": {"name": "none"}, "data_subtype": split}


def _questions(ids: np.ndarray, count: int, text: _Texts, draw: np.random.Generator) -> list[dict[str, Any]]:
    frequent = list(text.sentences(max(1, int(count * (1 - _DISTINCT) / 4)), 4, 8))
    rare = text.sentences(count, 4, 9)
    asked = [
        next(rare) if new else frequent[k]
        for new, k in zip(
            (draw.random(count) < _DISTINCT).tolist(), draw.integers(0, len(frequent), count).tolist(), strict=True
        )
    ]
    images = draw.choice(ids, count).tolist()
    return [
        {
            "image_id": image,
            "question": f"{question}?",
            "question_id": image * 1000 + number % 1000 + number // 1000 * 10**9,
        }
        for number, (image, question) in enumerate(zip(images, asked, strict=True))
    ]


def _write_questions(
    root: Path, split: str, ids: np.ndarray, count: int, text: _Texts, draw: np.random.Generator
) -> None:
    entries = _questions(ids, count, text, draw)
    _write(root / VQAV2.questions.format(split=split), {**_head(split), **_TASK, "questions": entries})
    names = list(dict.fromkeys(text.sentences(2 * _ANSWERS, 1, 2)))[:_ANSWERS]
    weight = 1 / np.arange(1, len(names) + 1)
    best = draw.choice(len(names), count, p=weight / weight.sum()).tolist()
    others = draw.choice(len(names), (count, 10), p=weight / weight.sum())
    agree = draw.random((count, 10))
    odd = text.sentences(count * 10, 2, 4)
    labels = []
    for entry, answer, other, sure in zip(entries, best, others.tolist(), agree.tolist(), strict=True):
        said = [
            next(odd) if share < _RARE else names[answer if share < 0.8 else each]
            for each, share in zip(other, sure, strict=True)
        ]
        answers = [
            {"answer": each, "answer_confidence": "yes", "answer_id": number} for number, each in enumerate(said, 1)
        ]
        labels.append(
            {
                "question_type": "what is",
                "multiple_choice_answer": names[answer],
                "answers": answers,
                "image_id": entry["image_id"],
                "answer_type": _TYPES[answer % 3],
                "question_id": entry["question_id"],
            }
        )
    _write(root / VQAV2.annotations.format(split=split), {**_head(split), "annotations": labels})


def _write_karpathy(
    path: Path, ids: dict[str, np.ndarray], share: float, text: _Texts, draw: np.random.Generator
) -> None:
    images = [(split, image_id) for split, found in ids.items() for image_id in found.tolist()]
    sentences = text.sentences(7 * len(images), 7, 15)
    parts = iter([name for name, count in KARPATHY.items() for _ in range(int(count * share))])
    entries, number = [], 0
    for imgid, ((split, image_id), captions) in enumerate(
        zip(images, draw.choice([5, 6], len(images), p=[0.98, 0.02]).tolist(), strict=True)
    ):
        said = [next(sentences) for _ in range(captions)]
        entries.append(
            {
                "filepath": split,
                "sentids": list(range(number, number + captions)),
                "filename": f"COCO_{split}_{image_id:012d}.jpg",
                "imgid": imgid,
                "split": "train" if split == "train2014" else next(parts, "restval"),
                "sentences": [
                    {"tokens": each.split(), "raw": f"{each}.", "imgid": imgid, "sentid": number + k}
                    for k, each in enumerate(said)
                ],
                "cocoid": image_id,
            }
        )
        number += captions
    _write(path, {"images": entries, "dataset": "coco"})


def _write(path: Path, content: Any) -> None:
    with path.open("w") as file:
        json.dump(content, file)


def main() -> None:
    """Read the command line and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder that gets vqav2, coco and images")
    parser.add_argument("--share", type=float, default=1.0, help="share of the full numbers (default: all)")
    parser.add_argument("--pixels", type=int, default=64, help="width and height of the images (default: 64)")
    parser.add_argument("--test", action="store_true", help="write VQAv2's test2015 and test-dev2015 instead")
    given = parser.parse_args()
    (write_test if given.test else write)(given.folder, given.share, given.pixels)


if __name__ == "__main__":
    main()
