"""What a user can get wrong or a disk can do: one line that names it and exit status 1, or handled and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_disk import small_disk
from tiny_runs import Tiny, composed, finish, write_vqav2

from clipmapper.cli import typed
from clipmapper.config.schema import EvaluateConfig
from clipmapper.files import read_json
from clipmapper.tasks.vqa.data import prepare

Command = Callable[..., tuple[int, str, list[str]]]
QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
ANNOTATIONS = "v2_mscoco_{}_annotations.json"
VAL_IDS = 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small data set in VQAv2's layout."""
    folder = tmp_path / "vqav2"
    write_vqav2(folder)
    return folder


@pytest.fixture
def overrides(tiny: Tiny, root: Path, tmp_path: Path) -> tuple[str, ...]:
    data = ("data=vqav2", f"data.root={root}", f"data.reserved={VAL_IDS}", "data.min_answer_questions=1")
    return *tiny.base, *data, f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}"


def picture(root: Path, image_id: int, split: str = "train2014") -> Path:
    return root / "images" / split / f"COCO_{split}_{image_id:012d}.jpg"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def folder_of(out: str) -> Path:
    return Path(out.splitlines()[-1].removeprefix("results are in "))


Damage = Callable[[Path], None]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing image": (lambda root: picture(root, 3).unlink(), "COCO_train2014_000000000003.jpg: no such image"),
    "truncated JPEG": (lambda root: truncate(picture(root, 3)), "COCO_train2014_000000000003.jpg: "),
    "empty image": (lambda root: picture(root, 3).write_bytes(b""), "000000000003.jpg: the file is empty"),
    "text as image": (lambda root: picture(root, 3).write_text("hello"), "000000000003.jpg: not an image"),
    "missing questions": (lambda root: (root / QUESTIONS.format("train2014")).unlink(), "no such file"),
    "missing annotations": (lambda root: (root / ANNOTATIONS.format("val2014")).unlink(), "val2014_annotations.json"),
    "malformed JSON": (lambda root: truncate(root / QUESTIONS.format("val2014")), "not valid JSON"),
    "empty JSON": (lambda root: (root / ANNOTATIONS.format("train2014")).write_text(""), "not valid JSON"),
    "JSON of something else": (
        lambda root: (root / QUESTIONS.format("train2014")).write_text("[]"),
        'is [], not an object with "questions"',
    ),
    "empty question": (
        lambda root: edit(root / QUESTIONS.format("train2014"), lambda c: c["questions"][2].update(question="  ")),
        'question_id 2000: "question" is empty',
    ),
    "question without annotation": (
        lambda root: edit(root / ANNOTATIONS.format("train2014"), lambda c: c["annotations"].pop(2)),
        "question_id 2000 is missing from",
    ),
    "annotation without question": (
        lambda root: edit(root / QUESTIONS.format("train2014"), lambda c: c["questions"].pop(2)),
        "question_id 2000 is missing from",
    ),
    "no answers": (
        lambda root: edit(root / ANNOTATIONS.format("train2014"), lambda c: c["annotations"][2].update(answers=[])),
        "question_id 2000 has no answers",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_data_ends_in_one_line(root: Path, overrides: tuple[str, ...], command: Command, damage: str) -> None:
    harm, said = DAMAGES[damage]
    harm(root)
    status, _, errors = command("train", *overrides)
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.root={tmp}/nowhere", "nowhere/v2_OpenEnded_mscoco_val2014_questions.json: no such file"),
        ("data.reserved=0", "data vqav2: the val split has no questions"),
        ("data.reserved=99", "cannot reserve 99 of 12 questions"),
        ("data.reserve_from=test2015", "data.reserve_from=test2015 is not one of data.train_splits"),
        ("data.min_answer_questions=50", "50 or more annotated questions"),
        ("data.answers_file={tmp}/labels.json", "labels.json: no such file"),
        ("encoder.weights={tmp}/none.safetensors", "none.safetensors is neither a file nor a hub tag of shapes-tiny"),
        ("encoder.weights={questions}", "does not contain weights of shapes-tiny"),
        ("encoder.weights={noise}", "does not contain weights of shapes-tiny"),
        ("encoder.weights={half}", "does not contain weights of shapes-tiny"),
        ("encoder.model=ViT-B-33", "open_clip has no model ViT-B-33; similar names: ViT-B-32"),
        ("resume={tmp}/nowhere", "nowhere/checkpoints/last.ckpt: no such file"),
        ("paths.runs={file}/runs", "Not a directory"),
        ("paths.cache={file}/cache", "Not a directory"),
    ],
)
def test_a_wrong_path_or_number_ends_in_one_line(
    tiny: Tiny, root: Path, tmp_path: Path, overrides: tuple[str, ...], command: Command, override: str, said: str
) -> None:
    file, noise, half = tmp_path / "file", tmp_path / "noise.safetensors", tmp_path / "half.safetensors"
    file.touch()
    noise.write_bytes(np.random.default_rng(0).bytes(1000))
    half.write_bytes(tiny.weights.read_bytes()[:100_000])
    places = {"questions": root / QUESTIONS.format("train2014"), "noise": noise, "half": half, "file": file}
    status, _, errors = command("train", *overrides, override.format(tmp=tmp_path, **places))
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


