"""What the adapters share: checks of a model, the choice of its blocks, and methods replaced for one run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from explain.capture.needs import Needs
from explain.trace import TraceError

Layers = Collection[int] | Mapping[str, Collection[int]] | None  #: blocks to record in every stack, or by stack name


def checked_part(model: nn.Module, path: str) -> Any:
    """Return the submodule at a dotted path.

    Raises:
        TraceError: The model has no such submodule.
    """
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise TraceError(f"{type(model).__name__} has no {path}: the adapter does not support such a model") from error


def check_evaluation(model: nn.Module) -> None:
    """Raise :class:`TraceError` if a model is in training mode, in which dropout would change the explanation."""
    if model.training:
        raise TraceError(f"{type(model).__name__} is in training mode: call eval() before tracing it")


def chosen_blocks(layers: Layers, counts: Mapping[str, int]) -> dict[str, list[int]]:
    """Return the indices of the blocks to record in each stack of a model, in ascending order.

    Args:
        layers: Indices for every stack; or a mapping from stack to indices, which leaves out stacks that it does not
            contain; or None for all blocks.
        counts: Number of blocks in each stack.

    Raises:
        TraceError: A stack or a block does not exist, or no block is chosen.
    """
    if layers is None:
        return {stack: list(range(count)) for stack, count in counts.items()}
    named = layers if isinstance(layers, Mapping) else dict.fromkeys(counts, layers)
    for stack, blocks in named.items():
        if stack not in counts:
            raise TraceError(f"layers: unknown stack {stack!r}; choose one of {', '.join(map(repr, counts))}")
        if missing := sorted(set(blocks) - set(range(counts[stack]))):
            raise TraceError(f"layers: {stack} has no block {missing[0]}; choose from 0 to {counts[stack] - 1}")
    chosen = {stack: sorted(set(named.get(stack, ()))) for stack in counts}
    if not any(chosen.values()):
        raise TraceError("layers: no block is chosen")
    return chosen


def recorded_blocks(chosen: Sequence[int], needs: Needs) -> tuple[Sequence[int], int | None]:
    """Return the chosen blocks of a stack that are recorded, and the first one to be differentiated or None."""
    blocks = chosen if needs.all_steps else chosen[-1:]
    if not blocks:
        return blocks, None
    return blocks, blocks[0] if needs.gradients_of_all_steps else blocks[-1]


@contextmanager
def replaced(module: nn.Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of the module by ``function`` inside the block; restore the method afterwards."""
    own = vars(module)
    before = own.get(name)
    own[name] = function
    try:
        yield
    finally:
        del own[name]
        if before is not None:
            own[name] = before
