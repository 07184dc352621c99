"""Arguments through whole commands: odd paths, and mistakes in one line before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from clipmapper.config.run_folder import CONFIG

Command = Callable[..., tuple[int, str, list[str]]]
ODD = "a=b, (c) [d] {e} $x ${f} #%~ \\: é\"q'"


def test_a_path_with_every_character_is_taken_as_typed(command: Command, tmp_path: Path) -> None:
    folder = tmp_path / ODD
    status, out, errors = command("report", f"paths.runs={folder / 'runs'}", f"hydra.run.dir={folder / 'page'}")
    assert (status, errors) == (0, [])
    assert out.startswith(f"run folder: {folder / 'page'}\n")
    assert sorted(path.name for path in (folder / "page").iterdir()) == [CONFIG, "report.html"]
    assert [path.name for path in tmp_path.iterdir()] == [ODD]


@pytest.mark.parametrize(
    ("name", "argument", "message"),
    [
        ("train", "mapper=[a,b]", "mapper=a,b: to run the command once for each of them, add --multirun mapper=a,b"),
        ("perturb", "explainer=[weighted,uniform]", "give explainer.names=[weighted,uniform]"),
        ("evaluate", "task=[vqa,caption]", "add --multirun task=vqa,caption"),
        ("report", "mapper=a", "mapper=… is not for report; leave it out, or give a key that it has, such as runs="),
        (
            "report",
            "mapper=[a,b]",
            "mapper=… is not for report; leave it out, or give a key that it has, such as runs=",
        ),
        ("report", "explainer=paper,all", "explainer=… is not for report; leave it out"),
        ("sanity_check", ("model=open_clip", "mapper=a,b"), "mapper=… is for model=clipmapper only; leave it out"),
        ("perturb", "measure=areas", "perturb takes several: give measure.names=[NAME,…]"),
        ("pretrain_clip", "logger=csv", "logger=… is not for pretrain_clip; leave it out"),
        ("train", "data.disagreement=a=b", """put text in quotes: 'data.disagreement="a=b"'"""),
        ("train", "--resume=FOLDER", "unrecognized arguments: --resume=FOLDER; --help shows examples"),
        ("train", "resume", "resume is not KEY=VALUE; write resume=…"),
    ],
)
def test_a_mistake_in_an_argument_is_one_line(
    command: Command, tmp_path: Path, name: str, argument: str | tuple[str, ...], message: str
) -> None:
    status, out, errors = command(
        name, f"paths.runs={tmp_path}", *([argument] if isinstance(argument, str) else argument)
    )
    assert (status, out, len(errors)) == (1, "", 1)
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []
