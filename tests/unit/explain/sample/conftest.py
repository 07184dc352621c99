"""Fixtures of the tests of ``explain.explain``."""

import pytest
import torch


@pytest.fixture
def _patches_in_order(monkeypatch):
    """Make ViLT, which draws its patches in random order, draw them row by row."""
    monkeypatch.setattr(torch, "multinomial", lambda weights, count, **_: torch.arange(count) % len(weights))
