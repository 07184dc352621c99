"""The help of every command: short, from the comments in the config files, with examples that other tests run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from public import PROJECT
from readme import commands_of, shell_lines
from test_commands import COMMANDS, Command

from clipmapper.help import about_command, help_of, keys_of
from perturbation import cli

HEAVY = {"torch", "pytorch_lightning", "numpy", "matplotlib", "PIL", "pyarrow", "open_clip", "wandb", "explain"}
KEYS = {
    "pool_seeds": 4,
    "report": 5,
    "reproduce": 7,
    "export": 5,
    "cache": 4,
    "fetch": 5,
}  # these have no more; others show ten


def shown_keys(text: str) -> dict[str, str]:
    """Return the meaning of each key in a help text."""
    block = text.split("most used keys:\n")[1].split("\n\n")[0]
    rows = re.sub(r"\n {4,}", " ", block).splitlines()
    return {row.split()[0]: " ".join(row.split()[1:]) for row in rows}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_short_and_complete(name: str, command: Command) -> None:
    status, out, errors = command(name, "task=caption", "--help")
    assert (status, errors) == (0, [])
    lines = out.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 100
    assert re.match(rf"usage: clipmapper {name} .*\n\n[A-Z][^.]+\. ?.*\n", out)
    assert " ".join(out.split("\n\n")[1].split()) == about_command(name).purpose
    assert len(shown_keys(out)) == KEYS.get(name, 10)
    assert "--hydra-help" in lines[-2]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_meaning_of_a_key_is_a_comment_in_a_config_file(name: str) -> None:
    comments = " ".join(path.read_text(encoding="utf-8") for path in (PROJECT / "configs").rglob("*.yaml"))
    for key, meaning in shown_keys(help_of(name)).items():
        assert meaning, key
        assert f"# {re.sub(r' .default: .*.$', '', meaning)}" in comments, key


def test_defaults_are_shown() -> None:
    shown = shown_keys(help_of("perturb"))
    assert shown["samples"].endswith(" (default: 1000)")
    assert shown["explainer"].endswith(" (default: weighted)")
    assert "default:" not in shown["checkpoint"]  # null
    assert "default:" not in shown_keys(help_of("train"))["data.root"]  # taken from another key


@pytest.mark.parametrize("name", COMMANDS)
def test_three_examples_are_shown_and_run(name: str) -> None:
    """``test_readme`` composes and runs these lines."""
    block = help_of(name).split("examples:\n")[1].split("\n\n")[0].splitlines()
    shown = [found for line in block for found in commands_of(line.strip())]
    assert len(shown) == len(block) == 3
    assert {found for found, _ in shown} == {name}
    assert {*shown} <= {(line.script, line.arguments) for line in shell_lines()}


def started(code: str, *arguments: str) -> tuple[str, set[str]]:
    """Return what a program prints, and the modules that it has imported at its end."""
    report = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    done = subprocess.run(
        [sys.executable, "-c", report + code, *arguments], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    return done.stdout, {*done.stderr.split()}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_needs_few_modules(name: str) -> None:
    script = f"scripts/{name}.py"
    out, modules = started(
        f"import runpy; sys.argv[0] = {script!r}; runpy.run_path({script!r}, None, '__main__')", "-h"
    )
    assert out.startswith(f"usage: python {script} ")
    assert f"  python {script} " in out
    assert modules.isdisjoint(HEAVY)
    assert len(modules) < 700


def test_the_list_of_commands_needs_almost_no_modules() -> None:
    out, modules = started("from perturbation.cli import main; main()", "--help")
    assert set(COMMANDS) <= {line.split()[0] for line in out.splitlines() if line}
    assert max(map(len, out.splitlines())) <= 100
    assert modules.isdisjoint({*HEAVY, "hydra", "rich"})


def test_an_installed_command_names_itself(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["explain", "--help"])
    out = capsys.readouterr().out
    assert "\n  clipmapper explain image=PHOTO " in out
    assert "scripts/" not in out


def test_keys_are_read_with_their_values_and_comments(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("a: 1  # one\nb:\n  c: [x, y]\n  d: ???  # two # three\n_target_: x\ne: 2\n")
    assert [tuple(key) for key in keys_of(file)] == [
        ("a", "1", "one"),
        ("b.c", "[x, y]", ""),
        ("b.d", "???", "two # three"),
        ("e", "2", ""),
    ]


def test_a_quoted_question_is_one_argument() -> None:
    [example] = [line for line in about_command("explain").examples if "question=" in line]
    assert shlex.split(example)[-1] == "question=what is left of the star?"
