"""A caption checkpoint with random weights on the tests' tiny data, and captions put into its mouth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import Tiny

from clipmapper.checkpoint import card
from clipmapper.data.datasets import load_captions
from clipmapper.encoder.load import load_encoder
from clipmapper.tasks.caption.data import captions_of
from clipmapper.tasks.caption.model import build_caption
from clipmapper.tasks.caption.vocabulary import build_vocabulary

TASK = ("task=caption", "task.max_length=12", "task.vocabulary=all")
TEST_IMAGES = 10


def write_untrained(tiny: Tiny, folder: Path) -> Path:
    """Any sub-word can follow any other, so words have several; weights are large enough for every token to bear."""
    config = tiny.config(*TASK)
    encoder = load_encoder(config.encoder)
    captions = captions_of(load_captions(config.data).train.images)
    vocabulary = build_vocabulary("all", (encoder.tokenizer.encode(text) for text in captions), encoder.tokenizer)
    torch.manual_seed(3)
    model = build_caption(config.mapper, encoder, len(vocabulary))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.3)
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    path = folder / "untrained.ckpt"
    about = card(config, encoder) | {"tokens": list(vocabulary.ids)}
    torch.save({"clipmapper": about, "state_dict": weights}, path)
    return path


def says(patch: pytest.MonkeyPatch, tiny: Tiny, captions: Sequence[str]) -> None:
    """The model's next captions, whatever it is shown; the first again after the last."""
    tokenizer = load_encoder(tiny.config(*TASK).encoder).tokenizer
    number = count()

    def spoken(_: object, image: object, max_length: int) -> list[list[int]]:
        size = len(image.features)  # type: ignore[attr-defined]
        return [tokenizer.encode(captions[next(number) % len(captions)])[:max_length] for _ in range(size)]

    patch.setattr("clipmapper.tasks.caption.trained.greedy", spoken)


def words_of(ids: list[int], decoder: Any) -> list[list[int]]:
    """The places of each word's sub-words, by CLIP's mark of a word's end."""
    words: list[list[int]] = [[]]
    for place, number in enumerate(ids):
        words[-1].append(place)
        if decoder[number].endswith("</w>"):
            words.append([])
    return [word for word in words if word]