@pytest.mark.parametrize("harm", [truncate, Path.unlink])
def test_a_skipped_picture_changes_nothing_else(
    root: Path, overrides: tuple[str, ...], command: Command, capsys: pytest.CaptureFixture[str], harm: Damage
) -> None:
    """The sound pictures' features are bitwise what they were, in training and again from the cache."""
    before = prepare(typed(composed("evaluate", *overrides), EvaluateConfig))
    harm(picture(root, 3))
    config = typed(composed("evaluate", *overrides, "data.on_bad_image=skip"), EvaluateConfig)
    for _ in range(2):
        capsys.readouterr()
        after = prepare(config)
        assert set(after.images.missing) == {3}
        for image_id in before.splits.images.keys() - {3}:
            first, second = (p.images.store.gather(np.array([p.images.place[image_id]])) for p in (before, after))
            assert first.features.shape == second.features.shape
            np.testing.assert_allclose(first.features, second.features, rtol=0, atol=1e-6)
        dataset = after.dataset("train")
        assert [q.question_id for q in dataset.left_out] == [3000, 3001]
        assert "2 questions are left out: their images could not be read" in capsys.readouterr().err
    status, out, errors = command("train", *overrides, "data.on_bad_image=skip")
    assert (status, errors) == (0, [])
    assert "questions: 18 train, 4 val" in out
    status, _, errors = command("train", *overrides)
    assert (status, len(errors)) == (1, 1)
    assert "COCO_train2014_000000000003.jpg" in errors[0]


def test_predictions_of_the_others_stay_and_the_submission_is_whole(
    root: Path, overrides: tuple[str, ...], command: Command
) -> None:
    _, out, _ = command("train", *overrides)
    run = folder_of(out)
    before = {row["question_id"]: row for row in read_json(run / "predictions_val.json")}
    bad = next(iter(before.values()))["image_id"]
    truncate(picture(root, bad, "val2014"))
    status, out, errors = command("evaluate", *overrides, "split=val", "data.on_bad_image=skip", f"checkpoint={run}")
    assert (status, errors) == (0, [])
    rows = read_json(folder_of(out) / "predictions_val.json")
    assert {row["question_id"] for row in rows} == {i for i, row in before.items() if row["image_id"] != bad}
    assert all(row == before[row["question_id"]] for row in rows)
    assert read_json(folder_of(out) / "metrics.json")["val"]["questions"] == VAL_IDS - 2
    submitted = {row["question_id"]: row["answer"] for row in read_json(folder_of(out) / "submission_val.json")}
    assert submitted.keys() == before.keys()
    assert {submitted[i] for i, row in before.items() if row["image_id"] == bad} == {""}


