"""What commands show and leave behind: tables, progress, no messages of libraries, no bare folders, indented JSON."""

from __future__ import annotations

import json
import math
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from caption_runs import SMALL as CAPTIONS_TESTED
from caption_runs import TASK, Captioner, make_quick
from perturb_runs import SMALL as QUESTIONS_TESTED
from perturb_runs import Trained
from tiny_runs import Tiny, composed, finish

from clipmapper import console
from clipmapper.cli import typed
from clipmapper.files import read_json
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.tasks.vqa.trained import load_trained
from clipmapper.tasks.vqa.training import VQATraining

Command = Callable[..., tuple[int, str, list[str]]]
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
WITH_A_PATH = re.compile(r"run folder: |checkpoint: |results are in |explained ")
WITH_PROGRESS = "trainer.enable_progress_bar=true"


ROUGH = """
import warnings

import torch

from explain.explainers import Uniform


class Rough(Uniform):
    def __call__(self, trace, names=None):
        warnings.warn_explicit("a library's own matter", UserWarning, torch.__file__, 1)
        warnings.warn("these scores are rough")
        return super().__call__(trace, names)
"""


def widths(out: str) -> list[int]:
    """Return the widths of all lines except those that name a path."""
    return [len(line) for line in out.splitlines() if not WITH_A_PATH.match(line)]


