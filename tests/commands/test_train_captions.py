"""Training of captions: the loss, what the model learns, the best checkpoint, and resuming a killed run."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from killed_runs import killed_at
from tiny_runs import Tiny, assert_same_weights, checkpoint_of, falls, weights_of

from clipmapper.config.schema import TrainConfig
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.errors import UserError
from clipmapper.features import tokens
from clipmapper.features.tokens import caption_tokens
from clipmapper.files import read_json
from clipmapper.storage import kept
from clipmapper.tasks.caption.config import CaptionTaskConfig
from clipmapper.tasks.caption.data import CaptionDataset, prepare, prepare_captions, prepare_images
from clipmapper.tasks.caption.decoding import caption_images
from clipmapper.tasks.caption.evaluation import clip_values
from clipmapper.tasks.caption.model import CLIPMapperCaption, build_caption, load_caption
from clipmapper.tasks.caption.training import CaptionTraining, next_token_accuracy, next_token_loss
from clipmapper.tasks.caption.vocabulary import IGNORED
from clipmapper.tasks.vqa.model import load_vqa

QUICK = ("task=caption", "task.val_images=4", "trainer.log_every_n_steps=1", "mapper.dropout=0.2")


@pytest.fixture(autouse=True)
def _without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide Java, which takes seconds to start and is needed by some metrics; these are tested elsewhere."""
    monkeypatch.setenv("PATH", "")


def logged(run: Path, column: str) -> dict[int, float]:
    with (run / "log" / "metrics.csv").open() as file:
        return {int(row["step"]): float(row[column]) for row in csv.DictReader(file) if row[column]}


def dataset(config: TrainConfig, part: str = "train", kind: str = "training") -> CaptionDataset:
    prepared = prepare_images(config)
    return prepare_captions(config, prepared, kind).dataset(prepared.images(part), part)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_equals_a_loop_over_tokens(smoothing: float) -> None:
    draw = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 4, 5, generator=draw, dtype=torch.float64)
    targets = torch.tensor([[0, 4, 2, 1], [3, IGNORED, IGNORED, IGNORED], [1, 1, IGNORED, IGNORED]])
    losses = []
    for b in range(3):
        for i in range(4):
            if targets[b, i] == IGNORED:
                continue
            powers = [math.exp(float(x)) for x in logits[b, i]]
            logs = [math.log(power / sum(powers)) for power in powers]
            wanted = [smoothing / 5 + (1 - smoothing) * (c == int(targets[b, i])) for c in range(5)]
            losses.append(-sum(w * log for w, log in zip(wanted, logs, strict=True)))
    assert len(losses) == 7
    found = float(next_token_loss(logits, targets, smoothing))
    assert found == pytest.approx(sum(losses) / 7, rel=1e-12)


def test_the_accuracy_counts_only_tokens_with_a_target() -> None:
    logits = torch.eye(3)[torch.tensor([[0, 1, 2], [2, 2, 2]])]
    targets = torch.tensor([[0, 2, 2], [1, IGNORED, IGNORED]])
    assert float(next_token_accuracy(logits, targets)) == 0.5
    nothing = torch.full((2, 3), IGNORED)
    assert float(next_token_accuracy(logits, nothing)) == float(next_token_loss(logits, nothing)) == 0


def test_position_i_sees_the_text_up_to_i_and_its_target_is_token_i_plus_1(tiny: Tiny) -> None:
    """The cached feature at a position equals that of the shortened caption: later words change no earlier one."""
    config = tiny.config("task=caption")
    data = dataset(config)
    encoder = prepare_images(config).encoder
    rows = [3, 50, 7]
    batch = data[rows]
    ids = sorted({int(i) for text in data.captions for i in encoder.tokenize([text]).ids[0] if i != 49406})
    for k, row in enumerate(rows):
        tokens = encoder.tokenize([data.captions[row]]).ids
        length = tokens.shape[1] - 1
        assert batch.text.valid[k].tolist() == [i < length for i in range(batch.text.valid.shape[1])]
        assert [ids[c] for c in batch.targets[k, :length]] == tokens[0, 1:].tolist()
        assert set(batch.targets[k, length:].tolist()) <= {IGNORED}
        for i in range(length):
            alone = encoder.text(tokens[:, : i + 1], torch.ones(1, i + 1, dtype=torch.bool)).features[0, -1]
            torch.testing.assert_close(batch.text.features[k, i], alone, rtol=1e-4, atol=1e-5)


