"""``clipmapper.load(…).test``: the tests of ``scripts/perturb.py`` from Python, on the test data or on own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from any_model_runs import ANSWERS, QUESTIONS, run_perturb, scenes_of
from caption_runs import Captioner, make_quick
from omegaconf import OmegaConf
from perturb_runs import Trained
from sample_models import photo

import clipmapper
import perturbation
from clipmapper.errors import UserError
from explain.explainers import Rollout, Weighted
from perturbation.loaded.model import Loaded

if TYPE_CHECKING:
    from perturbation.pairs.result import Tested

pytestmark = pytest.mark.usefixtures("_no_figures")
STEPS = [0.0, 0.5, 1.0]


def options_of(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the overrides of a command line as options, without those of the groups and the checkpoint."""
    plain = ("random", "batch", "weigh")
    kept = [each for each in overrides if "." in each.partition("=")[0] or each.startswith(plain)]
    options = OmegaConf.to_container(OmegaConf.from_dotlist([*kept, "engine_batch=16"]))
    assert isinstance(options, dict)
    return {str(key): value for key, value in options.items()}


def assert_same(found: Tested, run: Path, content: dict[str, Any]) -> None:
    """Compare a result with that of a command."""
    assert found.content["rows"] == content["rows"]
    assert found.content["gaps"] == content["gaps"]
    expected: pa.Table = pq.read_table(run / "samples.parquet")
    assert found.records["samples"].to_pylist() == expected.to_pylist()


def test_answers_have_the_numbers_of_the_command(trained: Trained, tmp_path: Path) -> None:
    content = trained.perturb(tmp_path / "run", "+explainer.names=[weighted,rollout,shuffled]", "measure.names=[areas]")
    model = clipmapper.load(trained.checkpoint)
    found = model.test(6, explainers=["weighted", "rollout", "shuffled"], **options_of(trained.overrides))
    assert_same(found, tmp_path / "run", content)


