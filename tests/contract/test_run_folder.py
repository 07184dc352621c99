"""The results of a run: the path of its folder, its files, and the columns of its Parquet and keys of its JSON files.

Every command runs once with the golden checkpoints and little data; ``train`` trains a tiny model.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from public import GOLDEN, golden

from clipmapper.training.checkpoint_file import write_checkpoint

Command = Callable[..., tuple[int, str, list[str]]]

BASE = (
    *("data.train_scenes=40", "data.val_scenes=10", "data.test_scenes=10", "data.workers=1", "threads=1"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.precision=32-true", "paths.root={root}"),
    *("mapper.width=16", "mapper.heads=2", "mapper.layers=1"),
)
STEPS = ("task.steps=8", "task.validate_every=4", "task.optim.batch_size=32")
CAPTION = ("task=caption", "task.max_length=20")
VQA_B, CAPTION_B = f"checkpoint={GOLDEN / 'vqa-b.ckpt'}", f"checkpoint={GOLDEN / 'caption-b.ckpt'}"
PERTURB = ("samples=6", "batch_samples=4", "engine_batch=16", "random_seeds=2", "controls=[random]")
POOLED = (*PERTURB[:4], "controls=[uniform]", "eraser=[]", "faithfulness=false")
#: Command and overrides of every run; ``{…}`` is the root, the folder of the dataset, or the folder of another run.
RUNS: dict[str, tuple[str, ...]] = {
    "train-vqa": ("train", *BASE, *STEPS),
    "train-caption": ("train", *BASE, *STEPS, *CAPTION),
    "evaluate-vqa": ("evaluate", *BASE, VQA_B),
    "evaluate-vqa-file": (
        *("evaluate", "paths.root={root}", "predictions={evaluate-vqa}/submission_test.json"),
        "questions={data}/v2_OpenEnded_shapes_test_questions.json",
        "annotations={data}/v2_shapes_test_annotations.json",
    ),
    "evaluate-caption": ("evaluate", *BASE, *CAPTION, CAPTION_B),
    "evaluate-caption-file": (
        *("evaluate", "paths.root={root}", "task=caption", "predictions={evaluate-caption}/captions_test.json"),
        "references={data}/captions_shapes_test.json",
    ),
    "explain-vqa": ("explain", *BASE, VQA_B, "explainer=paper", "samples=2", "interaction=true"),
    "explain-caption": ("explain", *BASE, *CAPTION, CAPTION_B, "explainer=paper", "samples=2", "weighting=cider"),
    "perturb-vqa": ("perturb", *BASE, VQA_B, *PERTURB, "ceiling.samples=2"),
    "perturb-caption": ("perturb", *BASE, *CAPTION, CAPTION_B, *PERTURB, "weightings=[equal,cider]"),
    "evaluate_explanations-vqa": ("evaluate_explanations", *BASE, VQA_B, "explainer=paper", "samples=8"),
    "evaluate_explanations-caption": (
        *("evaluate_explanations", *BASE, *CAPTION, CAPTION_B),
        *("explainer=paper", "split=train", "samples=30"),  # its captions are rarely true of other scenes
    ),
    "sanity_check": ("sanity_check", *BASE, VQA_B, "explainer=paper", "samples=6"),
    "perturb-pooled": ("perturb", *BASE, VQA_B, *POOLED),
    "perturb-pooled-other": ("perturb", *BASE, "checkpoint={root}/other.ckpt", *POOLED),
    "pool_seeds": ("pool_seeds", "paths.root={root}", "runs=[{perturb-pooled},{perturb-pooled-other}]"),
    "report": ("report", "paths.root={root}", "runs=[{explain-vqa},{perturb-pooled}]"),
}
#: The other runs are slow.
FAST = ("train-vqa", "evaluate-vqa", "explain-vqa", "perturb-vqa", "evaluate_explanations-vqa", "sanity_check")
JAVA = ("train-caption", "evaluate-caption", "evaluate-caption-file")  # METEOR and the PTB tokenizer

#: JSON keys that are in ``config_keys.json``, or that depend on the machine: the Git commit, and SPICE's models.
ELSEWHERE = ("config", "commit", "SPICE", "notes")


class Runs:
    """Runs below one root, which share data and features; each runs when its folder is first requested."""

    def __init__(self, root: Path):
        self.root, self._done = root, dict[str, Path]()
        content = torch.load(GOLDEN / "vqa-b.ckpt", weights_only=True)
        draw = torch.Generator().manual_seed(0)
        for tensor in content["state_dict"].values():
            tensor += 0.2 * torch.randn(tensor.shape, generator=draw)
        write_checkpoint(root / "other.ckpt", content)

    def folder(self, name: str, command: Command) -> Path:
        """Return the folder of a run."""
        if name not in self._done:
            script, *overrides = (re.sub(r"{([\w-]+)}", lambda m: self._place(m[1], command), o) for o in RUNS[name])
            status, out, errors = command(script, *overrides)
            assert (status, errors) == (0, []), name
            first, *_, last = out.splitlines()
            self._done[name] = Path(first.removeprefix("run folder: "))
            assert last == f"results are in {self._done[name]}"
        return self._done[name]

    def _place(self, name: str, command: Command) -> str:
        if name == "root":
            return str(self.root)
        if name == "data":
            return str(next((self.root / "cache" / "data" / "shapes").iterdir()))
        return str(self.folder(name, command))


def described(run: Path, root: Path) -> dict[str, Any]:
    """Describe the path of a run folder and the content of its files; numbers in names are replaced by ``#``."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    names = {path: re.sub(r"\d{2,}", "#", path.relative_to(run).as_posix()) for path in files}
    return {
        "folder": re.sub(r"\d{4}(-\d\d){2}_(\d\d-){3}\d{6}", "TIME", run.relative_to(root).as_posix()),
        "files": sorted(set(names.values())),
        "parquet": {
            names[path]: {field.name: str(field.type) for field in pq.read_schema(path)}
            for path in files
            if path.suffix == ".parquet"
        },
        "json": {
            names[path]: shape_of(json.loads(path.read_text("utf-8"))) for path in files if path.suffix == ".json"
        },
        "checkpoints": {
            names[path]: shape_of(torch.load(path, weights_only=True)["clipmapper"])
            for path in files
            if path.suffix == ".ckpt"
        },
    }


