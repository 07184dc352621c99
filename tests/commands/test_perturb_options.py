"""Perturbation runs with other options, odd questions, and bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from perturb_runs import Trained, records
from tiny_runs import composed

from clipmapper.data.datasets import load_data
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from perturbation.perturb.samples import sample_rows


@pytest.mark.parametrize(
    "options", [("target=margin", "eraser=[]"), ("removal.image=mean", "removal.text=drop", "eraser=[]")]
)
def test_other_options_run(trained: Trained, tmp_path: Path, options: tuple[str, ...]) -> None:
    reduced = ("samples=3", "steps=[0,0.5,1]", "faithfulness=false", "direction=[positive]", "controls=[]")
    content = trained.perturb(tmp_path, *reduced, *options)
    assert [row["modality"] for row in content["rows"]] == ["image", "text"]
    assert content["gaps"] == []
    assert not (tmp_path / "faithfulness.parquet").exists()


def test_a_question_without_words_has_a_flat_curve(trained: Trained, tmp_path: Path) -> None:
    config, data, run = trained.config(), tmp_path / "data", tmp_path / "run"
    shutil.copytree(config.data.root, data)
    questions = load_data(config.data).part("test").questions
    first = questions[sample_rows(len(questions), 3, config.seed)[0]].question_id
    (file,) = data.glob("v*-40-10-10x*/v2_OpenEnded_shapes_test_questions.json")
    content = read_json(file)
    for entry in content["questions"]:
        if entry["question_id"] == first:
            entry["question"] = "&nbsp;"  # CLIP's tokenizer reads it as a space
    write_json(file, content)
    found = trained.perturb(run, "samples=3", "modality=[text]", f"data.root={data}")
    rows = [row for row in records(run) if row["question_id"] == first]
    assert rows
    for row in rows:
        assert len(set(row["probability"])) == len(set(row["correct"])) == 1
    assert {row["violation"]["left_out"] for row in found["faithfulness"]} == {1}


def test_scores_that_cannot_be_ranked_are_refused_with_their_place(trained: Trained, tmp_path: Path) -> None:
    odd = ("+explainer.names=[odd]", "+explainer.odd={_target_:odd_explainers.Broken}")
    second = r"explainer=odd: image token 4 of question \d+ scores nan"
    with pytest.raises(UserError, match=second):
        trained.perturb(tmp_path, *odd)


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("samples=0", "samples=0 must be 1 or more; null takes all samples"),
        ("samples=100000", "the split has .* questions; give samples="),
        ("steps=[0,0.5,0.2]", "steps is not sorted"),
        ("steps=[0,1.5]", "outside 0 to 1"),
        ("steps=papr", "did you mean paper"),
        ("modality=[]", "modality is an empty list"),
        ("modality=[audio]", "modality: audio is not one of: image, text"),
        ("direction=[positive,positive]", "contains a value twice"),
        ("removal.image=drop", "removal.image: drop is not one of: mask, mean"),
        ("controls=[nothing]", "nothing is not one of"),
        ("split=dev", "split=dev: this data has"),
        ("eraser=[0]", "must be above 0 and at most 1"),
        ("resume=/nowhere", "no perturbation run found"),
        ("checkpoint=/nowhere.ckpt", "no such file"),
        ("mapper=a", "mapper.name=b"),
    ],
)
def test_bad_input_is_one_line(
    trained: Trained, tmp_path: Path, command: Callable[..., tuple[int, str, list[str]]], override: str, named: str
) -> None:
    status, _, errors = command("perturb", *trained.overrides, override, f"hydra.run.dir={tmp_path}")
    assert status == 1
    assert len(errors) == 1
    assert re.search(named, errors[0]), errors[0]


def test_several_explainers_from_the_command_line(
    trained: Trained, tmp_path: Path, command: Callable[..., tuple[int, str, list[str]]]
) -> None:
    quick = ("samples=2", "steps=[0,0.5,1]", "modality=[text]", "faithfulness=false", f"hydra.sweep.dir={tmp_path}")
    status, out, errors = command("perturb", *trained.overrides, *quick, "explainer=weighted,genatt", "--multirun")
    assert (status, errors) == (0, [])
    folders = [
        Path(line.removeprefix("results are in ")) for line in out.splitlines() if line.startswith("results are")
    ]
    first = [json.loads((folder / "perturbation.json").read_text())["rows"][0]["explainer"] for folder in folders]
    assert first == ["weighted", "genatt"]


def test_the_paper_s_explainers_have_configs() -> None:
    assert composed("perturb", "explainer=paper").explainer.names == ["weighted", "uniform", "rollout", "genatt"]
    assert composed("perturb", "trainer=ddp").trainer.devices == 2