def test_captions_have_the_numbers_of_the_command(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_quick(monkeypatch)
    content = captioner.perturb(tmp_path / "run", "weightings=[equal]", "steps=[0,0.5,1]", "measure.names=[areas]")
    options = {**options_of(captioner.overrides), "weightings": ["equal"], "steps": STEPS}
    found = clipmapper.load(captioner.checkpoint).test(5, explainers="weighted", **options)
    assert_same(found, tmp_path / "run", content)


def test_a_model_of_transformers_has_the_numbers_of_the_command(models: Path, trained: Trained, tmp_path: Path) -> None:
    scenes = scenes_of(trained.tiny)
    line = ["model=huggingface", f"model.path={models / 'vilt'}", *scenes, "samples=3", "trainer.accelerator=cpu"]
    content = run_perturb([*line, "steps=[0,0.5,1]", "controls=[random]"], tmp_path / "run")
    model = clipmapper.load(models / "vilt")
    model = replace(model, config={**model.config, "data": {"name": "shapes"}})
    found = model.test(3, explainers="weighted", steps=STEPS, **OmegaConf.to_container(OmegaConf.from_dotlist(scenes)))
    assert_same(found, tmp_path / "run", content)


def weighted_areas(found: Tested) -> list[float]:
    return [row["auc"] for row in found.content["rows"] if row["explainer"].startswith("weighted")]


@pytest.mark.slow
def test_own_samples_give_the_areas_of_the_same_test_samples(trained: Trained) -> None:
    model, options = clipmapper.load(trained.checkpoint), {**options_of(trained.overrides), "steps": STEPS}
    samples = model.samples(4, **options)
    assert [len(answers or []) for _, _, answers in samples] == [10] * 4
    own, drawn = model.test(samples, **options), model.test(4, **options)
    assert weighted_areas(own) == weighted_areas(drawn)
    with_one_answer = [(image, text, max(answers, key=answers.count)) for image, text, answers in samples]
    assert weighted_areas(model.test(with_one_answer, **options)) == weighted_areas(drawn)


@pytest.mark.slow
def test_own_images_with_captions(captioner: Captioner) -> None:
    model = clipmapper.load(captioner.checkpoint)
    options = {**options_of(captioner.overrides), "weightings": ["equal", "cider"], "steps": STEPS}
    samples = model.samples(3, **options)
    assert {text for _, text, _ in samples} == {None}
    own, drawn = model.test(samples, **options), model.test(3, **options)
    assert len(weighted_areas(own)) == 4
    equal = [row["auc"] for row in own.content["rows"] if row["explainer"] == "weighted equal"]
    assert equal == [row["auc"] for row in drawn.content["rows"] if row["explainer"] == "weighted equal"]


def test_own_samples_of_a_model_of_transformers_are_tested_as_by_the_function(models: Path) -> None:
    samples = [(photo(seed=k), text, ANSWERS[k % 4]) for k, text in enumerate(QUESTIONS[:3])]
    found = clipmapper.load(models / "vilt").test(samples, explainers=["weighted"], steps=STEPS)
    direct = perturbation.test(str(models / "vilt"), samples=samples, explainers=["weighted"], steps=STEPS)
    for row, same in zip(found.content["rows"], direct.content["rows"], strict=True):
        assert row["auc"] == pytest.approx(same["auc"], rel=1e-5, abs=1e-6)


def test_explainers_may_be_objects(trained: Trained) -> None:
    model, options = clipmapper.load(trained.checkpoint), {**options_of(trained.overrides), "steps": STEPS}
    found = model.test(3, explainers={"mine": Rollout(), "theirs": "rollout"}, **options)
    rows = {name: found.table.loc[name].tolist() for name in ("mine", "theirs")}
    assert rows["mine"] == rows["theirs"]
    assert list(found.table.index) == ["mine", "theirs", "random"]
    assert list(model.test(3, explainers=Weighted(), controls=[], **options).table.index) == ["weighted"]


def test_the_model_in_memory_is_tested(trained: Trained) -> None:
    """The file is not read again: changed weights change the areas."""
    model, options = clipmapper.load(trained.checkpoint), {**options_of(trained.overrides), "steps": STEPS}
    before = model.test(4, **options)
    model.model.trained.head[1].weight.neg_()  # type: ignore[union-attr, index, operator]
    assert weighted_areas(model.test(4, **options)) != weighted_areas(before)


def test_results_repeat_and_leave_the_generator_as_it_was(models: Path) -> None:
    import torch

    model = clipmapper.load(models / "vilt")
    samples = [(photo(seed=k), text, ANSWERS[k % 4]) for k, text in enumerate(QUESTIONS[:2])]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = model.test(samples, steps=STEPS)
    assert torch.equal(torch.rand(3), expected)
    assert model.test(samples, steps=STEPS).content == first.content


PHOTO = photo()


@pytest.fixture(scope="module")
def loaded(trained: Trained) -> Loaded:
    return clipmapper.load(trained.checkpoint)


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        (4, {"stepps": "chefer"}, "stepps"),
        (4, {"steps": "often"}, "steps"),
        (4, {"removal": {"image": "burn"}}, r"removal\.image"),
        (4, {"explainers": ["wieghted"]}, r"explainer.names: wieghted is not one of"),
        (4, {"explainers": []}, "explainers: name at least one"),
        (4, {"explainers": {"mine": len}}, "explainers: mine is a builtin_function_or_method; give names"),
        (4, {"measures": ["size"]}, r"measure.names: size is not one of"),
        (0, {}, "samples"),
        (10**6, {}, "samples=1000000: the split has"),
        ([], {}, "samples: there is none"),
        ([(PHOTO, "what?")], {}, r"sample 0 does not fit .*: give \(image, question, answers\)"),
        ([(PHOTO, None, ["red"])], {}, r"give \(image, question, answers\)"),
        ([(None, "what?", ["red"])], {}, r"give \(image, question, answers\)"),
        ([("missing.png", "what?", "red")], {}, r"sample 0: missing\.png: no such image"),
    ],
)
def test_errors_take_one_line(
    trained: Trained, loaded: Loaded, samples: Any, options: dict[str, Any], message: str
) -> None:
    small = {**options_of(trained.overrides), "steps": STEPS}
    with pytest.raises(UserError, match=message) as caught:
        loaded.test(samples, **{**small, **options})
    assert "\n" not in str(caught.value)


def test_a_question_for_a_captioning_model_is_an_error(captioner: Captioner) -> None:
    with pytest.raises(UserError, match=r"sample 0 does not fit .*: give \(image, None, captions\)"):
        clipmapper.load(captioner.checkpoint).test([(PHOTO, "what?", ["a red circle"])])


def test_moved_data_are_looked_for_in_the_default_folder(trained: Trained) -> None:
    model = clipmapper.load(trained.checkpoint)
    options = options_of(trained.overrides)
    data = {"name": "shapes", "root": "/nothing/here", **options.pop("data")}
    moved = replace(model, config={**model.config, "data": data})
    assert len(moved.samples(2, **options)) == 2
