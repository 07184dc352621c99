"""Frozen features: the same as the encoder computes for single items, and each distinct item is encoded once."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from clipmapper.config.schema import EncoderConfig
from clipmapper.data.images import BadImage, EncodedImage, FileImage, load_rgb
from clipmapper.data.records import Question, VQAData
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.encoder.released import release
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded
from clipmapper.errors import UserError
from clipmapper.features import hashes, shard
from clipmapper.features import images as image_module
from clipmapper.features.images import image_features
from clipmapper.features.store import FrozenFeatures
from clipmapper.features.texts import text_features
from clipmapper.process.partial import partial_path
from clipmapper.tasks.vqa.answers import AnswerVocabulary, build_vocabulary
from clipmapper.tasks.vqa.data import VQADataset

CPU = torch.device("cpu")
TEXTS = ["is it red?", "what color is the small thing left of the moon?", "how many?", "¿qué es «это»?", "how many?"]
LONG = "what " * 60


@pytest.fixture(scope="module")
def encoder() -> FrozenClip:
    return random_encoder()


def random_encoder() -> FrozenClip:
    """Return an encoder of the embedded architecture with random weights."""
    register_embedded()
    torch.manual_seed(0)
    return FrozenClip.of(open_clip.create_model(EMBEDDED_MODEL), EMBEDDED_MODEL)


@pytest.fixture
def pictures(tmp_path: Path) -> dict[int, Any]:
    """Write seven noise images of different sizes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(7):
        Image.fromarray(rng.integers(0, 256, (40 + 9 * i, 64, 3), np.uint8)).save(folder / f"{i}.png")
    return {10 + i: FileImage(folder / f"{i}.png") for i in range(7)}


def encoding(**changes: Any) -> EncoderConfig:
    return EncoderConfig(
        **{"model": EMBEDDED_MODEL, "weights": "random", "batch_size": 3, "feature_dtype": "float32", **changes}
    )


def images_of(encoder: FrozenClip, pictures: dict[int, Any], cache: Path, policy: str = "fail", **changes: Any) -> Any:
    return image_features(encoder, encoding(**changes), pictures, cache, policy, CPU)


def texts_of(encoder: FrozenClip, texts: list[str], cache: Path, **changes: Any) -> FrozenFeatures:
    return text_features(encoder, encoding(**changes), texts, cache, CPU)


def row(features: FrozenFeatures, item: object) -> np.ndarray:
    """Return the valid rows of one item."""
    tokens = features.store.gather(np.array([features.place[item]]))
    return tokens.features[0][tokens.valid[0]].float().numpy()


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 3e-3)])
def test_image_features_equal_those_of_single_images(
    encoder: FrozenClip, pictures: dict[int, Any], tmp_path: Path, dtype: str, tolerance: float
) -> None:
    features = images_of(encoder, pictures, tmp_path, feature_dtype=dtype)
    assert features.missing == {}
    for i, source in pictures.items():
        with torch.inference_mode():
            alone = encoder.vision(encoder.pixels([load_rgb(source)])).features[0].numpy()
        assert alone.shape == (37, 128)
        np.testing.assert_allclose(row(features, i), alone, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 3e-3)])
def test_text_features_equal_those_of_single_texts(
    encoder: FrozenClip, tmp_path: Path, dtype: str, tolerance: float
) -> None:
    features = texts_of(encoder, TEXTS, tmp_path, feature_dtype=dtype)
    assert len(features.store.lengths) == len(features.place) == 4
    for text in TEXTS:
        batch = encoder.tokenize([text])
        with torch.inference_mode():
            alone = encoder.text(batch.ids, batch.valid).features[0].numpy()
        assert len(alone) == len(encoder.tokenizer.encode(text)) + 2
        np.testing.assert_allclose(row(features, text), alone, atol=tolerance)


def test_half_precision_features_need_half_the_space(
    encoder: FrozenClip, pictures: dict[int, Any], tmp_path: Path
) -> None:
    images_of(encoder, pictures, tmp_path / "a")
    images_of(encoder, pictures, tmp_path / "b", feature_dtype="float16")
    sizes = [next((tmp_path / name).rglob("*.safetensors")).stat().st_size for name in "ab"]
    rows = 7 * 37 * 128
    assert 0 <= sizes[0] - 4 * rows < 2000
    assert 0 <= sizes[1] - 2 * rows < 2000


