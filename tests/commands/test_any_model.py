"""The commands on models of transformers and open_clip, which tiny models with random weights stand for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import sample_models
from killed_runs import killed_after
from no_figures import without_figures
from omegaconf import DictConfig
from perturb_runs import results
from sample_models import photo
from tiny_runs import QUIET, Tiny, composed, finish, write_vqav2
from watching import watched

import perturbation
from clipmapper.any_model.load import load_model
from clipmapper.any_model.samples import load_samples
from clipmapper.cli import as_added, typed
from clipmapper.config.schema import BaseConfig, EncoderConfig
from clipmapper.encoder.hugging_face import write_hugging_face
from clipmapper.encoder.load import load_encoder
from clipmapper.errors import UserError
from explain.lrp import mode
from explain.sample.entry import explain
from perturbation.config import PerturbModelConfig
from perturbation.perturb import lightning
from perturbation.perturb.run import perturb

Command = Callable[..., tuple[int, str, list[str]]]
QUESTIONS = ("what is red ?", "is it a big cat", "red cat", "what is it", "a red cat")
ANSWERS = ("yes", "no", "1", "red")
EXPLAINERS = ("explainer.names=[weighted,rollout]",)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models of transformers, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("vilt", "llava", "clip", "vit", "bert"):
        model, processor = getattr(sample_models, name)()
        if name == "vilt":
            model.config.id2label = dict(enumerate(ANSWERS))
            model.config.label2id = {label: number for number, label in enumerate(ANSWERS)}
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("table") / "table.csv", answers=True)


def write_table(path: Path, answers: bool, **columns: Sequence[str]) -> Path:
    """Write a table with a photo for each question and, if wanted, two answers."""
    rows = [dict(zip(("image", "text"), (f"{k}.png", text), strict=True)) for k, text in enumerate(QUESTIONS)]
    for k, row in enumerate(rows):
        photo(seed=k).save(path.parent / f"{k}.png")
        row |= {"answer_1": ANSWERS[k % 4], "answer_2": ""} if answers else {}
        row |= {name: values[k] for name, values in columns.items()}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def of_table(model: Path, table: Path, *more: str) -> list[str]:
    data = ["data=table", f"data.file={table}"]
    return ["model=huggingface", f"model.path={model}", *data, *QUIET, *more]


def run_perturb(overrides: Sequence[str], run: Path) -> dict[str, Any]:
    run.mkdir(parents=True, exist_ok=True)
    config: PerturbModelConfig = typed(composed("perturb", *map(as_added, overrides)), PerturbModelConfig)
    with without_figures():
        return perturb(config, "weighted", run)


@pytest.mark.parametrize("name", ["vilt", "llava", "clip"])
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
    err = capsys.readouterr().err
    assert "explainer shuffled is left out: it needs samples of other images" in err
    assert "explainer trans_att is left out: LRP has no rule for a layer of this model" in err


def data_of(*overrides: str) -> DictConfig:
    whole: DictConfig = composed("perturb", "model=open_clip", *overrides)
    return whole


def samples_of(*overrides: str, dual: bool) -> list[Any]:
    config: BaseConfig = typed(data_of(*overrides), PerturbModelConfig)
    found: list[Any] = load_samples(config.data, "val", dual)
    return found


def test_a_dual_encoder_reads_captions_and_other_models_questions(tiny: Tiny, tmp_path: Path) -> None:
    scenes = [f"data.root={tiny.root / 'data' / 'shapes'}", *tiny.overrides[:4]]
    captions, questions = (samples_of(*scenes, dual=dual) for dual in (True, False))
    assert len(captions) == 10
    assert len(questions) == 60
    assert all(not sample.text.endswith("?") and sample.answers is None for sample in captions)
    assert all(sample.text.endswith("?") and len(sample.answers) == 10 for sample in questions)
    write_vqav2(tmp_path)
    vqa = samples_of("data=vqav2", f"data.root={tmp_path}", "data.reserved=4", dual=True)
    assert [sample.text for sample in vqa] == ["is it so 0?", "is it so 1?"] * 2
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "annotations": [{"image_id": 7, "id": 1, "caption": "A kite."}],
    }
    (tmp_path / "captions_val2014.json").write_text(json.dumps(content))
    (tmp_path / "captions_train2014.json").write_text(json.dumps(content).replace("7", "8"))
    coco = ["data=coco", f"data.root={tmp_path}", "data.karpathy=null", "data.captions='captions_{split}.json'"]
    assert [(s.id, s.text) for s in samples_of(*coco, dual=True)] == [(7, "A kite.")]
    assert [(s.id, s.text) for s in samples_of(*coco, dual=False)] == [(7, None)]


def test_the_embedded_encoder_is_tested_and_explained(tiny: Tiny, tmp_path: Path) -> None:
    """Its similarity to the complete pair is that of the model read directly."""
    scenes = [f"data.root={tiny.root / 'data' / 'shapes'}", *tiny.overrides[:4]]
    overrides = ["model=open_clip", *scenes, *QUIET, "samples=2", "steps=[0,1]", "random_seeds=1"]
    run_perturb(overrides, tmp_path)
    rows = pq.read_table(tmp_path / "samples.parquet").to_pylist()
    by_id = {sample.id: sample for sample in samples_of(*scenes, dual=True) + load_test(scenes)}
    loaded = load_model(typed(data_of(*scenes), PerturbModelConfig))
    for row in rows:
        sample = by_id[row["sample_id"]]
        direct = explain(loaded.model, loaded.processor, sample.image.path, sample.text).answer.similarity
        assert row["similarity"][0] == pytest.approx(direct, abs=1e-5)


def load_test(scenes: Sequence[str]) -> list[Any]:
    config: BaseConfig = typed(data_of(*scenes), PerturbModelConfig)
    found: list[Any] = load_samples(config.data, "test", True)
    return found


def test_figures_and_scores_of_a_table(command: Command, models: Path, table: Path, tmp_path: Path) -> None:
    """The scores are those of ``explain.explain``, and every sample has a figure and its content for the report."""
    run = tmp_path / "run"
    options = [*EXPLAINERS, "samples=2", "formats=[png]", f"hydra.run.dir={run}"]
    status, out, errors = command("explain", *of_table(models / "llava", table, *options))
    assert (status, errors) == (0, [])
    assert "explained 2 samples" in out
    scores = pq.read_table(run / "scores.parquet").to_pandas()
    ids = scores["sample_id"].unique().tolist()
    assert {path.name for path in (run / "pictures").iterdir()} == {f"sample_{number}.png" for number in ids}
    contents = [json.loads(line) for line in (run / "pictures.jsonl").read_text().splitlines()]
    assert [content["text"] for content in contents] == [QUESTIONS[number] for number in ids]
    image = table.parent / f"{ids[1]}.png"
    found = explain(str(models / "llava"), None, image, QUESTIONS[ids[1]], explainer=["weighted", "rollout"])
    for name in ("weighted", "rollout"):
        rows = scores[(scores["sample_id"] == ids[1]) & (scores["explainer"] == name)]
        cells, words = rows[rows["modality"] == "image"], rows[rows["modality"] == "text"]
        np.testing.assert_allclose(cells["score"], found.scores[name].images[0].ravel(), rtol=1e-5, atol=1e-8)
        assert cells["row"].max() + 1 == found.scores[name].images[0].shape[0]
        np.testing.assert_allclose(words["score"], found.scores[name].words, rtol=1e-5, atol=1e-8)
        assert words["word"].tolist() == [word for word, _ in found.words]
    assert set(scores["answer"]) == {str(found.answer), scores["answer"].iloc[0]}


def test_an_own_image_and_a_contrast(command: Command, models: Path, table: Path, tmp_path: Path) -> None:
    own = [f"image={table.parent / '0.png'}", "question=what is it", "answer=red", "against=no"]
    overrides = [f"model.path={models / 'vilt'}", *own, *QUIET, f"hydra.run.dir={tmp_path / 'run'}"]
    status, _, errors = command("explain", "model=huggingface", *overrides)
    assert (status, errors) == (0, [])
    scores = pq.read_table(tmp_path / "run" / "scores.parquet").to_pandas()
    assert (set(scores["target"]), set(scores["against"])) == ({"red"}, {"no"})
    found = explain(str(models / "vilt"), None, table.parent / "0.png", "what is it", target=("red", "no"))
    np.testing.assert_allclose(scores[scores["modality"] == "text"]["score"], found.scores["weighted"].words, rtol=1e-5)


def test_a_text_alone_has_a_page_instead_of_a_figure(command: Command, models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = [f"model.path={models / 'bert'}", "question=what <b> red", *QUIET, f"hydra.run.dir={run}"]
    status, _, errors = command("explain", "model=huggingface", *overrides)
    assert (status, errors) == (0, [])
    page = (run / "pictures" / "sample_0.html").read_text()
    assert "what &lt;b&gt; red" in page
    assert (run / "pictures.jsonl").read_text() == ""


def test_the_evidence_of_correct_answers(command: Command, models: Path, tiny: Tiny, tmp_path: Path) -> None:
    """A model that gives one answer to everything is judged on the questions with this answer."""
    scenes = [f"data.root={tiny.root / 'data' / 'shapes'}", *tiny.overrides[:4]]
    options = ["samples=3", "batch_size=4", "explainer.names=[rollout,random]", f"hydra.run.dir={tmp_path}"]
    model = ["model=huggingface", f"model.path={models / 'vilt'}"]
    status, _, errors = command("evaluate_explanations", *model, *scenes, *QUIET, *options)
    assert (status, errors) == (0, [])
    found = json.loads((tmp_path / "localisation.json").read_text())
    rows = {(row["explainer"], row["modality"], row["metric"]): row for row in found["rows"]}
    assert {row["explainer"] for row in found["rows"]} == {"rollout", "random", "deletion", "chance"}
    assert all(row["model"] == "huggingface" for row in found["rows"])
    assert 0 < rows["chance", "text", "mass_accuracy"]["value"] < 1
    assert found["questions"] == 3
    values = pq.read_table(tmp_path / "localisation.parquet").to_pandas()
    data = {sample.id: sample for sample in load_questions(scenes)}
    for number in values["question_id"].unique():
        assert set(data[number].answers) & set(ANSWERS)


def load_questions(scenes: Sequence[str]) -> list[Any]:
    config: BaseConfig = typed(data_of(*scenes), PerturbModelConfig)
    found: list[Any] = load_samples(config.data, "test", False)
    return found


@pytest.mark.parametrize("name", ["llava", "clip"])
def test_all_layers_are_made_random(command: Command, models: Path, table: Path, tmp_path: Path, name: str) -> None:
    options = ["samples=3", "explainer.names=[weighted,random]", f"hydra.run.dir={tmp_path}"]
    status, _, errors = command("sanity_check", *of_table(models / name, table, *options))
    assert (status, errors) == (0, [])
    rows = json.loads((tmp_path / "sanity.json").read_text())["rows"]
    assert {row["model"] for row in rows} == {"huggingface"}
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    assert layers[0] == "none"
    assert layers[1] == {"llava": "lm_head", "clip": "text_projection"}[name]
    of = {(row["explainer"], row["modality"], row["layer"]): row["correlation"] for row in rows}
    for explainer in ("weighted", "random"):
        assert of[explainer, "image", "none"] == 1
        assert of[explainer, "image", layers[-1]] < 0.9
    assert of["random", "image", layers[1]] < 0.9  # it draws again after every layer


def test_bad_input_gets_one_line(command: Command, models: Path, table: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    vilt = models / "vilt"

    def refused(*overrides: str, name: str = "perturb") -> str:
        status, _, errors = command(name, f"paths.runs={tmp_path / 'runs'}", *overrides)
        assert status == 1
        assert len(errors) == 1
        return errors[0]

    assert "config key model.path has no value: give model.path=…" in refused("model=huggingface")
    assert f"model.path={tmp_path}: cannot load" in refused(*of_table(tmp_path, table))
    assert "there is no model=other; choose one of: clipmapper, huggingface, open_clip" in refused("model=other")
    assert "task=… is for model=clipmapper only" in refused(*of_table(vilt, table), "task=caption")
    assert "data.file=" in refused(*of_table(vilt, tmp_path / "none.csv"))
    assert "data=table is for other models than CLIPmapper" in refused("data=table", f"data.file={table}", name="train")
    for content, message in (
        ("a,b\n1,2\n", "has the columns a, b; name one image, one text, or both"),
        ("image,text\n", "has no rows"),
        ("image,text\n ,\n", "row 1 has neither an image nor a text"),
        ("image,text\nx.png,what\n,what\n", "sample 1 has no image, but others have one"),
        ("image,text\nx.png,what\n", f"{tmp_path / 'x.png'}: no such image"),
        ("image,text\n1,2\n1,what, where\n", "row 2 has too many cells"),
        ("\udcff", "not a CSV file in UTF-8"),
    ):
        broken.write_bytes(content.encode("utf-8", "surrogateescape"))
        assert message in refused(*of_table(vilt, broken)), content
    assert "removal.image: mask0 is not one of: mean, zero" in refused(*of_table(vilt, table, "removal.image=mask0"))
    assert "controls: weighted is not one of" in refused(*of_table(vilt, table, "controls=[weighted]"))
    assert "samples=9: the split has 5 samples" in refused(*of_table(vilt, table, "samples=9"))
    named = ["image=1.png", "question=what"]
    assert "against='yellow'" in refused(*of_table(vilt, table, "against=yellow", "samples=1"), name="explain")
    assert "does not say what its answers depend on" in refused(*of_table(vilt, table), name="evaluate_explanations")
    clip = ["model=huggingface", f"model.path={models / 'clip'}", "data.test_scenes=2", f"data.root={tmp_path / 's'}"]
    assert "a dual encoder gives no answers" in refused(*clip, *QUIET, name="evaluate_explanations")
    assert "model.weights=openai2 is neither a file nor a hub tag" in refused(
        "model=open_clip", "model.weights=openai2"
    )
    assert "open_clip has no model ViT-B-3" in refused("model=open_clip", "model.architecture=ViT-B-3")
    assert "1.png: no such image" in refused("model=huggingface", f"model.path={vilt}", *named, name="explain")


def test_the_exported_encoder_has_the_curves_of_the_original(tiny: Tiny, tmp_path: Path) -> None:
    """One is read by open_clip, the other by transformers, and each is explained through an adapter of its own."""
    write_hugging_face(load_encoder(EncoderConfig("shapes-tiny", "embedded", "float32", 8)), tmp_path / "clip")
    scenes = [f"data.root={tiny.root / 'data' / 'shapes'}", *tiny.overrides[:4]]
    options = [*scenes, *QUIET, *EXPLAINERS, "samples=4", "random_seeds=1"]
    one = run_perturb(["model=open_clip", *options], tmp_path / "one")
    other = run_perturb(["model=huggingface", f"model.path={tmp_path / 'clip'}", *options], tmp_path / "other")
    for mine, theirs in zip(one["rows"], other["rows"], strict=True):
        assert {**mine, "model": ""}.keys() == {**theirs, "model": ""}.keys()
        assert (mine["explainer"], mine["modality"]) == (theirs["explainer"], theirs["modality"])
        np.testing.assert_allclose(mine["similarity"], theirs["similarity"], atol=2e-3)
