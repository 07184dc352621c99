"""Configs of several members of a group, without a running command."""

from __future__ import annotations

import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from clipmapper.arguments import as_added
from clipmapper.config.groups import chosen_configs, named_configs
from clipmapper.errors import UserError


@pytest.mark.parametrize(
    ("argument", "added"),
    [
        ("explainer.weighted.importance=token", True),
        ("explainer.names=[weighted]", True),
        ("explainer.token={_target_:explain.explainers.Weighted}", True),
        ("measure.areas.steps=chefer", True),
        ("explainer=all", False),
        ("explainer.importance=token", False),
        ("+explainer.foo=1", False),
        ("++explainer.weighted.importance=token", False),
        ("~explainer.importance", False),
        ("task.optim.lr=1", False),
        ("--multirun", False),
    ],
)
def test_only_options_given_by_name_get_the_prefix(argument: str, added: bool) -> None:
    assert as_added(argument) == ("++" + argument if added else argument)


def test_a_single_choice_keeps_the_composed_config() -> None:
    composed = OmegaConf.create({"explainer": {"_target_": "a.B", "importance": "token"}, "seed": 4})
    assert chosen_configs("explainer", "weighted", composed.explainer) == {
        "weighted": {"_target_": "a.B", "importance": "token"}
    }


def test_a_single_choice_also_accepts_options_by_its_name() -> None:
    composed = OmegaConf.create({"_target_": "a.B", "importance": "matrix", "weighted": {"importance": "token"}})
    assert chosen_configs("explainer", "weighted", composed)["weighted"]["importance"] == "token"
    assert "weighted" not in chosen_configs("explainer", "weighted", composed)["weighted"]


def test_a_name_reads_its_file_but_a_complete_config_needs_none() -> None:
    options = {"constant": {"weight": 0.25}, "other": {"_target_": "a.B", "steps": 3}}
    assert named_configs("explainer", ["other", "constant", "genatt"], options) == {
        "other": {"_target_": "a.B", "steps": 3},
        "constant": {"_target_": "explain.explainers.Constant", "weight": 0.25},
        "genatt": {"_target_": "explain.explainers.GenAtt"},
    }


def test_a_complete_config_can_refer_to_keys_of_the_run() -> None:
    composed = OmegaConf.create({"explainer": {"names": ["a"], "a": {"_target_": "a.B", "seed": "${seed}"}}, "seed": 4})
    assert chosen_configs("explainer", "paper", composed.explainer) == {"a": {"_target_": "a.B", "seed": 4}}


def test_the_module_does_not_import_torch() -> None:
    code = (
        "import sys; from clipmapper.config.groups import named_configs;"
        "named_configs('explainer', ['weighted'], {}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_error_for_an_unknown_option_has_its_full_key() -> None:
    with pytest.raises(
        UserError, match=r"^unknown config key explainer\.constant\.wait; did you mean .*constant\.weight"
    ):
        named_configs("explainer", ["constant"], {"constant": {"wait": 1}})
