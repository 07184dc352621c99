"""Reading VQAv2's official files: the layout, the joined records, and one clear line for every kind of error."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipmapper.data.images import BadImage, FileImage, load_rgb
from clipmapper.data.records import Question
from clipmapper.data.vqa_files import VQALayout, read_vqa, read_vqav2
from clipmapper.errors import UserError

Content = dict[str, list[Any]]


def question(question_id: int, image_id: int = 1, text: str = "what is it?") -> dict[str, Any]:
    return {"image_id": image_id, "question": text, "question_id": question_id}


def annotation(question_id: int, image_id: int = 1, answer: str = "kite") -> dict[str, Any]:
    return {
        "question_type": "what is",
        "multiple_choice_answer": answer,
        "answers": [{"answer": answer, "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)],
        "image_id": image_id,
        "answer_type": "other",
        "question_id": question_id,
    }


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def write_split(root: Path, split: str, image_id: int, labelled: bool = True) -> None:
    question_id = image_id * 1000
    write(root / f"v2_OpenEnded_mscoco_{split}_questions.json", {"questions": [question(question_id, image_id)]})
    if labelled:
        write(root / f"v2_mscoco_{split}_annotations.json", {"annotations": [annotation(question_id, image_id)]})


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), "red").save(path)


def test_questions_and_annotations_are_joined_by_id_in_the_questions_order(tmp_path: Path) -> None:
    questions = write(tmp_path / "q.json", {"questions": [question(12, 7, "Où est « l'été » ? 猫"), question(11, 7)]})
    annotations = write(tmp_path / "a.json", {"annotations": [annotation(11, 7, "no"), annotation(12, 7, "là")]})
    data = read_vqa(questions, annotations, lambda image_id: tmp_path / f"{image_id}.jpg")
    answers = tuple(annotation(12, 7, "là")["answers"])
    assert data.questions[0] == Question(12, 7, "Où est « l'été » ? 猫", answers, "là", "other", "what is")
    assert [record.question_id for record in data.questions] == [12, 11]
    assert data.images == {7: FileImage(tmp_path / "7.jpg")}


def test_without_annotations_the_labels_are_empty(tmp_path: Path) -> None:
    questions = write(tmp_path / "q.json", {"questions": [question(5, 3)]})
    data = read_vqa(questions, None, lambda image_id: tmp_path / f"{image_id}.jpg")
    assert data.questions == (Question(5, 3, "what is it?"),)


def test_answers_are_returned_unchanged(tmp_path: Path) -> None:
    """Missing or repeated answer ids must be kept, since they change the score of the official evaluator."""
    labels = annotation(1)
    labels["answers"] = [{"answer": " Yes"}, {"answer": " Yes"}, {"answer": "", "answer_id": 1, "raw_answer": "?"}]
    questions = write(tmp_path / "q.json", {"questions": [question(1)]})
    data = read_vqa(questions, write(tmp_path / "a.json", {"annotations": [labels]}), lambda _: tmp_path)
    assert data.questions[0].answers == tuple(labels["answers"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_text_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "q.json"
    path.write_text(json.dumps({"questions": [question(1, text="été ?")]}, ensure_ascii=False), encoding=encoding)
    assert read_vqa(path, None, lambda _: tmp_path).questions[0].question == "été ?"


@pytest.mark.parametrize("parent", ["images", "."])
def test_the_official_layout_is_read(tmp_path: Path, parent: str) -> None:
    write_split(tmp_path, "train2014", 1)
    write_split(tmp_path, "val2014", 2)
    write_image(tmp_path / parent / "train2014" / "COCO_train2014_000000000001.jpg")
    write_image(tmp_path / parent / "val2014" / "COCO_val2014_000000000002.jpg")
    data = read_vqav2(tmp_path, ["train2014", "val2014"])
    assert [record.question_id for record in data.questions] == [1000, 2000]
    assert [load_rgb(image).size for image in data.images.values()] == [(4, 3), (4, 3)]


@pytest.mark.parametrize("split", ["test2015", "test-dev2015"])
def test_the_test_splits_have_no_labels_and_share_the_images(tmp_path: Path, split: str) -> None:
    write_split(tmp_path, split, 9, labelled=False)
    write_image(tmp_path / "images" / "test2015" / "COCO_test2015_000000000009.jpg")
    data = read_vqav2(tmp_path, [split])
    assert data.questions[0].answers == ()
    assert load_rgb(data.images[9]).size == (4, 3)


def test_a_layout_can_have_other_file_names(tmp_path: Path) -> None:
    layout = VQALayout("{split}_q.json", "{split}_a.json", "images/{folder}/{image_id}.png", {}, ())
    write(tmp_path / "test_q.json", {"questions": [question(1, 4)]})
    write(tmp_path / "test_a.json", {"annotations": [annotation(1, 4)]})
    write_image(tmp_path / "images" / "test" / "4.png")
    data = read_vqav2(tmp_path, ["test"], layout)
    assert data.questions[0].multiple_choice_answer == "kite"
    assert load_rgb(data.images[4]).size == (4, 3)


def test_a_missing_image_is_an_error_only_when_it_is_opened(tmp_path: Path) -> None:
    write_split(tmp_path, "val2014", 2)
    (tmp_path / "images" / "val2014").mkdir(parents=True)
    data = read_vqav2(tmp_path, ["val2014"])
    with pytest.raises(BadImage, match=r"COCO_val2014_000000000002\.jpg: no such image"):
        load_rgb(data.images[2])


def test_missing_files_and_folders_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val2014_questions\.json: no such file; put the dataset's files there"):
        read_vqav2(tmp_path, ["val2014"])
    write_split(tmp_path, "val2014", 2)
    write_split(tmp_path, "train2014", 3, labelled=False)
    with pytest.raises(UserError, match="choose one of the splits found there: train2014, val2014"):
        read_vqav2(tmp_path, ["val2015"])
    with pytest.raises(UserError, match=r"images/val2014: no such folder, nor .*; put the images of val2014 there"):
        read_vqav2(tmp_path, ["val2014"])
    (tmp_path / "train2014").mkdir()
    with pytest.raises(UserError, match=r"v2_mscoco_train2014_annotations\.json: no such file"):
        read_vqav2(tmp_path, ["train2014"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not valid JSON"),
        (b'{"questions": [{"image_id": 1, "quest', "not valid JSON"),
        (b"\xff\xfe\xfa", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b"[]", r'is \[\], not an object with "questions"'),
        (b'{"annotations": []}', "has no \"questions\" .found: 'annotations'"),
        (b'{"questions": {}}', '"questions" is {}, not a list'),
    ],
)
def test_a_file_that_is_not_a_question_file_is_an_error(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_vqa(path, None, lambda _: tmp_path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_vqa(tmp_path, None, lambda _: tmp_path)


def remove(kind: str, field: str) -> Callable[[Content], None]:
    return lambda content: content[kind][1].pop(field)


def put(kind: str, field: str, value: Any) -> Callable[[Content], None]:
    return lambda content: content[kind][1].update({field: value})


def append(kind: str, entry: Any) -> Callable[[Content], None]:
    return lambda content: content[kind].append(entry)


@pytest.mark.parametrize(
    ("spoil", "file", "reason"),
    [
        (remove("questions", "question_id"), "q.json", 'entry 2: has no "question_id"'),
        (remove("questions", "question"), "q.json", 'question_id 12: has no "question"'),
        (remove("questions", "image_id"), "q.json", 'question_id 12: has no "image_id"'),
        (put("questions", "question_id", "12"), "q.json", "entry 2: \"question_id\" is '12', not a whole number"),
        (put("questions", "question_id", True), "q.json", 'entry 2: "question_id" is True, not a whole number'),
        (put("questions", "image_id", 1.0), "q.json", 'question_id 12: "image_id" is 1.0, not a whole number'),
        (put("questions", "question", None), "q.json", 'question_id 12: "question" is None, not a string'),
        (put("questions", "question", " \n"), "q.json", 'question_id 12: "question" is empty'),
        (put("questions", "question_id", 11), "q.json", "question_id 11 occurs twice .again in entry 2"),
        (append("questions", ["x"]), "q.json", "entry 3: is .'x'., not an object"),
        (append("questions", question(13)), "q.json", r"question_id 13 is missing from .*a\.json .1 such in total"),
        (append("annotations", annotation(13)), "a.json", r"question_id 13 is missing from .*q\.json .1 such in total"),
        (append("annotations", annotation(11)), "a.json", "question_id 11 occurs twice .again in entry 3"),
        (append("annotations", None), "a.json", "entry 3: is None, not an object"),
        (put("annotations", "image_id", 2), "a.json", "question_id 12 is about image 2, in the question file about"),
        (remove("annotations", "answers"), "a.json", 'question_id 12: has no "answers"'),
        (put("annotations", "answers", "kite"), "a.json", "question_id 12: \"answers\" is 'kite', not a list"),
        (put("annotations", "answers", []), "a.json", "question_id 12 has no answers"),
        (put("annotations", "answers", ["kite"]), "a.json", "question_id 12: an answer is 'kite', not"),
        (put("annotations", "answers", [{"answer": 3}]), "a.json", "question_id 12: an answer is {'answer': 3}, not"),
        (remove("annotations", "multiple_choice_answer"), "a.json", 'question_id 12: has no "multiple_choice_answer"'),
        (put("annotations", "answer_type", 1), "a.json", 'question_id 12: "answer_type" is 1, not a string'),
        (remove("annotations", "question_type"), "a.json", 'question_id 12: has no "question_type"'),
    ],
)
def test_one_line_has_the_file_the_entry_and_a_fix(
    tmp_path: Path, spoil: Callable[[Content], None], file: str, reason: str
) -> None:
    content: Content = {
        "questions": [question(11), question(12)],
        "annotations": [annotation(11), annotation(12)],
    }
    spoil(content)
    questions = write(tmp_path / "q.json", {"questions": content["questions"]})
    annotations = write(tmp_path / "a.json", {"annotations": content["annotations"]})
    with pytest.raises(UserError, match=reason) as caught:
        read_vqa(questions, annotations, lambda _: tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / file}: ")
    assert "; " in message
    assert "\n" not in message
    assert gc.isenabled()


def test_reading_one_split_twice_is_an_error(tmp_path: Path) -> None:
    write_split(tmp_path, "val2014", 2)
    (tmp_path / "val2014").mkdir()
    with pytest.raises(UserError, match="question_id 2000 is in two splits"):
        read_vqav2(tmp_path, ["val2014", "val2014"])


def test_real_files_are_read(real_mini: Path) -> None:
    data = read_vqav2(real_mini, ["train2014", "val2014"])
    assert len(data.questions) == 90 + 257
    assert len(data.images) == 58 + 44
    assert all(len(record.answers) == 10 for record in data.questions)
    assert {record.answer_type for record in data.questions} == {"yes/no", "number", "other"}
    assert all(Path(image.name).is_file() for image in data.images.values())
    with pytest.raises(UserError, match="choose one of the splits found there: train2014, val2014"):
        read_vqav2(real_mini, ["test2015"])
