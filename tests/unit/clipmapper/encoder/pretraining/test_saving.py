"""A full disk before and after a pre-training."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from schemas import values
from small_disk import small_disk

from clipmapper.encoder.pretraining import saving
from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.encoder.pretraining.run import run_pretraining
from clipmapper.encoder.pretraining.saving import WEIGHTS, check_space, save_result
from clipmapper.encoder.pretraining.train import Pretraining, Words
from clipmapper.errors import UserError

SETTINGS = PretrainConfig(**values("pretrain_clip"))


def model() -> Pretraining:
    words = Words()
    words.rows("a small red circle")
    return Pretraining(SETTINGS, words)


def test_a_folder_without_space_is_refused_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipmapper.encoder.pretraining.run.draw_pool", None)  # nothing is drawn before the check
    (tmp_path / "file").touch()
    blocked = PretrainConfig(**{**values("pretrain_clip"), "output": str(tmp_path / "file" / "folder")})
    with pytest.raises(UserError, match=r"file/folder: the weights could not be written there \(Not a directory\)"):
        run_pretraining(blocked, tmp_path / "run")
    with (
        small_disk(2**20),
        pytest.raises(UserError, match=r"run: .*\(File too large\); give a writable folder with 4 MB"),
    ):
        run_pretraining(SETTINGS, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_with_space_is_made_and_stays_empty(tmp_path: Path) -> None:
    check_space([tmp_path / "a" / "b", tmp_path])
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize("broken", ["run", "output"])
def test_weights_stay_in_the_folder_that_can_be_written(tmp_path: Path, broken: str) -> None:
    for name in ("run", "output"):
        (tmp_path / name).touch() if name == broken else (tmp_path / name).mkdir()
    [kept] = {"run", "output"} - {broken}
    with pytest.raises(UserError) as refused:
        save_result(model(), [tmp_path / "run", tmp_path / "output"])
    assert str(refused.value).startswith(f"{tmp_path / broken}: the weights cannot be written (Not a directory)")
    assert f"they are kept as {tmp_path / kept / WEIGHTS}" in str(refused.value)
    assert (tmp_path / kept / WEIGHTS).stat().st_size > 10**5


def test_weights_are_kept_among_temporary_files_if_no_folder_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match=f"they are kept as {tmp_path}/clipmapper-") as refused:
        save_result(model(), [tmp_path / "run"])
    assert "\n" not in str(refused.value)
    assert len(list(tmp_path.glob(f"clipmapper-*/{WEIGHTS}"))) == 1
    monkeypatch.setattr(saving, "_save_elsewhere", lambda model: None)
    with pytest.raises(UserError, match=rf"cannot be written \(Not a directory\), nor to {tmp_path}"):
        save_result(model(), [tmp_path / "run"])


def test_weights_that_cannot_be_written_leave_the_earlier_ones(tmp_path: Path) -> None:
    saving.save(model(), tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    with small_disk(1000), pytest.raises(OSError, match="File too large"):
        saving.save(model(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [WEIGHTS]
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_weights_of_somebody_else_are_not_overwritten(tmp_path: Path) -> None:
    save_result(model(), [tmp_path])
    check_space([tmp_path])
    save_file({"a": torch.zeros(2)}, tmp_path / WEIGHTS)
    before = (tmp_path / WEIGHTS).read_bytes()
    with pytest.raises(UserError, match=r"shapes-tiny\.safetensors: exists and was not written by pretrain_clip; give"):
        check_space([tmp_path])
    assert (tmp_path / WEIGHTS).read_bytes() == before


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    large = model()
    with torch.no_grad():
        large.clip.positional_embedding[0, 0] = 1e5
    with pytest.raises(UserError, match=r"positional_embedding has values up to 1e\+05, and float16 holds 65504"):
        save_result(large, [tmp_path])
    assert list(tmp_path.iterdir()) == []
