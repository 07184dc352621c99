"""Writer of the ``shapes`` dataset in the official formats, with an evidence file for every split.

The root contains VQAv2's question and annotation JSON, COCO's caption JSON, ``images/``, ``masks/`` (mode L, 0 is
background, i + 1 is object i) and, for every split, ``shapes_{split}_evidence.json``. This file contains the objects of
all scenes and, for every question, the objects (indices) and the words ([start, end) characters) that its answer
depends on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from clipmapper.config.data import ShapesConfig
from clipmapper.console import progress
from clipmapper.data.shapes.captions import captions
from clipmapper.data.shapes.disagreement import disagree
from clipmapper.data.shapes.questions import KINDS, ShapesQuestion, ask_more, ask_several
from clipmapper.data.shapes.render import draw_masks, draw_scene
from clipmapper.data.shapes.scene import Scene, SceneObject, sample_scene
from clipmapper.data.vqa_files import VQALayout
from clipmapper.errors import UserError
from clipmapper.files import read_bytes
from clipmapper.process.partial import filled
from clipmapper.process.workers import pool
from clipmapper.storage.checksums import note_unsealed

SPLITS = ("train", "val", "test")
LAYOUT = VQALayout(
    questions="v2_OpenEnded_shapes_{split}_questions.json",
    annotations="v2_shapes_{split}_annotations.json",
    image="images/{folder}/shapes_{folder}_{image_id:012d}.png",
    folders={},
    unlabelled=(),
)
EVIDENCE = "shapes_{split}_evidence.json"
CHECKSUMS = "shapes_{split}.b2"  # of the JSON files, in the format of b2sum
_IMAGE_FOLDERS = ("images", "masks")
CAPTIONS = 5  # captions of every image
_FORMAT = 3  # part of the folder's name, so that a new version of the generator writes a new dataset
_SPLIT_STRIDE = 10_000_000  # distance between the first image ids of the splits, so that no id is in two splits


def write_shapes(config: ShapesConfig, split: str) -> Path:
    """Write one split of the dataset that a config describes, unless it exists already.

    The name of the dataset's folder contains the seed and the sizes. A split is written into a folder of its own and
    moved when it is complete; its evidence file is moved last, so a split with this file is complete.

    Returns:
        The folder of the dataset, which is under ``config.root``.

    Raises:
        UserError: There is no such split, a file of it was damaged or edited, or ``config.extra_questions`` names an
            unknown kind.
    """
    if split not in SPLITS:
        raise UserError(f"split={split}: this data has {', '.join(SPLITS)}")
    if unknown := [kind for kind in config.extra_questions if kind not in KINDS]:
        raise UserError(f"data.extra_questions: no kind of question is called {unknown[0]}; kinds: {', '.join(KINDS)}")
    folder = Path(config.root) / _name(config)
    if (folder / EVIDENCE.format(split=split)).is_file():
        _verify(folder, split)
        return folder
    with filled(folder) as half:
        _write_split(half, split, getattr(config, f"{split}_scenes"), config)
        _move_split(half, folder, split)
    return folder


def _verify(folder: Path, split: str) -> None:
    """Compare the JSON files of a split with their checksums; images and masks have their own in the PNG format."""
    sums = folder / CHECKSUMS.format(split=split)
    if not sums.is_file():
        note_unsealed(sums.with_name(EVIDENCE.format(split=split)))
        return
    for line in read_bytes(sums, "text").decode("utf-8", "replace").splitlines():
        held, _, name = line.partition("  ")
        try:
            found = _sum(read_bytes(folder / Path(name).name, "JSON"))
        except (OSError, ValueError) as error:  # a damaged name
            found = str(error)
        if found != held:
            what = f"{folder / Path(name).name}: damaged or edited since it was generated"
            raise UserError(f"{what}; remove {folder}, so that data=shapes is generated again")


def _sum(content: bytes) -> str:
    return hashlib.blake2b(content).hexdigest()


def _move_split(half: Path, folder: Path, split: str) -> None:
    """Move a complete split into the dataset's folder; what another process has moved there already is kept."""
    for kind in _IMAGE_FOLDERS:
        target = folder / kind / split
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            (half / kind / split).rename(target)
        except OSError:
            if not target.is_dir():
                raise
    last = EVIDENCE.format(split=split)
    for path in sorted((*half.glob("*.json"), *half.glob("*.b2")), key=lambda path: path.name == last):
        path.replace(folder / path.name)


def _name(config: ShapesConfig) -> str:
    sizes = f"{config.train_scenes}-{config.val_scenes}-{config.test_scenes}"
    extra = "".join(f"-{kind}{count}" for kind, count in config.extra_questions.items())
    extra += f"-captions{config.extra_captions}" if config.extra_captions else ""
    annotators = "" if config.disagreement == "none" else f"-{config.disagreement}"
    return f"v{_FORMAT}-seed{config.seed}-{sizes}x{config.questions_per_scene}{extra}{annotators}-{config.pixels}px"


