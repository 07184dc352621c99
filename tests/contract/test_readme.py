"""The instructions in README and docs: Python blocks run unchanged, and every command line composes or runs.

If a page reads a run folder or an image, the test puts a golden checkpoint or a drawn image there.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from pictures import saved_pictures
from public import GOLDEN, PROJECT
from readme import Block, CommandLine, blocks, sessions, shell_lines

Command = Callable[..., tuple[int, str, list[str]]]

PYTHON, YAML, LINES, SESSIONS = blocks("python"), blocks("yaml"), shell_lines(), sessions()
DATA = (
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "threads=1"),
    *("mapper.width=16", "mapper.heads=2", "mapper.layers=1"),
)
SCENES = ("data.train_scenes=40", "data.val_scenes=10", "data.test_scenes=10", "data.workers=1")
CAPTION = ("task.max_length=20",)
#: The golden captioning model is rarely right about scenes that it was not trained on.
JUDGED = ("split=train", "samples=30")
#: Overrides that make the run of a command small; other commands are only composed.
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
    """Return the lines that can run with only their size reduced; lines in docs and in the text are slow."""
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
    """Copy the golden checkpoint ``name`` to ``folder`` as the best checkpoint of a training run."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(GOLDEN / f"{name}.ckpt", folder / "checkpoints" / "best.ckpt")


def place_vilt(folder: Path) -> None:
    """Save a tiny random ViLT with its processor in ``folder``, in the format of the Hugging Face hub."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "color", "is", "the", "st", "##ar", "?"]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words))
    images = transformers.ViltImageProcessor(size={"shortest_edge": 96}, size_divisor=32)
    transformers.ViltProcessor(images, transformers.BertTokenizerFast(str(folder / "vocab.txt"))).save_pretrained(
        folder
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViltConfig(vocab_size=len(words), image_size=96, num_labels=4, **sizes)
    transformers.ViltForQuestionAnswering(config).save_pretrained(folder)


def place_files(code: str, folder: Path) -> None:
    """Create every run folder, every model and every image that the code opens."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and node.value == "models/vilt":
            place_vilt(folder / node.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("runs/"):
            place_run(folder / node.value, "caption-b" if "caption" in node.value else "vqa-b")
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
            saved_pictures(folder)[0].rename(folder / ast.literal_eval(node.args[0]))


def named_file(block: Block) -> str | None:
    """Return the file name in the first line of a block, such as ``# FOLDER/my_explainers.py``."""
    found = re.match(r"# ([\w/]+\.(?:py|yaml))\b", block.code)
    return found[1] if found else None


@pytest.mark.parametrize("block", [each for each in PYTHON if named_file(each) is None], ids=str)
def test_python_runs(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place_files(block.code, tmp_path)
    exec(compile(block.code, str(block), "exec"), {"__name__": "readme"})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project root that contains the golden models as training runs."""
    folder = tmp_path_factory.mktemp("readme")
    for name, run in (("vqa-a", "vqa-shapes-a"), ("vqa-b", "vqa-shapes-b"), ("caption-b", "caption-shapes-b")):
        place_run(folder / "runs" / "train" / run / "trained", name)
    return folder


def filled(line: CommandLine, root: Path) -> list[str]:
    """Return the arguments with ``RUN_FOLDER`` and ``PHOTO`` replaced by a run folder and an image."""
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
    """Return the arguments, or those of every job if they are a sweep."""
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
    """Return the overrides that make the run of a line small."""
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
def test_a_session_prints_the_shown_line(line: CommandLine, printed: str, command: Command, root: Path) -> None:
    status, _, errors = command(line.script, *line.arguments, f"paths.root={root}")
    assert status == 1
    assert errors[0].startswith(printed.split("…")[0])


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_custom_config(block: Block, root: Path, tmp_path: Path) -> None:
    """Run the command in the block's comment, with the Python blocks that are files; its scores must vary."""
    name = named_file(block)
    assert name is not None
    for each in (block, *PYTHON):
        if (file := named_file(each)) is not None:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(each.code)
    comment = " ".join(line.removeprefix("# ") for line in block.code.splitlines() if line.startswith("# "))
    path, _, script, *arguments = shlex.split(comment.split("then: ")[1].replace("FOLDER", str(tmp_path / "FOLDER")))
    line = CommandLine(block.page, block.line, Path(script).stem, tuple(arguments), True)
    key, _, value = path.partition("=")
    path = os.pathsep.join(filter(None, (value, os.environ.get(key))))
    run = ("controls=[random]", f"hydra.run.dir={tmp_path / 'run'}")
    typed = [sys.executable, str(PROJECT / script), *arguments, *small(line, root), *run]
    done = subprocess.run(typed, env={**os.environ, key: path}, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"| {Path(name).stem} |" in done.stdout
    rows = pq.read_table(tmp_path / "run" / "faithfulness.parquet").to_pylist()
    correlations = [row["spearman"] for row in rows if row["explainer"] == Path(name).stem]
    assert all(np.isfinite(correlations))  # NaN: all scores of a sample are equal


def test_a_sweep_is_split_into_all_its_jobs() -> None:
    assert jobs(["--multirun", "mapper=a,b", "threads=1", "seed=0,1"]) == [
        [f"mapper={mapper}", "threads=1", f"seed={seed}"] for mapper in "ab" for seed in (0, 1)
    ]
