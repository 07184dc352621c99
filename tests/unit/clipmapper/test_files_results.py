"""Result files: reading back what was written, compatibility with COCO's own code, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from clipmapper.errors import UserError
from clipmapper.files import ANSWERS, CAPTIONS, read_results, write_results


def test_fields_and_order_are_those_of_the_evaluation_servers(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "results.json"
    write_results(path, CAPTIONS, {391895: 'a "man"\nrides é', 42: ""})
    assert json.loads(path.read_text(encoding="utf-8")) == [
        {"image_id": 391895, "caption": 'a "man"\nrides é'},
        {"image_id": 42, "caption": ""},
    ]
    write_results(path, ANSWERS, {7: "yes"})
    assert json.loads(path.read_text(encoding="utf-8")) == [{"question_id": 7, "answer": "yes"}]


@pytest.mark.parametrize("fields", [ANSWERS, CAPTIONS])
def test_written_results_are_read_back(tmp_path: Path, fields: Any) -> None:
    results = {3: "a cat", 1: "", 2: "猫\u2028"}
    write_results(tmp_path / "r.json", fields, results)
    assert list(read_results(tmp_path / "r.json", fields).items()) == list(results.items())


def test_cocos_own_code_reads_a_result_file(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in (3, 9)]
    (tmp_path / "c.json").write_text(json.dumps({"info": {}, "images": images, "annotations": []}))
    write_results(tmp_path / "r.json", CAPTIONS, {9: "a dog", 3: "a cat"})
    found = COCO(str(tmp_path / "c.json")).loadRes(str(tmp_path / "r.json"))
    assert found.imgToAnns[3][0]["caption"] == "a cat"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"1": "red"}, 'not a result file; give a list [{"question_id": 1, "answer": "…"}]'),
        ([{"question_id": 1, "answer": "x"}, {"question_id": 3}], '[1]: has no "answer"'),
        ([{"answer": "x"}], '[0]: has no "question_id"'),
        ([{"question_id": 1, "answer": 2}], '[0]: "answer" is 2, not a string'),
        ([{"question_id": True, "answer": "x"}], '[0]: "question_id" is True, not a whole number'),
        (["red\nblue"], "[0]: is 'red\\nblue', not an object"),
        ([{"question_id": 1, "answer": "x"}] * 2, "[1]: question_id 1 occurs twice; remove one of the two"),
    ],
)
def test_a_bad_result_file_is_one_line(tmp_path: Path, content: Any, expected: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_results(path, ANSWERS)
    assert str(caught.value).startswith(f"{path}: {expected}")
    assert "\n" not in str(caught.value)