def shape_of(content: Any) -> Any:
    """Return the keys and types of values, without the keys of ``ELSEWHERE``; a list is the union of its entries."""
    if isinstance(content, dict):
        return {key: shape_of(value) for key, value in sorted(content.items()) if key not in ELSEWHERE}
    if isinstance(content, list):
        return ["list of", union(map(shape_of, content))]
    kinds = {bool: "bool", int: "number", float: "number", str: "text", type(None): "null"}
    return kinds[type(content)]


def union(shapes: Iterable[Any]) -> Any:
    """Return one shape that covers all given shapes."""
    found = list(shapes)
    if found and all(isinstance(shape, dict) for shape in found):
        keys = sorted({key for shape in found for key in shape})
        return {key: union(shape[key] for shape in found if key in shape) for key in keys}
    distinct = sorted({json.dumps(shape) for shape in found})
    return json.loads(distinct[0]) if len(distinct) == 1 else [json.loads(shape) for shape in distinct]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("contract"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in RUNS]
)
def test_a_run_folder_contains_everything_in_the_golden_file(name: str, runs: Runs, command: Command) -> None:
    if name in JAVA and shutil.which("java") is None:
        pytest.skip("there is no Java")
    found, held = described(runs.folder(name, command), runs.root), golden("run_folders")[name]
    for part in held:
        assert without_additions(found[part], held[part]) == held[part]
    assert found.keys() == held.keys()


def without_additions(found: Any, held: Any) -> Any:
    """Return what was found without new keys and columns, which are allowed."""
    if isinstance(found, dict) and isinstance(held, dict):
        return {key: without_additions(value, held[key]) for key, value in found.items() if key in held}
    return found


def test_the_shape_of_json() -> None:
    rows = [{"a": 1, "b": [0.5, None]}, {"a": 2.5, "c": {"config": 3, "d": "x"}}]
    expected = {"a": "number", "b": ["list of", ["null", "number"]], "c": {"d": "text"}}
    assert shape_of(rows) == ["list of", expected]
    assert shape_of([]) == ["list of", []]
