"""``clipmapper.load``: what a path or a name loads, what is known about it, and the errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sample_models
from public import PROJECT

import clipmapper
import explain
from clipmapper.errors import UserError
from clipmapper.pretrained import LLAVA, pretrained_file
from clipmapper.weights import read_weights
from explain.explainers import GenAtt
from perturbation.loaded.entry import shipped

SCENE, QUESTION = PROJECT / "docs" / "pictures" / "scene.png", "what color is the circle?"
MAPPERS = [name for name in shipped() if name != LLAVA.name]


def run_folder(folder: Path, model: str = "vqa-b", config: str | None = None, metrics: str | None = None) -> Path:
    """Write a run folder whose best checkpoint is a shipped model."""
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(parents=True)
    golden = PROJECT / "tests" / "contract" / "golden" / f"{model}.ckpt"
    shutil.copy(golden, checkpoints / "best.ckpt")
    for name, text in (("config.yaml", config), ("metrics.json", metrics)):
        if text is not None:
            (folder / name).write_text(text)
    return folder


def test_importing_the_package_imports_little() -> None:
    code = (
        "import sys; import clipmapper; print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    found = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert {*found.stdout.split()} <= {"__main__", "clipmapper"}


@pytest.mark.parametrize("name", MAPPERS)
def test_a_model_of_the_package_is_described_by_its_card(name: str) -> None:
    task, mapper = name.split("-")
    file = pretrained_file(task, mapper)
    assert file is not None
    card, _ = read_weights(file)
    model = clipmapper.load(name)
    assert (model.name, model.task, model.processor) == (name, task, None)
    scores = card["metrics"]["test"]
    assert model.accuracy == (scores["accuracy"] if task == "vqa" else 100 * scores["true_captions"])
    assert model.config["mapper"] == card["mapper"]
    assert model.config["data"] == {"name": "shapes"}
    if task == "vqa":
        assert list(model.classes) == card["answers"]
    else:
        assert {"circle", "teal", "a"} <= {*model.classes}
        assert len(model.classes) == len(card["tokens"]) - 1  # the token that ends a caption has no text
    assert repr(model) == f"Loaded({name!r}: {task}, {len(model.classes)} classes, accuracy {model.accuracy:.1f} %)"
    assert not any(parameter.requires_grad for parameter in model.model.parameters())


def test_an_explanation_is_that_of_explain() -> None:
    model = clipmapper.load("vqa-b")
    found = model.explain(SCENE, QUESTION, explainer=["genatt", "rollout"], target=("teal", "red"))
    direct = explain.explain(
        model.model, None, SCENE, QUESTION, explainer=["genatt", "rollout"], target=("teal", "red")
    )
    assert list(found.scores) == list(direct.scores)
    assert found.answer == direct.answer
    assert found.explained == direct.explained
    assert found.words == direct.words
    assert np.array_equal(found.image, direct.image)


def test_a_mapping_gives_explainers_names() -> None:
    chosen = {"of the paper": "weighted", "mine": GenAtt(), "without underscore": "input_x_gradient"}
    found = clipmapper.load("vqa-b").explain(SCENE, QUESTION, explainer=chosen)
    for name, same in zip(chosen, ("weighted", "genatt", "inputxgradient"), strict=True):
        direct = clipmapper.load("vqa-b").explain(SCENE, QUESTION, explainer=same)
        assert np.array_equal(found[name].image, direct.image)


def test_a_word_of_a_caption_is_explained() -> None:
    found = clipmapper.load("caption-b").explain(SCENE, target="circle", context=True)
    assert found.explained.text == "circle"
    assert found.words


def test_the_small_llava() -> None:
    model = clipmapper.load("shapes-llava")
    assert (model.task, model.classes, model.config["data"]) == ("generation", (), {"name": "shapes"})
    assert model.accuracy == model.metrics["test"]["accuracy"]
    assert model.explain(SCENE, QUESTION).answer.text == "teal"


@pytest.mark.parametrize(("kind", "task", "classes"), [("clip", "similarity", 0), ("vilt", "classification", 4)])
def test_a_folder_of_transformers(tmp_path: Path, kind: str, task: str, classes: int) -> None:
    for part in getattr(sample_models, kind)():
        part.save_pretrained(tmp_path / kind)
    model = clipmapper.load(tmp_path / kind)
    assert (model.task, len(model.classes), model.accuracy) == (task, classes, None)
    assert model.explain(sample_models.photo(), "what is red ?").image.any()
    with pytest.raises(UserError, match="has no test data: give samples, a list of"):
        model.test(2)


def test_a_run_folder_has_its_config_and_its_accuracy(tmp_path: Path) -> None:
    metrics = json.dumps({"val": {"accuracy": 50.0}, "test": {"accuracy": 61.5}})
    folder = run_folder(tmp_path / "run", config="data: {name: shapes, test_scenes: 7}\nseed: 5\n", metrics=metrics)
    for source in (folder, str(folder), folder / "checkpoints" / "best.ckpt"):
        model = clipmapper.load(source)
        assert (model.accuracy, model.config["seed"], model.config["data"]["test_scenes"]) == (61.5, 5, 7)
        assert model.config["mapper"]["name"] == "b"  # the card has what the file lacks
        assert model.path == str(folder / "checkpoints" / "best.ckpt")


def test_the_accuracy_of_validation_stands_for_that_of_a_missing_test_split(tmp_path: Path) -> None:
    assert clipmapper.load(run_folder(tmp_path, metrics='{"val": {"accuracy": 50.0}}')).accuracy == 50.0


def test_captions_that_were_not_judged_have_no_accuracy(tmp_path: Path) -> None:
    model = clipmapper.load(run_folder(tmp_path, "caption-b", metrics='{"test": {"CIDEr": 1.5}}'))
    assert (model.accuracy, model.metrics) == (None, {"test": {"CIDEr": 1.5}})


def test_a_checkpoint_that_was_moved_reads_no_files_of_others(tmp_path: Path) -> None:
    file = tmp_path / "models" / "mine.ckpt"
    file.parent.mkdir()
    shutil.copy(run_folder(tmp_path / "run") / "checkpoints" / "best.ckpt", file)
    (tmp_path / "config.yaml").write_text("seed: 5\n")
    model = clipmapper.load(file)
    assert model.accuracy is None
    assert model.config.get("seed") != 5


def test_damaged_scores_are_told_and_not_shown(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, metrics='{"test": {"accuracy": "high"}}')
    with pytest.warns(UserWarning, match=r"accuracy is not known: .*metrics\.json"):
        assert clipmapper.load(folder).accuracy is None


@pytest.mark.parametrize("text", ["a: [", "- 1", "a: ${nothing}"])
def test_a_damaged_config_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"config\.yaml: (damaged|is not the config).*; restore or remove it") as caught:
        clipmapper.load(run_folder(tmp_path, config=text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("vqa-c", r"vqa-c: no such run folder, checkpoint or model; did you mean vqa-\w\? the package contains"),
        ("runs/train/nothing/here", "runs/train/nothing/here: no such run folder"),
        ("nothing.ckpt", r"nothing\.ckpt: no such run folder, checkpoint or model"),
        ("someone/nothing", "cannot load 'someone/nothing': it is no folder with such files, and no model"),
        ("", "no such run folder|neither a run folder"),
    ],
)
def test_what_is_not_there_is_an_error(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        clipmapper.load(source)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"neither a run folder of scripts/train.py with a checkpoint, nor a folder"):
        clipmapper.load(tmp_path)


def test_damaged_weights_are_an_error(tmp_path: Path) -> None:
    for part in sample_models.clip():
        part.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"{}")
    with pytest.raises(UserError, match="replace the damaged or missing file"):
        clipmapper.load(tmp_path / "clip")
