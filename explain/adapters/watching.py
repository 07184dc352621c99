"""What the adapters share: hooks that observe an attention block while the model runs, and are removed afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

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


def watch_block(
    hooks: ExitStack,
    name: str,
    block: nn.Module,
    probabilities: nn.Module,
    added: nn.Module,
    step: Callable[..., None],
    start: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Call ``step(residual=X, attention=A, output=Y)`` after each run of the block, until ``hooks`` is closed.

    Args:
        hooks: Holds the hooks on the model, and removes them when it is closed.
        name: The block's name in error messages.
        block: A module whose first argument is X [B, n_s, D], which also enters the block's skip connection.
        probabilities: A module whose output is A [B, H, n_s, n_q], the tensor that multiplies the values.
        added: A module whose output is Y [B, n_s, D], the tensor that is added to X.
        step: Called with the three tensors.
        start: Returns the replacement of X if the gradient graph starts at this block (``Recorder.start``).

    Raises:
        TraceError: When the model runs, if one of the three tensors was not seen: the attention is not eager.
    """
    seen: dict[str, Tensor] = {}

    def enter(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if start is not None:
            args = (*map(start, args[:1]), *args[1:])
        seen.update(zip(("residual",), args, strict=False))
        return args

    def finish(*_: object) -> None:
        missing = [tensor for tensor in ("residual", "attention", "output") if tensor not in seen]
        if missing:
            raise TraceError(
                f"{name} ({type(block).__name__}) ran without showing its {', '.join(missing)}: "
                "only eager attention can be traced; load the model with attn_implementation='eager'"
            )
        step(**seen)
        seen.clear()

    hooks.enter_context(block.register_forward_pre_hook(enter))
    hooks.enter_context(probabilities.register_forward_hook(lambda _, __, out: seen.update(attention=out)))
    hooks.enter_context(added.register_forward_hook(lambda _, __, out: seen.update(output=out)))
    hooks.enter_context(block.register_forward_hook(finish))
