"""What the Lightning modules of all tasks share: seeds by step, the learning rate's course, and the optimizers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from clipmapper.config.schema import OptimConfig

Model = TypeVar("Model", bound=nn.Module)


class MapperTraining(pl.LightningModule, Generic[Model]):
    """Trains ``model`` on batches of frozen features; ``card`` travels in every checkpoint and says what it holds."""

    model: Model

    def __init__(self, model: Model, optim: OptimConfig, max_steps: int, card: dict[str, Any], seed: int):
        super().__init__()
        self.model = model
        self.optim, self.max_steps, self.card, self.seed = optim, max_steps, card, seed

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Dropout is a function of the seed and the step, so that a resumed run draws what it would have drawn."""
        torch.manual_seed((self.seed << 32) + self.global_step * self.trainer.world_size + self.global_rank)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self.model, self.optim)
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.optim, self.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["clipmapper"] = self.card


def learning_rate_factor(step: int, optim: OptimConfig, max_steps: int) -> float:
    """0..1: linear warm-up, constant, then a half cosine from ``decay_start`` to ``max_steps``."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if step < optim.decay_start:
        return warm
    done = (step - optim.decay_start) / max(1, max_steps - optim.decay_start)
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


# The quintic whose repeated use brings singular values near 1 (Jordan et al. 2024, "Muon").
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Steps of momentum, each matrix's step made nearly orthogonal (Jordan et al. 2024).

    A step is scaled to the size of Adam's, so that one learning rate serves both (Liu et al. 2025). Torch's own takes
    the matrices one by one; a mapper has dozens of small ones, and that cost a fifth of its training.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float, iterations: int = 5):
        """``iterations`` of the quintic a step."""
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95, "iterations": iterations}
        super().__init__(matrices, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; ``closure`` reevaluates the model and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in alike.items():
                steps = orthogonal(torch.stack([self._momentum(m, group) for m in matrices]), group["iterations"])
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(step, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))
        return loss

    def _momentum(self, matrix: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """The gradient with Nesterov's momentum."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        average = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(average, group["momentum"])


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """U S Vᵀ to nearly U Vᵀ for each of [K, n, m], in bfloat16, by Newton and Schulz's iteration: S ends about 1."""
    a, b, c = _QUINTIC
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


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
