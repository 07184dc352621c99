"""The commands other than ``perturb`` on models of transformers, and bad input to all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from any_model_runs import ANSWERS, EXPLAINERS, QUESTIONS, of_table, samples_of, scenes_of
from report_runs import Parsed, page_of
from tiny_runs import QUIET, Tiny

from explain.sample.entry import explain

Command = Callable[..., tuple[int, str, list[str]]]


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


def test_a_text_alone_has_a_figure_and_a_place_in_the_report(command: Command, models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = [f"model.path={models / 'bert'}", "question=what <b> red", *QUIET, f"hydra.run.dir={run}"]
    status, _, errors = command("explain", "model=huggingface", *overrides)
    assert (status, errors) == (0, [])
    assert {path.name for path in (run / "pictures").iterdir()} == {"sample_0.png", "sample_0.pdf"}
    page = Parsed(page_of(run))
    assert [each for each in page.every("svg") if each.get("class") in ("photo", "map")] == []
    assert "what <b> red" in page.text
    assert sum(each.get("class") == "word" for each in page.every("span")) == 5


def test_the_similarity_of_a_dual_encoder_is_no_percentage(
    command: Command, models: Path, table: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    own = [f"image={table.parent / '0.png'}", "question=a red star", *QUIET, f"hydra.run.dir={run}"]
    status, _, errors = command("explain", "model=huggingface", f"model.path={models / 'clip'}", *own)
    assert (status, errors) == (0, [])
    assert re.search(r"similarity -?0\.\d{3}(?! \()", Parsed(page_of(run)).text)


def test_the_evidence_of_scenes_is_in_the_figures(command: Command, models: Path, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    model = ["model=huggingface", f"model.path={models / 'vilt'}"]
    options = ["samples=1", "formats=[png]", f"hydra.run.dir={run}"]
    status, _, errors = command("explain", *model, *scenes_of(tiny), *QUIET, *options)
    assert (status, errors) == (0, [])
    [content] = [json.loads(line) for line in (run / "pictures.jsonl").read_text().splitlines()]
    assert content["photo"]["outlines"]
    assert any(content["evidence"])


def test_the_evidence_of_correct_answers(command: Command, models: Path, tiny: Tiny, tmp_path: Path) -> None:
    """A model that gives one answer to everything is judged on the questions with this answer."""
    scenes = scenes_of(tiny)
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
    data = {sample.id: sample for sample in samples_of(scenes, "test", False)}
    for number in values["question_id"].unique():
        assert set(data[number].answers) & set(ANSWERS)


@pytest.mark.parametrize("name", [pytest.param("llava", marks=pytest.mark.slow), "clip"])
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
        assert of[explainer, "image", "none"] == pytest.approx(1)
        assert of[explainer, "image", layers[-1]] < 0.9
    assert of["random", "image", layers[1]] < 0.9  # it draws again after every layer


@pytest.mark.slow
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
    (tmp_path / "empty.png").write_bytes(b"")
    broken.write_text("image,text\nempty.png,what\n1.png,what\n")
    read = [*of_table(vilt, broken), "samples=2"]
    assert f"{tmp_path / 'empty.png'}: the file is empty" in refused(*read, name="sanity_check")
    assert "removal.image=mask0 is not one of: mean, zero" in refused(*of_table(vilt, table, "removal.image=mask0"))
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
