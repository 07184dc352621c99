"""The instructions in README and docs: Python blocks run unchanged, and every command line composes or runs.

Lines run with little data and few steps (``small_runs``), on folders that the test fills (``line_inputs``).
"""

from __future__ import annotations

import ast
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import adapter_models
import numpy as np
import open_clip
import pyarrow.parquet as pq
import pytest
import sample_models
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from line_inputs import Command, filled, folder_of, golden_run, place_run, runs_of
from pictures import saved_pictures
from PIL import Image
from public import PROJECT
from readme import Block, CommandLine, blocks, sessions, shell_lines
from small_benchmarks import shrink_benchmarks
from small_runs import TINY, small
from tiny_runs import script

from explain import record
from perturbation.demo import serving
from perturbation.reproduce import run

PYTHON, YAML, LINES, SESSIONS = blocks("python"), blocks("yaml"), shell_lines(), sessions()


# Lines that need Slurm, many trials, the shards of a run, another encoder, or full size; other tests run them, smaller.
ONLY_COMPOSED = (
    "hydra/launcher=submitit_slurm",
    "hydra/sweeper=optuna",
    "merge=",
    "encoder=folder",
    "predictions=FOLDER/vqav2",
    "what=[stages]",
)


def runnable() -> list[Any]:
    """Return all lines but those that are only composed; they are slow except for the first ones of README.md."""
    fast = [line for line in LINES if line.page == "README.md" and line.script in ("reproduce", "train", "explain")]
    fast = [line for line in fast if line.in_block]
    return [
        pytest.param(line, id=str(line), marks=[] if line in fast else [pytest.mark.slow])
        for line in LINES
        if not any(each.startswith(ONLY_COMPOSED) or "/shared/" in each for each in line.arguments)
    ]


def test_there_is_something_to_test() -> None:
    assert PYTHON
    assert YAML
    assert SESSIONS
    assert {line.script for line in LINES} == TINY.keys()
    assert [line for line in LINES if line.in_block and line.script == "perturb"]


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


def place_llava(folder: Path) -> None:
    """Save a tiny random LLaVA with its processor in ``folder``, in the format of the Hugging Face hub."""
    pytest.importorskip("transformers")
    for part in sample_models.llava():
        part.save_pretrained(folder)


def place_open_clip(folder: Path) -> None:
    """Save a tiny random CLIP in ``folder``, in the format of open_clip."""
    sizes = {
        "vision_cfg": adapter_models.VISION,
        "text_cfg": {"context_length": 12, "width": 12, "heads": 2, "layers": 2},
    }
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 10, **sizes}}))
    model = open_clip.CLIP(10, adapter_models.VISION, sizes["text_cfg"])
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")


def place_exported(folder: Path) -> None:
    """Write what ``scripts/export.py`` writes."""
    pytest.importorskip("transformers")
    script("export").main([f"output={folder}", f"paths.root={folder.parent}"])


PLACES = {
    "models/vilt": place_vilt,
    "models/llava": place_llava,
    "models/shapes-tiny": place_exported,
    "local-dir:models/clip": place_open_clip,
}
HOW_TO = [
    path.relative_to(PROJECT).as_posix()
    for path in sorted((PROJECT / "docs" / "how-to").glob("*.md"))
    if path.name != "index.md"
]
SAVES_FIGURE = re.compile(r"\be\.save\(|\bsavefig\(|\bsave\(draw\(")


def place_files(code: str, folder: Path) -> None:
    """Create every run folder, every model and every image that the code opens."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and node.value in PLACES:
            PLACES[node.value](folder / node.value.removeprefix("local-dir:"))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("runs/"):
            place_run(folder / node.value, "caption-b" if "caption" in node.value else "vqa-b")
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("docs/"):
            (folder / node.value).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT / node.value, folder / node.value)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Image.open":
            name = ast.literal_eval(node.args[0])
            if not name.startswith("docs/"):  # such a file is copied above
                saved_pictures(folder)[0].rename(folder / name)


def named_file(block: Block) -> str | None:
    """Return the file name in the first line of a block, such as ``# FOLDER/my_explainers.py``."""
    found = re.match(r"# ([\w/]+\.(?:py|yaml))\b", block.code)
    return found[1] if found else None


def unnamed() -> list[Any]:
    """Return the blocks that are no files; only those of README.md are not slow."""
    found = [each for each in PYTHON if named_file(each) is None]
    return [pytest.param(each, id=str(each), marks=[pytest.mark.slow] * (each.page != "README.md")) for each in found]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the project root into which Python blocks draw the scenes that they test."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("block", unnamed())
