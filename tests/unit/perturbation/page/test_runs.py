"""Run folders as the page reads them: finished, unfinished, damaged, and the newest of every command."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from report_runs import write_config, write_evaluation, write_explain, write_perturb, write_sanity

from clipmapper.errors import UserError
from perturbation.page.runs import newest_runs, read_run


def at(folder: Path, second: int) -> Path:
    """Let the run appear as if it was started at a second."""
    os.utime(folder / "config.yaml", (second, second))
    return folder


def test_a_finished_run(tmp_path: Path) -> None:
    run = read_run(write_perturb(tmp_path / "run"))
    assert (run.command, run.problem) == ("perturb", "")
    assert run.line == "python scripts/perturb.py explainer=all"
    assert run.settings["data"] == {"name": "shapes"}
    assert run.result()["rows"][0]["explainer"] == "good"
    assert len(run.results["comparisons.json"]) == 18  # three pairs, two modalities, two directions and the gap


def test_the_command_is_known_from_the_files_if_no_line_was_recorded(tmp_path: Path) -> None:
    for write, command in ((write_evaluation, "evaluate"), (write_explain, "explain"), (write_sanity, "sanity_check")):
        folder = write(tmp_path / command)
        (folder / "config.yaml").write_text("seed: 3\n")
        run = read_run(folder)
        assert (run.command, run.line, run.problem) == (command, "", "")
        assert run.settings == {"seed": 3}
    (tmp_path / "evaluate" / "checkpoints").mkdir()
    assert read_run(tmp_path / "evaluate").command == "train"


def test_killed_runs_are_unfinished(tmp_path: Path) -> None:
    write_config(tmp_path / "config", "perturb", "samples=5")
    (tmp_path / "parts" / "parts").mkdir(parents=True)
    for name, command in (("config", "perturb"), ("parts", "")):
        run = read_run(tmp_path / name)
        assert (run.command, run.results) == (command, {})
        assert run.problem.startswith("unfinished")


@pytest.mark.parametrize(
    ("name", "content"), [("perturbation.json", '{"rows": ['), ("comparisons.json", ""), ("perturbation.json", "\x00")]
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    folder = write_perturb(tmp_path / "run")
    (folder / name).write_text(content)
    run = read_run(folder)
    assert run.results == {}
    assert run.problem.startswith(f"unreadable: {folder / name}: not valid JSON")


def test_a_damaged_line_and_a_damaged_config(tmp_path: Path) -> None:
    folder = write_explain(tmp_path / "run")
    for config in ("[1", "a: b: c", "- 1", ""):
        (folder / "config.yaml").write_text(config)
        assert read_run(folder).settings == {}
    for content, problem in {
        '{"name": "x"}\n{"na\n': "pictures.jsonl: line 2: not valid JSON",
        '{"name": "x"}\n{"na': "pictures.jsonl: is empty, or its last line is cut off",
        "": "pictures.jsonl: is empty",
    }.items():
        (folder / "pictures.jsonl").write_text(content)
        assert problem in read_run(folder).problem


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: no such folder; give run folders"):
        read_run(tmp_path / "none")
    with pytest.raises(UserError, match=r"contains neither results nor config\.yaml"):
        read_run(tmp_path)


def test_the_newest_finished_run_of_every_command(tmp_path: Path) -> None:
    at(write_evaluation(tmp_path / "evaluate" / "vqa-shapes-b" / "z"), 10)
    newest = at(write_evaluation(tmp_path / "evaluate" / "vqa-shapes-a" / "a"), 20)
    write_config(tmp_path / "evaluate" / "vqa-shapes-b" / "killed", "evaluate")  # newer, but not finished
    pooled = at(write_sanity(tmp_path / "sanity_check" / "time"), 5)
    (pooled / "wandb").mkdir()
    write_config(pooled / "wandb" / "files", "train")  # files of a run are no runs
    write_config(tmp_path / "train" / "x" / "killed", "train")
    write_config(tmp_path / "report" / "time", "report")
    found = {run.command: run for run in newest_runs(tmp_path)}
    assert {name: run.folder for name, run in found.items()} == {
        "evaluate": newest,
        "sanity_check": pooled,
        "train": tmp_path / "train" / "x" / "killed",
    }
    assert found["train"].problem.startswith("unfinished")
    assert newest_runs(tmp_path / "none") == []
