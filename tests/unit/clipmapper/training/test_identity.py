"""Which settings are part of a training's identity, and how a difference is named."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
from config_keys import changed, leaves
from tiny_runs import composed

from clipmapper.cli import typed
from clipmapper.config.data import DATA_SCHEMAS
from clipmapper.config.schema import TrainConfig
from clipmapper.errors import UserError
from clipmapper.training.identity import check_same, digest, training_identity

# Sections and keys that may differ when a run is resumed. All others, also new ones, are part of the identity.
FREE = {"paths", "logger", "resume", "dry_run", "output"}
FREE_KEYS = {
    *("data.root", "data.workers", "data.answers_file"),  # the questions, answers and images are compared
    *("encoder.weights", "encoder.batch_size"),  # the weights and features are compared
    *("task.steps", "task.validate_every"),  # defaults of trainer.max_steps and trainer.val_check_interval
    *("trainer.strategy", "trainer.log_every_n_steps", "trainer.enable_progress_bar", "trainer.profiler"),
    *("trainer.num_nodes", "trainer.num_workers", "trainer.max_time"),
    *("trainer.checkpoint_every_steps", "trainer.checkpoint_every_minutes"),
    *("trainer.accelerator", "trainer.devices"),  # what was found for them is compared
}


@pytest.mark.parametrize("task", ["vqa", "caption"])
@pytest.mark.parametrize("data", [name for name in DATA_SCHEMAS if name != "table"])
def test_every_setting_is_part_of_the_identity(task: str, data: str, tmp_path: Path) -> None:
    config = typed(composed("train", f"task={task}", f"data={data}", f"paths.root={tmp_path}"), TrainConfig)
    usual = training_identity(config, "cpu", 1)
    assert usual == training_identity(deepcopy(config), "cpu", 1)
    for key in leaves(config):
        other = training_identity(changed(config, key), "cpu", 1)
        free = key.split(".")[0] in FREE or key in FREE_KEYS
        assert (other == usual) == free, key
        if not free:
            with pytest.raises(UserError, match=f"contains a run with {key}.*=.*, but this run has {key}="):
                check_same(tmp_path, usual, other)


# A run folder of an earlier version has no such key: the run did what the default says.
ADDED = ("encoder.precision", "trainer.accumulate_grad_batches")


@pytest.mark.parametrize("key", ADDED)
def test_a_run_made_before_a_key_existed_is_one_with_its_default(key: str, tmp_path: Path) -> None:
    config = typed(composed("train", f"paths.root={tmp_path}"), TrainConfig)
    section, name = key.split(".")
    now, earlier = (training_identity(config, "cpu", 1) for _ in range(2))
    del earlier["config"][section][name]
    check_same(tmp_path, earlier, now)
    check_same(tmp_path, now, earlier)
    default = getattr(getattr(config, section), name)
    with pytest.raises(UserError, match=f"a run with {key}={default}, but this run has {key}=another value"):
        check_same(tmp_path, earlier, training_identity(changed(config, key), "cpu", 1))


def test_the_device_and_the_number_of_processes_are_part_of_the_identity(tmp_path: Path) -> None:
    config = typed(composed("train", f"paths.root={tmp_path}"), TrainConfig)
    one = training_identity(config, "cpu", 1)
    for other, said in (
        (training_identity(config, "cuda", 1), "trainer.accelerator=cpu, but this run has trainer.accelerator=cuda"),
        (training_identity(config, "cpu", 2), "trainer.devices=1, but this run has trainer.devices=2"),
    ):
        with pytest.raises(UserError, match=said):
            check_same(tmp_path, one, other)


def test_the_hash_of_samples_depends_on_their_order_and_limits() -> None:
    samples = [(1, "a", ("b",)), (2, "c", ())]
    assert digest(samples) == digest(list(samples))
    others = [samples[::-1], [(1, "a", ("b",), 2, "c", ())], [(1, "a", ()), (2, "c", ("b",))], samples[:1]]
    assert len({digest(each) for each in (samples, *others)}) == 5
