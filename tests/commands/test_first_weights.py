"""The initial weights of a new model follow the mapper's config for every task."""

from __future__ import annotations

import pytest
import torch
from tiny_runs import Tiny
from torch import Tensor

from clipmapper.mapper.blocks import AttentionSublayer
from clipmapper.tasks import TASKS


def attentions(tiny: Tiny, task: str, mapper: str, start: str) -> list[tuple[Tensor, Tensor]]:
    """Return the weights of query and key of every attention of a new model."""
    config = tiny.config(f"task={task}", f"mapper={mapper}", "mapper.layers=2", f"mapper.start={start}")
    model = TASKS[task].module(config, TASKS[task].data(config)).model
    blocks = [module for module in model.modules() if isinstance(module, AttentionSublayer)]
    return [(block.query.weight, block.key_value.weight[: len(block.query.weight)]) for block in blocks]


@pytest.mark.parametrize("task", ["vqa", "caption"])
def test_mapper_b_starts_with_queries_equal_to_keys(tiny: Tiny, task: str) -> None:
    for query, key in attentions(tiny, task, "b", "aligned"):
        assert torch.equal(query, key)


@pytest.mark.parametrize("task", ["vqa", "caption"])
def test_every_second_block_of_mapper_a_starts_with_reflected_keys(tiny: Tiny, task: str) -> None:
    """A reflection changes one direction, so the difference of keys and queries has rank 1, or 0 without one."""
    ranks = []
    for query, key in attentions(tiny, task, "a", "aligned"):
        gain = query.norm() / key.norm()
        ranks.append(int(torch.linalg.matrix_rank(key * gain - query, atol=1e-4)))
    assert ranks == [0, 1]


@pytest.mark.parametrize("task", ["vqa", "caption"])
def test_random_weights_have_different_queries_and_keys(tiny: Tiny, task: str) -> None:
    for query, key in attentions(tiny, task, "a", "random"):
        assert not torch.allclose(query, key, atol=1e-2)
