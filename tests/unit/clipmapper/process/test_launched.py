"""The place of a process that torchrun or srun started, from the variables that they set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clipmapper.config.trainer import TrainerConfig
from clipmapper.errors import UserError
from clipmapper.process import launched
from clipmapper.process.launched import Launched

RANKS = {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", **RANKS}
PLACE = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
STEP = {"SLURM_STEP_ID": "0", **PLACE, "SLURM_STEP_NUM_NODES": "2"}
SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}  # of sbatch, which starts it once
PER_NODE = "SLURM_STEP_TASKS_PER_NODE"
SHELL = {**SCRIPT, "SLURM_STEP_ID": str(0xFFFFFFFA)}  # of salloc


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in (*TORCHRUN, *STEP, PER_NODE, "SLURM_NTASKS", "SLURM_NNODES", "SLURM_NPROCS"):
        monkeypatch.delenv(name, raising=False)
    launched.launched.cache_clear()
    yield
    launched.launched.cache_clear()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        (TORCHRUN, Launched("torchrun", 3, 1, 4, 2, 2)),
        ({**STEP, "SLURM_NTASKS": "4"}, Launched("srun", 3, 1, 4, 2, 2)),
        ({**STEP, "SLURM_NTASKS": "4", PER_NODE: "2(x2)"}, Launched("srun", 3, 1, 4, 2, 2)),
        ({**STEP, "SLURM_NTASKS": "4", PER_NODE: "1,3"}, Launched("srun", 3, 1, 4, 3, 2)),
        ({**STEP, "SLURM_NTASKS": "4", **TORCHRUN}, Launched("torchrun", 3, 1, 4, 2, 2)),
        ({**STEP, "SLURM_NTASKS": "1"}, None),
        (SCRIPT, None),
        (SHELL, None),
    ],
)
def test_the_place_is_read_from_the_environment(
    given: dict[str, str], expected: Launched | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert launched.launched() == expected
    assert launched.is_first() == (expected is None)


@pytest.mark.parametrize(
    "given",
    [
        *({**TORCHRUN, name: "-1"} for name in TORCHRUN if name != "TORCHELASTIC_RUN_ID"),
        *({**STEP, "SLURM_NTASKS": "4", name: "x"} for name in STEP),
        {"SLURM_NTASKS": "4(x2)"},
    ],
)
def test_what_is_no_number_is_one_line(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"^environment variable \w+=.* is no number; unset it, or start the processes"):
        launched.is_first()
    assert not launched.told_by_another()  # so the error is printed here


@pytest.mark.parametrize(
    ("given", "keys", "said"),
    [
        (TORCHRUN, {"devices": 3}, "trainer.devices=3: torchrun started 2 processes on each node; give "),
        (TORCHRUN, {"num_nodes": 3}, "trainer.num_nodes=3: torchrun started 2 nodes; give trainer.num_nodes=2"),
        ({}, {"num_nodes": 2}, "trainer.num_nodes=2: start the command by srun or torchrun"),
        ({**STEP, "SLURM_NTASKS": "3"}, {}, "srun started 3 processes on 2 nodes, of which 1 .*--ntasks-per-node=N$"),
        ({**STEP, "SLURM_NTASKS": "3", PER_NODE: "2,1"}, {}, "srun started 3 processes on 2 nodes, of which 1 "),
        ({**STEP, "SLURM_NTASKS": "4", PER_NODE: "1,3"}, {}, "srun started 4 processes on 2 nodes, of which 3 "),
        ({**TORCHRUN, "WORLD_SIZE": "3"}, {}, "torchrun started 3 processes on 2 nodes.* give .*--nproc-per-node"),
    ],
)
def test_other_numbers_in_the_config_are_refused(
    given: dict[str, str], keys: dict[str, int], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clipmapper.training.processes import processes

    for name, value in given.items():
        monkeypatch.setenv(name, value)
    config = TrainerConfig(**{"devices": 1, "num_nodes": 1, "strategy": "auto", **keys})
    with pytest.raises(UserError, match=said):
        processes(config)


@pytest.mark.parametrize("devices", [1, 2, "auto", -1])
def test_processes_that_were_started_are_used_with_any_config(devices: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from clipmapper.training.processes import processes

    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    found = processes(TrainerConfig(devices=devices, num_nodes=1, strategy="auto"))
    assert (found["devices"], found["num_nodes"]) == (2, 2)
    assert type(found["strategy"]).__name__ == "DDPStrategy"


def test_alone_a_run_keeps_its_own_folder(tmp_path: Path) -> None:
    assert launched.folder_of_first(tmp_path) == tmp_path
    assert not launched.told_by_another()
