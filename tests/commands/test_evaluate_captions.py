"""Evaluation of captions: the files it writes, their scores, the best constant caption, and result files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_scores import slow_clip_scores
from PIL import Image
from tiny_runs import QUIET, SMALL_MAPPER, Tiny, composed

from clipmapper.cli import typed
from clipmapper.commands.train import train
from clipmapper.config.schema import TrainConfig
from clipmapper.data.caption_files import CaptionImage
from clipmapper.data.images import FileImage
from clipmapper.data.shapes.caption_truth import check_caption
from clipmapper.data.shapes.caption_words import read_scenes
from clipmapper.data.shapes.evidence import read_evidence
from clipmapper.files import read_json
from clipmapper.metrics.captions import score_captions
from clipmapper.tasks.caption import evaluation
from clipmapper.tasks.caption.evaluation import best_constant

Command = Callable[..., tuple[int, str, list[str]]]
TASK = ("task=caption", "task.val_images=4", "task.max_length=12")
JAVA_FREE = ("BLEU-4", "CIDEr")


@pytest.fixture(autouse=True)
def _without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide Java, which takes seconds to start; METEOR and PTB are tested with the metrics."""
    make_quick(monkeypatch)


def make_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


def folder_of(out: str) -> Path:
    return Path(out.splitlines()[-1].removeprefix("results are in "))


def coco(root: Path, train: list[list[str]], val: list[list[str]]) -> tuple[str, ...]:
    """Write images of noise in COCO's layout, one per list of captions, and return the overrides for them."""
    (root / "annotations").mkdir(parents=True)
    for split, texts, start in (("train2014", train, 1), ("val2014", val, 1001)):
        folder = root / "images" / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for image_id, captions in enumerate(texts, start):
            noise = np.random.default_rng(image_id).integers(0, 255, (40, 50, 3), np.uint8)
            Image.fromarray(noise).save(folder / f"{image_id}.png")
            images.append({"id": image_id, "file_name": f"{image_id}.png"})
            annotations += [
                {"id": image_id * 10 + k, "image_id": image_id, "caption": text} for k, text in enumerate(captions)
            ]
        content = json.dumps({"images": images, "annotations": annotations})
        (root / "annotations" / f"captions_{split}.json").write_text(content)
    return "data=coco", f"data.root={root}", "data.karpathy=null"


TRAIN = [["a red ball on grass", "the red ball"], ["two dogs run"], ["two dogs run", "a dog"]]
VAL = [["two dogs run by", "dogs"], ["a ball"], ["a cat on grass", "the cat"]]


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        run = tmp_path_factory.mktemp("caption-run") / "run"
        tiny.train(run, *TASK, "trainer.max_steps=40", "trainer.val_check_interval=40", "task.optim.lr=0.01")
    return run


def test_training_and_evaluation_write_the_same_captions_and_scores(
    tiny: Tiny, trained: Path, command: Command
) -> None:
    status, out, errors = command("evaluate", *tiny.overrides, *TASK, f"checkpoint={trained}")
    assert (status, errors) == (0, [])
    run = folder_of(out)
    for name in ("captions_test.json", "submission_test.json"):
        assert read_json(run / name) == read_json(trained / name)
    found = read_json(run / "metrics.json")
    assert found["test"] == read_json(trained / "metrics.json")["test"]
    rows = read_json(run / "captions_test.json")
    assert len(rows) == found["test"]["images"] == 10
    assert [{"image_id": row["image_id"], "caption": row["caption"]} for row in rows] == read_json(
        run / "submission_test.json"
    )
    given = {row["image_id"]: row["caption"] for row in rows}
    again = score_captions(given, {row["image_id"]: row["references"] for row in rows}, JAVA_FREE)
    assert found["test"]["CIDEr"] == pytest.approx(again.corpus["CIDEr"])
    assert found["test"]["BLEU-4"] == pytest.approx(again.corpus["BLEU-4"])
    assert all(len(row["references"]) == 5 for row in rows)
    assert "CIDEr" in out