def test_a_second_run_encodes_nothing(pictures: dict[int, Any], tmp_path: Path) -> None:
    encoder = random_encoder()
    first = images_of(encoder, pictures, tmp_path), texts_of(encoder, TEXTS, tmp_path)

    def encoded(*_: object) -> None:
        raise AssertionError("encoded again")

    for tower in (encoder.vision, encoder.text):
        tower.register_forward_pre_hook(encoded)
    second = images_of(encoder, pictures, tmp_path), texts_of(encoder, TEXTS[::-1], tmp_path)
    for a, b in zip(first, second, strict=True):
        assert a.place == b.place
        for item in a.place:
            np.testing.assert_array_equal(row(a, item), row(b, item))
    with pytest.raises(AssertionError, match="encoded again"):
        texts_of(encoder, [*TEXTS, "another?"], tmp_path)


def folders(cache: Path) -> set[str]:
    return {path.name for path in (cache / "stores").iterdir()}


def test_what_killed_processes_left_in_a_complete_cache_is_removed(
    encoder: FrozenClip, pictures: dict[int, Any], tmp_path: Path
) -> None:
    images_of(encoder, pictures, tmp_path / "cache")
    (store,) = (tmp_path / "cache" / "stores").iterdir()
    (tmp_path / "cache" / "hashes").mkdir(exist_ok=True)
    names = (store / "claim", store / "shard.safetensors", tmp_path / "cache" / "hashes" / "index.arrow")
    living = [partial_path(name) for name in names]
    ended = [path.with_name(path.name.replace(f"-{os.getpid()}-", "-4194305-")) for path in living]  # no such process
    for path in (*living, *ended):
        path.touch()
    images_of(encoder, pictures, tmp_path / "cache")
    assert {*(tmp_path / "cache").rglob(".*.partial")} == {*living}


def test_every_weight_of_the_encoder_changes_the_fingerprint() -> None:
    other = random_encoder()
    other.text.text.token_embedding = torch.nn.Embedding(100, 128)  # a small table is hashed faster
    before = other.fingerprint()
    weights = list(other.parameters())
    seen = {before}
    for weight in weights:
        last = weight.data.view(-1)[-1:]
        old = last.clone()
        last += 1e-3
        seen.add(other.fingerprint())
        last.copy_(old)
    assert len(weights) > 60
    assert len(seen) == 1 + len(weights)
    assert other.fingerprint() == before


