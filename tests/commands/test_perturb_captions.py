"""Whole perturbation runs of captions: compared with a plain loop, killed and resumed, and with bad input."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from caption_runs import LENGTH, STEPS, TASK, Captioner, make_quick
from clip_scores import slow_clip_scores
from killed_runs import killed_after
from models import says
from perturb_runs import mean, records, removed, results, trapezoid
from ranks import in_ranks
from tiny_runs import composed, finish
from watching import watched

from clipmapper.cli import typed
from clipmapper.data.datasets import load_captions
from clipmapper.data.images import load_rgb
from clipmapper.encoder.load import TextBatch
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.metrics.java.meteor import METEOR
from clipmapper.nn import TokenSubset
from clipmapper.tasks.caption import trained as trained
from clipmapper.tasks.caption.model import CLIPMapperCaption, load_caption
from clipmapper.tasks.caption.sentence import split_words
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.training.batches import even_batches
from explain.explainers import Random, Weighted
from perturbation.config import PerturbCaptionsConfig
from perturbation.perturb import caption as captions
from perturbation.perturb.parts import finished
from perturbation.perturb.samples import sample_rows
from perturbation.perturb.stored import CAPTIONS, read_captions
from perturbation.removal.order import draw_ties

TESTED = {("weighted equal", 0), ("weighted cider", 0), ("random", 0), ("random", 1)}
Command = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)


@pytest.fixture(scope="module")
def whole(captioner: Captioner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was not interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        captioner.perturb(run, figures=True)
    return run


class Plain:
    """A slow captioner of one image: a full forward pass per word, in which nothing attends to a removed patch."""

    def __init__(self, model: CLIPMapperCaption, image: Any):
        self.model, self.image, self.photo = model, image, load_rgb(image.image)
        self.pixels = model.encoder.pixels([self.photo])
        self.seen: dict[frozenset[int], list[Any]] = {}

    def said(self, gone: set[int]) -> list[Any]:
        """Return caption, CLIPScore and RefCLIPScore without the patches ``gone``."""
        if frozenset(gone) not in self.seen:
            text = self.model.vocabulary.text(self.ids(gone))
            scores = slow_clip_scores(self.model.encoder, self.photo, text, self.image.captions)
            self.seen[frozenset(gone)] = [text, *scores]
        return self.seen[frozenset(gone)]

    @torch.no_grad()
    def ids(self, gone: set[int]) -> list[int]:
        kept = torch.tensor([[True, *(patch not in gone for patch in range(36))]])
        ids = [self.model.vocabulary.start]
        while len(ids) <= LENGTH:
            batch = TextBatch(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool), 0)
            subset = TokenSubset(torch.arange(37)[None], kept)
            best = int(self.model(self.pixels, batch, image_subset=subset)[0, -1].argmax())
            if self.model.vocabulary.ids[best] == self.model.vocabulary.end:
                break
            ids.append(self.model.vocabulary.ids[best])
        return ids[1:]


def test_two_processes_caption_a_batch_each_and_write_the_file_of_one(captioner: Captioner, tmp_path: Path) -> None:
    config = typed(composed("perturb", *captioner.overrides), PerturbCaptionsConfig)
    tests, folders = captions.build_tests(config, [], {}), [tmp_path / name for name in ("alone", "two")]
    for folder in folders:
        folder.mkdir()
    expected = tests.prepare(folders[0])

    def prepared(rank: int) -> list[Any]:
        read: list[int] = []
        with watched(trained.TrainedCaptioner, "batch", lambda _, rows: read.append(len(rows))):
            found = tests.prepare(folders[1])
            torch.distributed.barrier()  # as the processes wait for what the first one returns
            return [read, found, tests.prepare(folders[1]), read]

    first, second = in_ranks(tmp_path, prepared)
    assert first == [[3], expected, expected, [3]]  # the file is there the second time
    assert second == [[2], {}, {}, [2]]
    assert (folders[1] / CAPTIONS).read_bytes() == (folders[0] / CAPTIONS).read_bytes()


@pytest.mark.slow
def test_two_processes_write_the_files_of_one(whole: Path, captioner: Captioner, tmp_path: Path) -> None:
    arguments = [*captioner.overrides, "explainer=weighted", "trainer.devices=2", "trainer.strategy=ddp"]
    status, _, err = finish("perturb", [*arguments, f"hydra.run.dir={tmp_path}"])
    assert status == 0, err
    assert results(tmp_path, figures=True) == results(whole, figures=True)


@pytest.mark.slow
def test_every_record_equals_the_plain_loop(whole: Path, captioner: Captioner) -> None:
    model = load_caption(captioner.checkpoint)
    images = load_captions(captioner.tiny.config(*TASK).data).part("test").images
    rows = {(r["image_id"], r["explainer"], r["seed"], r["direction"]): r for r in records(whole)}
    assert len(rows) == 5 * len(TESTED) * 2
    assert any(len(set(row["captions"])) > 2 for row in rows.values())  # else the captions test nothing
    known = read_json(whole / "captions.json")
    for chosen in even_batches(sample_rows(len(images), 5, 0), 3):
        plains = [Plain(model, images[row]) for row in chosen]
        ids, names = [plain.ids(set()) for plain in plains], [plain.image.image_id for plain in plains]
        traced = trace_captions(model, torch.cat([plain.pixels for plain in plains]), ids, sample_ids=names)
        for explainer, seed in TESTED:
            rule = Random(seed) if explainer == "random" else Weighted()
            scores = traced.scores(rule(traced.trace, traced.rows), "image").double()
            for place, plain in enumerate(plains):
                own = [scores[m].tolist() for m in range(len(scores)) if traced.sample[m] == place]
                about = known[str(names[place])]
                assert (about["ids"], about["caption"]) == (ids[place], plain.said(set())[0])
                weights = about["weights"]["cider"] if "cider" in explainer else None
                sentence = caption_relevance(model, ids[place], own, weights)
                ties = draw_ties(0, [names[place]], "image", 36)[0].tolist()
                for direction in ("positive", "negative"):
                    row = rows.pop((names[place], explainer, seed, direction))
                    gone = [removed(sentence, list(range(36)), step, direction, ties) for step in STEPS]
                    check(row, [plain.said(each) for each in gone])
    assert not rows


def caption_relevance(
    model: CLIPMapperCaption, ids: list[int], rows: list[list[float]], weights: list[float] | None
) -> list[float]:
    """Average the sub-words of each word, and then the words of the caption, with or without weights."""
    words, first = [], 0
    for word in split_words(ids, model.encoder.tokenizer):
        words.append(mean(rows[first : first + word.sub_words]))
        first += word.sub_words
    if weights is None:
        return mean(words)
    assert len(weights) == len(words)
    return [sum(w * word[patch] for w, word in zip(weights, words, strict=True)) for patch in range(36)]


def check(row: dict[str, Any], expected: list[list[Any]]) -> None:
    said, clip, ref = zip(*expected, strict=True)
    assert row["captions"] == list(said)
    assert row["clip_score"] == pytest.approx(clip, abs=1e-5)
    assert row["ref_clip_score"] == pytest.approx(ref, abs=1e-5)
    assert row["modality"] == "image"


def test_the_summary_follows_from_the_records(whole: Path) -> None:
    content, rows = read_json(whole / "perturbation.json"), records(whole)
    assert len(content["rows"]) == 3 * 2
    for row in content["rows"]:
        own = [r for r in rows if all(r[key] == row[key] for key in ("explainer", "direction"))]
        assert (row["samples"], row["task"], row["modality"]) == (5, "caption", "image")
        for name in ("clip_score", "ref_clip_score"):
            curve = mean([r[name] for r in own])
            assert row[name] == pytest.approx(curve)
            assert row[f"{name}_auc"] == pytest.approx(trapezoid(curve, STEPS))
            low, high = row[f"{name}_auc_ci95"]
            assert low <= row[f"{name}_auc"] <= high
        assert (row["auc"], row["auc_ci95"]) == (row["clip_score_auc"], row["clip_score_auc_ci95"])
    area = {(r["explainer"], r["direction"]): r["ref_clip_score_auc"] for r in content["rows"]}
    for gap in (gap for gap in content["gaps"] if gap["measure"] == "ref_clip_score"):
        expected = area[gap["explainer"], "negative"] - area[gap["explainer"], "positive"]
        assert gap["gap"] == pytest.approx(expected)
    pairs = read_json(whole / "comparisons.json")
    assert len(pairs) == 3 * 2 * 3  # pairs, measures, and directions including the gap
    assert all(pair["p_holm"] >= pair["p"] for pair in pairs)
    assert "eraser" not in content


def test_tables_and_figures_are_written(whole: Path) -> None:
    for measure in ("clip_score", "ref_clip_score"):
        assert (whole / f"curves_{measure}.png").read_bytes()[:4] == b"\x89PNG"
        lines = (whole / f"areas_{measure}.md").read_text().splitlines()
        assert lines[0] == "| explainer | image positive ↓ | image negative ↑ | image gap ↑ | image above controls |"
        assert [line.split(" | ")[0] for line in lines[2:5]] == ["| weighted equal", "| weighted cider", "| random"]
    assert "ref_clip_score_auc/weighted cider/image_positive" in (whole / "log" / "metrics.csv").read_text()


@pytest.mark.slow
def test_the_other_measures_use_the_clip_score(captioner: Captioner, tmp_path: Path) -> None:
    few = ("samples=4", "ceiling.samples=4", "engine_batch=64", "controls=[]", "weightings=[equal]")
    content = captioner.perturb(tmp_path, "measure.names=[areas,eraser,faithfulness,ceiling,saco]", *few)
    assert [key for key in ("eraser", "faithfulness", "ceiling", "saco") if key not in content] == []
    whole = {row["image_id"]: row["clip_score"][0] for row in records(tmp_path)}
    for row in records(tmp_path, "faithfulness"):
        assert row["full"] == whole[row["image_id"]]
    bounds = records(tmp_path, "ceiling")
    assert {bound["image_id"]: bound["mean_clip_score"][0] for bound in bounds} == whole
    areas = [[trapezoid(b[f"{end}_clip_score"], STEPS) for end in ("lowest", "mean", "highest")] for b in bounds]
    assert all(low <= mean <= high for low, mean, high in areas)
    assert any(low < mean < high for low, mean, high in areas)


@pytest.mark.parametrize("in_place", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_resumed_run_has_the_same_bytes_and_weights_words_once(
    captioner: Captioner, whole: Path, tmp_path: Path, in_place: bool
) -> None:
    stopped, resumed = tmp_path / "stopped", tmp_path / ("stopped" if in_place else "resumed")
    with killed_after(1):
        captioner.perturb(stopped)
    assert finished(stopped, range(2)) == [0]
    with watched(captions, "word_weights", lambda *_: pytest.fail("the weights of words are computed a second time")):
        captioner.perturb(resumed, *(() if in_place else (f"resume={stopped}",)))
    assert results(resumed) == results(whole)


@pytest.mark.parametrize("how", ["noise", pytest.param("noisy_linear", marks=pytest.mark.slow)])
def test_filled_patches_depend_on_neither_the_batches_nor_a_stop(
    captioner: Captioner, tmp_path: Path, how: str
) -> None:
    reduced = (f"removal.image={how}", "controls=[]", "weightings=[equal]")
    whole, stopped, other = (tmp_path / name for name in ("whole", "stopped", "other"))
    captioner.perturb(whole, *reduced)
    with killed_after(1):
        captioner.perturb(stopped, *reduced)
    captioner.perturb(stopped, *reduced)
    assert results(stopped) == results(whole)
    captioner.perturb(other, *reduced, "batch_samples=5", "engine_batch=3")
    there = {(row["image_id"], row["direction"]): row for row in records(whole)}
    assert len(there) == 5 * 2
    for row in records(other):
        assert row["captions"] == there[row["image_id"], row["direction"]]["captions"]


def test_an_image_with_an_empty_caption_is_left_out_and_counted(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = ("samples=3", "direction=[positive]")
    says(monkeypatch, captioner.tiny, ["", "a red circle", "two stars"])
    content = captioner.perturb(tmp_path / "one", *silent)
    assert "left out: 1 of 3 images, for which the model's caption is empty" in capsys.readouterr().err
    assert {row["samples"] for row in content["rows"]} == {2}
    assert len(read_captions(tmp_path / "one")) == 2
    says(monkeypatch, captioner.tiny, [""])
    with pytest.raises(UserError, match="the model's caption has no word for any readable image"):
        captioner.perturb(tmp_path / "all", *silent)


def test_meteor_without_java_is_one_line(captioner: Captioner, tmp_path: Path) -> None:
    METEOR.close()  # another test may have started it
    with pytest.raises(UserError, match="words can't be weighted by METEOR: not available: no java found"):
        captioner.perturb(tmp_path, "weightings=[meteor]")
    assert not (tmp_path / "captions.json").exists()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (("task=caption", "weightings=[spice]"), "weightings: spice is not one of: equal, bleu4, cider, meteor"),
        (("task=caption", "weightings=[]"), "weightings is an empty list"),
        (("task=caption", "weightings=[cider,cider]"), "contains a value twice"),
        (("task=caption", "target=margin"), "unknown config key target"),
        (("task=caption", "removal.text=drop"), "unknown config key removal.text"),
        (
            ("task=caption", "removal.image=drop"),
            "removal.image=drop is not one of: mask, mean, zero, blur, noise, noisy_linear",
        ),
        (("task=vqa", "weightings=[cider]"), "unknown config key weightings"),
        (("task=vqa", "task.name=songs"), "task.name=songs is not one of: vqa, caption"),
        (("task=caption", "task.sees=text"), "only models that see both"),
        (("experiment=paper_vqa", "data.root=/nowhere"), "no trained checkpoint of task=vqa data=vqav2"),
        (("experiment=paper_caption", "data.root=/nowhere"), "no trained checkpoint of task=caption data=coco"),
    ],
)
def test_bad_configs_are_one_line(command: Command, tmp_path: Path, overrides: tuple[str, ...], named: str) -> None:
    status, _, errors = command("perturb", f"paths.root={tmp_path}", *overrides)
    assert (status, len(errors)) == (1, 1)
    assert named in errors[0]


def test_from_the_command_line(captioner: Captioner, tmp_path: Path, command: Command) -> None:
    quick = ("samples=2", "steps=[0,1]", "direction=[positive]", "explainer=uniform", f"hydra.run.dir={tmp_path}")
    status, out, errors = command("perturb", *captioner.overrides, *quick)
    assert (status, errors) == (0, [])
    assert "2 of 10 captioned images; explainers: uniform, random" in out
    assert re.search(r"^uniform cider +\d", out, re.MULTILINE)
    assert "area under the clip_score curve in percent" in out
    tested = [row["explainer"] for row in json.loads((tmp_path / "perturbation.json").read_text())["rows"]]
    assert tested == ["uniform equal", "uniform cider", "random"]
    status, _, errors = command("perturb", *captioner.overrides, "samples=11", f"hydra.run.dir={tmp_path / 'more'}")
    assert (status, len(errors)) == (1, 1)
    assert "samples=11: the split has 10 captioned images; give samples=10 or null" in errors[0]


def test_the_default_controls_are_those_that_score_patches(
    captioner: Captioner, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert composed("perturb", "task=caption").controls == ["random", "input_x_gradient", "centre_first"]
    content = captioner.perturb(tmp_path / "run", "samples=3", "controls=[centre_first,first_to_last]")
    assert {row["explainer"] for row in content["rows"]} == {"weighted equal", "weighted cider", "centre_first"}
    assert {row["explainer"] for row in content["rows"] if row["control"]} == {"centre_first"}
    assert "explainer first_to_last is left out: it does not score image tokens" in capsys.readouterr().err
