"""Check that a checkpoint holds what a training needs to go on: weights, optimizer, schedule, loops, callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytorch_lightning as pl
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import TypedDict

from clipmapper.errors import UserError
from clipmapper.storage.validation import check


class OptimizerState(TypedDict):
    """State of an optimizer: a dictionary for each number of a parameter, and the groups of numbers."""

    state: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]


#: What Lightning's checkpoints hold, beside the card.
TrainingState = TypedDict(
    "TrainingState",
    {
        "epoch": Annotated[int, Field(ge=0)],
        "global_step": Annotated[int, Field(ge=0)],
        "pytorch-lightning_version": str,
        "state_dict": dict[str, Any],
        "optimizer_states": Annotated[list[OptimizerState], Field(min_length=1, max_length=1)],
        "lr_schedulers": Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1)],
        "loops": dict[str, dict[str, Any]],
        "callbacks": dict[str, dict[str, Any]],
    },
)
_FIX = "it is damaged or edited: resume another run, or train again"


def check_resumable(content: Mapping[str, Any], trainer: pl.Trainer, module: pl.LightningModule, path: Path) -> None:
    """Check that a checkpoint fits the training that it is to continue, before anything of it is loaded.

    Args:
        content: The content of the checkpoint.
        trainer: The Trainer, which has not trained yet.
        module: The module to train, whose weights and optimizer the checkpoint must fit.
        path: The checkpoint, for messages.

    Raises:
        UserError: A part is missing, or is of another kind or shape.
    """
    at = f"checkpoint {path}"
    check(TrainingState, content, at, _FIX)
    settings: Any = module.configure_optimizers()
    optimizer, schedule = settings["optimizer"], settings["lr_scheduler"]["scheduler"]
    fresh = {
        "state_dict": module.state_dict(),
        "lr_schedulers": [schedule.state_dict()],
        "loops": {"fit_loop": trainer.fit_loop.state_dict()},
        "callbacks": {each.state_key: each.state_dict() for each in trainer.checkpoint_callbacks},
    }
    for problem in (*_differences(fresh, content, ""), *_of_optimizer(optimizer, content["optimizer_states"][0])):
        raise UserError(f"{at}: {problem}; {_FIX}")


def _differences(fresh: Any, held: Any, at: str) -> Iterator[str]:
    """Yield what a state lacks, or has in another kind or shape, in comparison with a fresh one."""
    if isinstance(fresh, Mapping):
        if not isinstance(held, Mapping):
            yield f"{at} is not a dictionary"
            return
        for name, each in fresh.items():
            place = f"{at}.{name}" if at else str(name)
            if name not in held:
                yield f"{place} is missing"
            else:
                yield from _differences(each, held[name], place)
    elif isinstance(fresh, list):
        if not isinstance(held, list) or len(held) != len(fresh):
            yield f"{at} is not a list of {len(fresh)}"
        else:
            for number, (one, other) in enumerate(zip(fresh, held, strict=True)):
                yield from _differences(one, other, f"{at}[{number}]")
    elif isinstance(fresh, Tensor) and fresh.ndim:
        if not isinstance(held, Tensor) or held.shape != fresh.shape or held.dtype != fresh.dtype:
            yield f"{at} is not a tensor {list(fresh.shape)} of {str(fresh.dtype).removeprefix('torch.')}"
    elif isinstance(fresh, bool | int | float | str) and not _alike(fresh, held):
        yield f"{at} is not {'a text' if isinstance(fresh, str) else 'a number, or true or false'}"


def _alike(fresh: bool | int | float | str, held: Any) -> bool:
    return isinstance(held, str) if isinstance(fresh, str) else isinstance(held, bool | int | float)


def _of_optimizer(optimizer: torch.optim.Optimizer, held: Mapping[str, Any]) -> Iterator[str]:
    """Yield what differs between the groups and states of an optimizer and those of a checkpoint."""
    at = "optimizer_states[0]"
    fresh = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    yield from _differences(fresh, held["param_groups"], f"{at}.param_groups")
    for number, state in held["state"].items():
        if not 0 <= number < len(parameters):
            yield f"{at}.state.{number} belongs to no parameter"
            continue
        for name, value in state.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameters[number].shape:
                yield f"{at}.state.{number}.{name} is not a tensor {list(parameters[number].shape)}"
    names = {frozenset(state) for state in held["state"].values()}
    trained = {number for group in held["param_groups"] for number in group["params"]}
    if any(not name for name in names) or (held["state"].keys() - trained):
        yield f"{at}.state lacks the averages of a parameter"
