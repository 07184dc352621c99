"""The console command ``clipmapper``."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from perturb_runs import Trained
from tiny_runs import PROJECT

from clipmapper.cli.decorator import _leave_scripts_folder
from perturbation.cli import COMMANDS, main


def run(*arguments: str) -> int:
    typed = list(sys.argv)
    try:
        main(arguments)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    finally:
        assert sys.argv == typed
    return 0


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_has_a_line_for_every_command(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    assert run(*arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, (_, about) in COMMANDS.items():
        assert any(line.split() == [name, *about.split()] for line in lines)


def test_every_script_is_a_command() -> None:
    assert {path.stem for path in (PROJECT / "scripts").glob("*.py")} == set(COMMANDS)


def test_an_unknown_command_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("trian", "task=vqa") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: there is no command trian; did you mean train? choose one of: train, evaluate, ")
    assert len(err.splitlines()) == 1


def test_the_arguments_after_the_name_are_overrides(
    capsys: pytest.CaptureFixture[str], trained: Trained, tmp_path: Path
) -> None:
    quick = ("samples=2", "steps=[0,1]", "controls=[]", f"hydra.run.dir={tmp_path / 'run'}")
    option = "explainer.weighted.importance=token"
    assert run("perturb", *trained.overrides, *quick, "explainer.names=[weighted]", option) == 0
    assert (tmp_path / "run" / "perturbation.json").is_file()
    assert capsys.readouterr().out.startswith(f"run folder: {tmp_path / 'run'}\n")
    assert run("perturb", "mapper=c") == 1
    assert capsys.readouterr().err == "error: there is no mapper=c; choose one of: a, b\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_configs_are_checked_before_torch_is_imported(name: str) -> None:
    """The package ``explain`` isn't imported either: until the command runs, the name means scripts/explain.py."""
    code = f"import sys, {COMMANDS[name][0]}; sys.exit('torch' in sys.modules or 'explain' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=PROJECT).returncode == 0


def test_only_the_scripts_folder_is_removed_from_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "explain.py").touch()  # a folder of the user that contains a script with this name
    for first, stays in ((tmp_path, True), (PROJECT, True), (PROJECT / "scripts", False)):
        monkeypatch.syspath_prepend(str(first))
        import_module("clipmapper.cli")
        before = list(sys.path)
        assert before[0] == str(first)
        _leave_scripts_folder()
        assert sys.path == (before if stays else before[1:])
