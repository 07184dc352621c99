"""Evaluation: the files it writes, the checkpoint it finds, and the scoring of a result file of any model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Tiny, checkpoint_of, write_vqav2

from clipmapper.checkpoint import read_checkpoint
from clipmapper.data.records import VQAData
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from clipmapper.metrics.vqa import score_predictions
from clipmapper.tasks.vqa.data import TaskData, VQADataset, prepare
from clipmapper.tasks.vqa.evaluation import evaluate, predict
from clipmapper.tasks.vqa.model import load_vqa
from clipmapper.tasks.vqa.scoring import score_files

Command = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a short training of mapper B, which is at least as good as the most common answer."""
    run = tmp_path_factory.mktemp("trained") / "run"
    rate = ("task.optim.warmup_steps=5", "task.optim.lr=0.01")
    tiny.train(run, "trainer.max_steps=60", "trainer.val_check_interval=60", *rate)
    return run


@pytest.fixture(scope="module")
def prepared(tiny: Tiny, trained: Path) -> TaskData:
    return prepare(tiny.config())


def official(tiny: Tiny, split: str) -> tuple[Path, Path]:
    """Return the question file and the annotation file of a split."""
    found = [path for path in (tiny.root / "cache" / "data" / "shapes").glob("v*-40-10-10x*") if path.is_dir()]
    names = (f"v2_OpenEnded_shapes_{split}_questions.json", f"v2_shapes_{split}_annotations.json")
    return found[0] / names[0], found[0] / names[1]


def folder_of(out: str) -> Path:
    return Path(out.splitlines()[-1].removeprefix("results are in "))


def test_evaluate_writes_metrics_predictions_and_submission(
    tiny: Tiny, trained: Path, prepared: TaskData, command: Command
) -> None:
    status, out, errors = command("evaluate", *tiny.overrides, f"checkpoint={trained}")
    assert (status, errors) == (0, [])
    assert out.startswith("run folder: ")
    run = folder_of(out)
    questions = prepared.splits.part("test").questions
    rows = read_json(run / "predictions_test.json")
    assert [row["question_id"] for row in rows] == [q.question_id for q in questions]
    score = score_predictions({row["question_id"]: row["answer"] for row in rows}, questions)
    metrics = read_json(run / "metrics.json")
    assert metrics["test"]["accuracy"] == score.overall > 0
    assert metrics["test"]["by_answer_type"] == score.by_answer_type
    assert metrics["test"]["questions"] == 60
    assert [row["accuracy"] for row in rows] == [score.per_question[row["question_id"]] for row in rows]
    assert all(0 <= row["probability"] <= 1 for row in rows)
    assert metrics["checkpoint"].endswith("best.ckpt")
    assert metrics["config"]["mapper"]["width"] == 16
    assert metrics["versions"].keys() >= {"python", "torch", "pytorch-lightning"}
    submission = read_json(run / "submission_test.json")
    assert submission == [{"question_id": row["question_id"], "answer": row["answer"]} for row in rows]
    assert all(type(row["question_id"]) is int and type(row["answer"]) is str for row in submission)
    assert f"{score.overall:.2f}" in out


def test_training_and_evaluation_agree(tiny: Tiny, trained: Path, command: Command) -> None:
    for split in ("val", "test"):
        _, out, _ = command("evaluate", *tiny.overrides, f"checkpoint={trained}", f"split={split}")
        assert read_json(folder_of(out) / "metrics.json")[split] == read_json(trained / "metrics.json")[split]
        again = read_json(folder_of(out) / f"predictions_{split}.json")
        assert again == read_json(trained / f"predictions_{split}.json")


def test_only_the_scored_split_is_drawn_and_encoded(
    tiny: Tiny, trained: Path, tmp_path: Path, command: Command
) -> None:
    rest = [override for override in tiny.overrides if not override.startswith("paths.")]
    status, out, errors = command("evaluate", *rest, f"paths.root={tmp_path}", f"checkpoint={trained}", "split=val")
    assert (status, errors) == (0, [])
    assert {path.parent.name for path in tmp_path.rglob("*.png")} == {"val"}
    assert read_json(folder_of(out) / "metrics.json")["val"] == read_json(trained / "metrics.json")["val"]


def test_batches_do_not_change_predictions(trained: Path, prepared: TaskData) -> None:
    model = load_vqa(trained / "checkpoints" / "best.ckpt")
    dataset = prepared.datasets["val"]
    answers, probabilities = predict(model.trained, dataset)
    for size in (1, 7):
        others, close = predict(model.trained, dataset, size)
        assert torch.equal(answers, others)
        torch.testing.assert_close(probabilities, close, rtol=0, atol=1e-5)


