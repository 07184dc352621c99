"""The optimizers a config can name: Adam, as in the paper, or Muon for the blocks' matrices with Adam for the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from clipmapper.config.tasks import OptimConfig
from clipmapper.training.muon import Muon


class MuonAdam(torch.optim.Optimizer):
    """Muon on matrices and Adam on everything else, as one optimizer with one state."""

    def __init__(self, matrices: list[nn.Parameter], rest: list[nn.Parameter], lr: float, weight_decay: float):
        self._muon = Muon(matrices, lr=lr, weight_decay=weight_decay, iterations=3)
        self._adam = torch.optim.Adam(rest, lr=lr, weight_decay=weight_decay)
        super().__init__([*self._muon.param_groups, *self._adam.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of each; ``closure`` reevaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()
        self._adam.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """The two work on this optimizer's groups and state, which is what checkpoints hold."""
        self._muon.param_groups, self._adam.param_groups = self.param_groups[:1], self.param_groups[1:]
        self._muon.state = self._adam.state = self.state


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer ``config.name`` names, over all of the model's parameters."""
    if config.name == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    matrices, rest = split_matrices(model, ("project", "head"))
    return MuonAdam(matrices, rest, config.lr, config.weight_decay)


def split_matrices(model: nn.Module, left_out: Sequence[str]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What Muon trains, and the rest.

    Muon trains matrices between hidden layers: embeddings, projections and heads are to be named in ``left_out``, by a
    part of their parameters' names.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and not any(part in name for part in left_out)
        (matrices if inner else rest).append(parameter)
    return matrices, rest
