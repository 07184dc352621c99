"""The wheel, installed in an environment without access to the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tiny_runs import PROJECT, Tiny

from clipmapper.pretrained import LLAVA
from perturbation.cli import COMMANDS

pytestmark = pytest.mark.slow

SOURCES = ("clipmapper", "explain", "perturbation", "configs", "pyproject.toml", "setup.py", "MANIFEST.in")
TEXTS = ("README.md", "LICENSE")
USE = """
import torch
from explain import AttentionStep, AttentionTrace, explainers

a = torch.rand(2, 3, 5, 5).softmax(-1)
x = torch.randn(2, 5, 8)
of_attention = {"attention": a, "attention_grad": a.log()}
of_tokens = {"residual": x, "residual_grad": x.sin(), "output": x.cos(), "output_grad": x.exp()}
step = AttentionStep(query="image", key="image", **of_attention, **of_tokens, stage=0)
relevance = explainers.Weighted()(AttentionTrace(sizes={"image": 5}, steps=[step], valid=None))
assert relevance.matrix.shape == (2, 5, 5)
try:
    import matplotlib
except ModuleNotFoundError:
    print("nothing else is here")
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, because setuptools writes files next to the source."""
    folder = tmp_path_factory.mktemp("source")
    for name in (*SOURCES, *TEXTS):
        copy = shutil.copytree if (PROJECT / name).is_dir() else shutil.copy
        copy(PROJECT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    pip("wheel", str(source), "--no-deps", "--no-build-isolation", "--wheel-dir", str(out))
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and links to all packages of the current environment."""
    folder = environment(tmp_path_factory.mktemp("installed"))
    install(folder, str(wheel))
    return folder


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, "--no-index", "--quiet"]
    subprocess.run(command, check=True)


def environment(folder: Path, borrowing: bool = True) -> Path:
    """Create an environment; with ``borrowing``, it sees the packages of this one, except editable installs."""
    venv.create(folder, with_pip=False)
    if borrowing:
        (packages(folder) / "others.pth").write_text("\n".join(p for p in sys.path if p.endswith("-packages")))
    return folder


def install(folder: Path, *what: str) -> None:
    pip("--python", str(folder / "bin" / "python"), "install", *what, "--no-deps", "--no-build-isolation")


def packages(folder: Path) -> Path:
    (found,) = (folder / "lib").glob("python*/site-packages")
    return found


def run(folder: Path, program: str, arguments: Sequence[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "CLIPMAPPER_ROOT")}
    command = [str(folder / "bin" / program), *arguments]
    quiet = {"PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=cwd, env={**kept, **quiet}, capture_output=True, text=True, check=False)


def listing(folder: Path) -> str:
    """Return a digest of the names and contents of all files below a folder."""
    found = hashlib.blake2b()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path} {hashlib.blake2b(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def link(names: Iterable[str], folder: Path) -> None:
    """Link distributions and all their requirements into a folder, and nothing else."""
    seen: set[str] = set()
    waiting = [distribution(name) for name in names]
    while waiting:
        found = waiting.pop()
        if found.name in seen:
            continue
        seen.add(found.name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(Path(str(found.locate_file(top))))
        waiting += requirements(found)


def requirements(of: Distribution) -> list[Distribution]:
    parsed = [Requirement(text) for text in of.requires or []]
    return [distribution(each.name) for each in parsed if not each.marker or each.marker.evaluate({"extra": ""})]


def test_only_the_packages_are_at_the_top_level(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"clipmapper", "explain", "perturbation"}
    assert {f"{top}/py.typed" for top in tops} <= set(names)
    templates = (PROJECT / "perturbation" / "page" / "templates").iterdir()
    assert {f"perturbation/page/templates/{path.name}" for path in templates} <= set(names)
    configs = {
        f"clipmapper/configs/{path.relative_to(PROJECT / 'configs')}" for path in PROJECT.glob("configs/**/*.yaml")
    }
    assert configs | {"perturbation/page/literature.yaml"} == {name for name in names if name.endswith(".yaml")}
    models = {
        f"clipmapper/pretrained/{path.name}" for path in (PROJECT / "clipmapper" / "pretrained").glob("*.safetensors")
    }
    models |= {f"clipmapper/pretrained/shapes-llava/{path.name}" for path in LLAVA.iterdir()}
    assert len(models) >= 10
    assert models <= set(names)
    assert wheel.stat().st_size < 20e6
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_command_runs_in_any_folder_and_writes_only_there(installed: Path, tiny: Tiny, tmp_path: Path) -> None:
    before = listing(packages(installed))
    arguments = [each for each in tiny.overrides if not each.startswith("paths.root=")]
    done = run(installed, "clipmapper", ["train", "task=vqa", "mapper=b", *arguments], tmp_path)
    assert done.returncode == 0, done.stderr
    assert str(PROJECT) not in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "cache"}
    assert len(list(tmp_path.glob("runs/train/vqa-shapes-b/*/metrics.json"))) == 1
    assert listing(packages(installed)) == before


def test_a_shipped_model_explains_right_after_the_installation(installed: Path, tmp_path: Path) -> None:
    few = ("data.test_scenes=4", "data.workers=1", "threads=1", "samples=1", "formats=[png]")
    done = run(installed, "clipmapper", ["explain", *few], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "shipped with the package" in done.stdout
    assert len(list(tmp_path.glob("runs/explain/vqa-shapes-b/*/pictures/*.png"))) == 1


def test_the_command_lists_commands_and_valid_choices(installed: Path, tmp_path: Path) -> None:
    done = run(installed, "clipmapper", ["--help"], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in COMMANDS)
    wrong = run(installed, "clipmapper", ["perturb", "explainer=mine"], tmp_path)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: there is no explainer=mine; choose one of: all, attention_gradcam, ")


def test_explain_needs_only_torch_and_numpy(wheel: Path, tmp_path: Path) -> None:
    folder = environment(tmp_path / "bare", borrowing=False)
    install(folder, str(wheel))
    link(["torch", "numpy"], packages(folder))
    done = run(folder, "python", ["-c", USE], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing else is here\n"


def test_an_editable_install_reads_the_checkout(source: Path, tmp_path: Path) -> None:
    folder = environment(tmp_path / "editable")
    install(folder, "--editable", str(source))
    code = "from clipmapper.places import CONFIGS, default_root; print(CONFIGS, default_root())"
    done = run(folder, "python", ["-c", code], tmp_path)
    assert done.stdout.split() == [str(source / "configs"), str(source)], done.stderr
    assert run(folder, "clipmapper", ["--help"], tmp_path).returncode == 0
