"""Measures how long a walk through the project is: ``python tests/contract/count_files.py train`` (or ``perturb``).

Runs the command twice, tiny, in this process, and prints how many of the project's files have a function that ran: cold
(with data and features made) and warm (both there already). What runs while a module is imported does not count, and
neither do class bodies. ``python tests/contract/count_files.py tasks`` prints the places that ask which task it is.
"""

from __future__ import annotations

import ast
import concurrent.futures
import importlib.util
import inspect
import re
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("clipmapper", "explain", "perturbation", "scripts")
TINY = (
    *("data.train_scenes=40", "data.val_scenes=10", "data.test_scenes=10", "data.workers=1", "threads=1"),
    *("mapper.width=16", "mapper.heads=2", "mapper.layers=1", "trainer.accelerator=cpu"),
    *("trainer.enable_progress_bar=false",),
)
RUNS = {
    "train": ("task.steps=8", "task.validate_every=4", "task.optim.batch_size=32"),
    "perturb": (
        *("samples=6", "batch_samples=4", "engine_batch=16", "explainer=weighted"),
        f"checkpoint={PROJECT / 'tests' / 'contract' / 'golden' / 'vqa-b.ckpt'}",
    ),
}
#: Folders where a task may know that it is itself.
OWN = ("clipmapper/captioning", "clipmapper/tasks/vqa", "clipmapper/tasks/caption")
TASKS = {"vqa", "caption"}
#: Classes that belong to one task; VQAv2 and easy-vqa are data.
OF_A_TASK = re.compile(r"\b(?!EasyVQA|VQAv2)(\w*(VQA|Caption)\w*|AnswerVocabulary|PerturbConfig|ExplainConfig)\b")


class Watch:
    """The project's files of which a function ran while this was on."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self._ours = tuple(f"{PROJECT / folder}/" for folder in FOLDERS)

    def __enter__(self) -> Watch:
        threading.setprofile(self._called)
        sys.setprofile(self._called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _called(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if event != "call" or file in self.files or not file.startswith(self._ours):
            return
        if frame.f_code.co_flags & inspect.CO_OPTIMIZED and not self._is_importing(frame):
            self.files.add(file)

    def _is_importing(self, frame: FrameType | None) -> bool:
        """Whether a module or a class body of the project is on the stack: neither is an optimized code object."""
        while frame is not None:
            optimized = frame.f_code.co_flags & inspect.CO_OPTIMIZED
            if not optimized and frame.f_code.co_filename.startswith(self._ours):
                return True
            frame = frame.f_back
        return False

    @property
    def names(self) -> list[str]:
        """Below the project."""
        return sorted(str(Path(file).relative_to(PROJECT)) for file in self.files)


def walk(name: str, root: Path) -> list[str]:
    """Runs the command once below ``root``; the files."""
    path = PROJECT / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{name}_script", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.argv[:] = [f"{name}.py", *TINY, *RUNS[name], f"paths.root={root}"]
    with Watch() as watch:
        module.main()
    return watch.names


def count_walk(name: str) -> None:
    """Prints both counts, and the list of the warm run."""
    # What draws the scenes would run in processes of its own, which nobody watches.
    concurrent.futures.ProcessPoolExecutor = concurrent.futures.ThreadPoolExecutor  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as root:
        cold, warm = (walk(name, Path(root)) for _ in range(2))
    print("\n".join(["", f"{name}, warm:", *(f"  {file}" for file in warm)]))
    print("\n".join([f"{name}, cold only:", *(f"  {file}" for file in sorted(set(cold) - set(warm)))]))
    print(f"{name}: {len(cold)} files cold, {len(warm)} files warm")


def places_that_ask_for_the_task() -> list[str]:
    """``file:line: source`` of every dict by task, comparison or look-up with a task's name, and test of its class."""
    found = []
    for folder in FOLDERS:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            name = path.relative_to(PROJECT).as_posix()
            if not name.startswith(OWN):
                source = path.read_text(encoding="utf-8")
                lines = sorted({node.lineno for node in ast.walk(ast.parse(source)) if _asks(node)})
                found += [f"{name}:{line}: {source.splitlines()[line - 1].strip()}" for line in lines]
    return found


def _asks(node: Any) -> bool:
    if isinstance(node, ast.Dict):
        keys = {key.value for key in node.keys if isinstance(key, ast.Constant)}
        return "vqa" in keys or (bool(keys) and keys <= TASKS)
    if isinstance(node, ast.Compare):
        return any(any(map(_is_task, _parts(side))) for side in (node.left, *node.comparators))
    if isinstance(node, ast.Subscript):
        return _is_task(node.slice)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
        return OF_A_TASK.search(ast.unparse(node.args[1])) is not None
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return any(map(_is_task, node.args))
    return isinstance(node, ast.MatchValue) and _is_task(node.value)


def _parts(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def _is_task(node: ast.AST) -> bool:
    """``"vqa"`` or ``"caption"``, or what ends in ``task.name`` (and ``about["task"]``, as checkpoints have it)."""
    if isinstance(node, ast.Constant):
        return node.value in TASKS
    return re.search(r"(task\.name|\[.task.\]|\.get\(.task.[^)]*\))$", ast.unparse(node)) is not None


if __name__ == "__main__":
    sys.path[0] = str(PROJECT)
    for what in sys.argv[1:]:
        if what == "tasks":
            places = places_that_ask_for_the_task()
            print("\n".join([*places, f"{len(places)} places in {len({p.split(':')[0] for p in places})} files"]))
        else:
            count_walk(what)
