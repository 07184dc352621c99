"""The command ``explain`` for captions: its figures and scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from models import CAPTION_TASK, TEST_IMAGES, says, words_of, write_untrained
from PIL import Image
from tiny_runs import Tiny, composed

from clipmapper.cli import typed
from clipmapper.data.shapes.caption_words import named_objects, read_scenes
from clipmapper.data.shapes.evidence import read_evidence
from clipmapper.explaining.image_statistics import ImageStatistics
from clipmapper.files import read_json
from clipmapper.metrics.captions import build_cider_corpus
from clipmapper.tasks.caption import pictures as picturing
from clipmapper.tasks.caption.config import ExplainCaptionConfig
from clipmapper.tasks.caption.explaining import in_chunks
from clipmapper.tasks.caption.sentence import word_weights
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.caption.trained import TrainedCaptioner, load_trained
from clipmapper.training.checkpoint_file import write_checkpoint
from explain import explainers
from explain.figures import Caption, caption_content

Command = Callable[..., tuple[int, str, list[str]]]
SIDE = 6  # patches


@pytest.fixture(scope="module")
def checkpoint(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_untrained(tiny, tmp_path_factory.mktemp("untrained"))


@pytest.fixture
def overrides(tiny: Tiny, checkpoint: Path, tmp_path: Path) -> tuple[str, ...]:
    return (
        *tiny.overrides,
        *CAPTION_TASK,
        f"checkpoint={checkpoint}",
        f"paths.runs={tmp_path / 'runs'}",
        "formats=[png]",
    )


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Caption]:
    """A list to which every caption is added instead of being drawn."""
    captions: list[Caption] = []

    def keep(caption: Caption, *_: object) -> list[None]:
        captions.append(caption)
        return [None]

    monkeypatch.setattr(picturing, "draw_caption_pages", keep)
    monkeypatch.setattr(picturing, "save", lambda *_: None)
    return captions


def subject_of(overrides: tuple[str, ...]) -> TrainedCaptioner:
    config = typed(composed("explain", *overrides), ExplainCaptionConfig)
    return load_trained(config, "test", config.checkpoint)


def made(command: Command, *arguments: str) -> tuple[Path, pd.DataFrame]:
    status, out, errors = command("explain", *arguments)
    assert (status, errors) == (0, [])
    run = Path(out.splitlines()[0].removeprefix("run folder: "))
    return run, pd.read_parquet(run / "scores.parquet")


@pytest.mark.usefixtures("_no_figures")
def test_an_explainer_without_scores_of_patches_is_left_out(
    overrides: tuple[str, ...], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("explainer=all", "explainer.names=[first_to_last,centre_first]", "samples=2")
    _, scores = made(command, *overrides, *few)
    assert set(scores["explainer"]) == {"centre_first"}
    assert "explainer first_to_last is left out: it does not score image tokens" in capsys.readouterr().err


def test_far_images_are_reported(
    overrides: tuple[str, ...], checkpoint: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoint has training images that were all close to the origin of the feature space."""
    content = torch.load(checkpoint, weights_only=True)
    statistics = ImageStatistics(np.zeros(128), np.eye(128))
    content["clipmapper"]["familiarity"] = {"words": None, "images": statistics.entry()}
    write_checkpoint(tmp_path / "strict.ckpt", content)
    arguments = (f"checkpoint={tmp_path / 'strict.ckpt'}", "samples=3", "batch_size=8", "explainer=uniform")
    run, scores = made(command, *overrides, *arguments)
    entries = read_json(run / "warnings.json")
    assert [entry["image_id"] for entry in entries] == scores["image_id"].unique().tolist()
    assert all(entry["unknown_words"] is None and entry["image_distance"] > 1 for entry in entries)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert lines == [f"warning: image {entry['image_id']}: {text}" for entry in entries for text in entry["warnings"]]
    assert len(lines) == 3


@pytest.mark.usefixtures("_no_figures")
def test_controls_with_partners_do_not_depend_on_the_batches(overrides: tuple[str, ...], command: Command) -> None:
    names = ("explainer=all", "explainer.names=[shuffled,depth_matched]", "samples=4")
    together, alone = (made(command, *overrides, *names, f"batch_size={size}")[1] for size in (100, 1))
    both = together.merge(alone, on=["image_id", "explainer", "index"], validate="1:1")
    assert len(both) == len(together) == len(alone) > 8
    np.testing.assert_allclose(
        np.stack(both["patches_x"].tolist()), np.stack(both["patches_y"].tolist()), rtol=1e-4, atol=1e-6
    )


