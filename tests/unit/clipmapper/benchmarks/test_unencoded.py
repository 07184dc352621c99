"""Random features in place of an encoder's: a start with them finds everything in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipmapper.benchmarks.full_size import write
from clipmapper.benchmarks.starting import main
from clipmapper.benchmarks.unencoded import unencoded
from clipmapper.encoder.towers import TextTower, VisionTower


def test_a_start_after_one_with_random_features_encodes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 0.0005, 16)
    overrides = ["data=vqav2", f"data.root={tmp_path}/vqav2", "data.reserved=20", "data.min_answer_questions=1"]
    overrides += [f"paths.cache={tmp_path}/cache", "task.optim.batch_size=8"]
    with unencoded():
        main(overrides)
    for tower in (VisionTower, TextTower):
        monkeypatch.setattr(tower, "forward", None)
    main(overrides)
    stages = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "CPU seconds" in line]
    assert stages == ["imports", "trainer", "data", "identity", "model", "familiarity", "split.json", "first"] * 2
