"""Localisation of any model: its numbers from the files of the scenes and the model alone, and unreadable images."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sample_models
import torch
from PIL import Image
from tiny_runs import QUIET, composed
from torch import Tensor

from clipmapper.any_model.load import LoadedModel
from clipmapper.cli import typed
from clipmapper.data.shapes.write import write_shapes
from clipmapper.errors import UserError
from explain import AttentionTrace, Explainer, explainers
from explain.explainers.base.token_scores import TokenScores
from perturbation.config import LocaliseModelConfig
from perturbation.localise import any_model

pytest.importorskip("transformers")
SIDE, EDGES = 32, (0, 11, 21, 32)  # pixels of a scene, and the borders of ViLT's 3 × 3 cells in whole pixels
SCENES = ("data.train_scenes=1", "data.val_scenes=1", "data.test_scenes=16", "data.workers=1", f"data.pixels={SIDE}")
#: Scores of the class token and the 3 × 3 patches, and of [CLS] and the sub-words that follow; all differ.
IMAGE = (50.0, 4, -3, 7, 0.5, 9, -1, 2, 6, 1)
TEXT = (50.0, 1, 6, -2, 9, 2.5, 4, 0.5, 8, 3, -1, 5, 7, 2, 10, 0.2, 11, -5, 12, 1.5)


class ByPlace(TokenScores):
    """An explainer that scores a token by its place."""

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        found = torch.zeros(trace.batch, trace.tokens)
        for modality, scores in (("image", IMAGE), ("text", TEXT)):
            span = trace.span(modality)
            found[:, span] = torch.tensor(scores[: span.stop - span.start])
        return found


class Scenes:
    """The test split as its files describe it."""

    def __init__(self, root: Path) -> None:
        (self.folder,) = root.iterdir()
        entries = json.loads((self.folder / "v2_OpenEnded_shapes_test_questions.json").read_text())["questions"]
        marked = json.loads((self.folder / "v2_shapes_test_annotations.json").read_text())["annotations"]
        self.ids = [entry["question_id"] for entry in entries]
        self.questions = {entry["question_id"]: entry for entry in entries}
        self.answers = {entry["question_id"]: [each["answer"] for each in entry["answers"]] for entry in marked}
        self.evidence = json.loads((self.folder / "shapes_test_evidence.json").read_text())["questions"]

    def file(self, kind: str, question: int) -> Path:
        return self.folder / kind / "test" / f"shapes_test_{self.questions[question]['image_id']:012d}.png"

    def correct(self, question: int, answer: str) -> bool:
        """Whether the official accuracy of an answer is at least ½."""
        given = self.answers[question]
        shares = []
        for left_out in range(len(given)):
            others = [each for k, each in enumerate(given) if k != left_out]
            shares.append(min(1, others.count(answer) / 3))
        return sum(shares) / len(shares) >= 0.5

    def cells(self, question: int) -> list[bool]:
        """Return which of the 3 × 3 cells show the evidence on a quarter of their area or more."""
        objects = [number + 1 for number in self.evidence[str(question)]["objects"]]
        mask = np.asarray(Image.open(self.file("masks", question)))
        size = SIDE / 3
        found = []
        for row in range(3):
            for col in range(3):
                area = 0.0
                for y in range(SIDE):
                    for x in range(SIDE):
                        high = min(y + 1, (row + 1) * size) - max(y, row * size)
                        wide = min(x + 1, (col + 1) * size) - max(x, col * size)
                        if high > 0 and wide > 0 and mask[y, x] in objects:
                            area += high * wide
                found.append(area / size**2 >= 0.25)
        return found

    def words(self, question: int) -> list[str]:
        return str(self.questions[question]["question"]).replace("?", " ?").split()

    def marked_words(self, question: int) -> list[bool]:
        """Return which words have all their characters in the evidence."""
        text, at, found = self.questions[question]["question"], 0, []
        characters = {k for start, end in self.evidence[str(question)]["words"] for k in range(start, end)}
        for word in self.words(question):
            at = text.index(word, at)
            found.append(all(k in characters for k in range(at, at + len(word))))
            at += len(word)
        return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes; two of the ten people who answered every other question say yes and no, and eight do not know."""
    root = tmp_path_factory.mktemp("scenes")
    folder = write_shapes(config_of(root).data, "test")  # type: ignore[arg-type]
    file = folder / "v2_shapes_test_annotations.json"
    content = json.loads(file.read_text())
    for entry in content["annotations"][::2]:
        for answer, given in zip(entry["answers"], ["yes", "no", *["unclear"] * 8], strict=True):
            answer["answer"] = given
    file.write_text(json.dumps(content))
    (folder / "shapes_test.b2").unlink()  # an edited file does not have its checksum
    return root