def stages(err: str) -> dict[str, list[str]]:
    """Return the progress lines on stderr by the name of their stage, without this name."""
    found: dict[str, list[str]] = {}
    for name, rest in re.findall(r"^([\w ]+): (.*\b\d:\d\d:\d\d\b.*)$", err, re.MULTILINE):
        found.setdefault(name, []).append(rest)
    return found


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress lines come every two milliseconds instead of every half minute."""
    monkeypatch.setattr(console, "EVERY", 0.002)


def test_training_shows_its_stages_and_a_table(
    tiny: Tiny, tmp_path: Path, command: Command, ticking: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = (
        f"paths.cache={tmp_path / 'features'}",
        f"paths.data={tmp_path / 'data'}",
        f"hydra.run.dir={tmp_path}/run",
    )
    quick = ("trainer.log_every_n_steps=1", WITH_PROGRESS)
    status, out, _ = command("train", *tiny.overrides, *folders, *quick)
    assert status == 0
    shown = stages(capsys.readouterr().err)
    for stage, total in {
        "drawing train": "40 scenes",
        "encoding images": "60 images",
        "encoding texts": r"\d+ texts",
        "training": "8 steps",
        "validating": "60 samples",
        "answering": "60 questions",
    }.items():
        assert all(re.match(rf"\d+/{total}, 0:", line) for line in shown[stage]), stage
    assert any(re.search(r", \d+\.\d/s, 0:00:\d\d left, loss [\d.]+, accuracy ", line) for line in shown["training"])
    assert "train is running" in shown
    assert max(widths(out)) <= 100
    assert CONTROL.search(out.replace("\n", "")) is None
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert re.search(r"^shapes test, 60 questions: official VQA accuracy in percent", out, re.MULTILINE)
    assert re.search(r"^type +accuracy ↑$", out, re.MULTILINE)
    assert re.findall(r"^all +([\d.]+)$", out, re.MULTILINE) == [
        f"{metrics[s]['accuracy']:.2f}" for s in ("val", "test")
    ]


def test_perturbation_shows_samples(
    trained: Trained, tmp_path: Path, command: Command, ticking: None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = f"hydra.run.dir={tmp_path / 'run'}"
    status, out, _ = command("perturb", *trained.overrides, run, "measure.names=[areas]", WITH_PROGRESS)
    assert status == 0
    shown = stages(capsys.readouterr().err)
    assert "computing intervals of areas" in shown
    lines = shown["removing tokens"]
    counts = [re.match(r"(\d)/6 questions, ", line) for line in lines]
    assert {"0", "3"} <= {found[1] for found in counts if found} <= {"0", "3", "6"}  # two batches of three
    assert "Predicting" not in out
    assert max(widths(out)) <= 100
    assert CONTROL.search(out.replace("\n", "")) is None
    for modality in ("image", "text"):
        assert f"{modality} tokens removed, 6 samples: area under the accuracy curve in percent" in out
    assert "gap ↑" in out


@pytest.mark.slow
def test_captions_show_the_metric_that_is_computed(
    captioner: Captioner, tmp_path: Path, command: Command, ticking: None, capsys: pytest.CaptureFixture[str]
) -> None:
    if shutil.which("java") is None:
        pytest.skip("there is no Java")
    folder = tmp_path / "files"
    folder.mkdir()
    texts = dict.fromkeys(range(40), "a red circle")
    (folder / "said.json").write_text(json.dumps([{"image_id": k, "caption": text} for k, text in texts.items()]))
    notes = [{"id": k, "image_id": k, "caption": "a red ball"} for k in texts]
    images = [{"id": k, "file_name": f"{k}.png"} for k in texts]
    (folder / "people.json").write_text(json.dumps({"images": images, "annotations": notes}))
    files = (f"predictions={folder / 'said.json'}", f"references={folder / 'people.json'}")
    status, out, _ = command(
        "evaluate", *captioner.tiny.overrides, *TASK, *files, f"hydra.run.dir={tmp_path / 'run'}", WITH_PROGRESS
    )
    assert status == 0
    shown = stages(capsys.readouterr().err)
    assert {"splitting captions into words", "scoring captions by METEOR"} <= shown.keys()
    assert any(line.startswith("0/40 captions, 0:00:") for line in shown["scoring captions by METEOR"])
    assert re.search(r"^METEOR +0\.\d{4}$", out, re.MULTILINE)
    assert max(widths(out)) <= 100


def test_captioning_shows_images(
    captioner: Captioner,
    tmp_path: Path,
    command: Command,
    ticking: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_quick(monkeypatch)
    overrides = [each for each in captioner.overrides if each not in CAPTIONS_TESTED]
    few = ("samples=4", "explainer=weighted", "formats=[png]", WITH_PROGRESS)
    status, out, _ = command("explain", *overrides, *few, f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 0
    assert all(re.match(r"\d/4 images, ", line) for line in stages(capsys.readouterr().err)["explaining"])
    assert re.search(r"^image_id +caption$", out, re.MULTILINE)


def test_explain_prints_both_best_answers(trained: Trained, tmp_path: Path, command: Command) -> None:
    overrides = [each for each in trained.overrides if each not in QUESTIONS_TESTED]
    few = ("samples=3", "explainer=weighted", "formats=[png]", f"hydra.run.dir={tmp_path / 'run'}")
    status, out, _ = command("explain", *overrides, *few)
    assert status == 0
    lines = out.splitlines()
    [head] = [k for k, line in enumerate(lines) if line.startswith("question_id")]
    assert lines[head].split() == ["question_id", "question", "answer", "probability", "runner-up", "probability"]
    assert max(widths(out)) <= 100
    printed = " ".join(" ".join(lines[head + 2 :]).split())
    config = typed(composed("explain", *overrides), ExplainConfig)
    whole = load_trained(config, "test", config.checkpoint)
    shown = re.findall(r"question_(\d+)\.png", " ".join(map(str, sorted((tmp_path / "run" / "pictures").iterdir()))))
    assert len(shown) == 3
    for question_id in map(int, shown):
        batch = whole.batch([whole.ids.index(question_id)])
        assert batch is not None
        with torch.no_grad():
            best = whole.model(batch.pixels, batch.text)[0].sigmoid().topk(2)
        [row] = [line for line in lines if line.split()[:1] == [str(question_id)]]
        for value, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            assert re.search(rf" {re.escape(whole.model.answers[place])} +{value:.3f}\b", row)
        assert batch.questions[0].question.split()[0] in printed


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("train", ("mapper.width=15",), "not a multiple"),
        ("explain", ("checkpoint=nowhere.ckpt",), "nowhere.ckpt"),
        ("perturb", ("checkpoint=nowhere.ckpt",), "nowhere.ckpt"),
        ("evaluate", ("predictions=none.json",), "needs all three"),
        ("pool_seeds", ("runs=[a,b]",), "no finished perturbation run"),
    ],
)
def test_a_failed_command_leaves_no_folder(
    name: str, arguments: tuple[str, ...], message: str, tiny: Tiny, tmp_path: Path, command: Command
) -> None:
    run = tmp_path / "run"
    base = () if name == "pool_seeds" else tiny.overrides
    if name != "train":
        base = tuple(each for each in base if not each.startswith("task.optim"))
    status, _, errors = command(name, *base, *arguments, f"hydra.run.dir={run}")
    assert (status, len(errors)) == (1, 1)
    assert message in errors[0]
    assert not run.exists()


def test_a_failed_command_keeps_a_folder_with_results(
    tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that diverges has begun to write."""
    usual = VQATraining.training_step
    monkeypatch.setattr(VQATraining, "training_step", lambda *given: usual(*given) * math.nan)
    run = tmp_path / "run"
    status, _, errors = command("train", *tiny.overrides, f"hydra.run.dir={run}")
    assert (status, len(errors)) == (1, 1)
    assert {path.name for path in run.iterdir() if path.is_file()} == {"config.yaml", "identity.json", "split.json"}