def test_another_encoder_precision_or_preprocessing_has_a_separate_store(
    encoder: FrozenClip, pictures: dict[int, Any], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"

    def count() -> int:
        images_of(encoder, pictures, cache)
        texts_of(encoder, TEXTS, cache)
        return len(folders(cache))

    assert count() == 2
    assert count() == 2
    images_of(encoder, pictures, cache, feature_dtype="float16")
    texts_of(encoder, TEXTS, cache, feature_dtype="float16")
    assert count() == 4
    weight = encoder.text.text.text_projection.data
    old = weight.clone()
    weight[0, 0] += 1
    assert count() == 6
    weight.copy_(old)
    preprocess = encoder.preprocess
    encoder.preprocess = open_clip.transform.image_transform_v2(
        open_clip.transform.PreprocessCfg(size=(60, 60), mean=(0.0, 0.0, 0.0)), is_train=False
    )
    assert count() == 8
    encoder.preprocess = preprocess
    images_of(encoder, pictures, cache, batch_size=2)  # the batch size does not change the features
    assert count() == 8


class Counter:
    """The numbers of images and texts that an encoder has encoded, and of files that were read."""

    def __init__(self, encoder: FrozenClip, monkeypatch: pytest.MonkeyPatch):
        self.images = self.texts = self.read = 0
        encoder.vision.register_forward_pre_hook(self._count("images"))
        encoder.text.register_forward_pre_hook(self._count("texts"))
        whole = FileImage.read

        def read(image: FileImage) -> bytes:
            self.read += 1
            return whole(image)

        monkeypatch.setattr(FileImage, "read", read)
        monkeypatch.setattr(hashes, "SETTLED", 0)  # these files were written a moment ago

    def _count(self, kind: str) -> Any:
        def count(_: object, arguments: tuple[torch.Tensor, ...]) -> None:
            setattr(self, kind, getattr(self, kind) + len(arguments[0]))

        return count

    def since(self) -> tuple[int, int]:
        """Return the numbers of encoded images and of read files, and start again from 0."""
        found = self.images, self.read
        self.images = self.read = 0
        return found


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[FrozenClip, Counter]:
    encoder = random_encoder()
    return encoder, Counter(encoder, monkeypatch)


def test_only_changed_images_are_read_and_only_new_contents_are_encoded(
    counted: tuple[FrozenClip, Counter], pictures: dict[int, Any], tmp_path: Path
) -> None:
    encoder, counter = counted
    cache, path = tmp_path / "cache", pictures[12].path
    old = images_of(encoder, pictures, cache)
    assert counter.since() == (7, 7)
    assert images_of(encoder, pictures, cache).content == old.content
    assert counter.since() == (0, 0)
    status = path.stat()
    content = path.read_bytes()
    path.write_bytes(content + b"more")  # changes only the size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert images_of(encoder, pictures, cache).content != old.content
    assert counter.since() == (1, 1)
    path.write_bytes(content)
    assert images_of(encoder, pictures, cache).content == old.content
    assert counter.since() == (0, 1)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # changes only the time
    images_of(encoder, pictures, cache)
    assert counter.since() == (0, 1)
    Image.new("RGB", (50, 50), "red").save(path)
    new = images_of(encoder, pictures, cache)
    assert counter.since() == (1, 1)
    assert np.abs(row(new, 12) - row(old, 12)).max() > 0.01
    np.testing.assert_array_equal(row(new, 13), row(old, 13))
    assert len(folders(cache)) == 1


def test_a_file_that_changed_a_moment_ago_is_read_again(
    counted: tuple[FrozenClip, Counter], pictures: dict[int, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change at once could leave its size and times the same."""
    encoder, counter = counted
    monkeypatch.setattr(hashes, "SETTLED", 60_000_000_000)
    images_of(encoder, pictures, tmp_path / "cache")
    counter.since()
    images_of(encoder, pictures, tmp_path / "cache")
    assert counter.since() == (0, 7)


def test_other_splits_ids_and_copies_encode_only_what_is_new(
    counted: tuple[FrozenClip, Counter], pictures: dict[int, Any], tmp_path: Path
) -> None:
    encoder, counter = counted
    cache = tmp_path / "cache"
    fewer = {i: source for i, source in pictures.items() if i < 14}
    first = images_of(encoder, fewer, cache)
    assert counter.since() == (4, 4)
    whole = images_of(encoder, pictures, cache)
    assert counter.since() == (3, 3)
    images_of(encoder, {-i: source for i, source in pictures.items()}, cache)
    assert counter.since() == (0, 0)
    copies = {i: FileImage(tmp_path / "copies" / source.path.name) for i, source in pictures.items()}
    shutil.copytree(pictures[10].path.parent, tmp_path / "copies")
    copied = images_of(encoder, copies, cache)
    assert counter.since() == (0, 7)  # they are read for their hashes
    assert copied.content == whole.content
    assert first.content != whole.content
    images_of(encoder, {**pictures, 99: copies[10]}, cache)
    assert counter.since() == (0, 0)
    for i in fewer:
        np.testing.assert_array_equal(row(first, i), row(copied, i))
    texts_of(encoder, TEXTS, cache)
    assert counter.texts == 4
    texts_of(encoder, [TEXTS[0], "another?"], cache)
    assert counter.texts == 5
    assert len(folders(cache)) == 2


def test_two_equal_images_are_encoded_once(
    counted: tuple[FrozenClip, Counter], pictures: dict[int, Any], tmp_path: Path
) -> None:
    encoder, counter = counted
    features = images_of(encoder, {1: pictures[10], 2: pictures[11], 3: pictures[10]}, tmp_path / "cache")
    assert counter.since()[0] == 2
    np.testing.assert_array_equal(row(features, 1), row(features, 3))


@pytest.mark.parametrize("held", [False, True])
def test_an_image_that_changes_while_it_is_encoded_is_not_taken_for_another(
    counted: tuple[FrozenClip, Counter],
    pictures: dict[int, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held: bool,
) -> None:
    """What was read for its hash is encoded; if there was no room for it, the command ends in one line."""
    encoder, _ = counted
    whole = hashes.Hashes.content
    before = row(images_of(encoder, pictures, tmp_path / "other"), 12)

    def changed(index: hashes.Hashes, source: Any) -> tuple[bytes, bytes]:
        found = whole(index, source)
        if source is pictures[12]:
            Image.new("RGB", (50, 50), "red").save(source.path)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(hashes.Hashes, "content", changed)
        if held:
            np.testing.assert_array_equal(row(images_of(encoder, pictures, tmp_path / "cache"), 12), before)
        else:
            patch.setattr(image_module, "HELD", 0)
            with pytest.raises(UserError, match=r"2\.png: has changed .*; run it again"):
                images_of(encoder, pictures, tmp_path / "cache")
    features = images_of(encoder, pictures, tmp_path / "cache")
    assert len(features.place) == 7
    assert np.abs(row(features, 12) - before).max() > 0.01


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone"])
def test_a_damaged_index_is_not_believed(
    counted: tuple[FrozenClip, Counter], pictures: dict[int, Any], tmp_path: Path, damage: str
) -> None:
    encoder, counter = counted
    before = images_of(encoder, pictures, tmp_path)
    index = next((tmp_path / "hashes").glob("*.arrow"))
    content = bytearray(index.read_bytes())
    content[content.index(hashes.hash_of(pictures[10].path.read_bytes()))] ^= 1
    if damage == "gone":
        index.unlink()
    else:
        index.write_bytes({"bit": bytes(content), "cut": content[:-30], "empty": b""}[damage])
    counter.since()
    assert images_of(encoder, pictures, tmp_path).content == before.content
    assert counter.since() == (0, 7)


def test_images_without_a_file_are_identified_by_their_content(encoder: FrozenClip, tmp_path: Path) -> None:
    def encoded(name: str, color: str) -> EncodedImage:
        Image.new("RGB", (60, 60), color).save(tmp_path / "x.png")
        content = (tmp_path / "x.png").read_bytes()
        return EncodedImage(name, lambda: content)

    cache = tmp_path / "cache"
    red = images_of(encoder, {1: encoded("row 1", "red")}, cache)
    assert images_of(encoder, {1: encoded("row 1", "red")}, cache).content == red.content
    blue = images_of(encoder, {1: encoded("row 1", "blue")}, cache)
    assert np.abs(row(red, 1) - row(blue, 1)).max() > 0.01


@pytest.mark.parametrize("damage", ["truncated", "missing", "empty", "text"])
def test_skipped_images_are_named_and_do_not_affect_the_others(
    encoder: FrozenClip, pictures: dict[int, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    whole = images_of(encoder, pictures, tmp_path / "whole")
    for i in (12, 16):
        path = pictures[i].path
        content = path.read_bytes()
        path.write_bytes({"truncated": content[: len(content) // 2], "text": b"no picture"}.get(damage, b""))
        if damage == "missing":
            path.unlink()
    with pytest.raises(BadImage, match=r"2\.png"):
        images_of(encoder, pictures, tmp_path / "cache")
    capsys.readouterr()
    features = images_of(encoder, pictures, tmp_path / "cache", "skip")
    errors = capsys.readouterr().err
    assert errors.count("skipped: ") == 2
    assert str(pictures[12].path) in errors
    assert features.missing == {i: str(pictures[i].path) for i in (12, 16)}
    for i in pictures.keys() - {12, 16}:
        np.testing.assert_allclose(row(features, i), row(whole, i), atol=1e-5)
    with pytest.raises(BadImage, match=r"2\.png"):  # a store written with "skip" does not hide the error
        images_of(encoder, pictures, tmp_path / "cache")
    again = images_of(encoder, pictures, tmp_path / "cache", "skip")
    assert again.missing == features.missing


def test_a_cell_without_an_image_is_skipped_too(encoder: FrozenClip, tmp_path: Path) -> None:
    def no_bytes() -> bytes:
        raise BadImage("row 1: the image cell holds no bytes")

    features = images_of(encoder, {1: EncodedImage("row 1", no_bytes)}, tmp_path, "skip")
    assert features.missing == {1: "row 1"}


def test_a_store_of_missing_images_only_has_no_rows(encoder: FrozenClip, tmp_path: Path) -> None:
    nowhere = {i: FileImage(tmp_path / f"{i}.png") for i in range(4)}
    features = images_of(encoder, nowhere, tmp_path / "cache", "skip")
    assert sorted(features.missing) == [0, 1, 2, 3]
    assert images_of(encoder, nowhere, tmp_path / "cache", "skip").store.width == encoder.vision.width


def test_questions_about_missing_images_are_left_out_and_counted(
    encoder: FrozenClip, pictures: dict[int, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = ({"answer": "yes", "answer_id": 1},) * 10
    questions = tuple(Question(i, i, f"is it {i}?", answer, "yes", "yes/no", "is") for i in pictures)
    vocabulary: AnswerVocabulary = build_vocabulary(questions, min_questions=1)
    texts = texts_of(encoder, [q.question for q in questions], tmp_path)
    whole = VQADataset(VQAData(questions, pictures), images_of(encoder, pictures, tmp_path), texts, vocabulary)
    pictures[13].path.write_bytes(b"")
    images = images_of(encoder, pictures, tmp_path, "skip")
    capsys.readouterr()
    fewer = VQADataset(VQAData(questions, pictures), images, texts, vocabulary)
    assert "1 questions are left out" in capsys.readouterr().err
    assert [q.question_id for q in fewer.questions] == [i for i in pictures if i != 13]
    kept = [k for k, q in enumerate(whole.questions) if q.question_id != 13]
    a, b = whole[kept], fewer[list(range(6))]
    torch.testing.assert_close(a.image.features, b.image.features)
    torch.testing.assert_close(a.text.features, b.text.features)
    torch.testing.assert_close(a.targets, b.targets)


def test_texts_longer_than_the_context_are_cut_off_and_counted(
    encoder: FrozenClip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = texts_of(encoder, [*TEXTS, LONG, LONG + "red"], tmp_path)
    assert "2 texts are longer than the encoder's 40 tokens" in capsys.readouterr().err
    assert len(row(features, LONG)) == 40
    assert encoder.tokenize([LONG]).ids.tolist() == encoder.tokenizer([LONG]).tolist()  # the end token is kept
    texts_of(encoder, TEXTS, tmp_path / "other")
    assert "longer" not in capsys.readouterr().err
    short = texts_of(encoder, TEXTS, tmp_path / "other")
    for text in TEXTS:
        np.testing.assert_allclose(row(features, text), row(short, text), atol=1e-5)


def test_an_encoder_whose_weights_were_freed_encodes_again_what_is_damaged(
    pictures: dict[int, Any], tmp_path: Path
) -> None:
    config = encoding(weights="embedded")
    encoder = load_encoder(config)
    before, size = encoder.fingerprint(), sum(weight.nbytes for weight in encoder.parameters() if not weight.is_meta)
    images = image_features(encoder, config, pictures, tmp_path, "fail", CPU)
    texts = text_features(encoder, config, TEXTS, tmp_path, CPU)
    expected = [features.store.gather(np.arange(3)).features for features in (images, texts)]
    release(encoder)
    assert sum(weight.nbytes for weight in encoder.parameters() if not weight.is_meta) < size / 2
    assert encoder.fingerprint() == before
    assert not encoder.vision.shared_projection.is_meta
    for path in (tmp_path / "stores").glob("*/*.safetensors"):
        path.unlink()
    again = [features.store for features in (images, texts)]
    for store in again:
        store._shards[0]._verified[:] = bytes(len(store._shards[0]._verified))
    shard._opened.cache_clear()
    for features, rows in zip(again, expected, strict=True):
        assert torch.equal(features.gather(np.arange(3)).features, rows)
    assert not encoder.released
    assert encoder.fingerprint() == before
    assert not any(weight.requires_grad for weight in encoder.parameters())
