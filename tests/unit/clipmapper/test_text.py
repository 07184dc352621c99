"""Text from outside: what UTF-8 cannot hold is refused where it comes in, and what a terminal shows of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipmapper.data.caption_files import read_coco_captions, read_karpathy
from clipmapper.data.vqa_files import read_questions
from clipmapper.errors import UserError
from clipmapper.files import ANSWERS, CAPTIONS, read_id, read_json, read_results
from clipmapper.tasks.vqa.answers import read_lxmert_labels
from clipmapper.text import check_text, printable
from explain import explain
from perturbation.pairs.samples import pairs_of

HALF = "caf\ud83d"


@pytest.mark.parametrize("text", ["", "kite", "café", "😀", "\x00", "\u202e", "\ufffd"])
def test_text_that_utf_8_can_hold_is_accepted(text: str) -> None:
    check_text(text, "here")


@pytest.mark.parametrize(
    ("text", "what"), [("caf\udce9?", "the byte 0xE9"), (HALF, r"\ud83d, half of a character"), ("\ud800", r"\ud800")]
)
def test_other_text_is_one_line_that_names_the_place_and_the_fix(text: str, what: str) -> None:
    with pytest.raises(UserError) as caught:
        check_text(text, "q.json: questions[3]", "correct it")
    message = str(caught.value)
    assert message.startswith(f"q.json: questions[3] holds {what}")
    assert message.endswith("; correct it")
    message.encode()


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"questions": [{"question": "a"}, {"question": HALF}]}, "questions[1].question"),
        ({HALF: 1}, r"caf\ud83d"),
        ([["a", HALF]], "[0][1]"),
        (HALF, "the text"),
    ],
)
def test_json_with_half_a_character_names_its_place(tmp_path: Path, content: Any, place: str) -> None:
    path = tmp_path / "q.json"
    path.write_text(json.dumps(content), "ascii")
    with pytest.raises(UserError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {place} holds \\ud83d, half of a character")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
def test_a_whole_pair_is_a_character_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "q.json"
    path.write_text('["\\ud83d\\ude00", "é"]', encoding)
    assert read_json(path) == ["😀", "é"]


@pytest.mark.parametrize("encoded", ['["é"]'.encode("latin-1"), b'["\xed\xa0\xbd"]', b'["a"\xd8\x3d'])
def test_json_in_another_encoding_says_what_to_do(tmp_path: Path, encoded: bytes) -> None:
    path = tmp_path / "q.json"
    path.write_bytes(encoded)
    with pytest.raises(UserError, match=r"not valid JSON in UTF-8 \(.* at byte \d+\); save it in UTF-8"):
        read_json(path)


TERMINAL = {
    "kite, café 子犬 😀": "kite, café 子犬 😀",
    "שלום": "שלום",
    "a\x1b[31mb": r"a\x1b[31mb",
    "a\nb\rc\td": r"a\nb\rc\td",
    "\x9b2J": r"\x9b2J",
    "a\u202eb\u2066": r"a\u202eb\u2066",
    "\u2028": r"\u2028",
    "\udce9": r"\udce9",
}


@pytest.mark.parametrize("text", TERMINAL)
def test_a_terminal_is_not_controlled_by_text(text: str) -> None:
    assert printable(text) == TERMINAL[text]


Read = Callable[[Path], object]
QUESTION: dict[str, Any] = {"question_id": 1, "image_id": 2, "question": "is it?"}
IMAGE = {"id": 2, "file_name": "a.jpg"}
KARPATHY = {"cocoid": 2, "split": "test", "filepath": "a", "filename": "a.jpg"}
CAPTION = {"id": 5, "image_id": 2, "caption": "a kite"}
#: Every reader of ids: the function, a correct file, and the path of the id in it.
IDS: dict[str, tuple[Read, Any, tuple[str | int, ...]]] = {
    "question": (lambda f: read_questions(f, None), {"questions": [QUESTION]}, ("questions", 0, "question_id")),
    "its image": (lambda f: read_questions(f, None), {"questions": [QUESTION]}, ("questions", 0, "image_id")),
    "answer": (lambda f: read_results(f, ANSWERS), [{"question_id": 1, "answer": "a"}], (0, "question_id")),
    "caption": (lambda f: read_results(f, CAPTIONS), [{"image_id": 1, "caption": "a"}], (0, "image_id")),
    "COCO image": (
        lambda f: read_coco_captions(f, f),
        {"images": [IMAGE], "annotations": []},
        ("images", 0, "id"),
    ),
    "COCO caption": (
        lambda f: read_coco_captions(f, f),
        {"images": [IMAGE], "annotations": [CAPTION]},
        ("annotations", 0, "id"),
    ),
    "COCO caption's image": (
        lambda f: read_coco_captions(f, f),
        {"images": [IMAGE], "annotations": [CAPTION]},
        ("annotations", 0, "image_id"),
    ),
    "Karpathy's image": (
        lambda f: read_karpathy(f, f, "test"),
        {"images": [{**KARPATHY, "sentences": [{"sentid": 1, "raw": "a kite"}]}]},
        ("images", 0, "cocoid"),
    ),
    "Karpathy's caption": (
        lambda f: read_karpathy(f, f, "test"),
        {"images": [{**KARPATHY, "sentences": [{"sentid": 1, "raw": "a kite"}]}]},
        ("images", 0, "sentences", 0, "sentid"),
    ),
}


def changed(content: Any, path: tuple[str | int, ...], value: object) -> Any:
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 10**4000, True, 1.0, "1", None, [1]])
@pytest.mark.parametrize("kind", IDS)
def test_an_id_is_a_whole_number_of_64_bits(tmp_path: Path, kind: str, value: object) -> None:
    read, content, path = IDS[kind]
    file = tmp_path / "file.json"
    file.write_text(json.dumps(content))
    read(file)
    file.write_text(json.dumps(changed(content, path, value)))
    with pytest.raises(UserError, match=f'"{path[-1]}" is |not valid JSON') as caught:
        read(file)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, -(2**63)])
def test_all_ids_of_64_bits_are_accepted(value: int) -> None:
    assert read_id({"id": value}, "id", "here") == value


def test_an_answer_list_with_half_a_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trainval_label2ans.json"
    path.write_text(json.dumps(["yes", HALF]))
    with pytest.raises(UserError, match=r"\[1\] holds"):
        read_lxmert_labels(path)


PAIR = {"text": "a", "target": ("b", HALF)}


@pytest.mark.parametrize(("given", "name"), [({"text": HALF}, "text"), (PAIR, "target")])
def test_explain_refuses_half_a_character_before_the_model_runs(given: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}=.* holds half of a character"):
        explain(None, None, None, **given)


@pytest.mark.parametrize(("sample", "place"), [((HALF,), "its text"), (("a", HALF), "an"), (("a", [HALF]), "an")])
def test_samples_of_a_test_with_half_a_character_are_refused(sample: tuple[Any, ...], place: str) -> None:
    with pytest.raises(UserError, match=f"^sample 1: {place} (answer )?holds"):
        pairs_of([(None, "fine"), (None, *sample)])
