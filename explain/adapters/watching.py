"""What the adapters share: looking at one attention block of a model while it runs, and leaving nothing on it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from explain.capture.needs import Needs
from explain.trace import TraceError

Layers = Collection[int] | Mapping[str, Collection[int]] | None  #: blocks to record, of every stack or by its name


def checked_part(model: nn.Module, path: str) -> Any:
    """The submodule at a dotted path; raises :class:`TraceError` where the model has none."""
    try:
        return model.get_submodule(path)
    except AttributeError as error:
        raise TraceError(f"{type(model).__name__} has no {path}: the adapter does not know such a model") from error


def check_evaluation(model: nn.Module) -> None:
    """Raise :class:`TraceError` for a model in training mode, whose dropout would be explained with it."""
    if model.training:
        raise TraceError(f"{type(model).__name__} is in training mode: call eval() before it is traced")


def chosen_blocks(layers: Layers, counts: Mapping[str, int]) -> dict[str, list[int]]:
    """The indices of the blocks to record of each stack of a model, in ascending order.

    Args:
        layers: Indices that hold for every stack; or those of each stack, one that is not named being left out; or
            None for all blocks.
        counts: How many blocks each stack has.

    Raises:
        TraceError: a stack or a block that there is not, or none at all.
    """
    if layers is None:
        return {stack: list(range(count)) for stack, count in counts.items()}
    named = layers if isinstance(layers, Mapping) else dict.fromkeys(counts, layers)
    for stack, blocks in named.items():
        if stack not in counts:
            raise TraceError(f"layers: there is no stack of blocks {stack!r}, only {', '.join(map(repr, counts))}")
        if missing := sorted(set(blocks) - set(range(counts[stack]))):
            raise TraceError(f"layers: {stack} has blocks 0 to {counts[stack] - 1}, and none is {missing[0]}")
    chosen = {stack: sorted(set(named.get(stack, ()))) for stack in counts}
    if not any(chosen.values()):
        raise TraceError("layers: no block is chosen")
    return chosen


def recorded_blocks(chosen: Sequence[int], needs: Needs) -> tuple[Sequence[int], int | None]:
    """Which of a stack's chosen blocks are recorded, and the one from which on they are differentiated, if any is."""
    blocks = chosen if needs.all_steps else chosen[-1:]
    if not blocks:
        return blocks, None
    return blocks, blocks[0] if needs.gradients_of_all_steps else blocks[-1]


@contextmanager
def replaced(module: nn.Module, name: str, function: Callable[..., Any]) -> Iterator[None]:
    """Call ``function`` for the module's method of that name inside the block; the method is back afterwards."""
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
    """Call ``step(residual=X, attention=A, output=Y)`` each time the block has run, until ``hooks`` is closed.

    Args:
        hooks: Holds what is put on the model, and takes it off.
        name: What errors call the block.
        block: Takes X [B, n_s, D], from which its skip connection goes out too, as its first argument.
        probabilities: Its output is the tensor that multiplies the values, A [B, H, n_s, n_q].
        added: Its output is the tensor that is added to X, Y [B, n_s, D].
        step: What is done with them.
        start: What X is replaced by, where the graph starts at this block (``Recorder.start``).

    Raises:
        TraceError: while the model runs, where one of the three did not pass by: another attention is at work.
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
                "only eager attention can be traced, load the model with attn_implementation='eager'"
            )
        step(**seen)
        seen.clear()

    hooks.enter_context(block.register_forward_pre_hook(enter))
    hooks.enter_context(probabilities.register_forward_hook(lambda _, __, out: seen.update(attention=out)))
    hooks.enter_context(added.register_forward_hook(lambda _, __, out: seen.update(output=out)))
    hooks.enter_context(block.register_forward_hook(finish))