def test_the_whole_model_gives_the_same_answers_as_cached_features(trained: Path, prepared: TaskData) -> None:
    """Compare the loaded model, which reads pixels and words one by one, with the cached features."""
    from clipmapper.data.images import load_rgb

    model = load_vqa(trained / "checkpoints" / "best.ckpt")
    dataset = prepared.datasets["val"]
    expected = predict(model.trained, dataset)
    data = prepared.splits.part("val")
    for k, question in enumerate(data.questions[:6]):
        pixels = model.encoder.pixels([load_rgb(data.images[question.image_id])])
        with torch.inference_mode():
            best = model(pixels, model.encoder.tokenize([question.question])).max(1)
        assert int(best.indices) == int(expected[0][k])
        assert float(best.values.sigmoid()) == pytest.approx(float(expected[1][k]), abs=1e-5)


def unlabelled(prepared: TaskData) -> VQADataset:
    data = prepared.splits.part("test")
    bare = tuple(replace(q, answers=(), multiple_choice_answer="") for q in data.questions)
    return VQADataset(VQAData(bare, data.images), prepared.images, prepared.texts, prepared.answers)


def test_questions_without_labels_get_only_predictions(trained: Path, prepared: TaskData, tmp_path: Path) -> None:
    model = load_vqa(trained / "checkpoints" / "best.ckpt")
    assert evaluate(model.trained, unlabelled(prepared), model.answers, tmp_path, "test") is None
    rows = read_json(tmp_path / "predictions_test.json")
    assert len(rows) == len(read_json(tmp_path / "submission_test.json")) == 60
    assert all("accuracy" not in row for row in rows)


def test_the_command_on_a_split_without_labels(tiny: Tiny, trained: Path, command: Command, tmp_path: Path) -> None:
    root = tmp_path / "vqav2"
    write_vqav2(root, splits=("train2014", "val2014", "test2015"))
    (root / "v2_mscoco_test2015_annotations.json").unlink()
    data = ("data=vqav2", f"data.root={root}", "data.reserved=4", "data.test_split=test2015")
    place = (f"checkpoint={trained}", f"paths.cache={tmp_path / 'cache'}")
    status, out, errors = command("evaluate", *tiny.base, *data, *place, "submission=model-b")
    assert (status, errors) == (0, [])
    assert "has no human answers: wrote the predictions only" in out
    assert not (folder_of(out) / "metrics.json").exists()
    sent = folder_of(out) / "vqa_OpenEnded_mscoco_test2015_model-b_results.json"
    assert f"{sent} can be sent: it has all 12 questions, each once" in out
    assert read_json(sent) == read_json(folder_of(out) / "submission_test.json")
    questions = read_json(root / "v2_OpenEnded_mscoco_test2015_questions.json")["questions"]
    assert {row["question_id"] for row in read_json(sent)} == {row["question_id"] for row in questions}


def test_words_that_the_training_did_not_have_are_counted(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path
) -> None:
    root = tmp_path / "vqav2"
    write_vqav2(root)
    data = ("data=vqav2", f"data.root={root}", "data.reserved=4", "data.test_split=val2014")
    place = (f"checkpoint={trained}", f"paths.cache={tmp_path / 'cache'}")
    split = ("data.train_splits=[train2014]", "data.reserve_from=train2014")
    status, out, errors = command("evaluate", *tiny.base, *data, *place, *split)
    assert (status, errors) == (0, [])
    learnt, asked = (
        [{*re.findall(r"\w+", row["question"].lower())} for row in read_json(file)["questions"]]
        for file in (official(tiny, "train")[0], root / "v2_OpenEnded_mscoco_val2014_questions.json")
    )
    unknown = {word: sum(word in words for words in asked) for word in set().union(*asked) - set().union(*learnt)}
    assert unknown["so"] == 12
    found = read_json(folder_of(out) / "metrics.json")["question_words"]
    assert found == {"words": len(set().union(*asked)), "questions": 12, "affected": 12, "unknown": unknown}
    assert f"words: {len(unknown)} of the {found['words']} words of the questions" in out


@pytest.fixture
def result_files(tiny: Tiny, trained: Path, prepared: TaskData) -> tuple[Path, Path, Path]:
    return trained / "submission_test.json", *official(tiny, "test")


def scoring(predictions: Path, questions: Path, annotations: Path) -> list[str]:
    return [f"predictions={predictions}", f"questions={questions}", f"annotations={annotations}"]


def test_a_result_file_is_scored(
    result_files: tuple[Path, Path, Path], trained: Path, tmp_path: Path, command: Command
) -> None:
    status, out, errors = command("evaluate", f"paths.root={tmp_path}", *scoring(*result_files))
    assert (status, errors) == (0, [])
    metrics = read_json(folder_of(out) / "metrics.json")
    assert metrics["predictions"] == read_json(trained / "metrics.json")["test"]
    assert score_files(*result_files).overall == metrics["predictions"]["accuracy"]


