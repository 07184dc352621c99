"""The mode under which a model's own forward pass builds a graph whose backward pass is LRP."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, resolve_name

from explain.lrp.operations import HANDLERS, Call
from explain.trace import TraceError

_HINTS = {
    "scaled_dot_product_attention": "run the model with explicit attention",
    "multi_head_attention_forward": "run the model with explicit attention",
    "mul": "one factor of a product must be a constant or a sigmoid gate",
}
_FOLLOWED = "_explain_lrp_followed"  # set on every tensor that the mode joined to the graph


def lrp() -> TorchFunctionMode:
    """A context manager: what runs inside has the same values, but relevance for gradients (TransAtt, Partial LRP).

    Inside, a tensor that depends on a leaf requiring grad takes relevance, unless the leaf is an ``nn.Parameter``:
    parameters, and all that is computed from them alone (position embeddings, learnt tokens), are constants. Relevance
    of a tensor is then its gradient; ones as the gradient of the chosen logits start the pass. It may run inside the
    block or after it::

        with record() as recorder, lrp():
            logits = model(images, questions)
        relevance = torch.autograd.grad(logits[samples, answers], attentions, ones)

    The whole way from the recorded inputs to the logits must run inside the block, with the batch as first dimension;
    after it only choose logits. Recorded embeddings must be leaves that require grad (``Recorder.watch``).

    Raises:
        TraceError: at a torch function that has no rule, or one that writes in place, on a tensor that takes relevance;
            at a tensor that was computed outside.
    """
    return _RelevanceMode()


class _RelevanceMode(TorchFunctionMode):
    """Sees every torch function; while one is handled the mode is off, so rules may compute as they like."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        differentiable = [tensor for tensor in _tensors([args, kwargs]) if tensor.requires_grad]
        # Nothing else may run under a no_grad of ours: this is also where the model's own no_grad blocks pass by.
        if not differentiable or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        live = [tensor for tensor in differentiable if not isinstance(tensor, nn.Parameter)]
        if not live:
            with torch.no_grad():
                return func(*args, **kwargs)
        versions = [tensor._version for tensor in live]
        result = _followed(Call(func, args, kwargs, live))
        if versions != [tensor._version for tensor in live]:
            raise TraceError(f"LRP has no rule for what writes in place: {_full_name(func)}")
        return result


def _followed(call: Call) -> Any:
    """The call's value, joined to the graph by its rule."""
    handler = HANDLERS.get(_name(call.func))
    result = call.run() if handler is None else handler(call)
    if result is NotImplemented:
        raise _no_rule(call.func)
    joined = [tensor for tensor in _tensors(result) if tensor.requires_grad]
    if not joined:
        return result  # a shape, a comparison, a gate, gradients: nothing to propagate through
    if handler is None:
        raise _no_rule(call.func)
    if any(not tensor.is_leaf and not hasattr(tensor, _FOLLOWED) for tensor in call.live):
        raise TraceError(
            f"{_full_name(call.func)} got a tensor whose gradient graph LRP did not see being built: run the whole "
            "model inside lrp(), without custom autograd functions or compiled parts"
        )
    for tensor in joined:
        setattr(tensor, _FOLLOWED, True)
    return result


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _name(func: Callable[..., Any]) -> str:
    """The bare name, the same for a function and the tensor method: ``softmax``, ``T`` (of a property)."""
    name = getattr(func, "__name__", "")
    return getattr(func.__self__, "__name__", "") if name == "__get__" else name  # type: ignore[attr-defined]


def _full_name(func: Callable[..., Any]) -> str:
    return resolve_name(func) or f"{getattr(func, '__module__', None) or 'torch'}.{_name(func)}"


def _no_rule(func: Callable[..., Any]) -> TraceError:
    hint = _HINTS.get(_name(func))
    return TraceError(f"LRP has no rule for {_full_name(func)}" + (f": {hint}" if hint else " with these arguments"))
