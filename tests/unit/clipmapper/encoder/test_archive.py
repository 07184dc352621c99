"""TorchScript archives like OpenAI's: the same features as from the eager model, and no code of the file is run."""

from __future__ import annotations

import pickle
import random
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import Pair, loaded, pictures, random_clip, refusal, register, saved
from openai_files import SIZES, openai_archive

from clipmapper.encoder.archive import is_archive, read_archive


@pytest.fixture
def archive(tmp_path: Path, plain: Pair) -> Path:
    return openai_archive(plain[1].state_dict(), tmp_path / "ViT.pt")


@pytest.mark.parametrize("custom_text", [False, True])
def test_an_archive_gives_the_features_of_the_eager_model(custom_text: bool, tmp_path: Path) -> None:
    name = register(tmp_path, f"test-openai-{custom_text}", {}, {}, custom_text=custom_text)  # which has GELU
    plain = register(tmp_path, "test-openai-eager", {}, {}, quick_gelu=True)
    eager = random_clip(plain).half().float()
    encoder = loaded(name, openai_archive(eager.half().state_dict(), tmp_path / "ViT.pt"))
    eager = eager.float()
    pixels = pictures(3)
    torch.testing.assert_close(encoder.vision.pooled(encoder.vision(pixels)), eager.encode_image(pixels))
    texts = encoder.tokenize(["a red circle", "a"])
    ids = torch.nn.functional.pad(texts.ids, (0, 12 - texts.ids.shape[1]))
    own = encoder.text.pooled(encoder.text(texts.ids, texts.valid))
    torch.testing.assert_close(own, eager.encode_text(ids))


def test_all_tensors_of_an_archive_are_read(archive: Path, plain: Pair) -> None:
    state = plain[1].state_dict()
    assert is_archive(archive)
    found = read_archive(archive)
    assert found.keys() == {*state, *SIZES, "attn_mask"}
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_pytorch_file_is_no_archive(tmp_path: Path, plain: Pair) -> None:
    for suffix in (".pt", ".safetensors"):
        assert not is_archive(saved(plain[1], tmp_path / f"weights{suffix}"))


def test_the_state_dict_of_an_archive_loads_as_a_pytorch_file(archive: Path, tmp_path: Path, plain: Pair) -> None:
    torch.save(read_archive(archive), tmp_path / "state.pt")
    again, other = loaded(plain[0].name, tmp_path / "state.pt"), loaded(plain[0].name, archive)
    assert again.fingerprint() == other.fingerprint()


# --- hostile and damaged archives --------------------------------------------------------------------------------


class Bomb:
    def __init__(self, touched: Path):
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


def changed(source: Path, target: Path, change: Callable[[str, bytes], bytes], compression: int = 0) -> Path:
    """Write an archive with other content of its members."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
    return target


def test_code_in_an_archive_does_not_run(archive: Path, tmp_path: Path, plain: Pair) -> None:
    touched = tmp_path / "touched"
    bomb = pickle.dumps(Bomb(touched), 2)
    inside = b"cposix\nsystem\nX\x0a\x00\x00\x00touch HERE\x85R0"  # in front of the modules, and dropped

    def replaced(name: str, content: bytes) -> bytes:
        return bomb if name == "data.pkl" else content

    def added(name: str, content: bytes) -> bytes:
        return content[:2] + inside + content[2:] if name == "data.pkl" else content

    def compiled(name: str, content: bytes) -> bytes:
        return b"raise SystemExit" if name.startswith("code/") else bomb if name == "constants.pkl" else content

    for change in (replaced, added):
        assert plain[0].name in refusal(plain[0].name, changed(archive, tmp_path / "bad.pt", change))
    loaded(plain[0].name, changed(archive, tmp_path / "other.pt", compiled))  # code and constants are not looked at
    assert not touched.exists()
    pickle.loads(bomb)
    assert touched.exists()  # the file does contain code


def test_sizes_that_the_file_does_not_have_are_an_error(archive: Path, tmp_path: Path, plain: Pair) -> None:
    """A tensor that claims 2^31 - 1 rows, a storage that claims as many numbers, and both."""
    name = plain[0].name
    small, large = b"K" + bytes([len(plain[1].positional_embedding)]), b"J\xff\xff\xff\x7f"
    for count in (1, 3, -1):

        def change(member: str, content: bytes, count: int = count) -> bytes:
            return content.replace(small, large, count) if member == "data.pkl" else content

        start = time.monotonic()
        assert name in refusal(name, changed(archive, tmp_path / "large.pt", change))
        assert time.monotonic() - start < 20


def test_a_compressed_archive_is_an_error(archive: Path, tmp_path: Path, plain: Pair) -> None:
    """A few bytes could become gigabytes."""
    path = changed(archive, tmp_path / "small.pt", lambda _, content: content, zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(plain[0].name, path)


def test_a_module_that_contains_itself_is_an_error(archive: Path, tmp_path: Path, plain: Pair) -> None:
    cyclic = b"\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."

    def change(name: str, content: bytes) -> bytes:
        return cyclic if name == "data.pkl" else content

    assert plain[0].name in refusal(plain[0].name, changed(archive, tmp_path / "cyclic.pt", change))


@pytest.mark.filterwarnings("error")
def test_damaged_archives_are_an_error_or_have_other_weights(tmp_path: Path, plain: Pair) -> None:
    """Overwrite bytes of the structure of a small archive; whatever is raised, the message is one line."""
    path = openai_archive({"logit_scale": torch.ones(())}, tmp_path / "tiny.pt")
    good, draw = path.read_bytes(), random.Random(2)
    for _ in range(60):
        damaged = bytearray(good)
        for _ in range(4):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(bytes(damaged) if draw.random() < 0.8 else good[: draw.randrange(len(good))])
        assert str(path) in refusal(plain[0].name, path)
