"""The imports of the project: no cycles among files, and only imports from higher layers to lower ones.

All imports count, also those inside functions, except those under ``if TYPE_CHECKING:``.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath

from public import PROJECT

from perturbation.cli import COMMANDS

#: The packages from the top layer down; a file may import its own layer and lower ones.
LAYERS = ("scripts", "perturbation", "clipmapper", "explain")
#: The entry for users, which imports ``load`` from the top layer when it is first used; no other file imports it.
ENTRY = "clipmapper/__init__.py"
#: Folders of clipmapper from the top layer down; a subfolder belongs to its parent unless it is listed.
ORDER = tuple(
    f"clipmapper/{room}"
    for room in (
        *("commands", "benchmarks", "tasks", "any_model", "explaining", "mapper", "llava", "metrics"),
        *("features", "encoder", "training", "data", "storage", "config", "process"),
    )
)
MAX_FILES = 15  #: maximum number of .py files in one folder, without ``__init__.py``

Graph = Mapping[str, set[str]]  #: file → the files that it imports, as paths relative to the root


def import_graph(root: Path, packages: tuple[str, ...] = LAYERS) -> dict[str, set[str]]:
    """Return the imports among the files of ``packages`` below ``root``."""
    files = {
        path.relative_to(root).as_posix(): path
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    }
    modules = {_module(name): name for name in files}
    return {
        name: {modules[target] for target in _targets(ast.parse(path.read_text(encoding="utf-8")), modules)} - {name}
        for name, path in files.items()
    }


def _module(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _targets(tree: ast.AST, modules: Mapping[str, str]) -> Iterator[str]:
    """Yield the project's modules that a file imports; ``from package import module`` is an import of the module."""
    for node in _imports(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
            continue
        assert node.level == 0, f"line {node.lineno}: a relative import"
        module = str(node.module)
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            if inner in modules:
                yield inner
            elif module in modules:
                yield module


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        children = node.orelse
    for child in children:
        yield from _imports(child)


def cycles(graph: Graph) -> list[set[str]]:
    """Return the groups of files that import each other, directly or indirectly."""
    reach = {name: _reached(graph, name) for name in graph}
    groups = {
        frozenset(other for other in reach[name] if name in reach[other]) for name in graph if name in reach[name]
    }
    return [set(group) for group in groups]


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen


def upward(graph: Graph, order: tuple[str, ...]) -> list[str]:
    """Return the imports from a lower folder of ``order`` (top to bottom) to a higher one."""
    level = {name: _level(name, order) for name in graph}
    return [
        f"{name} → {target}"
        for name in sorted(graph)
        for target in sorted(graph[name])
        if (low := level[name]) is not None and (high := level[target]) is not None and high < low
    ]


def _level(file: str, order: tuple[str, ...]) -> int | None:
    """Return the position in ``order`` of the innermost folder of ``file`` that is listed, or None."""
    folders = [str(folder) for folder in PurePosixPath(file).parents]
    return next((order.index(folder) for folder in folders if folder in order), None)


def files_of_folders(graph: Graph) -> Counter[str]:
    """Count the .py files of each folder, without ``__init__.py``."""
    return Counter(str(PurePosixPath(file).parent) for file in graph if not file.endswith("/__init__.py"))


@cache
def project_graph() -> dict[str, set[str]]:
    return import_graph(PROJECT)


def test_no_import_cycles_among_files() -> None:
    assert cycles(project_graph()) == []


def test_imports_go_from_the_top_layer_down() -> None:
    assert upward({file: found for file, found in project_graph().items() if file != ENTRY}, LAYERS) == []


def test_no_file_imports_the_entry_for_users() -> None:
    assert [file for file, found in project_graph().items() if ENTRY in found] == []


def test_explain_imports_nothing_else_of_the_project() -> None:
    outside = {t for file, found in project_graph().items() if file.startswith("explain/") for t in found}
    assert {target for target in outside if not target.startswith("explain/")} == set()


def test_the_folders_of_clipmapper_import_in_order() -> None:
    folders = {str(folder) for file in project_graph() for folder in PurePosixPath(file).parents}
    assert [folder for folder in ORDER if folder not in folders] == []
    assert upward(project_graph(), ORDER) == []


def test_no_folder_has_too_many_files() -> None:
    counts = files_of_folders(project_graph())
    assert counts.pop("scripts") == len(COMMANDS)
    assert {folder: n for folder, n in counts.items() if n > MAX_FILES} == {}


def test_the_import_graph_of_a_small_example(tmp_path: Path) -> None:
    """It has a cycle through a function, an import only for types, a module from its package, and an upward import."""
    sources = {
        "top/__init__.py": "",
        "top/one.py": "import os\nfrom low import two\n",
        "low/__init__.py": "from low.two import name\n",
        "low/two.py": "def name():\n    from low.three import other\n",
        "low/three.py": "import low.two\nif TYPE_CHECKING:\n    from low.four import x\nelse:\n    import top.one\n",
        "low/four.py": "from low import name, three\n",
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    graph = import_graph(tmp_path, ("top", "low"))
    assert graph["top/one.py"] == {"low/two.py"}
    assert graph["low/three.py"] == {"low/two.py", "top/one.py"}
    assert graph["low/four.py"] == {"low/__init__.py", "low/three.py"}
    assert cycles(graph) == [{"low/two.py", "low/three.py", "top/one.py"}]
    assert upward(graph, ("top", "low")) == ["low/three.py → top/one.py"]
    assert files_of_folders(graph) == {"top": 1, "low": 3}
