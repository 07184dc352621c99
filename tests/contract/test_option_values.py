"""Every option of every explainer and measure with bad values: refused in one line that names it, or legal."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from clipmapper.config.groups import named_configs
from clipmapper.errors import UserError
from clipmapper.explaining.explainers import build_explainers
from clipmapper.places import CONFIGS
from perturbation.perturb.measures import build_measures

BAD: list[Any] = [*(math.nan, math.inf, None, 0, -3, 1e308, 10**30, 1.5, "nonsense", True, [1, 2], {"a": 1}, "")]
CLASSES = re.compile(r"\b(int|float|str|NoneType|\w+Config)\b|not supported")
BUILD = {"explainer": build_explainers, "measure": build_measures}
#: The values of a perturbation run to which the measures' configs refer.
RUN = {
    "steps": "paper",
    "direction": ["positive"],
    "about": {"task": "vqa"},
    "seed": 0,
    "eraser": [0.1],
    "faithfulness": True,
    "ceiling": {"samples": 1, "words": 2},
}
ZERO = {"constant.weight", "random.seed", "ceiling.samples"} | {
    f"{name}.seed" for name in ("areas", "ceiling", "eraser", "faithfulness", "saco")
}
LISTS = ("areas.steps", "areas.direction", "areas.about", "eraser.shares", "ceiling.steps")  # checked by the schema


def members(group: str) -> list[tuple[str, str, dict[str, Any], str]]:
    found = []
    for file in sorted(Path(CONFIGS / group).glob("*.yaml")):
        if "_target_" in OmegaConf.load(file):
            [config] = named_configs(group, [file.stem], {}, OmegaConf.create(RUN)).values()
            options = [key for key in config if key != "_target_" and f"{file.stem}.{key}" not in LISTS]
            found += [(group, file.stem, config, key) for key in options]
    return found


OPTIONS = [option for group in BUILD for option in members(group)]


def test_all_groups_have_options() -> None:
    assert len(OPTIONS) > 12


@pytest.mark.parametrize(("group", "name", "config", "key"), OPTIONS, ids=lambda value: str(value)[:20])
def test_a_bad_option_is_refused_with_its_name(group: str, name: str, config: dict[str, Any], key: str) -> None:
    for value in BAD:
        try:
            BUILD[group]({name: {**config, key: value}})  # type: ignore[operator]
        except UserError as error:
            line = str(error)
            assert key in line, (value, line)
            assert name in line or group in line, (value, line)
            assert "\n" not in line
            assert not CLASSES.search(line), line
        else:
            truth = name == "faithfulness" and key == "wanted" and (value is True or value == 0)
            assert truth or (type(value) is int and value == 0 and f"{name}.{key}" in ZERO), value