def test_python_runs(block: Block, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPMAPPER_ROOT", str(data))
    place_files(block.code, tmp_path)
    before = {*tmp_path.rglob("*.png")}
    exec(compile(block.code, str(block), "exec"), {"__name__": "readme"})
    if SAVES_FIGURE.search(block.code):
        [first, *_] = sorted({*tmp_path.rglob("*.png")} - before)
        with Image.open(first) as figure:
            assert len(figure.getcolors(1 << 24)) > 50


def test_every_how_to_page_has_code_and_is_reached() -> None:
    pages = {Path(page).name for page in HOW_TO}
    assert {each.page for each in (*PYTHON, *LINES)} >= {*HOW_TO}
    assert pages == set(re.findall(r"\]\((\S+?\.md)\)", (PROJECT / "docs" / "how-to" / "index.md").read_text("utf-8")))


def test_the_predicted_memory_is_that_of_the_formula() -> None:
    """Each row of the table is computed from its own columns: 2 bytes per number of A, ∇A, X, ∇X, Y and ∇Y."""
    text = (PROJECT / "docs" / "how-to" / "layers.md").read_text("utf-8")
    rows = [
        [cell.strip() for cell in line.split("|")[3:-1]] for line in text.splitlines() if re.match(r"\|.*\d \|$", line)
    ]
    assert len(rows) == 9
    for layers, tokens, heads, width, gigabytes in rows:
        n, d = int(tokens), int(width)
        numbers = int(heads) * n * n + n * d + n * d
        assert f"{int(layers) * 2 * numbers * 2 / 1e9:.2f}" == gigabytes


def test_the_formula_counts_what_a_trace_holds() -> None:
    layers, n, heads, d = 2, 5, 3, 6
    with record() as recorder:
        x = torch.randn(1, n, d, requires_grad=True)
        for _ in range(layers):
            attention = (x @ x.mT).expand(1, heads, n, n).softmax(-1)
            output = (attention @ x[:, None]).mean(1)
            recorder.step(query="joint", key="joint", attention=attention, residual=x, output=output)
            x = x + output
        steps = recorder.trace(x.sum((1, 2)), {"image": 2, "text": n - 2}).attention_steps
    held = sum(tensor.numel() for step in steps for _, tensor in step.tensors())
    assert held == layers * 2 * n * (heads * n + 2 * d)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project root that contains the golden models as training runs."""
    folder = tmp_path_factory.mktemp("readme")
    for name, kind in (("vqa-a", "vqa-shapes-a"), ("vqa-b", "vqa-shapes-b"), ("caption-b", "caption-shapes-b")):
        place_run(folder / "runs" / "train" / kind / "trained", name)
    return folder


def jobs(arguments: list[str]) -> list[list[str]]:
    """Return the arguments, or those of every job if they are a sweep."""
    if "--multirun" not in arguments:
        return [arguments]
    parsed = OverridesParser.create().parse_overrides([each for each in arguments if each != "--multirun"])
    return [list(job) for job in itertools.product(*map(values_of, parsed))]


def values_of(override: Override) -> list[str]:
    """Return an override with each of its values, or with the least of an interval."""
    key = override.get_key_element()
    if override.is_interval_sweep():
        return [f"{key}={override.value().start}"]  # type: ignore[union-attr]
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [str(override.input_line)]


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_line_composes(line: CommandLine, command: Command, root: Path) -> None:
    for job in jobs(filled(line, root, itertools.repeat(golden_run(line, root)), root)):
        status, out, errors = command(line.script, *job, "--cfg", "job")
        assert (status, errors) == (0, [])
        assert out.strip()


def test_a_line_with_an_unknown_key_does_not_compose(command: Command) -> None:
    status, _, errors = command("train", "mapper.widht=256", "--cfg", "job")
    assert (status, len(errors)) == (1, 1)


@pytest.mark.parametrize("line", runnable())
def test_a_command_line_runs(line: CommandLine, command: Command, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "task=caption" in line.arguments and line.script != "explain" and shutil.which("java") is None:
        pytest.skip("there is no Java")
    shrink_benchmarks(monkeypatch)
    monkeypatch.setattr(run, "COMMAND", (sys.executable, "-c", "pass"))  # the stages of reproduce do nothing
    monkeypatch.setattr(serving, "wait", lambda: None)  # the demo's server ends at once
    typed = filled(line, root, runs_of(line, root, command), folder_of(line, root, command))
    places = [f"paths.root={root}", *([f"paths.runs={root / 'more'}"] if line.script == "train" else [])]
    status, out, errors = command(line.script, *typed, *small(line.script, line.arguments), *places)
    assert (status, errors) == (0, [])
    assert "results are in " in out


@pytest.mark.parametrize(("line", "printed"), SESSIONS, ids=str)
def test_a_session_prints_the_shown_line(line: CommandLine, printed: str, command: Command, root: Path) -> None:
    status, _, errors = command(line.script, *line.arguments, f"paths.root={root}")
    assert status == 1
    assert errors[0].startswith(printed.split("…")[0])


@pytest.mark.slow
@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_custom_config(block: Block, root: Path, tmp_path: Path) -> None:
    """Run the command in the block's comment, with the Python blocks that are files.

    The scores of an explainer must vary, and a measure must report on every explainer.
    """
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
    more = ("controls=[random]", f"hydra.run.dir={tmp_path / 'run'}")
    typed = [
        sys.executable,
        str(PROJECT / script),
        *arguments,
        *small(line.script, line.arguments),
        f"paths.root={root}",
        *more,
    ]
    done = subprocess.run(typed, env={**os.environ, key: path}, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    stem = Path(name).stem
    if "/measure/" in name:
        rows = json.loads((tmp_path / "run" / "perturbation.json").read_text("utf-8"))[stem]
        assert {row["explainer"] for row in rows} == {"weighted", "uniform", "rollout", "genatt", "random"}
        return
    assert re.search(rf"^{stem} +\S", done.stdout, re.MULTILINE)
    rows = pq.read_table(tmp_path / "run" / "faithfulness.parquet").to_pylist()
    correlations = [row["spearman"] for row in rows if row["explainer"] == stem]
    assert all(np.isfinite(correlations))  # NaN: all scores of a sample are equal


def test_a_sweep_is_split_into_all_its_jobs() -> None:
    assert jobs(["--multirun", "mapper=a,b", "threads=1", "seed=0,1"]) == [
        [f"mapper={mapper}", "threads=1", f"seed={seed}"] for mapper in "ab" for seed in (0, 1)
    ]
