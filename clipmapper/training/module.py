"""The shared part of all tasks' Lightning modules: seeds per step, the learning-rate schedule and the optimizers."""

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
    """Base of the Lightning modules that train a mapper on batches of frozen features.

    Subclasses define the loss (``training_step``, which also sets ``step_values``) and the validation measure
    (``validation_step``).

    Args:
        model: The model to train.
        optim: The optimizer's config.
        max_steps: Number of training steps.
        card: Description of the model and its training, which is stored in every checkpoint.
        seed: Seed of the run.
    """

    model: Model

    def __init__(self, model: Model, optim: OptimConfig, max_steps: int, card: dict[str, Any], seed: int):
        super().__init__()
        self.model = model
        self.optim, self.max_steps, self.card, self.seed = optim, max_steps, card, seed
        #: Values of the last step by name, on the device (:class:`~clipmapper.training.callbacks.step_log.StepLog`).
        self.step_values: dict[str, Tensor] = {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed torch by the run's seed and the step, so that a resumed run draws the same dropout masks."""
        several = self.trainer.accumulate_grad_batches
        number = self.global_step * several + batch_idx % several
        torch.manual_seed((self.seed << 32) + number * self.trainer.world_size + self.global_rank)

    def configure_optimizers(self) -> Any:
        """Return the config's optimizer with the schedule of :func:`learning_rate_factor`."""
        optimizer = build_optimizer(self.model, self.optim)
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: learning_rate_factor(step, self.optim, self.max_steps)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": factor, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, _: int) -> Any:
        """Move a batch by its own ``to`` method."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the card to the checkpoint."""
        checkpoint["clipmapper"] = self.card


def learning_rate_factor(step: int, optim: OptimConfig, max_steps: int) -> float:
    """Return the factor (0..1) of the learning rate at a step.

    It rises linearly for ``warmup_steps``, stays 1, then falls as half a cosine from ``decay_start`` to ``max_steps``.
    """
    warm = min(1.0, (step + 1) / max(1, optim.warmup_steps))
    if step < optim.decay_start:
        return warm
    done = (step - optim.decay_start) / max(1, max_steps - optim.decay_start)
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


# Coefficients of x, x³ and x⁵ in the polynomial that, applied repeatedly, brings singular values close to 1
# (Jordan et al. 2024, "Muon").
_QUINTIC = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """The Muon optimizer: momentum steps, each made a nearly orthogonal matrix (Jordan et al. 2024).

    Steps are scaled to the size of Adam's, so that both can use one learning rate (Liu et al. 2025). Matrices of equal
    shape are processed together: ``torch.optim.Muon`` processes them one by one, which took a fifth of the training
    time of a mapper with its dozens of small matrices.

    Args:
        matrices: The parameters, all of two dimensions.
        lr: Learning rate.
        weight_decay: Weight decay, decoupled from the gradient as in AdamW.
        iterations: Number of Newton-Schulz iterations per step.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float, iterations: int = 5):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": 0.95, "iterations": iterations}
        super().__init__(matrices, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all matrices that have a gradient; ``closure`` evaluates the model again and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                steps = orthogonal(torch.stack([self._momentum(m, group) for m in matrices]), group["iterations"])
                for matrix, step in zip(matrices, steps, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(step, alpha=-group["lr"] * 0.2 * math.sqrt(max(shape)))
        return loss

    def _momentum(self, matrix: nn.Parameter, group: dict[str, Any]) -> Tensor:
        """Return the gradient with Nesterov momentum, and update the momentum buffer."""
        assert matrix.grad is not None
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(matrix)
        average = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
        return matrix.grad.lerp(average, group["momentum"])


def orthogonal(matrices: Tensor, iterations: int) -> Tensor:
    """Return nearly orthogonal matrices, [K, n, m], with the singular vectors of the given ones.

    For U S Vᵀ the result is about U Vᵀ: Newton-Schulz iterations in bfloat16 bring all singular values close to 1.
    """
    a, b, c = _QUINTIC
    wide = matrices.shape[1] <= matrices.shape[2]
    x = (matrices if wide else matrices.mT).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x if wide else x.mT).to(matrices.dtype)


class MuonAdam(torch.optim.Optimizer):
    """Muon on some matrices and Adam on all other parameters, as one optimizer with one state.

    Args:
        matrices: Parameters that Muon trains.
        rest: Parameters that Adam trains.
        lr: Learning rate of both.
        weight_decay: Weight decay of both.
    """

    def __init__(self, matrices: list[nn.Parameter], rest: list[nn.Parameter], lr: float, weight_decay: float):
        self._muon = Muon(matrices, lr=lr, weight_decay=weight_decay, iterations=3)
        self._adam = torch.optim.Adam(rest, lr=lr, weight_decay=weight_decay)
        super().__init__([*self._muon.param_groups, *self._adam.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step of each; ``closure`` evaluates the model again and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._muon.step()
        self._adam.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the state of both optimizers from a checkpoint."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """Make both optimizers use the groups and state of this one, which are what checkpoints store."""
        self._muon.param_groups, self._adam.param_groups = self.param_groups[:1], self.param_groups[1:]
        self._muon.state = self._adam.state = self.state


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer that ``config.name`` names, for all parameters of the model."""
    if config.name == "adam":
        return torch.optim.Adam(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    matrices, rest = split_matrices(model, ("project", "head"))
    return MuonAdam(matrices, rest, config.lr, config.weight_decay)


def split_matrices(model: nn.Module, left_out: Sequence[str]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split a model's parameters into the matrices that Muon trains and all others.

    Args:
        model: The model.
        left_out: Parts of parameter names. Parameters whose name contains one are not for Muon; name the embeddings,
            projections and heads, since Muon is for matrices between hidden layers.

    Returns:
        The matrices, and all other parameters.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inner = parameter.ndim == 2 and not any(part in name for part in left_out)
        (matrices if inner else rest).append(parameter)
    return matrices, rest
