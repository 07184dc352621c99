"""What README and docs say to type: Python blocks run as they stand, and every command line composes or runs.

Where a page needs a run folder or a picture, a golden checkpoint and a drawn picture lie where it says.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from pictures import saved_pictures
from public import GOLDEN, PROJECT
from readme import PAGES, Block, CommandLine, blocks, sessions, shell_lines

Command = Callable[..., tuple[int, str, list[str]]]

PYTHON, YAML, LINES, SESSIONS = blocks("python"), blocks("yaml"), shell_lines(), sessions()
DATA = (
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "threads=1"),
    *("mapper.width=16", "mapper.heads=2", "mapper.layers=1"),
)
SCENES = ("data.train_scenes=40", "data.val_scenes=10", "data.test_scenes=10", "data.workers=1")
CAPTION = ("task.max_length=20",)
JUDGED = ("split=train", "samples=30")  #: the golden captions are seldom true of scenes that it was not trained on
#: What makes a command's run small; the other commands are composed only.
TINY = {
    "train": ("task.steps=4", "task.validate_every=4", "task.optim.batch_size=16"),
    "evaluate": (),
    "explain": ("samples=2", "formats=[png]"),
    "perturb": ("samples=4", "batch_samples=2", "engine_batch=16", "random_seeds=1"),
    "evaluate_explanations": ("samples=4",),
    "sanity_check": ("samples=4",),
}
MISSING = re.compile(r"\bFOLDER\b|=F\b|…|data=(vqav2|coco)|resume=|runs=|experiment=|wandb")


def runnable() -> list[Any]:
    """Lines that can run as they stand but for their size; those of docs and of the text are slow."""
    found = []
    for line in LINES:
        typed = " ".join(line.arguments).replace("RUN_FOLDER", "")
        if line.script in TINY and not MISSING.search(typed):
            marks = [] if line.in_block and line.page == "README.md" else [pytest.mark.slow]
            found.append(pytest.param(line, id=str(line), marks=marks))
    return found


def test_there_is_something_to_test() -> None:
    assert PYTHON
    assert YAML
    assert SESSIONS
    assert {"train", "evaluate", "explain", "perturb"} <= {line.script for line in LINES}
    assert [line for line in LINES if line.in_block and line.script == "perturb"]


def place_run(folder: Path, name: str) -> None:
    """The golden checkpoint ``name`` as the best of a training run in ``folder``."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(GOLDEN / f"{name}.ckpt", folder / "checkpoints" / "best.ckpt")


