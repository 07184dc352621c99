"""How many images are encoded together, and reading ahead of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import torch
from models import random_encoder

from clipmapper.features.at_once import images_at_once
from clipmapper.features.images import read_ahead


@pytest.mark.parametrize("given", [1, 7, 300])
def test_the_config_comes_first(given: int) -> None:
    assert images_at_once(given, random_encoder().vision, torch.device("cuda")) == given


def test_a_cpu_encodes_eight_images_together() -> None:
    assert images_at_once(None, random_encoder().vision, torch.device("cpu")) == 8


@pytest.mark.parametrize(("free", "expected"), [(0, 8), (1 << 20, 8), (1 << 25, 256), (1 << 35, 512)])
def test_a_gpu_encodes_as_many_as_fit_into_a_quarter_of_its_free_memory(
    free: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder has 10 tokens of 32 channels, so an image takes 10 · 32 · 64 = 20,480 bytes."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1 << 40))
    assert images_at_once(None, random_encoder().vision, torch.device("cuda")) == expected


def test_the_next_batch_is_read_while_one_is_used() -> None:
    done: list[str] = []

    def start(batch: Sequence[int]) -> Iterator[str]:
        done.append(f"reads {batch}")
        return (str(item) for item in batch)

    for batch, read in read_ahead([[1, 2], [3], [4, 5]], start):
        assert read == [str(item) for item in batch]
        done.append(f"uses {batch}")
    assert done == ["reads [1, 2]", "reads [3]", "uses [1, 2]", "reads [4, 5]", "uses [3]", "uses [4, 5]"]
    assert list(read_ahead([], start)) == []
