"""Weights files: the card and the weights come back, and a damaged or foreign file is refused in one line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from clipmapper.errors import UserError
from clipmapper.weights import check_output, read_weights, write_weights

CARD = {"task": "vqa", "answers": ["yes", "nö"], "mapper": {"width": 8}}


def written(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    weights = {"head.weight": torch.randn(3, 8), "norm.bias": torch.zeros(8), "scale": torch.tensor(0.5)}
    write_weights(folder / "new" / "model.safetensors", CARD, weights)
    return folder / "new" / "model.safetensors", weights


def test_what_is_read_is_what_was_written_to_half_precision(tmp_path: Path) -> None:
    path, weights = written(tmp_path)
    card, found = read_weights(path)
    assert card == CARD
    assert found.keys() == weights.keys()
    for name, tensor in weights.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.half().float())


def test_the_card_can_be_changed_without_changing_a_weight(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    card, found = read_weights(path)
    write_weights(tmp_path / "changed.safetensors", {**card, "familiarity": {"words": ["a"]}}, found)
    before, after = load_file(path), load_file(tmp_path / "changed.safetensors")
    assert after.keys() == before.keys()
    assert all(after[name].numpy().tobytes() == tensor.numpy().tobytes() for name, tensor in before.items())
    assert read_weights(tmp_path / "changed.safetensors")[0] == {**CARD, "familiarity": {"words": ["a"]}}


@pytest.mark.parametrize("part", ["weights", "card", "header"])
def test_a_damaged_file_is_refused(tmp_path: Path, part: str) -> None:
    path, _ = written(tmp_path)
    content = bytearray(path.read_bytes())
    place = {"weights": len(content) - 3, "card": content.index(b"yes"), "header": 3}[part]
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^weights .*model\.safetensors: damaged, or not written by scripts/train\.py"):
        read_weights(path)


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"other\.safetensors: damaged, or not written"):
        read_weights(tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError):
        read_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("value", "said"),
    [(7e4, r"head has values up to 7e\+04, and float16 holds 65504 at most; train"), (math.nan, "head has NaN or inf")],
)
def test_what_float16_cannot_hold_is_refused(tmp_path: Path, value: float, said: str) -> None:
    path, _ = written(tmp_path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"^weights {path}: {said}"):
        write_weights(path, CARD, {"head": torch.tensor([1.0, value])})
    assert path.read_bytes() == before


def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path) -> None:
    path, _ = written(tmp_path)
    check_output(path)
    check_output(tmp_path / "none" / "new.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    for name in ("other", "folder"):
        with pytest.raises(UserError, match=rf"^output=.*{name}\.safetensors: exists and has no weights that"):
            check_output(tmp_path / f"{name}.safetensors")
    with pytest.raises(UserError, match=r"^output=.*: .*other\.safetensors is not a writable folder; give"):
        check_output(tmp_path / "other.safetensors" / "new.safetensors")
    with pytest.raises(UserError, match=r"^output=/proc/.*: /proc is not a writable folder; give"):
        check_output(Path("/proc/new.safetensors"))  # not even root may write there
