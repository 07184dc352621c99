"""Options of explainers if several run: on the command line, in sweeps, and in a custom folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from perturb_runs import Trained

from clipmapper.files import read_json

Command = Callable[..., tuple[int, str, list[str]]]
pytestmark = pytest.mark.usefixtures("_no_figures")
TOKEN = "{_target_:explain.explainers.Weighted,importance:token}"
MINE = """
from explain import Explainer


class Distance(Explainer):
    def __init__(self, power, seed):
        self.power, self.seed = power, seed

    def matrix(self, trace):
        return trace.identity() * self.power
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configs with a custom explainer, whose class is in the parent folder."""
    (tmp_path / "my_distance.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "configs" / "explainer").mkdir(parents=True)
    (tmp_path / "configs" / "explainer" / "mine.yaml").write_text(
        "_target_: my_distance.Distance\npower: 2\nseed: ${seed}\n"
    )
    (tmp_path / "configs" / "explainer" / "both.yaml").write_text(
        "names: [weighted, weighted_token]\nweighted_token:\n"
        "  _target_: explain.explainers.Weighted\n  importance: token\n"
    )
    return tmp_path / "configs"


def perturbed(command: Command, trained: Trained, run: Path, *arguments: str) -> dict[str, Any]:
    """Run the perturbation tests and return the configs of the tested explainers by name."""
    quick = ("samples=2", "steps=[0,1]", "direction=[positive]", "faithfulness=false", "eraser=[]")
    status, _, errors = command("perturb", *trained.overrides, *quick, f"hydra.run.dir={run}", *arguments)
    assert (status, errors) == (0, [])
    rows = {row["explainer"] for row in read_json(run / "perturbation.json")["rows"]}
    found: dict[str, Any] = read_json(run / "identity.json")["config"]["explainers"]
    assert rows == set(found)
    return found


def scores(command: Command, trained: Trained, run: Path, *arguments: str) -> dict[str, pd.DataFrame]:
    """Explain two samples and return the scores by explainer."""
    quick = ("samples=2", "formats=[png]", f"checkpoint={trained.checkpoint}", f"hydra.run.dir={run}")
    status, _, errors = command("explain", *trained.tiny.overrides, *quick, *arguments)
    assert (status, errors) == (0, [])
    table = pd.read_parquet(run / "scores.parquet")
    return {str(name): part.reset_index(drop=True) for name, part in table.groupby("explainer")}


def test_options_change_only_the_named_explainer(command: Command, trained: Trained, tmp_path: Path) -> None:
    alone = scores(command, trained, tmp_path / "1", "explainer=weighted", "explainer.importance=token")["weighted"]
    plain = scores(command, trained, tmp_path / "2", "explainer=paper")
    option = "explainer.weighted.importance=token"
    paper = scores(command, trained, tmp_path / "3", "explainer=paper", option)
    named = scores(command, trained, tmp_path / "4", "explainer.names=[weighted,genatt]", option)
    assert list(named) == ["genatt", "weighted"]
    assert plain.keys() == paper.keys()
    for found in (paper, named):
        pd.testing.assert_frame_equal(found["weighted"], alone)
        pd.testing.assert_frame_equal(found["genatt"], plain["genatt"])
    assert not np.allclose(alone["score"], plain["weighted"]["score"])


def test_all_explainers_with_an_option_of_one(command: Command, trained: Trained, tmp_path: Path) -> None:
    found = perturbed(command, trained, tmp_path / "run", "explainer=all", "explainer.integrated_gradients.steps=8")
    assert len(found) == 17
    assert found["integrated_gradients"]["steps"] == 8
    assert found["weighted"]["importance"] == "matrix"


def test_the_precision_of_lrp_is_printed_and_recorded(command: Command, trained: Trained, tmp_path: Path) -> None:
    quick = ("samples=2", "steps=[0,1]", "direction=[positive]", "measure.names=[areas]", "modality=[text]")
    for number, (arguments, line, recorded) in enumerate(
        [
            (("explainer=partial_lrp",), "LRP runs in float64", "float64"),
            (("explainer=trans_att", "explainer.precision=model"), "LRP runs in the precision of the model", "model"),
            (("explainer=weighted",), None, None),
        ]
    ):
        run = f"hydra.run.dir={tmp_path / str(number)}"
        status, out, errors = command("perturb", *trained.overrides, *quick, *arguments, run)
        assert (status, errors) == (0, [])
        assert [each for each in out.splitlines() if each.startswith("LRP")] == ([] if line is None else [line])
        for name in ("identity", "perturbation"):
            assert read_json(tmp_path / str(number) / f"{name}.json")["config"]["lrp_precision"] == recorded


def test_controls_take_options_too(command: Command, trained: Trained, tmp_path: Path) -> None:
    few = ("controls=[random,constant]", "explainer.constant.weight=0.2", "explainer.random.seed=5", "random_seeds=1")
    found = perturbed(command, trained, tmp_path / "run", *few)
    assert list(found) == ["weighted", "random", "constant"]
    assert (found["random"]["seed"], found["constant"]["weight"]) == (5, 0.2)


def test_one_class_with_two_names(command: Command, trained: Trained, mine: Path, tmp_path: Path) -> None:
    given = ("explainer.names=[weighted,weighted_token]", f"explainer.weighted_token={TOKEN}")
    line = scores(command, trained, tmp_path / "line", *given)
    file = scores(command, trained, tmp_path / "file", "explainer=both", "--config-dir", str(mine))
    alone = scores(command, trained, tmp_path / "alone", "explainer.importance=token")["weighted"]
    for found in (line, file):
        assert list(found) == ["weighted", "weighted_token"]
        pd.testing.assert_series_equal(found["weighted_token"]["score"], alone["score"])
        assert not np.allclose(found["weighted"]["score"], alone["score"])


def test_a_custom_folder(command: Command, trained: Trained, mine: Path, tmp_path: Path) -> None:
    folder = ("seed=3", "controls=[]", "--config-dir", str(mine))
    one = perturbed(command, trained, tmp_path / "1", "explainer=mine", "explainer.power=4", *folder)
    assert one == {"mine": {"_target_": "my_distance.Distance", "power": 4, "seed": 3}}
    names = ("explainer.names=[uniform,mine]", "explainer.mine.power=5")
    several = perturbed(command, trained, tmp_path / "2", *names, *folder)
    assert list(several) == ["uniform", "mine"]
    assert several["mine"] == {"_target_": "my_distance.Distance", "power": 5, "seed": 3}
    every = perturbed(command, trained, tmp_path / "3", "explainer=all", *folder)
    assert every["mine"]["power"] == 2
    assert "both" not in every


@pytest.mark.slow
def test_options_by_name_can_be_swept(command: Command, trained: Trained, tmp_path: Path) -> None:
    quick = ("samples=1", "formats=[png]", f"checkpoint={trained.checkpoint}", f"paths.runs={tmp_path}")
    sweep = ("explainer=paper", "explainer.weighted.importance=matrix,token", "--multirun")
    status, _, errors = command("explain", *trained.tiny.overrides, *quick, *sweep)
    assert (status, errors) == (0, [])
    found = [pd.read_parquet(file) for file in sorted(tmp_path.rglob("scores.parquet"), key=lambda file: file.parent)]
    first, second = (table[table["explainer"] == "weighted"]["score"] for table in found)
    assert not np.allclose(first, second)


WRONG = {
    "explainer=paper explainer.weighted.importanse=token": (
        "unknown config key explainer.weighted.importanse; did you mean explainer.weighted.importance? valid here: "
    ),
    "explainer=paper explainer.constant.weight=0.1": (
        "explainer.constant: constant does not run; options can be given for weighted, uniform, rollout, genatt"
    ),
    "explainer.genatt.steps=1": "explainer.genatt: genatt does not run; options can be given for weighted",
    "explainer.names=[genatt] explainer.importance=token": "explainer.importance: weighted does not run, only genatt",
    "explainer.names=[genatt,weigthed]": "explainer.names: weigthed is not one of: attention_gradcam, centre_first, ",
    "explainer.names=[]": "explainer.names: the list is empty; give one or more of: ",
    "explainer=[weighted,genatt]": "to use them in one run, give explainer.names=[weighted,genatt]",
    "explainer=paper explainer.weighted.importance=row": "explainer=weighted: ",
    "explainer=trans_att explainer.precision=double": "precision='double': choose one of auto, float64, model",
    "explainer=paper +explainer.foo=1": "valid here: explainer.genatt, explainer.names, explainer.rollout, ",
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_line(command: Command, trained: Trained, tmp_path: Path, case: str) -> None:
    paths = (f"checkpoint={trained.checkpoint}", f"paths.runs={tmp_path}")
    status, _, errors = command("explain", *trained.tiny.overrides, *paths, *case.split())
    assert (status, len(errors)) == (1, 1)
    assert WRONG[case] in errors[0]