def test_scores_equal_those_of_each_caption_alone(
    overrides: tuple[str, ...], command: Command, drawn: list[Caption]
) -> None:
    trained = subject_of(overrides)
    ids = [trained.images[row].image_id for row in (7, 3, 5)]
    few = ("batch_size=16", "explainer=all", "explainer.names=[weighted,input_x_gradient]")
    _, scores = made(command, *overrides, *few, "select=ids", f"ids={ids}".replace(" ", ""))
    assert list(dict.fromkeys(scores["image_id"])) == ids
    batch = trained.batch([7, 3, 5])
    assert batch is not None
    rules = {"weighted": explainers.Weighted(), "input_x_gradient": explainers.InputXGradient()}
    several = 0
    for b, image_id in enumerate(ids):
        caption = batch.captions[b]
        traced = trace_captions(trained.model, batch.pixels[b : b + 1], [caption], sample_ids=[image_id])
        words = words_of(caption, trained.model.encoder.tokenizer.decoder)
        several += any(len(word) > 1 for word in words)
        for name, rule in rules.items():
            direct = rule(traced.trace, traced.rows).double().numpy()
            rows = scores[(scores["image_id"] == image_id) & (scores["explainer"] == name)]
            assert rows["index"].tolist() == list(range(len(words)))
            assert set(rows["caption"]) == {trained.model.vocabulary.text(caption)}
            assert rows["weight"].tolist() == pytest.approx([1 / len(words)] * len(words))
            for index, (_, row) in enumerate(rows.iterrows()):
                mean = sum(direct[place] for place in words[index]) / len(words[index])
                first_text = 1 + SIDE * SIDE
                close = {"rtol": 1e-4, "atol": 1e-6 * abs(direct).max()}
                np.testing.assert_allclose(row["special"], mean[:1], **close)
                np.testing.assert_allclose(row["patches"], mean[1:first_text], **close)
                text = [mean[first_text], *(sum(mean[first_text + 1 + k] for k in w) for w in words[: index + 1])]
                np.testing.assert_allclose(row["text"], text, **close)
    assert several  # else the mean over sub-words is not tested


def test_figures_show_the_written_scores(overrides: tuple[str, ...], command: Command, drawn: list[Caption]) -> None:
    run, scores = made(command, *overrides, "samples=3", "explainer=paper", "encoder.batch_size=2")
    contents = iter((run / "pictures.jsonl").read_text().splitlines())
    assert len(drawn) == scores["image_id"].nunique() == 3
    for caption, (_, rows) in zip(drawn, scores.groupby("image_id", sort=False), strict=True):
        assert caption.text == rows["caption"].iloc[0]
        assert " ".join(caption.words).split() == caption.text.split()
        assert [e.explainer for e in caption.explanations] == list(dict.fromkeys(rows["explainer"]))
        assert caption_content(caption).items() <= json.loads(next(contents)).items()
        for explanation, (_, of_explainer) in zip(
            caption.explanations, rows.groupby("explainer", sort=False), strict=True
        ):
            maps = np.stack(of_explainer["patches"].tolist()).reshape(-1, SIDE, SIDE)
            np.testing.assert_allclose(explanation.word_scores, maps, rtol=1e-6)
            np.testing.assert_allclose(explanation.whole_scores, maps.mean(0), rtol=1e-4, atol=1e-8)