def changed(path: Path, target: Path, change: Callable[[Any], Any]) -> Path:
    target.write_text(json.dumps(change(read_json(path))))
    return target


@pytest.mark.parametrize("wrong", range(3))
@pytest.mark.parametrize("how", ["missing", "empty", "cut off", "a list of numbers", "one missing", "a folder"])
def test_a_wrong_file_ends_in_one_line_with_its_name(
    result_files: tuple[Path, Path, Path], tmp_path: Path, command: Command, wrong: int, how: str
) -> None:
    path, files = tmp_path / "wrong.json", list(result_files)
    key = (None, "questions", "annotations")[wrong]
    if how == "empty":
        path.touch()
    elif how == "cut off":
        path.write_bytes(files[wrong].read_bytes()[:-20])
    elif how == "a list of numbers":
        path.write_text("[1, 2]")
    elif how == "one missing":
        changed(files[wrong], path, lambda content: {key: content[key][1:]} if key else content[1:])
    elif how == "a folder":
        path.mkdir()
    files[wrong] = path
    status, _, errors = command("evaluate", f"paths.root={tmp_path}", *scoring(*files))
    assert (status, len(errors)) == (1, 1)
    assert "wrong.json" in errors[0]


def test_two_of_the_three_files_are_enough_for_a_check_only(
    result_files: tuple[Path, Path, Path], tmp_path: Path, command: Command
) -> None:
    two = scoring(*result_files)[:2]
    status, out, errors = command("evaluate", f"paths.root={tmp_path}", *two)
    assert (status, errors) == (0, [])
    assert f"{result_files[0]} can be sent: it has all 60 questions, each once" in out
    for given in (two[:1], [two[0], f"annotations={result_files[2]}"]):
        status, _, errors = command("evaluate", f"paths.root={tmp_path}", *given)
        assert (status, len(errors)) == (1, 1)
        assert errors[0].startswith(
            "error: scoring a result file needs all three: predictions=FILE questions=FILE annotations=FILE; without"
        )


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("mapper=a", "has mapper.name=b, the config mapper.name=a: give mapper.name=b or another checkpoint"),
        ("mapper.readout=eot", "has mapper.readout=cls, the config mapper.readout=eot"),
        ("mapper.width=32", "has mapper.width=16, the config mapper.width=32"),
        ("task.sees=image", "has sees=both, the config sees=image"),
        ("encoder.weights={other}", "was trained on other weights of shapes-tiny than encoder.weights="),
        ("data.answers_file={labels}", "the checkpoint was trained on another answer list than data.answers_file="),
        ("split=dev", "split=dev: this data has train, val, test"),
    ],
)
def test_a_checkpoint_that_does_not_fit_the_config_is_refused(
    tiny: Tiny, trained: Path, tmp_path: Path, command: Command, override: str, said: str
) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny.weights)
    weights["visual.conv1.weight"][0, 0, 0, 0] += 1e-3
    save_file(weights, tmp_path / "other.safetensors")
    write_json(tmp_path / "labels.json", ["yes", "no"])
    override = override.format(other=tmp_path / "other.safetensors", labels=tmp_path / "labels.json")
    status, _, errors = command("evaluate", *tiny.overrides, f"checkpoint={trained}", override)
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


def test_a_checkpoint_whose_weights_do_not_fit_its_mapper_is_refused(trained: Path, tmp_path: Path) -> None:
    content = checkpoint_of(trained, "best")
    content["state_dict"].pop("model.head.1.bias")
    torch.save(content, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="its weights do not fit its own description; it is damaged"):
        load_vqa(tmp_path / "best.ckpt")


@pytest.mark.parametrize("kept", [0, 1, 100, 5000, -100, -1])
def test_a_cut_off_checkpoint_is_one_line(trained: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.ckpt"
    path.write_bytes((trained / "checkpoints" / "best.ckpt").read_bytes()[:kept])
    with pytest.raises(UserError, match=r"cut\.ckpt: cannot be read"):
        read_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "done"),)

    torch.save({"clipmapper": {}, "state_dict": Evil()}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="cannot be read"):
        read_checkpoint(tmp_path / "evil.ckpt")
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], {"clipmapper": 3}, {"clipmapper": {"task": "vqa"}}])
def test_a_checkpoint_of_another_program_is_one_line(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match=r"foreign\.ckpt"):
        load_vqa(tmp_path / "foreign.ckpt")


def test_a_result_file_and_a_checkpoint_are_refused(command: Command, tmp_path: Path) -> None:
    status, _, errors = command("evaluate", f"paths.runs={tmp_path}", "predictions=a.json", "checkpoint=b.ckpt")
    assert (status, len(errors)) == (1, 1)
    assert "predictions=… and checkpoint=…: a result file is scored without a model; leave one out" in errors[0]