def config_of(root: Path, *overrides: str) -> LocaliseModelConfig:
    data = ["model=huggingface", "model.path=tiny", f"data.root={root}", *SCENES, *QUIET]
    config: LocaliseModelConfig = typed(composed("evaluate_explanations", *data, *overrides), LocaliseModelConfig)
    return config


def yes_or_no() -> tuple[Any, Any]:
    """Return a ViLT in float64 that answers yes or no, and its processor."""
    model, processor = sample_models.vilt()
    with torch.no_grad():
        model.classifier[-1].weight.mul_(0.1)  # probabilities that are not almost 0 or 1
    model.config.id2label = {0: "no", 1: "no", 2: "yes", 3: "yes"}
    return model.double(), processor


def run(
    monkeypatch: pytest.MonkeyPatch,
    loaded: tuple[Any, Any],
    root: Path,
    folder: Path,
    *overrides: str,
    by: dict[str, Explainer] | None = None,
) -> pd.DataFrame:
    """Localise on scenes and return the values of every sample."""
    model = LoadedModel(*loaded, "tiny", dual=False)
    monkeypatch.setattr(any_model, "load_model", lambda config: model)
    folder.mkdir(exist_ok=True)
    any_model.run_localisation(config_of(root, *overrides), {"by_place": ByPlace()} if by is None else by, folder)
    return pd.read_parquet(folder / "localisation.parquet")


def metrics(scores: list[float], evidence: list[bool]) -> list[float]:
    """Return the mass accuracy, the rank accuracy and the pointing game of scores that differ."""
    if not any(evidence):
        return [math.nan] * 3
    mass = [max(score, 0) for score in scores]
    mass = mass if any(mass) else [1] * len(scores)
    order = sorted(range(len(scores)), key=lambda k: -scores[k])
    count = sum(evidence)
    inside = sum(each for each, marked in zip(mass, evidence, strict=True) if marked)
    return [inside / sum(mass), sum(evidence[k] for k in order[:count]) / count, float(evidence[order[0]])]


@torch.no_grad()
def says(loaded: tuple[Any, Any], image: Image.Image, text: str) -> Tensor:
    """Return the probabilities of a ViLT's answers, [C]."""
    model, processor = loaded
    inputs = processor(images=[image], text=[text], return_tensors="pt")
    inputs["pixel_values"] = inputs["pixel_values"].double()
    probabilities: Tensor = model(**inputs).logits[0].sigmoid()
    return probabilities


def effects(loaded: tuple[Any, Any], image: Image.Image, words: list[str]) -> tuple[list[float], list[float]]:
    """Return how much the probability of the answer falls without each cell, and without each word."""
    whole = says(loaded, image, " ".join(words))
    answer = int(whole.argmax())
    mean = np.rint(np.asarray(image).reshape(-1, 3).mean(0)).astype(np.uint8)
    of_cells, of_words = [], []
    for row in range(3):
        for col in range(3):
            pixels = np.array(image)
            pixels[EDGES[row] : EDGES[row + 1], EDGES[col] : EDGES[col + 1]] = mean
            of_cells.append(float(whole[answer] - says(loaded, Image.fromarray(pixels), " ".join(words))[answer]))
    for left_out in range(len(words)):
        text = " ".join(word for k, word in enumerate(words) if k != left_out)
        of_words.append(float(whole[answer] - says(loaded, image, text)[answer]))
    return of_cells, of_words


