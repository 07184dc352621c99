"""The command ``perturb`` on models of transformers and open_clip, which tiny models with random weights stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sample_models
from any_model_runs import ANSWERS, EXPLAINERS, QUESTIONS, of_table, run_perturb, samples_of, scenes_of, write_table
from killed_runs import killed_after
from perturb_runs import results
from tiny_runs import QUIET, Tiny, composed, finish
from watching import watched

import perturbation
from clipmapper.any_model.load import load_model
from clipmapper.cli import typed
from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.hugging_face import write_hugging_face
from clipmapper.encoder.load import load_encoder
from clipmapper.errors import UserError
from explain.lrp import mode
from explain.sample.entry import explain
from perturbation.config import PerturbModelConfig
from perturbation.perturb import lightning


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("vilt", "llava")), "clip"])
def test_the_command_gives_the_numbers_of_the_function(models: Path, table: Path, tmp_path: Path, name: str) -> None:
    found = run_perturb(of_table(models / name, table, *EXPLAINERS, "batch_size=5", "batch_samples=2"), tmp_path)
    answers = [None if name == "clip" else [ANSWERS[k % 4]] for k in range(5)]
    samples = [(table.parent / f"{k}.png", text, answers[k]) for k, text in enumerate(QUESTIONS)]
    direct = perturbation.test(str(models / name), samples=samples, explainers=["weighted", "rollout"])
    one = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    other = {key_of(row): row for row in direct.records["samples"].to_pylist()}
    assert len(one) == len(other) == 5 * 2 * 2 * 5  # samples, modalities, directions, explainers and random orders
    values = ["similarity"] if name == "clip" else ["correct", "probability"]
    for row in one:
        for value in values:
            np.testing.assert_allclose(row[value], other[key_of(row)][value], rtol=1e-5, atol=1e-6)
        assert row["answers"] == other[key_of(row)]["answers"]
    assert {row["model"] for row in found["rows"]} == {"huggingface"}
    for row, same in zip(found["rows"], direct.content["rows"], strict=True):
        assert row["auc"] == pytest.approx(same["auc"], rel=1e-5, abs=1e-6)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("sample_id", "modality", "explainer", "seed", "direction"))


@pytest.mark.slow
def test_a_resumed_run_has_the_same_bytes(models: Path, table: Path, tmp_path: Path) -> None:
    overrides = of_table(models / "vilt", table, *EXPLAINERS, "batch_samples=2", "removal.image=noisy_linear")
    run_perturb(overrides, tmp_path / "whole")
    with killed_after(1):
        run_perturb(overrides, tmp_path / "stopped")
    written: list[int] = []
    with watched(lightning, "write_part", lambda _run, number, _tables: written.append(number)):
        run_perturb([*overrides, f"resume={tmp_path / 'stopped'}"], tmp_path / "resumed")
    assert written == [1, 2]
    assert results(tmp_path / "resumed") == results(tmp_path / "whole")


def test_another_model_is_not_resumed(models: Path, table: Path, tmp_path: Path) -> None:
    run_perturb(of_table(models / "vilt", table), tmp_path / "one")
    changed = tmp_path / "vilt"
    model, processor = sample_models.vilt()
    model.classifier[3].bias.data[0] += 1e-3
    model.save_pretrained(changed)
    processor.save_pretrained(changed)
    with pytest.raises(UserError, match="contains a run with checkpoint="):
        run_perturb([*of_table(changed, table), f"resume={tmp_path / 'one'}"], tmp_path / "two")


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(models: Path, table: Path, tmp_path: Path) -> None:
    overrides = of_table(models / "vilt", table, "batch_samples=2")
    run_perturb(overrides, tmp_path / "one")
    several = [*overrides, "trainer.devices=2", "trainer.strategy=ddp", f"hydra.run.dir={tmp_path / 'two'}"]
    status, _, err = finish("perturb", several)
    assert status == 0, err
    assert results(tmp_path / "two") == results(tmp_path / "one")


def test_a_model_without_answers_of_people_has_its_own_value_only(models: Path, tmp_path: Path, capsys: Any) -> None:
    table = write_table(tmp_path / "table.csv", answers=False)
    found = run_perturb(of_table(models / "vilt", table), tmp_path / "run")
    assert {row["measure"] for row in found["gaps"]} == {"probability"}
    assert "5 of 5 samples; values: probability (no accuracy: not all samples have answers)" in capsys.readouterr().out


def test_images_alone_and_texts_alone(models: Path, tmp_path: Path) -> None:
    for name, column in (("vit", "image"), ("bert", "text")):
        table = write_table(tmp_path / f"{name}.csv", answers=False)
        lines = [line.split(",") for line in table.read_text().splitlines()]
        place = lines[0].index(column)
        table.write_text("\n".join(line[place] for line in lines))
        found = run_perturb(of_table(models / name, table), tmp_path / name)
        assert {row["modality"] for row in found["rows"]} == {column}


def test_explainers_that_do_not_fit_are_left_out(
    models: Path, table: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = {name: rule for name, rule in mode.HANDLERS.items() if name != "softmax"}
    monkeypatch.setattr(mode, "HANDLERS", rules)
    overrides = of_table(models / "llava", table, "explainer.names=[weighted,shuffled,trans_att]")
    found = run_perturb(overrides, tmp_path / "run")
    assert {row["explainer"] for row in found["rows"]} == {"weighted", "random"}
    out, err = capsys.readouterr()
    assert "explainer shuffled is left out: it needs samples of other images" in err
    assert "explainer trans_att is left out: LRP has no rule for a layer of this model" in err
    assert "LRP runs" not in out  # no explainer that is left uses it
    assert found["config"]["lrp_precision"] is None


def test_the_embedded_encoder_is_tested_and_explained(tiny: Tiny, tmp_path: Path) -> None:
    """Its similarity to the complete pair is that of the model read directly."""
    scenes = scenes_of(tiny)
    overrides = ["model=open_clip", *scenes, *QUIET, "samples=2", "steps=[0,1]", "random_seeds=1"]
    run_perturb(overrides, tmp_path)
    rows = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    by_id = {sample.id: sample for sample in samples_of(scenes, "test", True)}
    loaded = load_model(typed(composed("perturb", "model=open_clip", *scenes), PerturbModelConfig))
    for row in rows:
        sample = by_id[row["sample_id"]]
        direct = explain(loaded.model, loaded.processor, sample.image.path, sample.text).answer.similarity
        assert row["similarity"][0] == pytest.approx(direct, abs=1e-5)


@pytest.mark.slow
def test_the_exported_encoder_has_the_curves_of_the_original(tiny: Tiny, tmp_path: Path) -> None:
    """One is read by open_clip, the other by transformers, and each is explained through an adapter of its own."""
    write_hugging_face(load_encoder(EncoderConfig("shapes-tiny", "embedded", "float32", 8)), tmp_path / "clip")
    scenes = scenes_of(tiny)
    options = [*scenes, *QUIET, *EXPLAINERS, "samples=4", "random_seeds=1"]
    one = run_perturb(["model=open_clip", *options], tmp_path / "one")
    other = run_perturb(["model=huggingface", f"model.path={tmp_path / 'clip'}", *options], tmp_path / "other")
    for mine, theirs in zip(one["rows"], other["rows"], strict=True):
        assert {**mine, "model": ""}.keys() == {**theirs, "model": ""}.keys()
        assert (mine["explainer"], mine["modality"]) == (theirs["explainer"], theirs["modality"])
        np.testing.assert_allclose(mine["similarity"], theirs["similarity"], atol=2e-3)
