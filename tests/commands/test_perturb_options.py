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

pytestmark = pytest.mark.usefixtures("_no_figures")


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
    file.with_name("shapes_test.b2").unlink()  # an edited file does not have its checksum
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
        ("samples=0", "samples=0 must be 1 or more"),
        ("samples=100000", "the split has .* questions; give samples="),
        ("steps=[0,0.5,0.2]", "steps is not sorted"),
        ("steps=[0,1.5]", "outside 0 to 1"),
        ("steps=papr", "did you mean paper"),
        ("modality=[]", "modality is an empty list"),
        ("modality=[audio]", "modality: audio is not one of: image, text"),
        ("direction=[positive,positive]", "contains a value twice"),
        ("removal.image=drop", "removal.image=drop is not one of: mask, mean, zero, blur, noise, noisy_linear"),
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


@pytest.mark.slow
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


def test_positional_controls_are_tested_only_in_their_modality(trained: Trained, tmp_path: Path) -> None:
    controls = ["random", "input_x_gradient", "first_to_last", "last_to_first", "centre_first"]
    assert composed("perturb").controls == controls
    content = trained.perturb(
        tmp_path, f"controls=[{','.join(controls)}]", "samples=5", "measure.names=[areas,eraser,saco]"
    )
    of = {"image": {"weighted", "random", "input_x_gradient", "centre_first"}}
    of["text"] = {"weighted", *controls} - {"centre_first"}
    for key in ("rows", "gaps", "eraser", "saco"):
        assert {m: {row["explainer"] for row in content[key] if row["modality"] == m} for m in of} == of, key
    assert {row["explainer"]: row["control"] for row in content["rows"]} == {"weighted": False} | dict.fromkeys(
        controls, True
    )
    for gap in content["gaps"]:
        assert {each["control"] for each in gap["controls"]} == of[gap["modality"]] - {"weighted", gap["explainer"]}
        assert (gap["above_controls"] is True) <= (min(each["difference"] for each in gap["controls"]) > 0)
    pairs = {
        m: {(p["first"], p["second"]) for p in read_json(tmp_path / "comparisons.json") if p["modality"] == m}
        for m in of
    }
    assert {m: len(each) for m, each in pairs.items()} == {"image": 6, "text": 10}
    lines = (tmp_path / "areas_accuracy.md").read_text().splitlines()
    (centre,) = (line for line in lines[:9] if line.startswith("| centre_first |"))
    assert centre.count(" – ") == 4
    tested = {(row["modality"], row["explainer"]) for row in records(tmp_path)}
    assert tested == {(m, name) for m, names in of.items() for name in names}


def test_an_order_from_first_to_last_removes_the_first_words_first(trained: Trained, tmp_path: Path) -> None:
    """The negative order of one text control is the positive order of the other."""
    trained.perturb(tmp_path, "controls=[first_to_last,last_to_first]", "samples=5", "modality=[text]", "eraser=[]")
    found = {(r["question_id"], r["explainer"], r["direction"]): r["probability"] for r in records(tmp_path)}
    for (question, explainer, direction), curve in found.items():
        if explainer == "first_to_last":
            opposite = "negative" if direction == "positive" else "positive"
            assert curve == pytest.approx(found[question, "last_to_first", opposite], abs=1e-5)
    assert any(
        curve != pytest.approx(found[question, explainer, "positive"], abs=1e-3)
        for (question, explainer, direction), curve in found.items()
        if direction == "negative"
    )


def test_an_explainer_that_scores_no_tested_modality_is_refused(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of first_to_last scores image tokens"):
        trained.perturb(tmp_path, "controls=[]", "modality=[image]", explainer="first_to_last")


def test_the_paper_s_explainers_have_configs() -> None:
    assert composed("perturb", "explainer=paper").explainer.names == ["weighted", "uniform", "rollout", "genatt"]
    assert composed("perturb", "trainer=ddp").trainer.devices == 2