def test_the_numbers_of_a_few_questions(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Questions, evidence, metrics and effects are found again one by one, with loops over cells and words."""
    loaded = yes_or_no()
    found = run(monkeypatch, loaded, root, tmp_path, "samples=3", "batch_size=2", "seed=4")
    scenes = Scenes(root)
    labels = loaded[0].config.id2label
    expected: list[int] = []
    for row in np.random.default_rng(4).permutation(len(scenes.ids)):
        number = scenes.ids[row]
        image, text = Image.open(scenes.file("images", number)), scenes.questions[number]["question"]
        if scenes.correct(number, labels[int(says(loaded, image, text).argmax())]) and len(expected) < 3:
            expected.append(number)
    assert found["question_id"].drop_duplicates().tolist() == expected
    names = ["mass_accuracy", "rank_accuracy", "pointing_game"]
    rows = found.set_index(["question_id", "modality", "explainer"])[names]
    for number in expected:
        cells, marked, words = scenes.cells(number), scenes.marked_words(number), scenes.words(number)
        pieces = [2 if word == "star" else 1 for word in words]  # the tokenizer knows no word but "st" + "##ar" in two
        starts = [1 + sum(pieces[:k]) for k in range(len(words))]
        scores = [sum(TEXT[start : start + count]) for start, count in zip(starts, pieces, strict=True)]
        of_cells, of_words = effects(loaded, Image.open(scenes.file("images", number)).convert("RGB"), words)
        for modality, evidence, by_place, effect in (
            ("image", cells, list(IMAGE[1:]), of_cells),
            ("text", marked, scores, of_words),
        ):
            assert rows.loc[number, modality, "by_place"].tolist() == pytest.approx(
                metrics(by_place, evidence), nan_ok=True
            )
            share = sum(evidence) / len(evidence) if any(evidence) else math.nan
            assert rows.loc[number, modality, "chance"].tolist() == pytest.approx([share] * 3, nan_ok=True)
            # The ranks of effects that differ by rounding alone are not compared.
            mass = rows.loc[number, modality, "deletion"]["mass_accuracy"]
            assert mass == pytest.approx(metrics(effect, evidence)[0], rel=1e-4, nan_ok=True)
        assert any(marked)
        assert not all(marked)
    assert any(any(scenes.cells(number)) for number in expected)


@pytest.mark.slow
def test_questions_about_an_unreadable_image_are_left_out_and_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The image of the first correct answer is empty; the others have the values that they had with all images."""
    whole = run(monkeypatch, yes_or_no(), root, tmp_path / "whole", "samples=5", "batch_size=3")
    copy = shutil.copytree(root, tmp_path / "scenes")
    scenes = Scenes(copy)
    bad = scenes.file("images", whole["question_id"].iloc[0])
    bad.write_bytes(b"")
    capsys.readouterr()
    left = [number for number in whole["question_id"].drop_duplicates() if scenes.file("images", number) != bad]
    skip = (f"samples={len(left)}", "batch_size=3", "data.on_bad_image=skip")
    found = run(monkeypatch, yes_or_no(), copy, tmp_path / "found", *skip)
    assert 1 < len(left) < 5
    assert found["question_id"].drop_duplicates().tolist() == left
    key = ["question_id", "modality", "explainer"]
    both = found.merge(whole, on=key, validate="1:1", suffixes=("", "_whole"))
    assert len(both) == len(found)
    for name in ("mass_accuracy", "rank_accuracy", "pointing_game"):
        np.testing.assert_allclose(both[name], both[f"{name}_whole"], rtol=1e-4)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
    assert told
    assert {line.split("; ")[0] for line in told} == {f"skipped: {bad}: the file is empty"}
    with pytest.raises(UserError, match=f"^{bad}: the file is empty; replace it with an intact copy"):
        run(monkeypatch, yes_or_no(), copy, tmp_path / "failed", "samples=2")


@pytest.mark.slow
def test_random_scores_depend_on_the_seed_and_not_on_the_batches(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(any_model, "correctly_answered", lambda samples, *_: samples[:4])

    def values(*overrides: str) -> pd.DataFrame:
        by: dict[str, Explainer] = {"random": explainers.Random()}
        found = run(monkeypatch, yes_or_no(), root, tmp_path, "samples=4", *overrides, by=by)
        return found[found["explainer"] == "random"].set_index(["question_id", "modality"])["mass_accuracy"].dropna()

    first = values("batch_size=4")
    assert first.nunique() == len(first) > 4
    pd.testing.assert_series_equal(values("batch_size=1"), first)
    assert (values("batch_size=4", "seed=1") != first).all()


def test_models_that_cannot_be_judged_are_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^samples \[.*\]: the model failed: ValueError: processor BertTokenizer"):
        run(monkeypatch, sample_models.bert(), root, tmp_path, "samples=2")
    model, processor = sample_models.llava()
    processor.image_processor.size = {"shortest_edge": 16}  # it sees the 12 × 12 pixels in the middle of these
    monkeypatch.setattr(any_model, "correctly_answered", lambda samples, *_: samples[:1])
    said = r"^the model sees 3 × 3 cells in \(4, 4, 28, 28\) of an image; evidence needs a square grid$"
    with pytest.raises(UserError, match=said):
        run(monkeypatch, (model, processor), root, tmp_path, "samples=2", by={"random": explainers.Random()})