def test_every_caption_is_shown_with_its_own_image(tiny: Tiny) -> None:
    config = tiny.config("task=caption")
    prepared = prepare_images(config)
    images = prepared.images("train")
    data = prepare_captions(config, prepared, "training").dataset(images, "train")
    assert len(data) == 200
    for row in (0, 7, 199):
        image = images.images[row // 5]
        assert data.captions[row] == image.captions[row % 5]
        own = prepared.features.store.gather(np.array([prepared.features.place[image.image_id]]))
        assert torch.equal(data[[row]].image.features, own.features)


def test_the_blind_baseline_always_sees_the_same_image(tiny: Tiny) -> None:
    config = tiny.config("task=caption", "task.sees=text")
    batch = dataset(config)[list(range(0, 200, 40))]
    assert torch.equal(batch.image.features, batch.image.features[:1].expand_as(batch.image.features))
    assert len({tuple(row.tolist()) for row in batch.targets}) == 5


def test_tokens_of_captions_are_kept_and_the_truncated_ones_counted(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(tiny.config("task=caption").encoder)
    monkeypatch.setattr(kept, "SMALLEST", 0)
    monkeypatch.setattr(tokens, "_AT_ONCE", 2)
    texts = ["word " * 200, "one", "two 🎉", "word " * 300, "one"]
    for again in range(2):
        if again:
            monkeypatch.setattr(FrozenClip, "tokenize", None)
        found = caption_tokens(encoder, texts, tmp_path)
        assert found.truncated == 2
        assert [len(found[k]) for k in range(len(found))] == [40, 3, 4, 40, 3]
        assert found[1].tolist() == [*map(int, (encoder.tokenizer.sot_token_id, found[4][1], found[4][2]))]
        assert found.occurring(np.array([1, 2, 1])) == sorted({*found[1].tolist(), *found[2].tolist()})
    with pytest.raises(TypeError):  # other captions are tokenized
        caption_tokens(encoder, texts[1:], tmp_path)


def test_captions_are_decoded_and_scored_without_the_blocks_of_the_image_encoder(tiny: Tiny) -> None:
    config = tiny.config("task=caption")
    data = prepare(config)
    freed, whole = data.prepared.encoder, load_encoder(config.encoder)
    assert all(weight.is_meta for block in freed.vision.blocks for weight in block.parameters())
    assert freed.fingerprint() == whole.fingerprint()
    mapper, images = build_caption(config.mapper, whole, len(data.captions.vocabulary)), data.images["val"]
    rows = list(range(len(images)))
    said, expected = (
        caption_images(CLIPMapperCaption(encoder, mapper, data.captions.vocabulary), images, rows, 6)
        for encoder in (freed, whole)
    )
    assert said == expected
    given = {image.image_id: text for image, text in zip(images.images, said, strict=True)}
    assert clip_values(freed, images, given) == clip_values(whole, images, given)


@pytest.mark.slow
@pytest.mark.parametrize("mapper", ["a", "b"])
def test_a_small_dataset_is_memorised(tiny: Tiny, tmp_path: Path, mapper: str) -> None:
    steps = ("trainer.max_steps=150", "trainer.val_check_interval=150", "trainer.log_every_n_steps=10")
    size = ("mapper.width=32", "task.optim.lr=3e-3", "task.optim.warmup_steps=10", "task.optim.batch_size=64")
    tiny.train(tmp_path / "run", "task=caption", "task.val_images=4", f"mapper={mapper}", *steps, *size)
    losses = list(logged(tmp_path / "run", "train/loss").values())
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("step", [4, pytest.param(6, marks=pytest.mark.slow)])
def test_a_resumed_run_equals_one_that_was_not_killed(tiny: Tiny, tmp_path: Path, step: int) -> None:
    """The run is killed right after a validation, and between two; weights, losses and scores are compared."""
    whole, stopped, resumed = (tmp_path / name for name in ("whole", "stopped", "resumed"))
    tiny.train(whole, *QUICK)
    with killed_at(CaptionTraining, step):
        tiny.train(stopped, *QUICK)
    tiny.train(resumed, *QUICK, f"resume={stopped}")
    for name in ("last", "best"):
        assert_same_weights(weights_of(resumed, name), weights_of(whole, name))
    for column in ("train/loss", "val/CIDEr", "val/loss"):
        expected = {at: value for at, value in logged(whole, column).items() if at >= 4}
        assert logged(resumed, column) == expected


@pytest.fixture(scope="module")
def stopped_run(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        run = tmp_path_factory.mktemp("stopped") / "run"
        tiny.train(run, *QUICK)
    return run


@pytest.mark.parametrize(("best_by", "hook"), [("CIDEr", "on_validation_epoch_end"), ("accuracy", "validation_step")])
def test_the_best_checkpoint_has_the_highest_value(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, best_by: str, hook: str
) -> None:
    falls(monkeypatch, CaptionTraining, hook, f"val/{best_by}")
    tiny.train(tmp_path / "run", *QUICK, f"task.best_by={best_by}")
    assert [checkpoint_of(tmp_path / "run", name)["global_step"] for name in ("best", "last")] == [4, 8]


def test_the_validation_loss_counts_every_token_once(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny.train(run, *QUICK)
    config = tiny.config(*QUICK)
    model = load_caption(run / "checkpoints" / "last.ckpt", config)
    data = dataset(config, "val")
    total, count = 0.0, 0
    for row in range(len(data)):
        batch = data[[row]]
        logits = model.trained(batch.image, batch.text)
        tokens = int((batch.targets != IGNORED).sum())
        total += float(next_token_loss(logits, batch.targets)) * tokens
        count += tokens
    assert logged(run, "val/loss")[7] == pytest.approx(total / count, rel=1e-5)


def test_a_checkpoint_describes_itself_and_is_refused_by_another_task(stopped_run: Path, tiny: Tiny) -> None:
    content = checkpoint_of(stopped_run, "best")
    about = content["clipmapper"]
    assert (about["task"], about["vocabulary"], 49407 in about["tokens"]) == ("caption", "training", True)
    assert all(name.startswith("model.") for name in content["state_dict"])
    path = stopped_run / "checkpoints" / "best.ckpt"
    with pytest.raises(UserError, match="has task=caption, not vqa: give another checkpoint"):
        load_vqa(path)
    with pytest.raises(UserError, match=r"has task\.vocabulary=training, the config task\.vocabulary=all"):
        load_caption(path, tiny.config(*QUICK, "task.vocabulary=all"))
    assert load_caption(path).vocabulary.ids == tuple(about["tokens"])


def test_the_image_ids_of_each_split_are_written(stopped_run: Path) -> None:
    noted = read_json(stopped_run / "split.json")
    assert {part: len(ids) for part, ids in noted.items()} == {"train": 40, "val": 10, "test": 10}


def test_the_default_run(tiny: Tiny) -> None:
    config = tiny.config("task=caption", "trainer=default")
    assert isinstance(config.task, CaptionTaskConfig)
    assert (config.task.vocabulary, config.task.label_smoothing, config.task.optim.name) == ("training", 0, "muon")
