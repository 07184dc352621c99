"""The measures of a run: those of the config, their options, and custom measures from a folder of the user."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from perturb_runs import Trained, records
from tiny_runs import composed

from clipmapper.cli import typed
from clipmapper.errors import UserError
from clipmapper.places import CONFIGS
from perturbation.config import PerturbCaptionsConfig, PerturbConfig
from perturbation.perturb.measures import build_measures, measure_configs

Command = Callable[..., tuple[int, str, list[str]]]
pytestmark = pytest.mark.usefixtures("_no_figures")

MINE = '''
import numpy as np

from perturbation.measures.base import Measure, Rows
from perturbation.removal.reader import Subsets


class Mine(Measure):
    """The response without the first tokens of both modalities, up to a share of them."""

    def __init__(self, share):
        self.share = share

    def ask(self, batch, read):
        kept = {}
        for modality, tokens in batch.tokens.items():
            places = np.cumsum(tokens.removable, axis=1) / tokens.removable.sum(axis=1, keepdims=True)
            kept[modality] = ~(tokens.removable & (places <= self.share))[:, None]
        return {("full",): Subsets(), ("without",): Subsets(**kept)}

    def record(self, batch, outputs):
        columns = {name: found.responses[:, 0] for (name,), found in outputs.items()}
        return [Rows("mine", {}, columns)]

    def report(self, tables, run):
        (run / "mine.txt").write_text("seen")
        return {"mine": float(np.mean(tables["mine"]["without"].to_numpy()))}


class Other:
    pass
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configs of a user's folder that contains a module, and configs of the group ``measure``."""
    (tmp_path / "configs" / "measure").mkdir(parents=True)
    (tmp_path / "own_measure.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {
        "mine": "_target_: own_measure.Mine\nshare: 0.5\n",
        "wrong": "_target_: own_measure.Mine\nshare: 0.5\nhalf: 1\n",
        "other": "_target_: own_measure.Other\n",
        "absent": "_target_: own_measure.Absent\n",
    }.items():
        (tmp_path / "configs" / "measure" / f"{name}.yaml").write_text(text)
    return tmp_path / "configs"


def test_every_measure_runs_with_default_options(trained: Trained, tmp_path: Path, command: Command) -> None:
    names = sorted(path.stem for path in (CONFIGS / "measure").glob("*.yaml"))
    run, chosen = tmp_path / "run", f"measure.names=[{','.join(names)}]"
    status, _, errors = command("perturb", *trained.overrides, chosen, "samples=3", f"hydra.run.dir={run}")
    assert (status, errors) == (0, [])
    reports = {"areas": ["rows", "gaps"], "ceiling": []}  # by default, no sample is searched for the ceiling
    content = json.loads((run / "perturbation.json").read_text())
    assert all(content[key] for name in names for key in reports.get(name, [name]))


def test_a_custom_measure(trained: Trained, folder: Path, tmp_path: Path, command: Command) -> None:
    run = tmp_path / "run"
    chosen = ("measure.names=[areas,mine]", "measure.mine.share=1", "samples=3", "steps=[0,1]", "controls=[]")
    status, _, errors = command(
        "perturb", *trained.overrides, *chosen, f"hydra.run.dir={run}", f"--config-dir={folder}"
    )
    assert (status, errors) == (0, [])
    content = json.loads((run / "perturbation.json").read_text())
    assert "eraser" not in content
    assert (run / "mine.txt").read_text() == "seen"
    rows = records(run, "mine")
    assert [list(row) for row in rows] == [["question_id", "full", "without"]] * 3
    assert content["mine"] == pytest.approx(sum(row["without"] for row in rows) / 3)
    full = {row["question_id"]: row["probability"][0] for row in records(run)}
    assert {row["question_id"]: row["full"] for row in rows} == pytest.approx(full)
    identity = json.loads((run / "identity.json").read_text())["config"]["measures"]
    assert identity["mine"] == {"_target_": "own_measure.Mine", "share": 1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("measure.names=[nothing]",), "measure.names: nothing is not one of: "),
        (("measure.names=[mine]", "measure.mine.half=2"), "unknown config key measure.mine.half"),
        (("measure.names=[wrong]",), "measure=wrong: Mine.__init__() got an unexpected keyword argument 'half'"),
        (("measure.names=[areas]", "measure.mine.share=1"), "measure.mine: mine does not run; add it to measure.names"),
        (("measure.names=[other]",), "measure=other: Other is no subclass of perturbation.measures.base.Measure"),
        (("measure.names=[absent]",), "measure=absent: "),
    ],
)
def test_a_mistake_is_one_line(
    trained: Trained, folder: Path, tmp_path: Path, command: Command, options: tuple[str, ...], said: str
) -> None:
    status, _, errors = command(
        "perturb", *trained.overrides, *options, f"hydra.run.dir={tmp_path / 'run'}", f"--config-dir={folder}"
    )
    assert (status, len(errors)) == (1, 1)
    assert said in errors[0]


def test_the_default_measures_take_their_options_from_the_config_of_the_run() -> None:
    config = typed(
        composed("perturb", "eraser=[0.3]", "faithfulness=false", "ceiling.samples=2", "steps=[0,1]"), PerturbConfig
    )
    configs = measure_configs(config)
    assert list(configs) == ["areas", "eraser", "faithfulness", "ceiling"]
    assert configs["eraser"]["shares"] == [0.3]
    assert configs["faithfulness"]["wanted"] is False
    assert (configs["ceiling"]["samples"], configs["ceiling"]["steps"]) == (2, [0, 1])
    assert configs["areas"]["about"] == {"task": "vqa", "mapper": "b"}
    assert list(build_measures(configs)) == list(configs)


def test_areas_are_always_measured() -> None:
    assert list(measure_configs(typed(composed("perturb", "measure.names=[eraser]"), PerturbConfig))) == [
        "areas",
        "eraser",
    ]
    captions = typed(composed("perturb", "task=caption"), PerturbCaptionsConfig)
    assert list(measure_configs(captions)) == ["areas"]


def test_every_config_of_the_group_builds() -> None:
    names = sorted(path.stem for path in (CONFIGS / "measure").glob("*.yaml"))
    config = typed(composed("perturb", f"measure.names=[{','.join(names)}]"), PerturbConfig)
    built = build_measures(measure_configs(config))
    assert {type(each).__module__ for each in built.values()} == {f"perturbation.measures.{name}" for name in names}


def test_the_error_of_a_measure_is_passed_on() -> None:
    config = typed(composed("perturb", "++measure.names=[saco]", "++measure.saco.groups=1"), PerturbConfig)
    with pytest.raises(UserError, match=r"^measure\.saco\.groups=1 must be 2 or more"):
        build_measures(measure_configs(config))