def place_what_is_read(code: str, folder: Path) -> None:
    """Every run folder and every picture that the code opens."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("runs/"):
            place_run(folder / node.value, "caption-b" if "caption" in node.value else "vqa-b")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
            saved_pictures(folder)[0].rename(folder / ast.literal_eval(node.args[0]))


def named_file(block: Block) -> str | None:
    """The file that a block's first line says it is: ``# my_explainers.py, …``."""
    found = re.match(r"# ([\w/]+\.(?:py|yaml))\b", block.code)
    return found[1] if found else None


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place_what_is_read(block.code, tmp_path)
    if (name := named_file(block)) is None:
        exec(compile(block.code, str(block), "exec"), {"__name__": "readme"})
        return
    (tmp_path / name).write_text(block.code)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module(name.removesuffix(".py"))
    sys.modules.pop(name.removesuffix(".py"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's root where the golden models have just been trained."""
    folder = tmp_path_factory.mktemp("readme")
    for name, run in (("vqa-a", "vqa-shapes-a"), ("vqa-b", "vqa-shapes-b"), ("caption-b", "caption-shapes-b")):
        place_run(folder / "runs" / "train" / run / "trained", name)
    return folder


def filled(line: CommandLine, root: Path) -> list[str]:
    """The arguments with a run folder and a picture in place of ``RUN_FOLDER`` and ``PHOTO``."""
    saved_pictures(root)
    task = "caption" if "task=caption" in line.arguments else "vqa"
    mapper = "a" if "mapper=a" in line.arguments else "b"
    trained = str(root / "runs" / "train" / f"{task}-shapes-{mapper}" / "trained")
    return [
        each.replace("RUN_FOLDER", trained).replace("PHOTO", str(root / "picture0.png"))
        for each in line.arguments
        if "…" not in each
    ]


def jobs(arguments: list[str]) -> list[list[str]]:
    """The arguments themselves, or those of every job of a sweep."""
    if "--multirun" not in arguments:
        return [arguments]
    parsed = OverridesParser.create().parse_overrides([each for each in arguments if each != "--multirun"])
    values = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [str(o.input_line)]
        for o in parsed
    ]
    return [list(job) for job in itertools.product(*values)]


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_line_composes(line: CommandLine, command: Command, root: Path) -> None:
    for job in jobs(filled(line, root)):
        status, out, errors = command(line.script, *job, "--cfg", "job")
        assert (status, errors) == (0, [])
        assert out.strip()


def test_a_line_with_an_unknown_key_does_not_compose(command: Command) -> None:
    status, _, errors = command("train", "mapper.widht=256", "--cfg", "job")
    assert (status, len(errors)) == (1, 1)


def small(line: CommandLine, root: Path) -> list[str]:
    """What to put behind a line's own arguments."""
    task = CAPTION if "task=caption" in line.arguments else ()
    scenes = SCENES if "data=easy_vqa" not in line.arguments else ()
    judged = JUDGED if task and line.script == "evaluate_explanations" else ()
    return [*DATA, *scenes, *task, *TINY[line.script], *judged, f"paths.root={root}"]


@pytest.mark.parametrize("line", runnable())
def test_a_command_line_runs(line: CommandLine, command: Command, root: Path) -> None:
    if "task=caption" in line.arguments and line.script != "explain" and shutil.which("java") is None:
        pytest.skip("there is no Java")
    runs = [] if line.script != "train" else [f"paths.runs={root / 'more'}"]
    status, out, errors = command(line.script, *filled(line, root), *small(line, root), *runs)
    assert (status, errors) == (0, [])
    assert "results are in " in out


@pytest.mark.parametrize(("line", "printed"), SESSIONS, ids=str)
def test_a_session_says_what_it_says(line: CommandLine, printed: str, command: Command, root: Path) -> None:
    status, _, errors = command(line.script, *line.arguments, f"paths.root={root}")
    assert status == 1
    assert errors[0].startswith(printed.split("…")[0])


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_config_of_ones_own(
    block: Block, root: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that its first line names runs with it, and with the Python blocks that are files."""
    name = named_file(block)
    assert name is not None
    for each in (block, *PYTHON):
        if (file := named_file(each)) is not None:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(each.code)
    monkeypatch.syspath_prepend(tmp_path)
    typed = shlex.split(block.code.splitlines()[0].split("then: ")[1].replace("FOLDER", str(tmp_path / "FOLDER")))
    line = CommandLine(block.page, block.line, Path(typed[1]).stem, tuple(typed[2:]), True)
    status, out, errors = command(line.script, *line.arguments, *small(line, root))
    assert (status, errors) == (0, [])
    assert f"| {Path(name).stem} |" in out


def dead_links(page: Path) -> list[str]:
    """Links of a page to files that are not there, and to headings that the file lacks."""
    dead = []
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else []
        if not file.exists() or (
            anchor and anchor not in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}
        ):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(PROJECT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_dead_link_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(
        "# One thing\n[a](#one-thing) [b](#other) [c](b.md) [d](a.md#one-thing) [e](https://x.y)\n"
    )
    assert dead_links(tmp_path / "a.md") == ["#other", "b.md"]


def test_a_sweep_is_all_its_jobs() -> None:
    assert jobs(["--multirun", "mapper=a,b", "threads=1", "seed=0,1"]) == [
        [f"mapper={mapper}", "threads=1", f"seed={seed}"] for mapper in "ab" for seed in (0, 1)
    ]
