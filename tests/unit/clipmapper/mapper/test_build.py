"""Tests of the aligned start: the projections are CLIP's, and queries equal keys."""

from __future__ import annotations

import pytest
import torch
from schemas import mapper_config

from clipmapper.mapper.blocks import AttentionSublayer
from clipmapper.mapper.build import build_mapper, start_aligned


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("shared", [8, 16, 24], ids=["narrower", "equal", "wider"])
def test_projections_are_the_shared_ones_and_queries_equal_keys(name: str, shared: int) -> None:
    torch.manual_seed(0)
    mapper = build_mapper(mapper_config(name, layers=2, width=16, heads=2), 10, 12, 5, 7)
    before = mapper.project_image.linear.weight.clone()
    image, text = torch.randn(10, shared), torch.randn(12, shared)
    start_aligned(mapper, image, text)
    count = min(16, shared)
    torch.testing.assert_close(mapper.project_image.linear.weight[:count], image.T[:count])
    torch.testing.assert_close(mapper.project_text.linear.weight[:count], text.T[:count])
    torch.testing.assert_close(mapper.project_image.linear.weight[count:], before[count:])
    sublayers = [module for module in mapper.modules() if isinstance(module, AttentionSublayer)]
    assert sublayers
    for sublayer in sublayers:
        query, key = sublayer.query.weight, sublayer.key_value.weight[:16]
        torch.testing.assert_close(query, key)
        torch.testing.assert_close(query @ query.T, torch.eye(16), atol=1e-5, rtol=0)