def test_captions_of_shapes_are_checked_against_their_scenes(
    tiny: Tiny, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny.config(*TASK)
    scenes = read_scenes(read_evidence(config.data, "test"))
    rows = read_json(trained / "captions_test.json")
    verdicts = [check_caption(row["caption"], scenes[row["image_id"]]).true for row in rows]
    assert [row["true"] for row in rows] == verdicts
    metrics = read_json(trained / "metrics.json")
    assert metrics["test"]["true_captions"] == sum(verdicts) / len(verdicts)
    evaluation.print_scores("shapes test", metrics["test"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "shapes test, 10 images: scores of the captions"
    table = {line.rsplit("  ", 1)[0].strip(): line.split()[-1] for line in lines if "  " in line}
    assert table["share of captions that are true of the scene"] == f"{sum(verdicts) / len(verdicts):.4f}"
    assert table["CIDEr"] == f"{metrics['test']['CIDEr']:.4f}"
    assert table["CIDEr of the best constant caption"] == f"{metrics['test']['constant']['CIDEr']:.4f}"
    assert table["metric"] == "↑"
    text = " ".join(lines)
    assert f'"{metrics["test"]["constant"]["caption"]}"' in text
    assert "METEOR: not available: no java found; install a Java runtime" in text


def test_only_scores_that_there_are_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.print_scores("t", {"images": 4, "notes": {}, "true_captions": 0.25})
    out = capsys.readouterr().out
    assert "true of the scene    0.2500" in out
    assert "constant" not in out


def test_clip_scores_are_those_of_the_images(tiny: Tiny, trained: Path) -> None:
    from clipmapper.data.datasets import load_captions
    from clipmapper.data.images import load_rgb
    from clipmapper.encoder.load import load_encoder

    config = tiny.config(*TASK)
    rows = read_json(trained / "captions_test.json")
    images = [load_rgb(image.image) for image in load_captions(config.data).part("test").images]
    encoder = load_encoder(config.encoder)
    scored = [
        slow_clip_scores(encoder, image, row["caption"], row["references"])
        for image, row in zip(images, rows, strict=True)
    ]
    for name, values in zip(("CLIPScore", "RefCLIPScore"), zip(*scored, strict=True), strict=True):
        assert [row["scores"][name] for row in rows] == pytest.approx(values, abs=1e-4)
        mean = read_json(trained / "metrics.json")["test"][name]
        assert mean == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_the_best_constant_equals_that_of_a_slow_loop() -> None:
    def image(number: int, *texts: str) -> CaptionImage:
        return CaptionImage(number, texts, FileImage(Path("none")))

    training = [image(1, "a dog runs", "two cats"), image(2, "a dog runs", "a red bus on the road"), image(3, "a cat")]
    references = {7: ("two cats sleep", "cats"), 8: ("a bus on the road",), 9: ("the road", "a red bus")}
    expected = {
        text: score_captions(dict.fromkeys(references, text), references, ("CIDEr",)).corpus["CIDEr"]
        for text in {"a dog runs", "two cats", "a red bus on the road", "a cat"}
    }
    caption, cider = best_constant(training, references)
    assert caption == max(expected, key=lambda text: expected[text]) == "a red bus on the road"
    assert cider == pytest.approx(expected[caption])


def test_a_result_file_is_scored(command: Command, tmp_path: Path) -> None:
    coco(tmp_path / "coco", TRAIN, VAL)
    references = tmp_path / "coco" / "annotations" / "captions_val2014.json"
    given = {1001: "two dogs run", 1002: "a ball", 1003: ""}
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"image_id": i, "caption": text} for i, text in given.items()]))
    files = ("task=caption", f"paths.runs={tmp_path}", f"predictions={results}")
    status, out, errors = command("evaluate", *files, f"references={references}")
    assert (status, errors) == (0, [])
    expected = score_captions(given, {1001 + k: texts for k, texts in enumerate(VAL)}, JAVA_FREE)
    assert read_json(folder_of(out) / "metrics.json")["predictions"]["CIDEr"] == expected.corpus["CIDEr"]
    karpathy = tmp_path / "karpathy.json"
    sentences = [[{"raw": text, "sentid": 10 * k + n} for n, text in enumerate(texts)] for k, texts in enumerate(VAL)]
    images = [
        {"cocoid": 1001 + k, "split": "test", "filepath": "x", "filename": "y", "sentences": texts}
        for k, texts in enumerate(sentences)
    ]
    karpathy.write_text(json.dumps({"images": images}))
    status, out, errors = command("evaluate", *files, f"references={karpathy}")
    assert (status, errors) == (0, [])
    assert read_json(folder_of(out) / "metrics.json")["predictions"]["CIDEr"] == expected.corpus["CIDEr"]


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ([{"image_id": 1001, "caption": "a"}], "image 1002 has references but no caption"),
        ({"a": 1}, "not a result file; give a list"),
        ([{"image_id": 1001}], '[0]: has no "caption"'),
        ([{"image_id": 1001, "caption": "a"}] * 2, "[1]: image_id 1001 occurs twice"),
        ([], "there are no captions to score"),
        ([{"image_id": i, "caption": "a"} for i in (1001, 1002, 1003, 5)], "image 5 has no reference captions"),
    ],
)
def test_a_bad_result_file_is_one_line(command: Command, tmp_path: Path, results: Any, said: str) -> None:
    coco(tmp_path / "coco", TRAIN, VAL)
    references = tmp_path / "coco" / "annotations" / "captions_val2014.json"
    (tmp_path / "results.json").write_text(json.dumps(results))
    files = (f"predictions={tmp_path / 'results.json'}", f"references={references}")
    status, _, errors = command("evaluate", "task=caption", f"paths.runs={tmp_path}", *files)
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("task=caption", "predictions=x"), "scoring captions needs these two: predictions=FILE references=FILE"),
        (("task=caption", "predictions=x", "references=x", "questions=x"), "scoring captions needs these two"),
        (("predictions=x", "references=x"), "references=FILE belongs to captions: give task=caption"),
        (("task=caption", "data=easy_vqa"), "no trained checkpoint of task=caption data=easy_vqa mapper=b"),
    ],
)
def test_a_missing_file_or_checkpoint_is_one_line(
    command: Command, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    status, _, errors = command("evaluate", f"paths.root={tmp_path}", *arguments)
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


@pytest.fixture
def places(tiny: Tiny, tmp_path: Path) -> tuple[str, ...]:
    return *tiny.base, *TASK, f"paths.runs={tmp_path / 'runs'}", f"paths.cache={tmp_path / 'cache'}"


def test_odd_captions_are_handled_and_counted(places: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    """Captions of one word, of 200 words, with emoji, control characters or a special token; and no captions."""
    odd = [["ball"], ["word " * 200], ["two 🎉👩‍🚀 dogs", "tab\there\x07"], ["a <end_of_text> b"], []]
    data = coco(tmp_path / "coco", odd, [*VAL, [], ["猫", "cat"]])
    status, out, errors = command("train", *places, *data)
    assert (status, errors) == (0, [])
    assert "captions: 5 train, 7 val, 1 of them cut off at the encoder's 40 tokens" in out
    run = folder_of(out)
    val = read_json(run / "metrics.json")["val"]
    assert (val["images"], val["not_captioned_by_people"]) == (4, 1)
    submitted = read_json(run / "submission_val.json")
    assert [row["image_id"] for row in submitted] == [1001, 1002, 1003, 1004, 1005]
    assert all("\n" not in row["caption"] and "<" not in row["caption"] for row in submitted)
    assert "scores" in read_json(run / "captions_val.json")[0]


def test_an_untrained_model_is_evaluated(places: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    data = coco(tmp_path / "coco", TRAIN, VAL)
    status, out, errors = command("train", *places, *data, "trainer.fast_dev_run=true")
    assert (status, errors) == (0, [])
    assert 0 <= read_json(folder_of(out) / "metrics.json")["val"]["CIDEr"] <= 10


def test_an_unreadable_image_gets_an_empty_caption(places: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    data = coco(tmp_path / "coco", TRAIN, VAL)
    (tmp_path / "coco" / "images" / "val2014" / "1002.png").write_bytes(b"no image")
    status, _, errors = command("train", *places, *data)
    assert (status, len(errors)) == (1, 1)
    assert "1002.png: not an image" in errors[0]
    status, out, errors = command("train", *places, *data, "data.on_bad_image=skip")
    assert (status, errors) == (0, [])
    submitted = {row["image_id"]: row["caption"] for row in read_json(folder_of(out) / "submission_val.json")}
    assert submitted.keys() == {1001, 1002, 1003}
    assert submitted[1002] == ""
    assert read_json(folder_of(out) / "metrics.json")["val"]["images"] == 2


@pytest.mark.slow
def test_the_files_for_the_server_are_of_whole_splits(
    places: tuple[str, ...], command: Command, tmp_path: Path
) -> None:
    data = coco(tmp_path / "coco", TRAIN, VAL)
    status, out, errors = command("train", *places, *data)
    assert (status, errors) == (0, [])
    images = tmp_path / "coco" / "images"
    (images / "test2014").mkdir()
    for image_id in (2001, 2002):
        shutil.copy(images / "val2014" / f"{image_id - 1000}.png", images / "test2014" / f"{image_id}.png")
    entries = [{"id": image_id, "file_name": f"{image_id}.png"} for image_id in (2001, 2002)]
    (tmp_path / "coco" / "annotations" / "image_info_test2014.json").write_text(json.dumps({"images": entries}))
    for split, ids in {"val": [1001, 1002, 1003], "test": [2001, 2002]}.items():
        chosen = (f"split={split}", "data.test_split=test2014", "submission=model-b")
        status, out, errors = command("evaluate", *places, *data, *chosen)
        assert (status, errors) == (0, [])
        sent = folder_of(out) / f"captions_{split}2014_model-b_results.json"
        assert f"{sent} can be sent: it has all {len(ids)} images, each once" in out
        assert [row["image_id"] for row in read_json(sent)] == ids
    assert "has no reference captions" in out
    check = (
        "task=caption",
        f"predictions={sent}",
        f"references={tmp_path / 'coco' / 'annotations'}/image_info_test2014.json",
    )
    assert command("evaluate", f"paths.root={tmp_path}", *check)[0] == 0


@pytest.mark.parametrize(
    ("train_captions", "val_captions", "overrides", "said"),
    [
        ([[]], VAL, (), "no image of the train split has a caption"),
        (TRAIN, [[], []], (), "no image of the val split has a caption"),
        (TRAIN, [], (), "captions_val2014.json: holds no images"),
        (TRAIN, VAL, ("data.val_split=train2014",), "image 1 is in train and in val"),
        (TRAIN, VAL, ("data.test_split=test2014",), "captions_test2014.json: no such file"),
        (TRAIN, VAL, ("data.captions=all.json",), "data.captions=all.json must contain {split}"),
        (TRAIN, VAL, ("data.karpathy=none.json",), "none.json: no such file"),
        (TRAIN, VAL, ("task.max_length=39",), "task.max_length=39: the encoder's context holds 38 sub-words"),
        (TRAIN, VAL, ("task.vocabulary=some",), "task.vocabulary=some is not one of: training, all"),
        (TRAIN, VAL, ("task.sees=image",), "task.sees=image is not one of: both, text"),
        (TRAIN, VAL, ("task.best_by=BLEU",), "task.best_by=BLEU is not one of: accuracy, CIDEr"),
        (TRAIN, VAL, ("task.label_smoothing=1",), "task.label_smoothing=1.0 must be 0 or more and less than 1"),
        (TRAIN, VAL, ("task=vqa",), "data=coco has captions, but no questions; give task=caption"),
        (TRAIN, VAL, ("data=easy_vqa",), "data=easy_vqa has no captions; give data=shapes or data=coco"),
    ],
)
def test_data_that_cannot_be_trained_on_is_one_line(
    tiny: Tiny,
    command: Command,
    tmp_path: Path,
    train_captions: list[list[str]],
    val_captions: list[list[str]],
    overrides: tuple[str, ...],
    said: str,
) -> None:
    data = coco(tmp_path / "coco", train_captions, val_captions)
    task = TASK if "task=vqa" not in overrides else ()
    if "data=easy_vqa" in overrides:
        data = data[:0]
    status, _, errors = command("train", *tiny.base, *task, *data, *overrides, f"paths.root={tmp_path}")
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


def test_the_setup_of_the_paper_for_captions(tiny: Tiny, tmp_path: Path) -> None:
    config = typed(composed("train", "experiment=paper_caption", "data.root=/x", "mapper=a"), TrainConfig)
    assert (config.encoder.model, config.encoder.weights) == ("ViT-B-32-quickgelu", "openai")
    assert (config.task.name, config.data.name, config.data.root) == ("caption", "coco", "/x")
    assert (config.mapper.layers, config.mapper.width, config.task.optim.warmup_steps) == (8, 768, 1000)


def test_the_experiment_of_the_paper_runs(real_mini: Path, tiny: Tiny, tmp_path: Path) -> None:
    small = ("encoder=shapes_tiny", f"encoder.weights={tiny.weights}", *SMALL_MAPPER, *QUIET)
    overrides = ("experiment=paper_caption", "trainer.fast_dev_run=true", f"paths.root={tmp_path}", *small)
    (tmp_path / "run").mkdir()
    found = train(typed(composed("train", *overrides, f"data.root={real_mini}"), TrainConfig), tmp_path / "run")
    assert {part: found[part]["images"] for part in found} == {"val": 25, "test": 19}


@pytest.mark.parametrize("layout", ["karpathy", "coco"])
def test_photos_of_coco(
    real_mini: Path, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    data = ["data=coco", f"data.root={real_mini}"]
    if layout == "coco":
        data += ["data.karpathy=null", 'data.captions="captions_{split}_subset.json"']  # Hydra needs the quotes
    quick = (*tiny.base, *TASK, *data, f"paths.root={tmp_path}", f"encoder.weights={tiny.weights}")
    (tmp_path / "run").mkdir()
    found = train(typed(composed("train", *quick), TrainConfig), tmp_path / "run")
    sizes = {part: found[part]["images"] for part in found}
    assert sizes == ({"val": 25, "test": 19} if layout == "karpathy" else {"val": 53})
    noted = read_json(tmp_path / "run" / "split.json")
    assert len(noted["train"]) == (34 if layout == "karpathy" else 25)