def test_a_split_without_any_sound_picture_is_one_line(
    root: Path, overrides: tuple[str, ...], command: Command
) -> None:
    for path in (root / "images").rglob("*.jpg"):
        path.write_bytes(b"")
    status, _, errors = command("train", *overrides, "data.on_bad_image=skip")
    assert (status, len(errors)) == (1, 1)
    assert "no image of the train split could be read" in errors[0]


def test_pictures_of_every_kind_are_read(root: Path, overrides: tuple[str, ...], command: Command) -> None:
    Image.new("L", (50, 40), 90).save(picture(root, 1))
    Image.new("CMYK", (50, 40), (1, 90, 3, 4)).save(picture(root, 2))
    Image.fromarray(np.full((40, 50), 40_000, np.uint16)).save(picture(root, 3), "png")
    frames = [Image.new("P", (50, 40), k) for k in range(3)]
    frames[0].save(picture(root, 4), "gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), "red").save(picture(root, 5))
    status, out, errors = command("train", *overrides)
    assert (status, errors) == (0, [])
    assert "questions: 20 train" in out


def test_long_unicode_and_unknown_words_and_answers_are_handled_and_counted(
    root: Path, overrides: tuple[str, ...], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ("why " * 200 + "?", "Où est « l'été » ? 猫 🐈", "zqxj " * 5)

    def ask(content: Any) -> None:
        for entry, text in zip(content["questions"], texts, strict=False):
            entry["question"] = text

    def answer(content: Any) -> None:
        for given in content["annotations"][4]["answers"]:
            given["answer"] = "something that nobody says"
        content["annotations"][5]["multiple_choice_answer"] = "日本"

    edit(root / QUESTIONS.format("train2014"), ask)
    edit(root / ANNOTATIONS.format("train2014"), answer)
    status, out, errors = command("train", *overrides)
    assert (status, errors) == (0, [])
    assert "answers: 3" in out
    told = capsys.readouterr().err
    assert "1 texts are longer than the encoder's 40 tokens and were cut off" in told
    assert "1 training questions have no answer in the vocabulary" in told


def test_a_full_disk_at_the_checkpoint_is_one_line(
    overrides: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    command("train", *overrides)  # the features are there
    with small_disk(30_000):
        status, out, errors = command("train", *overrides)
    assert (status, len(errors)) == (1, 1)
    assert "File too large; check that the folder exists, is writable and has space left" in errors[0]
    assert str(tmp_path) in errors[0]
    half = Path(out.splitlines()[0].removeprefix("run folder: ")) / "checkpoints"
    assert list(half.iterdir()) == []


def test_results_that_cannot_be_written_are_one_line(
    overrides: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "metrics.json").mkdir(parents=True)  # which no file can replace
    status, _, errors = command("train", *overrides, f"hydra.run.dir={run}")
    assert (status, len(errors)) == (1, 1)
    assert "metrics.json: cannot be written (Is a directory); choose a writable folder" in errors[0]
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert read_json(run / "predictions_val.json")
    assert not list(run.glob(".*partial"))


@pytest.mark.parametrize("case", ["unknown key", "missing image", "no folder"])
def test_a_process_says_it_in_one_line_and_exits_with_1(overrides: tuple[str, ...], root: Path, case: str) -> None:
    wrong = {"unknown key": "+foo=1", "missing image": "seed=1", "no folder": f"paths.runs={root / QUESTIONS}/x"}
    picture(root, 3).unlink()
    (root / QUESTIONS).touch()
    status, out, err = finish("train", [*overrides, wrong[case]])
    assert status == 1
    lines = err.replace("\r", "\n").splitlines()  # a progress bar ends in a carriage return
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert "Traceback" not in err + out


def test_the_stack_trace_is_there_for_those_who_ask(tmp_path: Path) -> None:
    status, _, err = finish("train", [f"paths.root={tmp_path}", "+foo=1"], CLIPMAPPER_TRACE="1")
    assert status != 0
    assert "Traceback" in err
