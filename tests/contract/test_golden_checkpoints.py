"""Checkpoints from an earlier version can be loaded and give the same outputs as before."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pictures import QUESTIONS, pictures, saved_pictures
from public import GOLDEN, golden, load_checkpoint

Command = Callable[..., tuple[int, str, list[str]]]

MAPPERS = ("a", "b")
BASE = (
    *("mapper.width=16", "mapper.heads=2", "mapper.layers=1", "threads=1", "formats=[png]"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false"),
)


@torch.no_grad()
def logits(checkpoint: Path) -> dict[str, Any]:
    """Return the logits of a VQA checkpoint for every image and question, computed in Python."""
    model = load_checkpoint(checkpoint)
    asked = [(image, question) for image in pictures() for question in QUESTIONS]
    pixels, text = model.encoder.pixels([p for p, _ in asked]), model.encoder.tokenize([q for _, q in asked])
    said = model(pixels, text)
    return {"answers": list(model.answers), "logits": [_short(row) for row in said.tolist()]}


def explain_vqa(mapper: str, image: Path, question: str) -> tuple[str, ...]:
    """Return the command that explains an answer about a custom image."""
    own = (f"image={image}", f"question={question}", f"mapper={mapper}")
    return "explain", *BASE, *own, "explainer=all", f"checkpoint={GOLDEN / f'vqa-{mapper}.ckpt'}"


def explain_caption(image: Path) -> tuple[str, ...]:
    """Return the command that captions a custom image and explains every word."""
    about = ("task=caption", "task.max_length=20", f"checkpoint={GOLDEN / 'caption-b.ckpt'}")
    return "explain", *BASE, *about, "explainer=paper", f"image={image}"


def answer_scores(run: Path) -> dict[str, Any]:
    """Return the answer, its probability, and the scores of every explainer and modality in the order of the tokens."""
    rows = pq.read_table(run / "scores.parquet").to_pylist()
    scores: dict[str, dict[str, list[float]]] = {}
    for row in sorted(rows, key=lambda row: row["index"]):
        scores.setdefault(row["explainer"], {}).setdefault(row["modality"], []).extend(_short([row["score"]]))
    return {"answer": rows[0]["answer"], "probability": _short([rows[0]["probability"]]), "scores": scores}


def word_scores(run: Path) -> dict[str, Any]:
    """Return the caption, its words, and the patches' scores of every explainer, one row per word."""
    rows = pq.read_table(run / "scores.parquet").to_pylist()
    words = {row["index"]: row["word"] for row in rows}
    patches: dict[str, list[list[float]]] = {}
    for row in sorted(rows, key=lambda row: row["index"]):
        patches.setdefault(row["explainer"], []).append(_short(row["patches"]))
    return {"caption": rows[0]["caption"], "words": [words[k] for k in sorted(words)], "patches": patches}


def _short(numbers: list[float]) -> list[float]:
    """Round to six significant digits."""
    return [float(f"{number:.6g}") for number in numbers]


def assert_close(found: Any, held: Any, at: str = "") -> None:
    """Check that texts are equal, and numbers up to a thousandth of the largest in their list.

    The tolerance is needed because machines round differently.
    """
    if isinstance(held, dict):
        assert list(found) == list(held), at
        for key in held:
            assert_close(found[key], held[key], f"{at} {key}")
    elif isinstance(held, list) and isinstance(held[0], list | float):
        expected = np.asarray(held)
        bound = 1e-3 * np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=bound, err_msg=at)
    else:
        assert found == held, at


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Callable[..., Path]:
    """A function that runs a command below ``tmp_path`` and returns its run folder."""

    def run(name: str, *overrides: str) -> Path:
        status, _, errors = command(name, *overrides, f"paths.root={tmp_path}", f"hydra.run.dir={tmp_path / 'run'}")
        assert (status, errors) == (0, [])
        return tmp_path / "run"

    return run


@pytest.mark.parametrize("mapper", MAPPERS)
def test_logits(mapper: str) -> None:
    found, held = logits(GOLDEN / f"vqa-{mapper}.ckpt"), golden("outputs")[f"logits {mapper}"]
    assert found["answers"] == held["answers"]
    np.testing.assert_allclose(found["logits"], held["logits"], rtol=0, atol=1e-4)


def test_loading_a_run_folder_loads_its_best_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(GOLDEN / "vqa-b.ckpt", tmp_path / "checkpoints" / "best.ckpt")
    assert_close(logits(tmp_path), golden("outputs")["logits b"])


@pytest.mark.parametrize("mapper", MAPPERS)
def test_explained_answers(mapper: str, run: Callable[..., Path], tmp_path: Path) -> None:
    image = saved_pictures(tmp_path)[0]
    assert_close(answer_scores(run(*explain_vqa(mapper, image, QUESTIONS[0]))), golden("outputs")[f"answer {mapper}"])


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_explained_captions(number: int, run: Callable[..., Path], tmp_path: Path) -> None:
    image = saved_pictures(tmp_path)[number]
    assert_close(word_scores(run(*explain_caption(image))), golden("outputs")[f"caption {number}"])


@pytest.mark.parametrize("name", ["vqa-a", "vqa-b", "caption-b"])
def test_a_checkpoint_is_plain_data(name: str) -> None:
    """Its content and its card can be read without this project."""
    content = torch.load(GOLDEN / f"{name}.ckpt", weights_only=True)
    card = content["clipmapper"]
    about = {"task", "sees", "data", "mapper", "encoder", "encoder_fingerprint"}
    own = {"vqa": {"answers"}, "caption": {"vocabulary", "tokens"}}
    assert card.keys() >= about | own[card["task"]]
    assert all(name.startswith("model.") for name in content["state_dict"])


def test_a_difference_is_detected() -> None:
    held = golden("outputs")["answer b"]
    for name in held["scores"]:
        changed = golden("outputs")["answer b"]
        scores = next(iter(changed["scores"][name].values()))
        scores[5] += 2e-3 * max(map(abs, scores))
        with pytest.raises(AssertionError, match=name):
            assert_close(changed, held)
