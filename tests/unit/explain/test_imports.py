"""What imports what: torch and numpy alone are enough, and no room looks up or round."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import explain

ROOT = Path(explain.__file__).parent
# Each room with the rooms below it.
ROOMS = {
    "step": [],
    "trace": ["step"],
    "targets": [],
    "relevance": ["trace"],
    "explainers": ["trace", "relevance"],
    "lrp": ["trace"],
    "interaction": ["trace", "explainers"],
    "capture": ["step", "trace", "targets", "lrp", "explainers"],
    "traced": ["trace", "explainers"],
    "adapters": ["trace", "targets", "capture", "traced"],
    "figures": [],
}


def test_explain_needs_torch_and_numpy_alone():
    code = """
import sys
from explain import AttentionTrace, Needs, Traced, explainers, interaction, record, targets
from explain.adapters import trace_lxmert, trace_open_clip, trace_vilt
explainers.Weighted(), explainers.IntegratedGradients()
heavy = {"matplotlib", "PIL", "captum", "transformers", "open_clip", "clipmapper", "hydra", "pandas"} & {*sys.modules}
print(" ".join(sorted(heavy)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def imported(path):
    """The modules of explain that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".") for name in names if name and name.split(".")[0] == "explain")


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_those_below_it(room):
    files = [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").exists() else list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        for _, *path in imported(file):
            assert path, f"{file} imports explain itself"
            assert path[0] in (room, *ROOMS[room]), f"{file} imports explain.{'.'.join(path)}"


def test_adapters_are_found_by_name_alone():
    from explain import adapters

    assert adapters.__all__ == ["trace_lxmert", "trace_open_clip", "trace_vilt"]
    assert all(callable(getattr(adapters, name)) for name in adapters.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trace_nothing'"):
        adapters.trace_nothing  # noqa: B018
