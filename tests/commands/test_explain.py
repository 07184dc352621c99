"""The command ``explain`` for answers: its figures and scores."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny_runs import Tiny, composed, finish
from watching import watched

from clipmapper.cli import typed
from clipmapper.data.shapes.evidence import read_evidence
from clipmapper.encoder.pieces import merge_clip_pieces
from clipmapper.explaining.image_statistics import ImageStatistics
from clipmapper.files import read_json
from clipmapper.metrics.vqa import vqa_accuracy
from clipmapper.storage.checksums import unsealed
from clipmapper.tasks.vqa import pictures as picturing
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.tasks.vqa.explaining import explain
from clipmapper.tasks.vqa.trained import TrainedVQA, load_trained
from clipmapper.training.checkpoint_file import write_checkpoint
from explain import explainers, targets
from explain.figures import Sample, sample_content

Command = Callable[..., tuple[int, str, list[str]]]
TEST_QUESTIONS = 60
SIDE = 6  # patches


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The overrides for a trained checkpoint."""
    run = tmp_path_factory.mktemp("trained") / "run"
    tiny.train(run)
    return (*tiny.overrides, f"checkpoint={run}")


@pytest.fixture
def overrides(trained: tuple[str, ...], tmp_path: Path) -> tuple[str, ...]:
    return (*trained, f"paths.runs={tmp_path / 'runs'}", "formats=[png]")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo that is not RGB but 16-bit grey."""
    path = tmp_path / "photo (1).png"
    Image.fromarray(np.linspace(0, 60_000, 60 * 90).reshape(60, 90).astype(np.uint16)).save(path)
    return path


def subject_of(overrides: tuple[str, ...]) -> TrainedVQA:
    config = typed(composed("explain", *overrides), ExplainConfig)
    return load_trained(config, "test", config.checkpoint)


def folder_of(out: str) -> Path:
    return Path(out.splitlines()[0].removeprefix("run folder: "))


def made(command: Command, *arguments: str) -> tuple[Path, pd.DataFrame]:
    status, out, errors = command("explain", *arguments)
    assert (status, errors) == (0, [])
    return folder_of(out), pd.read_parquet(folder_of(out) / "scores.parquet")


def pictures(run: Path) -> set[str]:
    return {path.name for path in (run / "pictures").iterdir()}


def test_scores_equal_those_of_a_direct_call(overrides: tuple[str, ...], command: Command) -> None:
    trained = subject_of(overrides)
    ids = [trained.questions[row].question_id for row in (7, 3)]
    arguments = (*overrides, "select=ids", f"ids={ids}".replace(" ", ""), "explainer=paper", "formats=[png,pdf]")
    run, scores = made(command, *arguments)
    assert pictures(run) == {f"question_{i}.{suffix}" for i in ids for suffix in ("png", "pdf")}
    batch = trained.batch([7, 3])
    assert batch is not None
    rules = {
        "weighted": explainers.Weighted(),
        "uniform": explainers.Uniform(),
        "rollout": explainers.Rollout(),
        "genatt": explainers.GenAtt(),
    }
    direct = explain(trained.model, batch, rules)
    assert list(dict.fromkeys(scores["question_id"])) == ids
    assert scores["explainer"].unique().tolist() == list(rules)
    for b, question in enumerate(batch.questions):
        probabilities = trained.model(batch.pixels, batch.text)[b].sigmoid()
        best = int(probabilities.argmax())
        for name in rules:
            rows = scores[(scores["question_id"] == question.question_id) & (scores["explainer"] == name)]
            valid = direct.traced.trace.valid[b]  # type: ignore[index]
            np.testing.assert_allclose(rows["score"], direct.scores[name][b][valid], rtol=1e-6, atol=1e-9)
            np.testing.assert_array_equal(~rows["special"], direct.traced.removable[b][valid])
            assert set(rows["answer"]) == set(rows["target"]) == {trained.model.answers[best]}
            np.testing.assert_allclose(rows["probability"], float(probabilities[best]), rtol=1e-5)
            assert set(rows["question"]) == {question.question}
            assert set(rows["image_id"]) == {question.image_id}
            assert rows["against"].isna().all()
            image, text = rows[rows["modality"] == "image"], rows[rows["modality"] == "text"]
            assert image["token"].iloc[0] == "class"
            places = image[~image["special"]]
            assert list(zip(places["row"], places["col"], strict=True)) == [
                (r, c) for r in range(SIDE) for c in range(SIDE)
            ]
            assert "".join(text["token"][1:-1]).replace("</w>", "") == question.question.replace(" ", "")
            assert image["index"].tolist() == list(range(1 + SIDE * SIDE))
            assert text["index"].tolist() == list(range(len(text)))


@pytest.mark.slow
def test_two_runs_write_the_same_bytes(overrides: tuple[str, ...], command: Command) -> None:
    first, second = (
        made(command, *overrides, "samples=2", "interaction=true", "explainer.names=[random,weighted]", "explainer=all")
        for _ in range(2)
    )
    names = sorted(path.relative_to(first[0]) for path in first[0].rglob("*") if path.is_file())
    assert len([name for name in names if name.suffix == ".png"]) == 4
    for name in names:
        assert (first[0] / name).read_bytes() == (second[0] / name).read_bytes(), name


@pytest.mark.usefixtures("_no_figures")
def test_fewer_samples_are_the_first_ones_and_depend_on_the_seed(overrides: tuple[str, ...], command: Command) -> None:
    def chosen(*arguments: str) -> list[int]:
        return made(command, *overrides, "explainer=uniform", *arguments)[1]["question_id"].unique().tolist()

    two, four = chosen("samples=2"), chosen("samples=4")
    assert two == four[:2]
    assert chosen("samples=4", "encoder.batch_size=3") == four
    assert chosen("samples=4", "seed=1") != four


@pytest.mark.usefixtures("_no_figures")
def test_select_wrong_explains_only_wrong_answers(overrides: tuple[str, ...], command: Command) -> None:
    status, out, errors = command("explain", *overrides, "select=wrong", "samples=5", "encoder.batch_size=4")
    assert (status, errors) == (0, [])
    trained = subject_of(overrides)
    scores = pd.read_parquet(folder_of(out) / "scores.parquet").drop_duplicates("question_id")
    answer = dict(zip(scores["question_id"], scores["answer"], strict=True))
    assert len(answer) == 5
    order = np.random.default_rng(0).permutation(TEST_QUESTIONS)
    wrong, looked = [], 0
    for row in order:
        looked += 1
        question = trained.questions[row]
        batch = trained.batch([row])
        assert batch is not None
        said = trained.model.answers[int(trained.model(batch.pixels, batch.text).argmax())]
        wrong += [question.question_id] if vqa_accuracy(said, question.answers) == 0 else []
        if len(wrong) == 5:
            break
    assert list(answer) == wrong
    assert f"5 wrong answers among the {looked} looked at" in out


def test_a_custom_image_needs_no_dataset(
    trained: tuple[str, ...], photo: Path, tmp_path: Path, command: Command
) -> None:
    elsewhere = (f"data.root={tmp_path / 'nowhere'}", f"paths.runs={tmp_path}", "samples=500")
    own = (f"image={photo}", "question=what's left, a or b?")
    run, scores = made(command, *trained, *elsewhere, *own, "explainer=paper", "interaction=true")
    assert not (tmp_path / "nowhere").exists()
    suffixes = ("png", "pdf")
    assert pictures(run) == {f"question_0{kind}.{suffix}" for kind in ("", "_interaction") for suffix in suffixes}
    assert set(scores["question"]) == {"what's left, a or b?"}
    words = scores[(scores["modality"] == "text") & (scores["explainer"] == "weighted")]["token"]
    assert [word for word, _ in merge_clip_pieces(words.tolist(), [0.0] * len(words))][1:3] == ["what", "'s"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Sample]:
    """A list to which every sample is added instead of being drawn."""
    samples: list[Sample] = []
    monkeypatch.setattr(picturing, "draw", lambda sample, *_: samples.append(sample))
    monkeypatch.setattr(picturing, "save", lambda *_: None)
    return samples


def test_figures_show_the_written_scores(overrides: tuple[str, ...], command: Command, drawn: list[Sample]) -> None:
    _, scores = made(command, *overrides, "samples=3", "explainer.names=[uniform,weighted]", "explainer=all")
    shown = scores[~scores["special"]]
    asked = {question.question_id: question for question in subject_of(overrides).questions}
    for sample, (question_id, rows) in zip(drawn, shown.groupby("question_id", sort=False), strict=True):
        assert [e.explainer for e in sample.explanations] == ["uniform", "weighted"]
        assert (sample.question, sample.answer) == (rows["question"].iloc[0], rows["answer"].iloc[0])
        counts = pd.Series([a["answer"] for a in asked[question_id].answers]).value_counts()
        assert f"{counts.index[0]} ({counts.iloc[0]})" in sample.caption
        for explanation in sample.explanations:
            own = rows[rows["explainer"] == explanation.explainer]
            image, text = own[own["modality"] == "image"], own[own["modality"] == "text"]
            grid = image.pivot(index="row", columns="col", values="score")
            np.testing.assert_array_equal(explanation.maps[0].astype(np.float32), grid)
            assert explanation.word_scores.sum() == pytest.approx(text["score"].sum(), rel=1e-5)
            assert "".join(sample.words) == sample.question.replace(" ", "")


def test_the_contents_of_figures_are_written(overrides: tuple[str, ...], command: Command, drawn: list[Sample]) -> None:
    maps: list[np.ndarray] = []
    with watched(picturing, "draw_interaction", lambda photo, words, matrix, *_: maps.append(matrix)):
        run, scores = made(command, *overrides, "samples=3", "explainer=paper", "interaction=true")
    alone, _ = made(command, *overrides, "samples=3", "explainer=paper")
    assert (alone / "pictures.jsonl").read_bytes() == (run / "pictures.jsonl").read_bytes()
    contents = [unsealed(json.loads(line), run, own=True) for line in (run / "pictures.jsonl").read_text().splitlines()]
    ids = scores["question_id"].unique()
    assert [content["name"] for content in contents] == [f"question_{number}" for number in ids]
    for content, sample, matrix in zip(contents, drawn[:3], maps, strict=True):
        assert content == {
            "name": content["name"],
            "warnings": [],
            **sample_content(sample, matrix.reshape(-1, SIDE, SIDE)),
        }


def test_the_evidence_of_scenes_is_outlined(overrides: tuple[str, ...], command: Command, drawn: list[Sample]) -> None:
    _, scores = made(command, *overrides, "samples=3")
    config = typed(composed("explain", *overrides), ExplainConfig)
    evidence = read_evidence(config.data, config.split)
    asked = scores.drop_duplicates("question_id")[["question_id", "image_id"]].itertuples(index=False)
    for sample, (question_id, image_id) in zip(drawn, asked, strict=True):
        np.testing.assert_array_equal(sample.photos[0].evidence, evidence.answer_pixels(question_id, image_id))
        words = [sample.question[start:end] for start, end in evidence.questions[question_id].words]
        chosen = [word for word, known in zip(sample.words, sample.evidence, strict=True) if known]
        assert "".join(chosen) == "".join("".join(words).split())


@pytest.mark.parametrize("given_answer", [None, "yes"])
def test_another_answer_and_a_margin(
    overrides: tuple[str, ...], command: Command, drawn: list[Sample], given_answer: str | None
) -> None:
    answers = subject_of(overrides).model.answers
    options = ["explainer=input_x_gradient", "samples=3", "against='2'"]
    options += [f"answer={given_answer}"] if given_answer else []
    _, scores = made(command, *overrides, *options)
    trained = subject_of(overrides)
    row_of = {question.question_id: row for row, question in enumerate(trained.questions)}
    batch = trained.batch([row_of[i] for i in scores["question_id"].unique()])
    assert batch is not None
    preferred = trained.model(batch.pixels, batch.text).argmax(1) if given_answer is None else answers.index("yes")
    target = targets.margin(preferred, answers.index("2"))
    direct = explain(trained.model, batch, {"x": explainers.InputXGradient()}, target)
    for b, (_, rows) in enumerate(scores.groupby("question_id", sort=False)):
        valid = direct.traced.trace.valid[b]  # type: ignore[index]
        np.testing.assert_allclose(rows["score"], direct.scores["x"][b][valid], rtol=1e-4, atol=1e-7)
        assert set(rows["against"]) == {"2"}
        assert set(rows["target"]) == ({given_answer} if given_answer else set(rows["answer"]))
    assert [sample.caption.count("rather than 2 (") for sample in drawn] == [1, 1, 1]


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (3000, 40), (40, 3000)])
def test_photos_of_any_shape(
    overrides: tuple[str, ...], command: Command, tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "odd.png"
    Image.new("LA", size, (90, 200)).save(path)
    run, _ = made(command, *overrides, f"image={path}", "question=why", "explainer=uniform", "interaction=true")
    with Image.open(run / "pictures" / "question_0.png") as figure:
        assert figure.width > 100


@pytest.mark.usefixtures("_no_figures")
def test_a_long_question_is_cut_off_with_a_warning(
    overrides: tuple[str, ...], photo: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    _, scores = made(command, *overrides, f"image={photo}", f"question={'why ' * 60}", "explainer=uniform")
    said = "1 questions are longer than the encoder's 40 tokens and were cut off"
    assert said in capsys.readouterr().err.splitlines()
    assert (scores["modality"] == "text").sum() == 40


def test_scores_are_written_only_for_the_modalities_of_an_explainer(
    overrides: tuple[str, ...], command: Command
) -> None:
    names = "explainer.names=[first_to_last,centre_first,weighted]"
    run, scores = made(command, *overrides, "explainer=all", names, "samples=2")
    found = {name: set(part["modality"]) for name, part in scores.groupby("explainer")}
    assert found == {"first_to_last": {"text"}, "centre_first": {"image"}, "weighted": {"image", "text"}}
    assert len(pictures(run)) == 2


@pytest.mark.usefixtures("_no_figures")
def test_explainers_with_partners_are_left_out_for_a_single_image(
    overrides: tuple[str, ...], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "explainer.names=[uniform,shuffled,depth_matched]"
    questions = subject_of(overrides).questions
    same = [each.question_id for each in questions if each.image_id == questions[0].image_id][:2]
    for chosen in (("samples=1",), ("select=ids", f"ids={same}")):
        _, one = made(command, *overrides, "explainer=all", names, *chosen)
        assert set(one["explainer"]) == {"uniform"}
        said = capsys.readouterr().err.splitlines()
        assert "explainer shuffled is left out: it needs a sample of another image" in said
        assert "explainer depth_matched is left out: it needs a sample of another image" in said
    status, _, errors = command("explain", *overrides, "explainer=shuffled", "samples=1")
    assert (status, len(errors)) == (1, 1)
    assert "explainer=shuffled: it uses the weights of a sample of another image, and this run has none" in errors[0]


@pytest.mark.usefixtures("_no_figures")
def test_controls_with_partners_do_not_depend_on_the_batches(overrides: tuple[str, ...], command: Command) -> None:
    names = ("explainer=all", "explainer.names=[shuffled,depth_matched]", "against=yes", "samples=4")
    together, alone = (made(command, *overrides, *names, f"batch_size={size}")[1] for size in (4, 1))
    both = together.merge(alone, on=["question_id", "explainer", "modality", "index"], validate="1:1")
    assert len(both) == len(together) == len(alone)
    np.testing.assert_allclose(both["score_x"], both["score_y"], rtol=1e-4, atol=1e-6)


def test_an_error_keeps_the_results_written_before(overrides: tuple[str, ...], command: Command) -> None:
    trained = subject_of(overrides)
    order = np.random.default_rng(0).permutation(TEST_QUESTIONS)
    bad = trained.images[trained.questions[order[3]].image_id]
    before = len({q for q in order[:3] if trained.questions[q].image_id != trained.questions[order[3]].image_id})
    path, content = Path(bad.name), bad.read()
    try:
        path.write_bytes(b"")
        status, out, errors = command("explain", *overrides, "samples=6", "explainer=uniform")
        skipped, rows = made(command, *overrides, "samples=6", "explainer=uniform", "data.on_bad_image=skip")
    finally:
        path.write_bytes(content)
    assert (status, len(errors)) == (1, 1)
    assert f"{path}: the file is empty" in errors[0]
    assert before == 3  # none of the three is about the bad image
    assert len(pictures(folder_of(out))) == 3
    assert pd.read_parquet(folder_of(out) / "scores.parquet")["question_id"].nunique() == 3
    assert len(read_json(folder_of(out) / "warnings.json")) == 3
    assert len((folder_of(out) / "pictures.jsonl").read_text().splitlines()) == 3
    assert len(pictures(skipped)) == rows["question_id"].nunique() == 5


@pytest.fixture
def strict(trained: tuple[str, ...], tmp_path: Path) -> str:
    """The override for a checkpoint whose training images were all close to the origin of the feature space."""
    content = torch.load(Path(trained[-1].split("=")[1]) / "checkpoints" / "best.ckpt", weights_only=True)
    statistics = ImageStatistics(np.zeros(128), np.eye(128))
    content["clipmapper"]["familiarity"]["images"] = statistics.entry()
    write_checkpoint(tmp_path / "strict.ckpt", content)
    return f"checkpoint={tmp_path / 'strict.ckpt'}"


def warnings_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]


def test_warnings_are_printed_and_written(
    overrides: tuple[str, ...], strict: str, photo: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    own = (f"image={photo}", "question=what color is the zebra's cat?", "explainer=uniform")
    _, out, _ = command("explain", *overrides, strict, *own)
    assert "words: 2 of the 6 words of the questions occur in no training question; they are in 1 of 1" in out
    (entry,) = read_json(folder_of(out) / "warnings.json")
    assert entry["unknown_words"] == ["zebra's", "cat"]
    assert entry["image_distance"] > 1
    assert (entry["question_id"], entry["image_id"]) == (0, 0)
    assert entry["warnings"][0] == "no training question contains: zebra's, cat"
    assert entry["warnings"][1].startswith("the image is far from the training images, at ")
    assert warnings_of(capsys) == [f"warning: question 0: {text}" for text in entry["warnings"]]


def test_questions_of_the_dataset_have_no_unknown_words(
    overrides: tuple[str, ...], command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    """The images are not examined, since the tiny dataset has too few; one line says so."""
    run, scores = made(command, *overrides, "samples=3", "explainer=uniform", "batch_size=2", "split=train")
    entries = read_json(run / "warnings.json")
    assert [entry["question_id"] for entry in entries] == scores["question_id"].unique().tolist()
    assert all(entry["unknown_words"] == [] and entry["image_distance"] is None for entry in entries)
    missing = "the checkpoint does not describe its training images, so there are no warnings about unfamiliar images"
    assert warnings_of(capsys) == [f"warning: {missing}"]


def test_an_old_checkpoint_gives_one_warning(
    overrides: tuple[str, ...], strict: str, photo: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(strict.split("=")[1])
    content = torch.load(path, weights_only=True)
    del content["clipmapper"]["familiarity"]
    write_checkpoint(path, content)
    run, _ = made(command, *overrides, strict, f"image={photo}", "question=a cat?", "explainer=uniform")
    (entry,) = read_json(run / "warnings.json")
    assert (entry["unknown_words"], entry["image_distance"], entry["warnings"]) == (None, None, [])
    (line,) = warnings_of(capsys)
    assert line.startswith("warning: the checkpoint does not describe its training questions and images, so ")


WRONG = {
    "select=ids ids=[5,6]": "ids: the test split has no question 5, 6; it has ",
    "select=ids": "question ids are taken with select=ids ids=[…]; ids=[…] is missing",
    "ids=[5]": "question ids are taken with select=ids ids=[…]; select=ids is missing",
    "select=some": "select=some is not one of: random, wrong, ids",
    "samples=0": "samples=0 must be 1 or more",
    "samples=61": "samples=61: the test split has 60 questions; give fewer",
    "split=dev": "split=dev: this data has train, val, test",
    "image={photo}": "image=… without question=…; give both",
    "question=why": "question=… without image=…; give both",
    "question=' ' image={photo}": "question= is empty; give a question",
    "question=why image={tmp}/none.png": "none.png: no such image",
    "question=why image={tmp}": "cannot be read (Is a directory)",
    "question=why image={text}": "text.png: not an image that Pillow can read",
    "question=why image={photo} select=ids ids=[5]": "image=… and ids=… cannot be given together; give one of them",
    "answer=yess": "answer=yess is not one of the model's ",
    "against=yess": "similar ones: yes",
    "answer=xxxxxxx": "; it has ",
    "answer=yes against=yes": "answer=yes against=yes are the same answer",
    "checkpoint={tmp}/none.ckpt": "none.ckpt: no such file; train first",
    "mapper=a": "has mapper.name=b, the config mapper.name=a",
    "checkpoint=null paths.runs={tmp}/none": "no trained checkpoint of task=vqa data=shapes mapper=b",
    "task.sees=question": "task.sees=question: only models that see both image and text can be explained",
    "overlay=smooth": "overlay=smooth is not one of: bilinear, patches",
    "scale=all": "scale=all is not one of: each, common",
    "formats=[svg]": "formats: svg is not one of: png, pdf",
    "formats=[]": "formats is an empty list",
    "batch_size=0": "batch_size=0 must be 1 or more",
    "explainer=mine": "there is no explainer=mine; choose one of: all, ",
    "explainer=all explainer.names=[mine]": "explainer.names: mine is not one of: ",
    "explainer=integrated_gradients explainer.steps=0": "explainer=integrated_gradients: ",
    "explainer.foo=1": "unknown config key ",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_ends_in_one_line(
    overrides: tuple[str, ...], photo: Path, tmp_path: Path, command: Command, case: str
) -> None:
    (tmp_path / "text.png").write_text("hello")
    plain = photo.rename(tmp_path / "photo.png")
    filled = case.format(photo=plain, tmp=tmp_path, text=tmp_path / "text.png")
    arguments = ["question=' '", *filled.split()[2:]] if case.startswith("question=' '") else filled.split()
    status, out, errors = command("explain", *overrides, *arguments)
    assert (status, len(errors)) == (1, 1)
    assert WRONG[case] in errors[0]
    if "run folder" in out:
        assert not (folder_of(out) / "pictures").exists()


@pytest.mark.slow
def test_no_script_imports_this_script_instead_of_the_package(tmp_path: Path) -> None:
    """Python looks for modules in the folder of the script first, and this folder contains ``explain.py``."""
    for name in ("explain", "evaluate"):
        status, out, err = finish(name, [f"paths.root={tmp_path}", "checkpoint=none.ckpt"])
        assert status == 1
        assert "Traceback" not in err + out
        assert "checkpoint none.ckpt: no such file" in err
