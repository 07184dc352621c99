"""The models that the page offers, and where the server listens."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
import torch
from demo_pages import demo_config

from clipmapper.errors import UserError
from clipmapper.pretrained import pretrained_file
from perturbation.demo.offered import Models
from perturbation.demo.serving import check_free

SHIPPED = ["CLIPmapper b, shipped", "CLIPmapper a, shipped", "LLaVA for shapes, shipped"]


def test_shipped_models_come_first_and_are_loaded_once(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    models = Models(demo_config(tmp_path))
    assert models.names == SHIPPED
    assert models.load(SHIPPED[0]) is models.load(SHIPPED[0])
    assert models.load(SHIPPED[0]).unknown == ""
    assert models.load(SHIPPED[2]).reads_text
    with pytest.raises(UserError, match="no such model"):
        models.load("other")


def test_files_and_folders_of_the_user(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    weights = pretrained_file("vqa", "a")
    assert weights is not None
    file, folder = tmp_path / "mine.safetensors", weights.parent / "shapes-llava"
    shutil.copy(weights, file)
    models = Models(demo_config(tmp_path, models=[str(file), str(folder)]))
    assert models.names == [*SHIPPED, str(file), str(folder)]
    shipped, own = models.load(SHIPPED[1]).model, models.load(str(file)).model
    assert all(torch.equal(x, y) for x, y in zip(shipped.parameters(), own.parameters(), strict=True))
    assert type(models.load(str(folder)).model).__name__ == "LlavaForConditionalGeneration"


@pytest.mark.parametrize(
    ("name", "said"),
    [("empty", "has no checkpoint and no config.json"), ("note.txt", "is no checkpoint; give a .ckpt or .safetensors")],
)
def test_what_is_no_model(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("no model")
    with pytest.raises(UserError, match=rf"models: .*{name} {said}"):
        Models(demo_config(tmp_path, models=[str(tmp_path / name)]))


def test_damage_is_told_when_the_model_is_chosen(tmp_path: Path) -> None:
    damaged = tmp_path / "mine.safetensors"
    damaged.write_bytes(b"no weights")
    models = Models(demo_config(tmp_path, models=[str(damaged), str(tmp_path / "missing")]))
    with pytest.raises(UserError, match=r"mine\.safetensors"):
        models.load(str(damaged))
    with pytest.raises(UserError, match=r"models: .*missing"):
        models.load(str(tmp_path / "missing"))


def test_a_port_or_a_host_that_cannot_be_used() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port={port} is taken on 127.0.0.1: "):
            check_free("127.0.0.1", port)
    check_free("127.0.0.1", port)
    check_free("127.0.0.1", 0)
    for host in ("192.0.2.1", "no host", "a..b", ""):
        with pytest.raises(UserError, match=f"host={host} is no address of this machine"):
            check_free(host, 0)
