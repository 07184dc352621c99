"""Imports: torch and numpy are enough for explain, and each part of it imports only the parts below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import explain

ROOT = Path(explain.__file__).parent
# Each part of the package, with the parts that it may import.
ALLOWED = {
    "step": [],
    "layout": ["step"],
    "token_map": ["step", "layout"],
    "trace": ["step", "layout", "token_map"],
    "targets": [],
    "relevance": ["trace"],
    "explainers": ["trace", "relevance"],
    "lrp": ["trace"],
    "interaction": ["trace", "explainers"],
    "capture": ["step", "trace", "targets", "lrp", "explainers"],
    "traced": ["trace", "explainers"],
    "adapters": ["trace", "targets", "capture", "traced"],
    "figures": [],
    "sample": ["step", "trace", "traced", "targets", "explainers", "interaction", "capture", "adapters", "figures"],
}


def test_explain_needs_only_torch_and_numpy():
    code = """
import sys
from explain import AttentionTrace, Needs, Traced, explainers, interaction, record, targets
from explain.adapters import trace_hugging_face, trace_lxmert, trace_open_clip, trace_vilt
explainers.Weighted(), explainers.IntegratedGradients()
heavy = {"matplotlib", "PIL", "captum", "transformers", "open_clip", "clipmapper", "hydra", "pandas"} & {*sys.modules}
print(" ".join(sorted(heavy)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def imported(path):
    """Yield the modules of explain that a file imports, at any depth, as lists of names."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".") for name in names if name and name.split(".")[0] == "explain")


@pytest.mark.parametrize("part", ALLOWED)
def test_each_part_imports_only_the_parts_below_it(part):
    files = [ROOT / f"{part}.py"] if (ROOT / f"{part}.py").exists() else list((ROOT / part).rglob("*.py"))
    assert files
    for file in files:
        for _, *path in imported(file):
            assert path, f"{file} imports the whole of explain"
            assert path[0] in (part, *ALLOWED[part]), f"{file} imports explain.{'.'.join(path)}"


def test_adapters_are_imported_by_name():
    from explain import adapters

    assert adapters.__all__ == ["trace_hugging_face", "trace_lxmert", "trace_open_clip", "trace_vilt"]
    assert all(callable(getattr(adapters, name)) for name in adapters.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trace_nothing'"):
        adapters.trace_nothing  # noqa: B018
