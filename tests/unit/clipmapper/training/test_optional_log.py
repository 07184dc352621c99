"""A service that fails during a run costs no result."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import wandb
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tiny_runs import Tiny

from clipmapper.config.trainer import LoggerConfig
from clipmapper.errors import UserError
from clipmapper.training.logged import end_log, log_table
from clipmapper.training.optional_log import make_optional
from clipmapper.training.trainer import build_logger


@pytest.mark.parametrize(
    ("logger", "owner", "failing"),
    [
        (["logger=wandb", "logger.offline=true"], wandb.Run, "log"),
        (["logger=tensorboard"], TensorBoardLogger, "log_metrics"),
    ],
)
def test_a_training_goes_on_without_it(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    logger: list[str],
    owner: type[Any],
    failing: str,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the connection\nwas lost")

    monkeypatch.setattr(owner, failing, fail)
    metrics = tiny.train(tmp_path / "run", *logger, "trainer.log_every_n_steps=1")
    wandb.teardown()
    assert metrics["val"]["questions"] == 60
    assert (tmp_path / "run" / "metrics.json").is_file()
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "failed (the connection was lost), so nothing more is logged to it" in warnings[0]


def test_a_failure_at_the_end_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Failing(TensorBoardLogger):
        def finalize(self, status: str) -> None:
            raise OSError("the disk is full")

    logger = Failing(tmp_path)
    make_optional(logger)
    end_log(logger)
    log_table(logger, "scores", ["a"], [[1]])
    assert capsys.readouterr().err.count("warning: Failing failed (the disk is full)") == 1


def test_curves_in_the_run_folder_are_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CSVLogger(tmp_path)

    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(CSVLogger, "save", fail)
    make_optional(logger)
    with pytest.raises(OSError, match="full"):
        logger.save()


@pytest.mark.parametrize("name", ["wandb", "tensorboard"])
def test_a_missing_package_is_named_at_the_start(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", False)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(UserError, match=f"logger={name} needs a package: pip install {name}"):
        build_logger(LoggerConfig(name=name, project="a", offline=True), tmp_path)
