"""The residual stream of a block, its attention, and what this adds to the stream, seen without knowing the block."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from explain.capture.recording import Recorder
from explain.trace import TraceError

_ADDS = ("add", "__add__", "__radd__", "__iadd__", "add_")
_UNCHANGED = ("dropout", "to", "type_as")  # in evaluation mode, they only cast the probabilities
_PRODUCTS = ("matmul", "__matmul__", "bmm")


@dataclass(eq=False)
class Seen:
    """What was seen of a block while it runs."""

    residual: Tensor  #: X, the block's first argument
    attention: list[Tensor] = field(default_factory=list)  #: A of each attention that the block computes
    output: Tensor | None = None  #: Y, what is first added to X

    def record(self, recorder: Recorder, query: str, key: str, stage: int | None = None) -> None:
        """Record the step of a block that computes one attention, in the layout of the trace."""
        assert self.output is not None
        recorder.step(
            query=query, key=key, attention=self.attention[0], residual=self.residual, output=self.output, stage=stage
        )


class Watch(TorchFunctionMode):
    """A mode that finds A and Y of the block that runs, whatever its code.

    A is the result of a softmax that a matrix product multiplies by the values; the tensor is the one that enters the
    product. Y is the other summand of the first sum with X after it.

    The mode also keeps a float64 model in float64, where explicit attention computes the softmax in float32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.block: Seen | None = None
        self._probabilities: Tensor | None = None  # result of the last softmax

    def begin(self, block: Seen | None) -> Seen | None:
        """Watch another block from now on, or none, and return what was seen of the last one."""
        before, self.block, self._probabilities = self.block, block, None
        return before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name, first = kwargs or {}, getattr(func, "__name__", ""), args[0] if args else None
        if name == "softmax" and isinstance(first, Tensor) and first.dtype == torch.float64:
            kwargs = {**kwargs, "dtype": torch.float64}
        if self.block is None:
            return func(*args, **kwargs)
        goes_on = self._probabilities is not None and first is self._probabilities
        if goes_on and name in _PRODUCTS:
            self.block.attention.append(args[0])
        if name in _ADDS and self._sees_output(self.block, *args[:2]) and name in ("__iadd__", "add_"):
            return torch.add(*args[:2])  # in place, the sum would overwrite Y
        result = func(*args, **kwargs)
        if name == "softmax" or (goes_on and name in _UNCHANGED):
            self._probabilities = result
        return result

    @staticmethod
    def _sees_output(block: Seen, first: Any, second: Any = None) -> bool:
        """Return whether a sum is that of X and Y, and keep Y."""
        if not block.attention or block.output is not None:
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
        watch.begin(Seen(residual))
        return args, kwargs

    def finish(*_: object) -> None:
        seen = watch.begin(None)
        if seen is None or not seen.attention:
            raise TraceError(
                f"{name} ({type(block).__name__}) ran without showing its attention: only eager attention, a softmax "
                "before a matrix product, can be traced; load the model with attn_implementation='eager'"
            )
        if seen.output is None:
            raise TraceError(f"{name} ({type(block).__name__}) added nothing to its input after its attention")
        step(seen)

    hooks.enter_context(block.register_forward_pre_hook(enter, with_kwargs=True))
    hooks.enter_context(block.register_forward_hook(finish))


def changed_stream(
    args: tuple[Any, ...], kwargs: dict[str, Any], change: Callable[[Tensor], Tensor] | None
) -> tuple[tuple[Any, ...], dict[str, Any], Tensor]:
    """Return a block's arguments with a changed residual stream, and that stream."""
    name = "hidden_state" if "hidden_state" in kwargs else "hidden_states"  # the former in older versions of Mllama
    stream: Tensor = args[0] if args else kwargs[name]
    stream = stream if change is None else change(stream)
    if args:
        return (stream, *args[1:]), kwargs, stream
    return args, {**kwargs, name: stream}, stream
