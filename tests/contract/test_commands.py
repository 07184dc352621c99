"""All commands exist and answer, and no config key is missing or has a different default."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from public import PROJECT, composed, golden

COMMANDS = (
    *("train", "evaluate", "explain", "perturb", "evaluate_explanations", "sanity_check"),
    *("pool_seeds", "report", "reproduce", "benchmark", "export", "pretrain_clip"),
    *("train_llava", "cache", "demo", "fetch"),
)
TASKS, MAPPERS = ("vqa", "caption"), ("a", "b")
WITHOUT_A_TASK = ("pool_seeds", "report", "reproduce", "export", "pretrain_clip", "train_llava", "cache", "demo")
OPTIONS = (
    *("data=coco", "data=easy_vqa", "data=vqav2", "data=vqav2_hub", "encoder=vit_b_32", "trainer=ddp"),
    *("logger=wandb", "logger=tensorboard", "experiment=paper_vqa", "experiment=paper_caption"),
)
EXPLAINERS = (
    *("weighted", "uniform", "constant", "shuffled", "raw_attention", "rollout", "genatt", "attention_gradcam"),
    *("trans_att", "partial_lrp", "random", "input_x_gradient", "integrated_gradients", "all", "paper"),
    *("first_to_last", "last_to_first", "centre_first", "depth_matched"),
)
Command = Callable[..., tuple[int, str, list[str]]]
Keys = dict[str, Any]


def choices() -> list[str]:
    """Return the command lines in the golden file: every command, task and mapper, and every option of a group."""
    lines = [*WITHOUT_A_TASK]
    lines += [
        f"{command} task={task} mapper={mapper}"
        for command in COMMANDS
        if command not in WITHOUT_A_TASK
        for task, mapper in itertools.product(TASKS, MAPPERS)
    ]
    return lines + [f"train {option}" for option in OPTIONS] + [f"explain explainer={name}" for name in EXPLAINERS]


def keys_of(line: str) -> Keys:
    """Return all config keys of a command line with their values as written, before ``${…}`` is filled in."""
    command, *overrides = line.split()
    written = OmegaConf.to_container(composed(command, overrides))
    assert isinstance(written, dict)
    return dict(sorted(_flat(written)))


def _flat(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def packed(keys: dict[str, Keys]) -> dict[str, Any]:
    """Store the keys of every line as the difference from the first line of its command."""
    first: dict[str, Keys] = {}
    content = {}
    for line, found in keys.items():
        base = first.setdefault(line.split()[0], found)
        own = {key: value for key, value in found.items() if base is found or key not in base or base[key] != value}
        content[line] = {"keys": own, "without": sorted(base.keys() - found.keys())}
    return content


def unpacked(content: dict[str, Any]) -> dict[str, Keys]:
    """Restore the keys of every line; the inverse of :func:`packed`."""
    first: dict[str, Keys] = {}
    keys = {}
    for line, entry in content.items():
        base = first.setdefault(line.split()[0], entry["keys"])
        keys[line] = {k: v for k, v in {**base, **entry["keys"]}.items() if k not in entry["without"]}
    return keys


@pytest.mark.parametrize("line", choices())
def test_no_config_key_is_removed_or_changed(line: str) -> None:
    held, found = unpacked(golden("config_keys"))[line], keys_of(line)
    assert sorted(held.keys() - found.keys()) == []
    assert {key: found[key] for key in held} == held


def test_every_line_is_in_the_golden_file() -> None:
    assert set(golden("config_keys")) == set(choices())


def test_a_removed_or_changed_key_is_detected() -> None:
    found = keys_of("train")
    assert found["mapper.width"] == 128
    assert "mapper.width" not in keys_of("train ~mapper.width")
    assert keys_of("train mapper.width=64")["mapper.width"] == 64


def test_packing_loses_nothing() -> None:
    keys: dict[str, Keys] = {"x": {"a": 1, "b": None}, "x y=1": {"a": 2, "c": []}, "z": {"a": 1}}
    assert unpacked(packed(keys)) == keys


@pytest.mark.parametrize("name", ["train", *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS[1:])])
def test_a_command_answers(name: str, command: Command) -> None:
    status, out, errors = command(name, "--hydra-help")
    assert (status, errors) == (0, [])
    assert "Hydra (" in out
    status, out, errors = command(name, "--cfg", "job")
    assert (status, errors) == (0, [])
    assert OmegaConf.create(out).keys() == composed(name).keys()


def test_a_script_finds_the_project_from_any_folder(tmp_path: Path) -> None:
    """``scripts/explain.py`` is the hard case: its folder contains a module with the name of a package."""
    script = PROJECT / "scripts" / "explain.py"
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}  # as after an installation
    arguments = [sys.executable, str(script), "--help"]
    ran = subprocess.run(arguments, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "usage: python scripts/explain.py " in ran.stdout


def test_pool_seeds_has_no_default_runs() -> None:
    with pytest.raises(MissingMandatoryValue):
        _ = composed("pool_seeds").runs