def test_the_objects_that_words_of_a_true_caption_name_are_outlined(
    overrides: tuple[str, ...], tiny: Tiny, command: Command, drawn: list[Caption], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, config = subject_of(overrides), typed(composed("explain", *overrides), ExplainCaptionConfig)
    evidence = read_evidence(config.data, config.split)
    scenes = read_scenes(evidence)
    true = [(image.image_id, text) for image in trained.images for text in image.captions]
    image_id, text = next(each for each in true if named_objects(each[1].split(), scenes[each[0]]))
    says(monkeypatch, tiny, [text, "a purple fox"])
    arguments = ("select=ids", f"ids=[{image_id},{trained.images[-1].image_id}]", "explainer=uniform")
    made(command, *overrides, *arguments, "task.max_length=30")
    named = named_objects(drawn[0].words, scenes[image_id])
    expected = {each.word: evidence.object_pixels(image_id, each.objects) for each in named}
    assert drawn[0].evidence.keys() == expected.keys() != set()
    for word, mask in expected.items():
        np.testing.assert_array_equal(drawn[0].evidence[word], mask)
    assert drawn[1].evidence == {}


def test_words_are_weighted_by_a_metric(
    overrides: tuple[str, ...], tiny: Tiny, command: Command, drawn: list[Caption], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # no Java: starting it takes seconds
    trained = subject_of(overrides)
    image = trained.images[4]
    spoken = f"zebra {image.captions[0]}"
    says(monkeypatch, tiny, [spoken])
    arguments = ("select=ids", f"ids=[{image.image_id}]", "weighting=cider", "explainer=uniform", "task.max_length=30")
    _, scores = made(command, *overrides, *arguments)
    corpus = build_cider_corpus([each.captions for each in trained.images])
    expected = word_weights({0: scores["word"].tolist()}, {0: image.captions}, "cider", corpus)[0]
    assert scores["weight"].tolist() == pytest.approx(expected)
    assert expected[0] == 0  # the zebra
    whole = sum(weight * np.asarray(p) for weight, p in zip(expected, scores["patches"], strict=True))
    np.testing.assert_allclose(drawn[0].explanations[0].whole_scores.ravel(), whole, rtol=1e-4, atol=1e-7)
    assert drawn[0].note == f"people: {image.captions[0]}; all words: weighted by CIDEr"


def test_a_custom_image_and_its_files(overrides: tuple[str, ...], command: Command, tmp_path: Path) -> None:
    photo = tmp_path / "my photo (1).png"
    Image.fromarray(np.linspace(0, 60_000, 60 * 90).reshape(60, 90).astype(np.uint16)).save(photo)
    run, scores = made(command, *overrides, f"image={photo}", "explainer=uniform", "formats=[png,pdf]", "data.root=/no")
    assert {path.name for path in (run / "pictures").iterdir()} == {"image_0.png", "image_0.pdf"}
    assert set(scores["image_id"]) == {0}
    with Image.open(run / "pictures" / "image_0.png") as figure:
        assert figure.width > 500


def test_fewer_images_are_the_first_ones_and_depend_on_the_seed(overrides: tuple[str, ...]) -> None:
    trained = subject_of(overrides)

    def chosen(*arguments: str) -> list[int]:
        config = typed(composed("explain", *overrides, *arguments), ExplainCaptionConfig)
        return picturing.select(trained, config)

    assert chosen("samples=2") == chosen("samples=4")[:2]
    assert len(set(chosen("samples=10"))) == 10
    assert chosen("samples=4", "seed=1") != chosen("samples=4")


def test_captions_without_words_are_left_out_with_a_warning(
    overrides: tuple[str, ...],
    tiny: Tiny,
    command: Command,
    drawn: list[Caption],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    says(monkeypatch, tiny, ["a red circle", ""])
    _, scores = made(command, *overrides, "explainer=uniform", "samples=2")
    assert scores["word"].tolist() == ["a", "red", "circle"]
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1
    assert said[0].endswith("is left out: its caption has no words")
    says(monkeypatch, tiny, [""])
    status, _, errors = command("explain", *overrides, "explainer=uniform", "samples=2")
    assert (status, len(errors)) == (1, 1)
    assert "there is nothing to explain" in errors[0]


@pytest.mark.parametrize("most", [1, 5, 16, 1000])
def test_chunks_contain_every_caption_with_words_once(most: int) -> None:
    draw = np.random.default_rng(0)
    captions = [[0] * int(length) for length in draw.integers(0, 9, 40)]
    chunks = in_chunks(captions, most)
    assert [place for chunk in chunks for place in chunk] == [k for k, caption in enumerate(captions) if caption]
    assert max(sum(len(captions[k]) for k in chunk) for chunk in chunks) <= max(2 * most, 9) + 9
    assert in_chunks([[], []], most) == []


WRONG = {
    "select=wrong": "select=wrong is not one of: random, ids",
    "select=ids ids=[5]": "ids: the test split has no image 5; it has ",
    "ids=[5]": "image ids are taken with select=ids ids=[…]; select=ids is missing",
    f"samples={TEST_IMAGES + 1}": f"samples={TEST_IMAGES + 1}: the test split has {TEST_IMAGES} images; give fewer",
    "weighting=rouge": "weighting=rouge is not one of: equal, bleu4, cider, meteor",
    "image=a.png weighting=cider": "weighting=cider needs reference captions, which image=… does not have",
    "image=a.png select=ids ids=[5]": "image=… and ids=… cannot be given together; give one of them",
    "image=none.png": "none.png: no such image",
    "question=why": "unknown config key question; ",
    "interaction=true": "unknown config key interaction; ",
    "answer=yes": "unknown config key answer; ",
    "task=vqa weighting=cider": "unknown config key weighting; ",
    "task.sees=text": "task.sees=text: only models that see both image and text can be explained",
    "task.max_length=99": "task.max_length=99: the encoder's context holds ",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_ends_in_one_line(overrides: tuple[str, ...], command: Command, case: str) -> None:
    dropped = CAPTION_TASK if case.startswith("task=vqa") else ()
    arguments = [override for override in overrides if override not in dropped]
    status, _, errors = command("explain", *arguments, *case.split())
    assert (status, len(errors)) == (1, 1)
    assert WRONG[case] in errors[0]


def test_nan_in_the_model_is_one_line(
    overrides: tuple[str, ...], checkpoint: Path, tmp_path: Path, command: Command
) -> None:
    content = torch.load(checkpoint, weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("weight"))
    content["state_dict"][name][:] = float("nan")
    write_checkpoint(tmp_path / "nan.ckpt", content)
    arguments = [override for override in overrides if not override.startswith("checkpoint=")]
    status, _, errors = command("explain", *arguments, f"checkpoint={tmp_path / 'nan.ckpt'}", "samples=2")
    assert (status, len(errors)) == (1, 1)
    assert "nan.ckpt" in errors[0]
