"""Loading of any model: the state of torch's generator, and the hash of a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import sample_models
import torch
from any_model_runs import of_table
from tiny_runs import composed
from torch import Tensor

from clipmapper.any_model.load import LoadedModel, load_model
from clipmapper.cli import typed
from perturbation.config import PerturbModelConfig

pytest.importorskip("transformers")


def test_what_a_model_draws_depends_on_the_seed_of_the_run(tmp_path: Path) -> None:
    model, processor = sample_models.clip()
    for each in (model, processor):
        each.save_pretrained(tmp_path)

    def drawn(state: int, seed: int) -> Tensor:
        torch.manual_seed(state)
        load_model(typed(composed("perturb", *of_table(tmp_path, tmp_path), f"seed={seed}"), PerturbModelConfig))
        return torch.rand(4)

    with torch.random.fork_rng():
        first = drawn(1, 0)
        assert torch.equal(drawn(2, 0), first)
        assert not torch.isclose(drawn(1, 5), first).any()


def test_the_hash_changes_with_a_weight_the_config_and_the_processor() -> None:
    def hashed(change: str = "") -> str:
        model, processor = sample_models.clip()
        if change == "weight":
            model.logit_scale.data += 1e-3
        elif change == "config":
            model.config.projection_dim += 1
        elif change == "processor":
            processor.image_processor.image_mean = [0.0, 0.0, 0.0]
        return LoadedModel(model, processor, "tiny", dual=True).fingerprint()

    assert hashed() == hashed()
    assert len({hashed(change) for change in ("", "weight", "config", "processor")}) == 4
