"""Completion of command lines in bash, for the scripts and for the console command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import PROJECT

from perturbation.cli import COMMANDS

BASH = shutil.which("bash") or ""
#: What bash does when the tab key is pressed at the end of a line.
TAB = """
eval "$({install})"
COMP_LINE={line!r}
COMP_POINT=${{#COMP_LINE}}
words=($COMP_LINE)
COMP_CWORD=$((${{#words[@]}} - 1 + {new}))
hydra_bash_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """A PATH with ``python`` and the installed command ``clipmapper``."""
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    start = "import sys; sys.argv[0] = 'clipmapper'; from perturbation.cli import main; main()"
    (tmp_path / "clipmapper").write_text(f'#!/bin/sh\nexec {sys.executable} -c "{start}" "$@"\n')
    for file in tmp_path.iterdir():
        file.chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def completed(programs: str, install: str, line: str) -> list[str]:
    code = TAB.format(install=install, line=line, new=int(line.endswith(" ")))
    environment = {**os.environ, "PATH": programs, "PYTHONPATH": str(PROJECT)}
    done = subprocess.run([BASH, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True)
    return done.stdout.split()


@pytest.mark.skipif(not BASH, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python scripts/train.py mapper=", ["mapper=a", "mapper=b"]),
        ("python scripts/perturb.py removal.im", ["removal.image="]),
        ("python scripts/explain.py explainer=gen", ["explainer=genatt"]),
    ],
)
def test_a_script_s_arguments_are_completed(programs: str, line: str, expected: list[str]) -> None:
    assert completed(programs, "python scripts/train.py -sc install=bash", line) == expected


@pytest.mark.skipif(not BASH, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("clipmapper ", [*COMMANDS]),
        ("clipmapper pe", ["perturb"]),
        ("clipmapper perturb removal.im", ["removal.image="]),
        ("clipmapper train task.optim.b", ["task.optim.batch_size="]),
    ],
)
def test_the_console_command_completes_commands_and_arguments(programs: str, line: str, expected: list[str]) -> None:
    assert completed(programs, "clipmapper -sc install=bash", line) == expected
