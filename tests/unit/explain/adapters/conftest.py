"""What the tests of adapters share."""

import pytest
import torch


@pytest.fixture
def _patches_in_order(monkeypatch):
    """ViLT draws its patches in random order: here each draw gives them as they lie."""
    monkeypatch.setattr(torch, "multinomial", lambda weights, count, **_: torch.arange(count) % len(weights))
