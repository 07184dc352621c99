"""Tests of Muon and Adam as one optimizer: equal to two separate optimizers, also after loading a state."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from clipmapper.config.schema import OptimConfig
from clipmapper.training.module import Muon, MuonAdam, build_optimizer


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 3))


def split(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = list(model.parameters())
    return [p for p in parameters if p.ndim == 2], [p for p in parameters if p.ndim != 2]


def loss(model: nn.Module, seed: int) -> Tensor:
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    return model(x).square().mean()


def train(model: nn.Module, optimizers: list[torch.optim.Optimizer], steps: range) -> None:
    for step in steps:
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss(model, step).backward()
        for optimizer in optimizers:
            optimizer.step()


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=0)


def test_the_combined_optimizer_equals_two_separate_ones() -> None:
    one, two = make_model(), make_model()
    train(one, [MuonAdam(*split(one), lr=0.01, weight_decay=0.1)], range(4))
    matrices, rest = split(two)
    muon = Muon(matrices, lr=0.01, weight_decay=0.1, iterations=3)
    train(two, [muon, torch.optim.Adam(rest, lr=0.01, weight_decay=0.1)], range(4))
    assert_same(one, two)


def test_training_continues_unchanged_from_a_state_dict() -> None:
    whole, first = make_model(), make_model()
    train(whole, [MuonAdam(*split(whole), lr=0.01, weight_decay=0.0)], range(6))
    optimizer = MuonAdam(*split(first), lr=0.01, weight_decay=0.0)
    train(first, [optimizer], range(3))
    second = copy.deepcopy(first)
    resumed = MuonAdam(*split(second), lr=0.5, weight_decay=0.0)
    resumed.load_state_dict(optimizer.state_dict())
    train(second, [resumed], range(3, 6))
    assert_same(whole, second)


def test_a_scheduler_changes_the_learning_rate_of_both_parts() -> None:
    model = make_model()
    before = copy.deepcopy(model)
    optimizer = MuonAdam(*split(model), lr=0.01, weight_decay=0.0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.0)
    train(model, [optimizer], range(2))
    assert_same(model, before)


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = nn.ModuleDict({"head": nn.Linear(4, 2), "project": nn.Linear(4, 4), "block": nn.Linear(4, 4)})
    config = OptimConfig(name="muon", lr=0.1, batch_size=1, warmup_steps=0, decay_start=0, weight_decay=0.0)
    groups = build_optimizer(model, config).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    assert [id(p) for p in groups[0]["params"]] == [id(model["block"].weight)]
    assert isinstance(build_optimizer(model, OptimConfig("adam", 0.1, 1, 0, 0, 0.0)), torch.optim.Adam)
