"""The command ``reproduce``: real stages, a failing one, and the page at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from perturb_runs import Trained
from report_runs import Parsed

Command = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def configs(trained: Trained, tmp_path: Path) -> Path:
    """A folder of configs with an experiment of two stages, of which the second names a checkpoint that is missing."""
    shared = [*trained.tiny.overrides, f"paths.runs={tmp_path / 'runs'}"]
    explain = ["samples=2", "formats=[png]", f"checkpoint={trained.checkpoint}"]
    stages = {
        "explained": {"title": "explain two answers", "command": "explain", "arguments": explain},
        "scored": {"title": "score answers", "command": "evaluate", "arguments": [f"checkpoint={tmp_path}/none.ckpt"]},
    }
    lines = ["# @package _global_", "name: two", f"shared: {json.dumps(shared)}", f"stages: {json.dumps(stages)}"]
    (tmp_path / "configs" / "experiment").mkdir(parents=True)
    (tmp_path / "configs" / "experiment" / "two.yaml").write_text("\n".join(lines), encoding="utf-8")
    return tmp_path / "configs"


@pytest.mark.slow
def test_a_failed_stage_is_on_the_page_and_runs_again(
    configs: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--config-dir", str(configs), "experiment=two", f"paths.runs={tmp_path / 'runs'}", "jobs=2")
    status, out, errors = command("reproduce", *arguments)
    folder = tmp_path / "runs" / "reproduce" / "two"
    assert status == 1
    assert len(errors) == 1
    assert errors[0].startswith("error: 1 of 2 stages did not end well, the first is scored (")
    assert "explain two answers: 0:00:" in out
    assert f"the page of the results is {folder / 'report.html'}" in out
    page = Parsed((folder / "report.html").read_text(encoding="utf-8"))
    assert "1 of 2 runs have no results:" in " ".join(page.text.split())
    assert "none.ckpt" in page.text
    assert len([each for each in page.every("figure") if each.get("class") == "sample"]) == 2

    before = (folder / "explained" / "pictures.jsonl").stat().st_mtime_ns
    status, out, errors = command("reproduce", *arguments)
    assert (status, len(errors)) == (1, 1)
    assert "1 of 2 stages were done before" in out
    assert (folder / "explained" / "pictures.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("jobs=0", "error: jobs=0 must be 1 or more"),
        ("samples=-1", "error: samples=-1 must be 0 or more"),
        ("stages.localise.command=fly", "error: stages.localise.command=fly is no command of a stage"),
    ],
)
def test_a_mistake_ends_in_one_line(tmp_path: Path, command: Command, argument: str, said: str) -> None:
    status, _, errors = command("reproduce", argument, f"paths.runs={tmp_path}")
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith(said)
    assert not (tmp_path / "reproduce" / "quickstart").exists()
