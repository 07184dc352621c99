"""The residual stream of a block and what its attention adds to it, seen without knowing the block's code."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from explain.trace import TraceError

_ADDS = ("add", "__add__", "__radd__", "__iadd__", "add_")


@dataclass(eq=False)
class Seen:
    """What was seen of a block while it runs."""

    residual: Tensor  #: X, the block's first argument
    attention: list[Tensor] = field(default_factory=list)  #: the maps of each call of the attention interface
    output: Tensor | None = None  #: Y, what is first added to X


class Watch(TorchFunctionMode):
    """A mode that finds Y: the other summand of the first sum with X after a block's attention.

    It also keeps a float64 model in float64, where eager attention computes the softmax in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.block: Seen | None = None

    def see(self, _module: nn.Module, attention: Tensor) -> None:
        """Add an attention map to the block that runs."""
        if self.block is not None:
            self.block.attention.append(attention)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        if name == "softmax" and args[0].dtype == torch.float64:
            kwargs = {**kwargs, "dtype": torch.float64}
        if name in _ADDS and self._sees_output(*args[:2]) and name in ("__iadd__", "add_"):
            return torch.add(*args[:2])  # in place, the sum would overwrite Y
        return func(*args, **kwargs)

    def _sees_output(self, first: Any, second: Any = None) -> bool:
        """Return whether a sum is that of X and Y, and keep Y."""
        block = self.block
        if block is None or not block.attention or block.output is not None:
            return False
        for x, y in ((first, second), (second, first)):
            if x is block.residual and isinstance(y, Tensor) and y.shape == x.shape:
                block.output = y
                return True
        return False


def watch_block(
    hooks: ExitStack,
    watch: Watch,
    name: str,
    block: nn.Module,
    step: Callable[[Seen], None],
    start: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Call ``step`` with what was seen of the block after each run, until ``hooks`` is closed.

    Args:
        hooks: Holds the hooks on the model, and removes them when it is closed.
        watch: The active mode.
        name: The block's name in error messages.
        block: A module whose first argument, or ``hidden_states``, is X.
        step: Called with X, the attention maps and Y.
        start: Returns the replacement of X if the gradient graph starts at this block (``Recorder.start``).

    Raises:
        TraceError: When the model runs, if the block showed no attention or no sum with X.
    """

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        args, kwargs, residual = changed_stream(args, kwargs, start)
        watch.block = Seen(residual)
        return args, kwargs

    def finish(*_: object) -> None:
        seen, watch.block = watch.block, None
        if seen is None or not seen.attention:
            raise TraceError(f"{name} ({type(block).__name__}) computed no attention through transformers' interface")
        if seen.output is None:
            raise TraceError(f"{name} ({type(block).__name__}) added nothing to its input after its attention")
        step(seen)

    hooks.enter_context(block.register_forward_pre_hook(enter, with_kwargs=True))
    hooks.enter_context(block.register_forward_hook(finish))


def changed_stream(
    args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[Tensor], Tensor] | None
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """Return a block's arguments with a changed residual stream, and that stream."""
    stream: Tensor = args[0] if args else kwargs["hidden_states"]
    stream = stream if change is None else change(stream)
    if args:
        return (stream, *args[1:]), kwargs, stream
    return args, {**kwargs, "hidden_states": stream}, stream
