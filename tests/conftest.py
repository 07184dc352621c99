"""Fixtures that tests of several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest

REAL_MINI = Path(__file__).parents[2] / "shared" / "data" / "real_mini"


@pytest.fixture
def real_mini() -> Path:
    """144 COCO photos with official VQAv2 and caption files; they may not be shipped, so not everyone has them."""
    if not REAL_MINI.is_dir():
        pytest.skip("the COCO photos are not beside this checkout")
    return REAL_MINI
