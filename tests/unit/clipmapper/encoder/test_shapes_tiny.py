"""The token table of the embedded model: its file contains only the trained rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import bpe, loaded, random_clip, refusal, saved
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipmapper.encoder.shapes_tiny import (
    EMBEDDED_MODEL,
    TOKEN_STD,
    register_embedded,
    restore_token_table,
    seeded_token_table,
    shorten_token_table,
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.integers(0, 99), min_size=1), st.integers(0, 10**6))
def test_shortening_a_token_table_keeps_the_trained_rows(trained: set[int], seed: int) -> None:
    ids = torch.tensor(sorted(trained, key=lambda i: (i * 7 + seed) % 101))
    whole = {"token_embedding.weight": torch.randn(100, 6), "ln_final.bias": torch.randn(3)}
    short = shorten_token_table(whole, ids)
    assert sum(t.numel() for n, t in short.items() if n.startswith("token_embedding")) == len(ids) * 7
    restored = restore_token_table(short, tokens=100)
    assert restored.keys() == whole.keys()
    assert torch.equal(restored["ln_final.bias"], whole["ln_final.bias"])
    table = restored["token_embedding.weight"]
    assert torch.equal(table[ids], whole["token_embedding.weight"][ids])
    others = [i for i in range(100) if i not in trained]
    assert torch.equal(table[others], seeded_token_table(100, 6)[others])


def test_untrained_rows_are_reproducible_and_all_different() -> None:
    table = seeded_token_table(49408, 128)
    assert torch.equal(table, seeded_token_table(49408, 128))
    assert len(table.unique(dim=0)) == 49408
    assert abs(float(table.std()) - TOKEN_STD) < 1e-4
    torch.testing.assert_close(table[0, :3], torch.tensor([0.0, 0.0, 0.0]), atol=1, rtol=0)


def test_a_complete_table_stays_unchanged() -> None:
    state = {"token_embedding.weight": torch.randn(5, 2)}
    assert restore_token_table(state) is state


def test_a_shortened_file_loads_like_the_complete_one(tmp_path: Path) -> None:
    register_embedded()
    model = random_clip(EMBEDDED_MODEL)
    used = model_ids(["a red circle"])
    table = seeded_token_table(49408, 128)
    table[used] = model.token_embedding.weight[used]
    model.token_embedding.weight.copy_(table)
    whole = loaded(EMBEDDED_MODEL, saved(model, tmp_path / "whole.safetensors"))
    short_state = shorten_token_table(load_file(tmp_path / "whole.safetensors"), used)
    save_file(short_state, tmp_path / "short.safetensors")
    short = loaded(EMBEDDED_MODEL, tmp_path / "short.safetensors")
    assert (tmp_path / "short.safetensors").stat().st_size * 3 < (tmp_path / "whole.safetensors").stat().st_size
    assert short.fingerprint() == whole.fingerprint()
    save_file(short_state | {"token_embedding.ids": used + 49408}, tmp_path / "outside.safetensors")
    assert EMBEDDED_MODEL in refusal(EMBEDDED_MODEL, tmp_path / "outside.safetensors")


def model_ids(texts: list[str]) -> Tensor:
    return torch.tensor(sorted({i for text in texts for i in bpe().encode(text)} | {49406, 49407}))
