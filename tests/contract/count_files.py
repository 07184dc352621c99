"""Count the project's files that a command uses: ``python tests/contract/count_files.py train`` (or ``perturb``).

The command runs twice in this process, with a tiny model, and the script prints how many files have a function that
was called: in the cold run, which writes data and features, and in the warm run, which finds both. Code that runs while
a module is imported does not count, and neither do class bodies. ``python tests/contract/count_files.py tasks`` prints
the places in the code that depend on the task.
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
from collections.abc import Iterator
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
#: Folders of a single task, where code may depend on the task.
OWN = ("clipmapper/tasks/vqa", "clipmapper/tasks/caption")
TASKS = {"vqa", "caption"}
#: Classes that belong to one task; VQAv2 and easy-vqa are datasets.
OF_A_TASK = re.compile(r"\b(?!EasyVQA|VQAv2)(\w*(VQA|Caption)\w*|AnswerVocabulary|PerturbConfig|ExplainConfig)\b")


class Watch:
    """A context manager that records the project's files whose functions are called."""

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
        """Return whether a module or a class body of the project is on the stack.

        Unlike functions, these are not optimized code objects.
        """
        while frame is not None:
            optimized = frame.f_code.co_flags & inspect.CO_OPTIMIZED
            if not optimized and frame.f_code.co_filename.startswith(self._ours):
                return True
            frame = frame.f_back
        return False

    @property
    def names(self) -> list[str]:
        """Paths of the recorded files, relative to the project."""
        return sorted(str(Path(file).relative_to(PROJECT)) for file in self.files)


def walk(name: str, root: Path) -> list[str]:
    """Run the command once with its outputs below ``root``, and return the files it used."""
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
    """Print the files and the counts of the cold and the warm run."""
    # Scenes are drawn in other processes, where calls are not recorded; threads are used instead.
    concurrent.futures.ProcessPoolExecutor = concurrent.futures.ThreadPoolExecutor  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as root:
        cold, warm = (walk(name, Path(root)) for _ in range(2))
    print("\n".join(["", f"{name}, warm:", *(f"  {file}" for file in warm)]))
    print("\n".join([f"{name}, cold only:", *(f"  {file}" for file in sorted(set(cold) - set(warm)))]))
    print(f"{name}: {len(cold)} files cold, {len(warm)} files warm")


def places_that_depend_on_the_task() -> list[str]:
    """Return ``file:line: source`` of all code that depends on the task.

    These are dicts by task, comparisons and look-ups with the name of a task, and ``isinstance`` checks of its classes.
    """
    found = []
    for folder in FOLDERS:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            name = path.relative_to(PROJECT).as_posix()
            if not name.startswith(OWN):
                source = path.read_text(encoding="utf-8")
                nodes: Iterator[Any] = ast.walk(ast.parse(source))
                lines = sorted({node.lineno for node in nodes if _depends_on_task(node)})
                found += [f"{name}:{line}: {source.splitlines()[line - 1].strip()}" for line in lines]
    return found


def _depends_on_task(node: Any) -> bool:
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
    """Return whether an expression is the name of a task.

    It is ``"vqa"`` or ``"caption"``, or ends in ``task.name`` or, as in checkpoint cards, in ``["task"]``.
    """
    if isinstance(node, ast.Constant):
        return node.value in TASKS
    return re.search(r"(task\.name|\[.task.\]|\.get\(.task.[^)]*\))$", ast.unparse(node)) is not None


if __name__ == "__main__":
    sys.path[0] = str(PROJECT)
    for what in sys.argv[1:]:
        if what == "tasks":
            places = places_that_depend_on_the_task()
            print("\n".join([*places, f"{len(places)} places in {len({p.split(':')[0] for p in places})} files"]))
        else:
            count_walk(what)
