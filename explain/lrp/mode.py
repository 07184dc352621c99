"""The context manager in which a model's forward pass builds a graph whose backward pass is LRP."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function
from torch.overrides import TorchFunctionMode, resolve_name

from explain.lrp.operations import HANDLERS, Call
from explain.trace import TraceError

_HINTS = {
    "scaled_dot_product_attention": "run the model with explicit attention",
    "multi_head_attention_forward": "run the model with explicit attention",
}
_FOLLOWED = "_explain_lrp_followed"  # attribute of every tensor that a rule of this mode added to the graph


def lrp() -> TorchFunctionMode:
    """Return a context manager in which backward passes propagate LRP relevance instead of gradients.

    Values of the forward pass do not change. TransAtt and partial LRP use this relevance (docs/method.md, Baselines).

    A tensor takes relevance if it depends on a leaf that requires grad and is not an ``nn.Parameter``. Parameters, and
    tensors computed from them alone (position embeddings, learnt tokens), are constants. The "gradient" of a tensor is
    then its relevance; start the backward pass with ones as the gradient of the chosen logits. The backward pass can
    run inside or after the block::

        with record() as recorder, lrp():
            logits = model(images, questions)
        relevance = torch.autograd.grad(logits[samples, answers], attentions, ones)

    Run the whole computation from the recorded inputs to the logits inside the block, with the batch as first
    dimension; outside it, only select logits. The recorded embeddings must be leaves that require grad
    (``Recorder.watch``).

    Raises:
        TraceError: Inside the block, if a tensor that takes relevance is changed in place, except by an assignment to
            some of its entries, or if it was computed outside the block. In the backward pass, if relevance reaches the
            result of a torch function that has no rule.
    """
    return _RelevanceMode()


class _RelevanceMode(TorchFunctionMode):
    """A mode that intercepts every torch function.

    The mode is off while a function is handled, so rules can compute with ordinary torch functions.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        differentiable = [tensor for tensor in _tensors([args, kwargs]) if tensor.requires_grad]
        # Do not put a no_grad around this call: the model's own changes of the grad mode also pass through here, and it
        # would undo them.
        if not differentiable or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        live = [tensor for tensor in differentiable if not isinstance(tensor, nn.Parameter)]
        if not live:  # detached, since a view of a parameter requires gradients even where none are recorded
            return _mapped(_detached, func(*args, **kwargs))
        versions = [tensor._version for tensor in live]
        result = _apply_rule(Call(func, args, kwargs, live))
        if _name(func) != "__setitem__" and versions != [tensor._version for tensor in live]:
            raise TraceError(f"LRP has no rule for functions that write in place: {_full_name(func)}")
        return result


class _Refused(Function):
    """The value of a function without a rule. The model may compute it, as long as the explained logit ignores it."""

    @staticmethod
    def forward(ctx: Any, message: str, value: Tensor) -> Tensor:
        """Return ``value``."""
        ctx.message = message
        return value.detach()

    @staticmethod
    def backward(ctx: Any, _relevance: Tensor) -> Any:
        """Raise :class:`TraceError`."""
        raise TraceError(ctx.message)


def _detached(tensor: Tensor) -> Tensor:
    """Return what a function of parameters alone gives, without its graph; a parameter stays one."""
    return tensor if isinstance(tensor, nn.Parameter) else tensor.detach()


def _apply_rule(call: Call) -> Any:
    """Return the call's value, added to the graph by the function's rule."""
    handler = HANDLERS.get(_name(call.func))
    result = NotImplemented if handler is None else handler(call)
    ruled = result is not NotImplemented
    if not ruled:
        result = call.run()
    written = call.args[:1] if result is None else ()  # __setitem__
    if not any(tensor.requires_grad for tensor in _tensors([result, written])):
        return result  # a shape, a comparison, a gate or gradients: nothing to propagate through
    if any(not tensor.is_leaf and not hasattr(tensor, _FOLLOWED) for tensor in call.live):
        raise TraceError(
            f"{_full_name(call.func)} got a tensor that was computed outside lrp(): run the whole model inside "
            "lrp(), without custom autograd functions or compiled parts"
        )
    if not ruled:
        message = _no_rule(call.func)
        result = _mapped(lambda tensor: _Refused.apply(message, tensor) if tensor.requires_grad else tensor, result)
    for tensor in _tensors([result, written]):
        if tensor.requires_grad:
            setattr(tensor, _FOLLOWED, True)
    return result


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return a function's result with another tensor for each of its tensors."""
    if isinstance(value, Tensor):
        return function(value)
    return type(value)([_mapped(function, one) for one in value]) if isinstance(value, list | tuple) else value


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _name(func: Callable[..., Any]) -> str:
    """Return the bare name, which is the same for a function and its tensor method, such as ``softmax`` or ``T``."""
    name = getattr(func, "__name__", "")  # "__get__" for a property such as Tensor.T
    return getattr(func.__self__, "__name__", "") if name == "__get__" else name  # type: ignore[attr-defined]


def _full_name(func: Callable[..., Any]) -> str:
    return resolve_name(func) or f"{getattr(func, '__module__', None) or 'torch'}.{_name(func)}"


def _no_rule(func: Callable[..., Any]) -> str:
    hint = _HINTS.get(_name(func))
    return f"LRP has no rule for {_full_name(func)}" + (f": {hint}" if hint else " with these arguments")
