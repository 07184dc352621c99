"""One config per explainer; a user's explainer needs a class and a config, and no change to the project's files."""

import re
from pathlib import Path

import pytest
from explain_traces import make_trace
from hydra.utils import instantiate
from omegaconf import OmegaConf

from explain import explainers

GROUP = Path(__file__).parents[4] / "configs" / "explainer"
CONFIGS = sorted(path for path in GROUP.glob("*.yaml") if path.stem not in ("all", "paper"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_config_builds_a_working_explainer(path):
    explainer = instantiate(OmegaConf.load(path))
    assert explainer(make_trace("b")).matrix.shape == (3, 9, 9)


def test_every_explainer_has_a_config_with_its_name():
    targets = {path.stem: OmegaConf.load(path)["_target_"].rsplit(".", 1)[1] for path in CONFIGS}
    assert sorted(targets.values()) == sorted(explainers.__all__)
    letters = {stem: re.sub("_", "", stem) for stem in targets}
    assert all(letters[stem] == name.lower() for stem, name in targets.items())


def test_a_custom_explainer_needs_no_change_to_the_project(tmp_path, monkeypatch):
    (tmp_path / "my_explainer.py").write_text(
        "from explain import Explainer\n\n\n"
        "class Distance(Explainer):\n"
        "    def __init__(self, power):\n"
        "        self.power = power\n\n"
        "    def matrix(self, trace):\n"
        "        return trace.identity() * self.power\n"
    )
    (tmp_path / "distance.yaml").write_text("_target_: my_explainer.Distance\npower: 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    explainer = instantiate(OmegaConf.load(tmp_path / "distance.yaml"))
    assert explainer(make_trace("a")).matrix[0, 0, 0] == 2
