"""Files for the evaluation servers: what is refused before it is sent, and what the servers' own readers take."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO
from tiny_runs import composed

from clipmapper.cli import typed
from clipmapper.config.schema import EvaluateConfig
from clipmapper.errors import UserError
from clipmapper.files import ANSWERS, CAPTIONS, write_results
from clipmapper.tasks import TASKS
from clipmapper.tasks.submission import Submission, check_answers, check_captions

QUESTIONS = [{"question_id": 10 * i, "image_id": i, "question": "what?"} for i in (1, 2, 3)]
IMAGES = [{"id": i, "file_name": f"{i}.jpg"} for i in (1, 2, 3)]
GIVEN = [{"question_id": 10 * i, "answer": "kite"} for i in (3, 1, 2)]
SAID = [{"image_id": i, "caption": "a kite"} for i in (3, 1, 2)]
Write = Callable[..., tuple[Path, Path]]


@pytest.fixture
def answers(tmp_path: Path) -> Write:
    """Write a result file, and the question file that it is for."""

    def write(entries: Any = GIVEN, name: str = "results.json", split: str = "test2015") -> tuple[Path, Path]:
        questions = tmp_path / f"v2_OpenEnded_mscoco_{split}_questions.json"
        questions.write_text(json.dumps({"questions": QUESTIONS}))
        (tmp_path / name).write_text(json.dumps(entries))
        return tmp_path / name, questions

    return write


@pytest.fixture
def captions(tmp_path: Path) -> Write:
    """Write a result file, and COCO's list of images that it is for."""

    def write(entries: Any = SAID, name: str = "captions_test2014_me_results.json") -> tuple[Path, Path]:
        images = tmp_path / "image_info_test2014.json"
        images.write_text(json.dumps({"info": {}, "images": IMAGES}))
        (tmp_path / name).write_text(json.dumps(entries))
        return tmp_path / name, images

    return write


def evaluation(*overrides: str) -> EvaluateConfig:
    checked: EvaluateConfig = typed(composed("evaluate", *overrides), EvaluateConfig)
    return checked


def refusal(check: Callable[[Path, Path], None], files: tuple[Path, Path]) -> str:
    with pytest.raises(UserError) as error:
        check(*files)
    message = str(error.value)
    assert message.startswith(str(files[0]))
    assert len(message.splitlines()) == 1
    assert "; " in message  # it says what to do
    return message


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([*GIVEN[:1]], "has no question_id 10 of"),
        ([*GIVEN, {"question_id": 40, "answer": "x"}], "question_id 40 is not in"),
        ([*GIVEN, GIVEN[0]], "[3]: question_id 30 occurs twice"),
        ([{"question_id": "10", "answer": "x"}, *GIVEN], """[0]: "question_id" is '10', not a whole number"""),
        ([{"question_id": True, "answer": "x"}, *GIVEN], '[0]: "question_id" is True, not a whole number'),
        ([{"question_id": 10.0, "answer": "x"}, *GIVEN], '[0]: "question_id" is 10.0, not a whole number'),
        ([{"question_id": 10, "answer": 2}, *GIVEN], '[0]: "answer" is 2, not a string'),
        ([{"question_id": 10}, *GIVEN], '[0]: has no "answer"'),
        ([10, *GIVEN], "[0]: is 10, not an object"),
        ({"results": GIVEN}, "not a result file; give a list"),
        ([], "has no question_id 10 of"),
    ],
)
def test_a_wrong_file_of_answers_is_refused_by_its_first_problem(answers: Write, entries: Any, said: str) -> None:
    assert said in refusal(check_answers, answers(entries))


@pytest.mark.parametrize(
    ("entries", "name", "said"),
    [
        (SAID, "results.json", "the server takes captions_val2014_NAME_results.json and"),
        (SAID, "captions_test2015_me_results.json", "the server takes captions_val2014_NAME_results.json and"),
        (SAID, "captions_val2014_me_results.json", "is named after val2014, but"),
        (SAID[:2], "captions_test2014_me_results.json", "has no image_id 2 of"),
        ([*SAID, {"image_id": 4, "caption": "x"}], "captions_test2014_me_results.json", "image_id 4 is not in"),
        ([*SAID, SAID[0]], "captions_test2014_me_results.json", "[3]: image_id 3 occurs twice"),
        ([{"image_id": 1, "caption": None}, *SAID], "captions_test2014_me_results.json", '"caption" is None, not a s'),
    ],
)
def test_a_wrong_file_of_captions_is_refused_by_its_first_problem(
    captions: Write, entries: Any, name: str, said: str
) -> None:
    assert said in refusal(check_captions, captions(entries, name))


