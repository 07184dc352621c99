"""Processes of one run that have read different files end in one line, before they encode, train or explain."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch
from caption_runs import TASK, Captioner
from no_figures import without_figures
from perturb_runs import Trained
from PIL import Image
from ranks import in_ranks
from tiny_runs import Tiny, composed, write_vqav2

from clipmapper.cli import typed
from clipmapper.commands.train import train
from clipmapper.config.schema import EvaluateConfig, TrainConfig
from clipmapper.data.images import EncodedImage
from clipmapper.errors import UserError
from clipmapper.tasks import TASKS
from clipmapper.training.checkpoint_file import write_checkpoint
from explain.explainers import Weighted
from perturbation.config import LocaliseConfig
from perturbation.localise import caption as captions
from perturbation.localise import vqa
from perturbation.localise.agreement import check_images
from perturbation.perturb.run import perturb

SMALL = ("data=vqav2", "data.min_answer_questions=1", "data.reserved=2", "data.test_split=null")


def said(folder: Path, work: Callable[[int], object]) -> str:
    """Return the error with which both of two processes end."""

    def run(rank: int) -> str:
        try:
            with redirect_stdout(StringIO()), without_figures():
                work(rank)
        except UserError as error:
            return str(error)
        return ""

    (found,) = {*in_ranks(folder, run)}
    return found


def another_question(data: Path) -> None:
    change(data, "v2_OpenEnded_mscoco_train2014_questions.json", "is it so 0?", "is it so now?")


def another_answer(data: Path) -> None:
    change(data, "v2_mscoco_train2014_annotations.json", "kite", "boat")


def change(data: Path, name: str, before: str, after: str) -> None:
    text = (data / name).read_text()
    assert before in text
    (data / name).write_text(text.replace(before, after))


def another_image(data: Path) -> None:
    Image.new("RGB", (60, 40)).save(sorted((data / "images" / "train2014").iterdir())[0])


@pytest.mark.parametrize(
    ("differ", "named", "encoded"),
    [
        (another_question, "train questions", False),
        (another_answer, "train answers", False),
        (another_image, "images", True),
    ],
)
def test_a_training_needs_the_same_data_in_all_processes(
    differ: Callable[[Path], None], named: str, encoded: bool, tiny: Tiny, tmp_path: Path
) -> None:
    write_vqav2(tmp_path / "0")
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    differ(tmp_path / "1")
    keys = (*tiny.base, *SMALL, f"paths.cache={tmp_path / 'cache'}")

    def work(rank: int) -> None:
        train(typed(composed("train", *keys, f"data.root={tmp_path / str(rank)}"), TrainConfig), tmp_path / "run")

    found = said(tmp_path, work)
    assert found.startswith("rank 1 on ")
    assert f" has other {named} than rank 0 on " in found
    assert bool(list(tmp_path.rglob("shard-*"))) == encoded
    assert not list(tmp_path.rglob("*.ckpt"))
    assert not list(tmp_path.rglob("identity.json"))


def test_a_training_needs_the_same_encoder_and_settings_in_all_processes(tiny: Tiny, tmp_path: Path) -> None:
    def encoder(rank: int) -> None:
        train(tiny.config("encoder.weights=embedded") if rank else tiny.config(), tmp_path)

    def settings(rank: int) -> None:
        train(tiny.config(f"seed={rank}"), tmp_path)

    assert " has other encoder weights than rank 0 on " in said(tmp_path, encoder)
    assert " has other settings than rank 0 on " in said(tmp_path, settings)


def other_weights(checkpoint: Path, folder: Path) -> Path:
    """Write a checkpoint with one other weight."""
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["state_dict"].values())).view(-1)[0] += 1
    write_checkpoint(folder / "other.ckpt", content)
    return folder / "other.ckpt"


@pytest.mark.parametrize("name", ["evaluate", "perturb", "evaluate_explanations"])
def test_all_processes_need_the_same_checkpoint(name: str, trained: Trained, tmp_path: Path) -> None:
    files = (trained.checkpoint, other_weights(trained.checkpoint, tmp_path))
    run = tmp_path / "run"
    run.mkdir()

    def work(rank: int) -> None:
        key = f"checkpoint={files[rank]}"
        if name == "evaluate":
            config = typed(composed("evaluate", *trained.tiny.overrides, key), EvaluateConfig)
            TASKS["vqa"].score_checkpoint(config, run)
        elif name == "perturb":
            perturb(trained.config("explainer=weighted", key), "weighted", run)
        else:
            config = typed(composed(name, *trained.tiny.overrides, key, "explainer=weighted"), LocaliseConfig)
            vqa.run_localisation(config, {"weighted": Weighted()}, run)

    named = "checkpoint" if name == "perturb" else "weights"
    assert f" has other {named} than rank 0 on " in said(tmp_path, work)
    assert not [path for path in run.rglob("*") if path.is_file() and "log" not in path.parts]


def test_captions_need_the_same_checkpoint_in_all_processes(captioner: Captioner, tmp_path: Path) -> None:
    files = (captioner.checkpoint, other_weights(captioner.checkpoint, tmp_path))

    def work(name: str) -> Callable[[int], None]:
        def run(rank: int) -> None:
            keys = (*captioner.tiny.overrides, *TASK, f"checkpoint={files[rank]}")
            if name == "evaluate":
                TASKS["caption"].score_checkpoint(typed(composed(name, *keys), EvaluateConfig), tmp_path)
            else:
                config = typed(composed(name, *keys, "explainer=weighted"), LocaliseConfig)
                captions.run_localisation(config, {"weighted": Weighted()}, tmp_path)

        return run

    for name in ("evaluate", "evaluate_explanations"):
        assert " has other weights than rank 0 on " in said(tmp_path, work(name))


def test_the_bytes_of_the_images_are_compared(tmp_path: Path) -> None:
    assert said(tmp_path, lambda rank: check_images([EncodedImage("a", lambda: b"a"), None], str(tmp_path))) == ""
    differing = said(
        tmp_path, lambda rank: check_images([EncodedImage("a", lambda: b"ab"[rank : rank + 1])], str(tmp_path))
    )
    assert " has other images than rank 0 on " in differing
