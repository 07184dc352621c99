"""Fixtures that tests of several folders share."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

# Both are set before the libraries that read them are imported.
os.environ["HF_HUB_OFFLINE"] = "1"  # no test uses the network
if "PYTEST_XDIST_WORKER" in os.environ:  # there is one process per core, so each uses one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # as in a terminal, also under nohup, which lets processes ignore it

# The same examples in every run, so that a failure belongs to a change; `--hypothesis-profile=random` draws others.
settings.register_profile("fixed", derandomize=True, deadline=None)  # other work on the machine takes time too
settings.register_profile("random", derandomize=False, deadline=None)
settings.load_profile("fixed")


def pytest_collection_finish() -> None:
    """Leave out the libraries and the collected tests when Python looks for garbage, which takes a second each time."""
    gc.collect()
    gc.freeze()


if TYPE_CHECKING:
    from models import Pair
    from tiny_runs import Tiny

REAL_MINI = Path(__file__).parents[2] / "shared" / "data" / "real_mini"


@pytest.fixture
def real_mini() -> Path:
    """144 COCO photos with official VQAv2 and caption files, which may not be distributed with the project."""
    if not REAL_MINI.is_dir():
        pytest.skip(f"the COCO photos are missing: there is no folder {REAL_MINI}")
    return REAL_MINI


@pytest.fixture(scope="session")
def _repeated_work_done_once() -> Iterator[None]:
    from repeated_work import done_once

    with done_once():
        yield


@pytest.fixture(scope="session")
def tiny(_repeated_work_done_once: None, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """Data and encoder weights of the tests' training runs; the first run writes the data, later runs read it."""
    import open_clip
    import torch
    from safetensors.torch import save_file
    from tiny_runs import Tiny

    from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded

    root = tmp_path_factory.mktemp("tiny")
    register_embedded()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model(EMBEDDED_MODEL)
    weights = root / "random.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    return Tiny(root, weights)


@pytest.fixture
def command(
    _repeated_work_done_once: None, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, list[str]]]:
    """A function that runs a script in this process.

    It returns the exit status, the text on stdout, and the lines on stderr that start with "error: ".
    """
    from tiny_runs import script

    def run(name: str, *arguments: str) -> tuple[int, str, list[str]]:
        capsys.readouterr()
        status = 0
        try:
            script(name).main(arguments)
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        sys.stderr.write(err)  # for tests that also read other lines of it
        return status, out, [line for line in err.splitlines() if line.startswith("error: ")]

    return run


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the weights of ``pairs``."""
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="session")
def pairs(clip_folder: Path) -> dict[str, Pair]:
    """Pairs for every layout of open_clip: our encoder, loaded from a file, and the model of open_clip."""
    from models import LAYOUTS, loaded, random_clip, register, saved

    found: dict[str, Pair] = {}
    for number, (layout, (vision, text, rest)) in enumerate(LAYOUTS.items()):
        name = register(clip_folder, f"test-{layout}", vision, text, **rest)
        model = random_clip(name, seed=number)
        suffix = ".pt" if number % 2 else ".safetensors"
        found[layout] = loaded(name, saved(model, clip_folder / f"{layout}{suffix}")), model
    return found


@pytest.fixture(scope="session")
def plain(pairs: dict[str, Pair]) -> Pair:
    """The pair with the simplest layout."""
    return pairs["plain"]