@pytest.mark.parametrize(("encoding", "named"), [("utf-16", "utf-16"), ("utf-8-sig", "utf-8-sig")])
def test_an_encoding_that_the_server_cannot_read_is_refused(answers: Write, encoding: str, named: str) -> None:
    file, questions = answers()
    file.write_text(json.dumps(GIVEN), encoding=encoding)
    assert f"is in {named}" in refusal(check_answers, (file, questions))


def test_another_ending_is_refused(answers: Write) -> None:
    assert "takes a file named NAME.json" in refusal(check_answers, answers(name="results.jsonl"))


def test_a_good_file_is_counted_and_doubts_are_named(answers: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file, questions = answers()
    check_answers(file, questions)
    out, err = capsys.readouterr()
    assert out == f"{file} can be sent: it has all 3 questions, each once\n"
    assert err == ""
    odd = [{**GIVEN[0], "answer": "A Kite."}, {**GIVEN[1], "answer": ""}, GIVEN[2]]
    check_answers(*answers(odd, split="test-dev2015"))
    out, err = capsys.readouterr()
    assert "all 3 questions, 1 of them empty, each once" in out
    assert "1 answers are not in the evaluator's form, such as 'A Kite.' for 'kite'" in err
    assert "the server takes the answers to all of test2015" in err


def test_the_readers_of_the_servers_take_what_is_written(tmp_path: Path, answers: Write, captions: Write) -> None:
    """Read the files as ``loadRes`` of the official Python programs does."""
    write_results(tmp_path / "submission_test.json", CAPTIONS, {1: "a kite", 2: "", 3: "drei Äpfel 🎉"})
    _, images = captions()
    Submission("captions_test2014_me_results.json", images).write(tmp_path / "submission_test.json", CAPTIONS)
    read = COCO(str(images)).loadRes(str(tmp_path / "captions_test2014_me_results.json"))
    assert {each["image_id"]: each["caption"] for each in read.dataset["annotations"]} == {
        1: "a kite",
        2: "",
        3: "drei Äpfel 🎉",
    }
    write_results(tmp_path / "submission_test.json", ANSWERS, {10: "2", 20: "kite", 30: "no"})
    name = "vqa_OpenEnded_mscoco_test2015_me_results.json"
    Submission(name, answers()[1]).write(tmp_path / "submission_test.json", ANSWERS)
    found = json.load((tmp_path / name).open(encoding="ascii"))  # the server's locale may be ASCII
    assert type(found) is list
    assert {each["question_id"] for each in found} == {each["question_id"] for each in QUESTIONS}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data=shapes",), "data=vqav2 split=test data.test_split=test2015"),
        (("data=vqav2",), "data=vqav2 split=test data.test_split=test2015"),
        (("data=vqav2", "data.test_split=test2015", "split=val"), "the server takes whole splits of VQAv2"),
        (("task=caption", "data=coco"), "data=coco data.karpathy=null"),
        (("task=caption", "data=coco", "split=val"), "data=coco data.karpathy=null"),
        (("task=caption", "data=coco", "data.karpathy=null"), "data.test_split=test2014"),
        (("task=caption", "data=shapes"), "the server takes COCO's own splits"),
    ],
)
def test_only_whole_official_splits_are_submitted(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=r"submission=me: ") as error:
        Submission.planned(evaluation(*overrides, "submission=me"))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "file", "official"),
    [
        (
            ("data=vqav2", "data.root=D", "data.test_split=test2015"),
            "vqa_OpenEnded_mscoco_test2015_me_results.json",
            "D/v2_OpenEnded_mscoco_test2015_questions.json",
        ),
        (
            ("task=caption", "data=coco", "data.root=D", "data.karpathy=null", "split=val"),
            "captions_val2014_me_results.json",
            "D/annotations/captions_val2014.json",
        ),
    ],
)
def test_the_file_has_the_official_name(overrides: tuple[str, ...], file: str, official: str) -> None:
    assert Submission.planned(evaluation(*overrides, "submission=me")) == Submission(file, Path(official))
    assert Submission.planned(evaluation(*overrides)) is None


@pytest.mark.parametrize("task", ["vqa", "caption"])
def test_a_result_file_has_no_model_to_name(task: str, tmp_path: Path) -> None:
    files = ("predictions=a.json", "questions=b.json") if task == "vqa" else ("predictions=a.json", "references=b.json")
    config = evaluation(f"task={task}", "submission=me", *files)
    with pytest.raises(UserError, match=r"submission=NAME is for the .* of a checkpoint: leave it out"):
        TASKS[task].score_files(config, tmp_path)


@pytest.mark.parametrize("name", ["a b", "", "a/b", "ä"])
def test_the_name_of_a_model_can_be_part_of_a_file_name(name: str) -> None:
    with pytest.raises(UserError, match=r"submission=.* is not a name of letters, digits, dots and hyphens"):
        evaluation(f"submission='{name}'")