@pytest.mark.slow
@pytest.mark.parametrize("trace", ["0", "1"])
def test_messages_of_libraries_are_shown_only_on_demand(trace: str, tiny: Tiny, tmp_path: Path) -> None:
    """Lightning warns that the steps are fewer than the logging interval, and says which devices there are."""
    status, out, err = finish("train", (*tiny.overrides, f"hydra.run.dir={tmp_path / 'run'}"), CLIPMAPPER_TRACE=trace)
    assert status == 0
    assert "results are in" in out
    assert ("smaller than the logging interval" in err) == (trace == "1")
    assert trace == "1" or err == ""


def test_warnings_of_the_users_files_are_shown(
    tiny: Tiny, trained: Trained, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rough.py").write_text(ROUGH)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.warnoptions", [])
    rough = ("explainer.names=[rough]", "explainer.rough={_target_:rough.Rough}", "samples=1", "formats=[png]")
    run = (*tiny.overrides, f"checkpoint={trained.checkpoint}", f"hydra.run.dir={tmp_path / 'run'}")
    with warnings.catch_warnings(record=True) as shown:
        status, _, errors = command("explain", *run, *rough)
    assert (status, errors) == (0, [])
    assert [str(each.message) for each in shown] == ["these scores are rough"]


def test_json_is_indented_with_lists_of_numbers_on_one_line(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny.train(run)
    lines = (run / "metrics.json").read_text().splitlines()
    assert lines[:3] == ["{", '  "val": {', f'    "accuracy": {read_json(run / "metrics.json")["val"]["accuracy"]},']
    ids = read_json(run / "split.json")["val"]
    assert f'  "val": {json.dumps(ids)},' in (run / "split.json").read_text().splitlines()


AMBIGUOUS: dict[str, tuple[str, ...]] = {
    "explainer=weighted,genatt": ("add --multirun", "give explainer.names=[weighted,genatt]"),
    "mapper=a,b": ("add --multirun",),
    "direction=positive,negative": ("add --multirun", "a list is written direction=[positive,negative]"),
    "explainer.names=weighted,genatt": ("add --multirun", "a list is written explainer.names=[weighted,genatt]"),
}


@pytest.mark.parametrize("argument", AMBIGUOUS)
def test_several_values_without_a_sweep_say_what_to_write(argument: str, command: Command) -> None:
    status, out, errors = command("perturb", argument)
    assert (status, out, len(errors)) == (1, "", 1)
    assert errors[0].startswith(f"error: {argument}: ")
    for text in AMBIGUOUS[argument]:
        assert text in errors[0]
    assert ("[" in errors[0]) == (len(AMBIGUOUS[argument]) > 1)


def test_what_the_error_says_to_write_is_accepted(command: Command) -> None:
    for argument in ("explainer.names=[weighted,genatt]", "direction=[positive,negative]"):
        status, _, errors = command("perturb", argument, "--cfg", "job")
        assert (status, errors) == (0, [])
