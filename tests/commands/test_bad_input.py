"""Mistakes of the user and failures of the disk.

Each either ends with exit status 1 and one line that names the cause, or is handled and counted.
"""

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
from clipmapper.config.schema import TrainConfig
from clipmapper.files import read_json
from clipmapper.tasks.vqa.data import prepare

Command = Callable[..., tuple[int, str, list[str]]]
QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
ANNOTATIONS = "v2_mscoco_{}_annotations.json"
VAL_IDS = 4


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small dataset in VQAv2's layout."""
    folder = tmp_path / "vqav2"
    write_vqav2(folder)
    return folder


@pytest.fixture
def overrides(tiny: Tiny, root: Path, tmp_path: Path) -> tuple[str, ...]:
    data = ("data=vqav2", f"data.root={root}", f"data.reserved={VAL_IDS}", "data.min_answer_questions=1")
    return *tiny.base, *data, f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}"


def image_file(root: Path, image_id: int, split: str = "train2014") -> Path:
    return root / "images" / split / f"COCO_{split}_{image_id:012d}.jpg"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def thin(path: Path) -> None:
    Image.new("L", (1, 60_000)).save(path)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def folder_of(out: str) -> Path:
    return Path(out.splitlines()[-1].removeprefix("results are in "))


Damage = Callable[[Path], None]
DAMAGES: dict[str, tuple[Damage, str]] = {
    "missing image": (lambda root: image_file(root, 3).unlink(), "COCO_train2014_000000000003.jpg: no such image"),
    "truncated JPEG": (lambda root: truncate(image_file(root, 3)), "COCO_train2014_000000000003.jpg: "),
    "empty image": (lambda root: image_file(root, 3).write_bytes(b""), "000000000003.jpg: the file is empty"),
    "text as image": (lambda root: image_file(root, 3).write_text("hello"), "000000000003.jpg: not an image"),
    "thin image": (
        lambda root: thin(image_file(root, 3)),
        "000000000003.jpg: of 1×60000 pixels, one side is more than 445 times the other",
    ),
    "missing questions": (lambda root: (root / QUESTIONS.format("train2014")).unlink(), "no such file"),
    "missing annotations": (lambda root: (root / ANNOTATIONS.format("val2014")).unlink(), "val2014_annotations.json"),
    "malformed JSON": (lambda root: truncate(root / QUESTIONS.format("val2014")), "not valid JSON"),
    "empty JSON": (lambda root: (root / ANNOTATIONS.format("train2014")).write_text(""), "not valid JSON"),
    "JSON with other content": (
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
    apply_damage, message = DAMAGES[damage]
    apply_damage(root)
    status, _, errors = command("train", *overrides)
    assert (status, len(errors)) == (1, 1)
    assert message in errors[0]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.root={tmp}/nowhere", "nowhere/v2_OpenEnded_mscoco_train2014_questions.json: no such file"),
        ("data.reserved=0", "data vqav2: the val split has no questions"),
        ("data.reserved=99", "cannot reserve 99 of 12 questions"),
        ("data.reserve_from=test2015", "data.reserve_from=test2015 is not one of data.train_splits"),
        ("data.min_answer_questions=50", "50 or more annotated questions"),
        ("data.answers_file={tmp}/labels.json", "labels.json: no such file"),
        ("encoder.weights={tmp}/none.safetensors", "none.safetensors is neither a file nor a hub tag of shapes-tiny"),
        ("encoder.weights={questions}", "does not contain weights of shapes-tiny"),
        ("encoder.weights={noise}", "does not contain weights of shapes-tiny"),
        ("encoder.weights={half}", "does not contain weights of shapes-tiny"),
        (
            "encoder.model=ViT-B-33",
            "open_clip has no model ViT-B-33, and there is no such folder; similar names: ViT-B-32",
        ),
        ("resume={tmp}/nowhere", "nowhere/checkpoints/last.ckpt: no such file"),
        ("trainer.devices=999", "trainer.devices=999: on this machine's CPU give at most "),
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


@pytest.mark.parametrize("damage", [truncate, Path.unlink, thin])
def test_a_skipped_image_changes_nothing_else(
    root: Path, overrides: tuple[str, ...], command: Command, capsys: pytest.CaptureFixture[str], damage: Damage
) -> None:
    """The features of the readable images stay the same, when they are computed and when they come from the cache."""
    before = prepare(typed(composed("train", *overrides), TrainConfig))
    damage(image_file(root, 3))
    config = typed(composed("train", *overrides, "data.on_bad_image=skip"), TrainConfig)
    for _ in range(2):
        capsys.readouterr()
        after = prepare(config)
        assert set(after.images.missing) == {3}
        for image_id in before.splits.images.keys() - {3}:
            first, second = (p.images.store.gather(np.array([p.images.place[image_id]])) for p in (before, after))
            assert first.features.shape == second.features.shape
            np.testing.assert_allclose(first.features, second.features, rtol=0, atol=1e-6)
        dataset = after.datasets["train"]
        assert [q.question_id for q in dataset.left_out] == [3000, 3001]
        assert "2 questions are left out: their images could not be read" in capsys.readouterr().err
    status, out, errors = command("train", *overrides, "data.on_bad_image=skip")
    assert (status, errors) == (0, [])
    assert "questions: 18 train, 4 val" in out
    status, _, errors = command("train", *overrides)
    assert (status, len(errors)) == (1, 1)
    assert "COCO_train2014_000000000003.jpg" in errors[0]


def test_other_predictions_stay_the_same_and_the_submission_is_complete(
    root: Path, overrides: tuple[str, ...], command: Command
) -> None:
    _, out, _ = command("train", *overrides)
    run = folder_of(out)
    before = {row["question_id"]: row for row in read_json(run / "predictions_val.json")}
    bad = next(iter(before.values()))["image_id"]
    truncate(image_file(root, bad, "val2014"))
    status, out, errors = command("evaluate", *overrides, "split=val", "data.on_bad_image=skip", f"checkpoint={run}")
    assert (status, errors) == (0, [])
    rows = read_json(folder_of(out) / "predictions_val.json")
    assert {row["question_id"] for row in rows} == {i for i, row in before.items() if row["image_id"] != bad}
    assert all(row == before[row["question_id"]] for row in rows)
    assert read_json(folder_of(out) / "metrics.json")["val"]["questions"] == VAL_IDS - 2
    submitted = {row["question_id"]: row["answer"] for row in read_json(folder_of(out) / "submission_val.json")}
    assert submitted.keys() == before.keys()
    assert {submitted[i] for i, row in before.items() if row["image_id"] == bad} == {""}


def test_a_split_without_any_readable_image_is_one_line(
    root: Path, overrides: tuple[str, ...], command: Command
) -> None:
    for path in (root / "images").rglob("*.jpg"):
        path.write_bytes(b"")
    status, _, errors = command("train", *overrides, "data.on_bad_image=skip")
    assert (status, len(errors)) == (1, 1)
    assert "no image of the train split could be read" in errors[0]


def test_images_of_every_format_are_read(root: Path, overrides: tuple[str, ...], command: Command) -> None:
    Image.new("L", (50, 40), 90).save(image_file(root, 1))
    Image.new("CMYK", (50, 40), (1, 90, 3, 4)).save(image_file(root, 2))
    Image.fromarray(np.full((40, 50), 40_000, np.uint16)).save(image_file(root, 3), "png")
    frames = [Image.new("P", (50, 40), k) for k in range(3)]
    frames[0].save(image_file(root, 4), "gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (1, 1), "red").save(image_file(root, 5))
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
            given["answer"] = "an answer that no annotator gave"
        content["annotations"][5]["multiple_choice_answer"] = "日本"

    edit(root / QUESTIONS.format("train2014"), ask)
    edit(root / ANNOTATIONS.format("train2014"), answer)
    status, out, errors = command("train", *overrides)
    assert (status, errors) == (0, [])
    assert "answers: 3" in out
    warnings = capsys.readouterr().err
    assert "1 texts are longer than the encoder's 40 tokens and were cut off" in warnings
    assert "1 training questions have no answer in the vocabulary" in warnings


def test_a_full_disk_at_the_checkpoint_is_one_line(
    overrides: tuple[str, ...], tmp_path: Path, command: Command
) -> None:
    command("train", *overrides)  # writes the features to the cache
    with small_disk(30_000):
        status, out, errors = command("train", *overrides)
    assert (status, len(errors)) == (1, 1)
    assert "File too large; check that the folder exists, is writable and has space left" in errors[0]
    assert str(tmp_path) in errors[0]
    half = Path(out.splitlines()[0].removeprefix("run folder: ")) / "checkpoints"
    assert list(half.iterdir()) == []


def test_results_that_cannot_be_written_end_in_one_line(
    overrides: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "metrics.json").mkdir(parents=True)  # no file can replace a folder
    status, _, errors = command("train", *overrides, f"hydra.run.dir={run}")
    assert (status, len(errors)) == (1, 1)
    assert "metrics.json: cannot be written (Is a directory); choose a writable folder" in errors[0]
    assert (run / "checkpoints" / "best.ckpt").exists()
    assert read_json(run / "predictions_val.json")
    assert not list(run.glob(".*partial"))


@pytest.mark.parametrize(
    "case", [*(pytest.param(case, marks=pytest.mark.slow) for case in ("unknown key", "missing image")), "no folder"]
)
def test_a_process_prints_one_error_line_and_exits_with_1(overrides: tuple[str, ...], root: Path, case: str) -> None:
    wrong = {"unknown key": "+foo=1", "missing image": "seed=1", "no folder": f"paths.runs={root / QUESTIONS}/x"}
    image_file(root, 3).unlink()
    (root / QUESTIONS).touch()
    status, out, err = finish("train", [*overrides, wrong[case]])
    assert status == 1
    lines = err.replace("\r", "\n").splitlines()  # a progress bar ends in a carriage return
    assert sum(line.startswith("error: ") for line in lines) == 1
    assert "Traceback" not in err + out


@pytest.mark.slow
def test_the_stack_trace_is_printed_on_request(tmp_path: Path) -> None:
    status, _, err = finish("train", [f"paths.root={tmp_path}", "+foo=1"], CLIPMAPPER_TRACE="1")
    assert status != 0
    assert "Traceback" in err