def _write_split(root: Path, split: str, scenes: int, config: ShapesConfig) -> None:
    for kind in _IMAGE_FOLDERS:
        (root / kind / split).mkdir(parents=True)
    chunks = [range(start, min(start + 100, scenes)) for start in range(0, scenes, 100)]
    work = partial(_write_scenes, root=root, split=split, config=config)
    parts: list[dict[str, Any]] = []
    with (
        pool(config.workers) as processes,
        progress(scenes, f"drawing {split}", "scenes") as advance,
    ):
        for part in processes.map(work, chunks):
            parts += part
            advance(len(part))
    info = {"description": f"shapes, {split}", "version": str(_FORMAT), "seed": config.seed}
    sums = []
    for name, content in _files(split, parts, info).items():
        encoded = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        (root / name).write_bytes(encoded)
        sums.append(f"{_sum(encoded)}  {name}\n")
    (root / CHECKSUMS.format(split=split)).write_text("".join(sums), encoding="utf-8")


def _files(split: str, scenes: list[dict[str, Any]], info: dict[str, Any]) -> dict[str, Any]:
    """Return the content of every JSON file of a split, by file name."""
    joined = {
        key: [entry for scene in scenes for entry in scene[key]] for key in ("questions", "annotations", "captions")
    }
    evidence = {entry["question_id"]: entry for scene in scenes for entry in scene["evidence"]}
    images = [scene["image"] for scene in scenes]
    head = {"info": info, "data_type": "shapes", "data_subtype": split, "license": {"name": "MIT"}}
    return {
        LAYOUT.questions.format(split=split): {**head, "task_type": "Open-Ended", "questions": joined["questions"]},
        LAYOUT.annotations.format(split=split): {**head, "annotations": joined["annotations"]},
        f"captions_shapes_{split}.json": {
            "info": info,
            "licenses": [],
            "images": images,
            "annotations": [{"id": k, **caption} for k, caption in enumerate(joined["captions"])],
        },
        EVIDENCE.format(split=split): {
            "info": info,
            "scenes": {str(s["image"]["id"]): s["scene"] for s in scenes},
            "questions": {str(question_id): entry for question_id, entry in evidence.items()},
        },
    }


def draw_sample(config: ShapesConfig, split: str, index: int) -> tuple[Scene, list[ShapesQuestion], list[str]]:
    """Draw a scene with its questions and captions, which depend only on the config, the split and the index."""
    name = f"shapes {config.seed} {split} {index}"
    rng = Random(name)
    scene = sample_scene(rng)
    questions = ask_several(scene, config.questions_per_scene, rng)
    texts = captions(scene, CAPTIONS, rng)
    # The rest is drawn apart, so that scenes, captions and the other questions stay the same.
    if split == "train":
        questions += ask_more(scene, config.extra_questions, Random(f"{name} further"), questions)
        texts += captions(scene, config.extra_captions, Random(f"{name} further captions"))
    if config.disagreement == "vqav2":
        apart = Random(f"{name} disagreement")
        questions = [disagree(question, apart) for question in questions]
    return scene, questions, texts


def _write_scenes(indices: Iterable[int], root: Path, split: str, config: ShapesConfig) -> list[dict[str, Any]]:
    """Write the images and masks of scenes and return their JSON entries."""
    entries = []
    for index in indices:
        scene, questions, texts = draw_sample(config, split, index)
        image_id = SPLITS.index(split) * _SPLIT_STRIDE + index
        name = LAYOUT.image.format(folder=split, image_id=image_id)
        draw_scene(scene, config.pixels).save(root / name, compress_level=1)
        draw_masks(scene, config.pixels).save(root / name.replace("images/", "masks/", 1), compress_level=1)
        entries.append(_entries(scene, image_id, Path(name).name, questions, texts, config.pixels))
    return entries


def _entries(
    scene: Scene, image_id: int, file_name: str, questions: list[ShapesQuestion], texts: list[str], pixels: int
) -> dict[str, Any]:
    ids = [image_id * 100 + k for k in range(len(questions))]
    return {
        "image": {"id": image_id, "file_name": file_name, "width": pixels, "height": pixels},
        "scene": {"background": asdict(scene.background), "objects": [_object(o) for o in scene.objects]},
        "questions": [
            {"image_id": image_id, "question": q.text, "question_id": i} for i, q in zip(ids, questions, strict=True)
        ],
        "annotations": [_annotation(q, i, image_id) for i, q in zip(ids, questions, strict=True)],
        "evidence": [
            {"question_id": i, "objects": list(q.objects), "words": [list(span) for span in q.words]}
            for i, q in zip(ids, questions, strict=True)
        ],
        "captions": [{"image_id": image_id, "caption": text} for text in texts],
    }


def _object(o: SceneObject) -> dict[str, Any]:
    numbers = {name: round(value, 4) for name, value in asdict(o).items() if isinstance(value, float)}
    return {**asdict(o), **numbers}


def _annotation(q: ShapesQuestion, question_id: int, image_id: int) -> dict[str, Any]:
    return {
        "question_type": q.kind,
        "multiple_choice_answer": q.answer,
        "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": k} for k, a in enumerate(q.answers, 1)],
        "image_id": image_id,
        "answer_type": q.answer_type,
        "question_id": question_id,
    }
