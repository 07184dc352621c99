"""Text on the command line: taken as typed, and refused where UTF-8 cannot hold it, the same in every command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny_runs import script

from clipmapper.arguments import quoted
from clipmapper.cli.written_config import write_config
from perturbation.cli import COMMANDS

Command = Callable[..., tuple[int, str, list[str]]]


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("argument", ["question=is it caf\udce9?", "paths.runs=r\udce9", "\udce9"])
def test_an_argument_that_is_not_utf_8_is_one_line_in_every_command(command: Command, name: str, argument: str) -> None:
    status, out, errors = command(name, argument)
    assert (status, out, len(errors)) == (1, "", 1)
    assert "holds the byte 0xE9, which UTF-8 cannot hold" in errors[0]
    assert "use a terminal in UTF-8" in errors[0]


def test_a_config_file_with_half_a_character_names_the_key(command: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "odd.yaml").write_text('# @package _global_\npaths:\n  cache: "a\\ud83d"\n')
    status, _, errors = command(
        "train", "--config-dir", str(tmp_path), "experiment=odd", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert status == 1
    assert errors[0].startswith("error: config key paths.cache holds \\ud83d, half of a character")


def test_a_current_folder_whose_name_is_not_utf_8_is_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = os.fsencode(tmp_path) + b"/r\xe9sum\xe9"
    os.mkdir(folder)
    monkeypatch.chdir(os.fsdecode(folder))
    status, _, errors = command("report")
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith("error: the current folder holds the byte 0xE9")


def test_a_removed_current_folder_is_one_line(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    status, _, errors = command("report")
    assert (status, errors) == (1, ["error: the current folder has been removed; change to another one"])


@pytest.mark.parametrize(
    "typed",
    [
        "is it ${5}?",
        "${seed}",
        r"\${seed}",
        r"\\${a}",
        r"a \ b",
        r"ends in \ ".strip(),
        "${oc.env:HOME}",
        "a, b; [c] {d} = e",
        "${",
        "$$ {",
    ],
)
def test_text_is_taken_as_typed_and_read_again_from_the_config(tmp_path: Path, typed: str) -> None:
    argument = quoted(f"question={typed}")
    value = OverridesParser.create().parse_override(argument).value()
    config = OmegaConf.create({"question": str(value), "seed": 3})
    assert config.question == typed
    write_config(tmp_path, config, "explain")
    assert OmegaConf.load(tmp_path / "config.yaml").question == typed


def test_what_is_typed_in_quotes_is_no_interpolation_either() -> None:
    argument = quoted("question='is it ${5}?'")
    value = OverridesParser.create().parse_override(argument).value()
    assert OmegaConf.create({"question": str(value)}).question == "is it ${5}?"


def test_a_command_line_with_control_characters_leaves_a_readable_config(tmp_path: Path) -> None:
    write_config(tmp_path, OmegaConf.create({"question": "a\x1b[0m"}), "explain.py 'question=a\x1b[0m\x85b'")
    assert OmegaConf.load(tmp_path / "config.yaml").question == "a\x1b[0m"


def test_a_terminal_without_the_characters_gets_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    written = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(written, encoding="ascii"))
    script("report").main(["--help"])
    print("accuracy ↑")
    sys.stdout.flush()
    assert written.getvalue().decode("ascii").endswith("accuracy \\u2191\n")
