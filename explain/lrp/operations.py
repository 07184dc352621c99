"""The table of LRP rules: which rule each torch function follows. A function that is not listed has no rule.

A handler returns the value of a call, added to the graph by a rule, or ``NotImplemented`` if no rule fits the
arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explain.lrp.rules import Add, Identity, Linear, Shares, TimesSelf


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a torch function."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    live: list[Tensor]  #: the tensor arguments that take relevance, at least one

    def is_live(self, tensor: Tensor) -> bool:
        """Return whether a tensor takes relevance."""
        return any(tensor is one for one in self.live)

    def value(self) -> Any:
        """Return the function's value without a graph."""
        with torch.no_grad():
            return self.func(*self.args, **self.kwargs)

    def run(self) -> Any:
        """Return the function's value with the graph that autograd builds."""
        return self.func(*self.args, **self.kwargs)


def _identity(call: Call) -> Any:
    """Pass all relevance to the first argument, if it is the only one that takes relevance."""
    first = call.args[0] if call.args else call.kwargs.get("input")
    if len(call.live) != 1 or first is not call.live[0]:
        return NotImplemented
    return Identity.apply(first, call.value())


def _with_constant(call: Call) -> Any:
    """Pass all relevance to the only operand that takes relevance, in any position."""
    return Identity.apply(call.live[0], call.value()) if len(call.live) == 1 else NotImplemented


def _add(call: Call) -> Any:
    if len(call.live) == 1:
        return _with_constant(call)
    if call.kwargs:  # alpha scales the second operand
        return NotImplemented
    return Add.apply(*call.live, call.value())


def _linear(call: Call) -> Any:
    given = dict(zip(("input", "weight", "bias"), call.args, strict=False)) | call.kwargs
    if len(call.live) != 1 or given["input"] is not call.live[0]:
        return NotImplemented
    return Linear.apply(given["input"], given["weight"], call.value())


def _matmul(call: Call) -> Any:
    """Apply the linear rule if the second factor is a constant matrix, else the rule of products."""
    if call.kwargs or min(factor.ndim for factor in call.args) < 2:
        return NotImplemented
    x, y = call.args
    if y.ndim == 2 and not call.is_live(y):
        return Linear.apply(x, y.detach().T, call.value())
    return _shared(call)


def _multiply(call: Call) -> Any:
    """Pass all relevance to the only factor that takes relevance, or half of it to each of two."""
    return _with_constant(call) if len(call.live) == 1 else _shared(call)


def _interpolate(call: Call) -> Any:
    """Apply the rule of weighted sums if no weight is negative."""
    given = dict(zip(("input", "size", "scale_factor", "mode"), call.args, strict=False)) | call.kwargs
    return NotImplemented if given.get("mode") == "bicubic" else _shared(call)


def _shared(call: Call) -> Any:
    """Pass relevance on in proportion to x ⊙ ∂z/∂x, where z is linear in each operand x."""

    def operand(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return TimesSelf.apply(value) if call.is_live(value) else value.detach()

    given = [operand(value) for value in call.args]
    options = {name: operand(value) for name, value in call.kwargs.items()}
    with torch._C.DisableTorchFunction():  # an outer lrp() would apply the rule a second time
        value = call.func(*given, **options)
    return Shares.apply(value, len(call.live))


def _index_put(call: Call) -> Any:
    """Let relevance follow the written entries; entries that are added to others are sums."""
    return NotImplemented if len(call.args) > 3 or call.kwargs.get("accumulate") else call.run()


# Functions that move, copy, cast or select entries: relevance flows like a gradient.
_SHAPES = (
    "T mT adjoint broadcast_to cat chunk clone concat concatenate contiguous expand expand_as flatten flip movedim "
    "moveaxis narrow pad permute repeat repeat_interleave reshape reshape_as roll select split split_with_sizes "
    "squeeze stack swapaxes swapdims t tensor_split tile transpose unbind unflatten unsqueeze view view_as "
    "__getitem__ __setitem__ gather index_put index_select masked_fill masked_scatter masked_select take_along_dim "
    "where bfloat16 cpu cuda double float half requires_grad_ to type type_as"
)
_IDENTITIES = "softmax layer_norm rms_norm normalize gelu silu relu tanh dropout neg div divide true_divide"
_WITH_CONSTANT = "sub subtract __rsub__ rsub"
_WEIGHTED_SUMS = "mean sum avg_pool2d"

HANDLERS: dict[str, Callable[[Call], Any]] = {
    **dict.fromkeys(_SHAPES.split(), Call.run),
    **dict.fromkeys(_IDENTITIES.split(), _identity),
    **dict.fromkeys(_WITH_CONSTANT.split(), _with_constant),
    **dict.fromkeys(_WEIGHTED_SUMS.split(), _shared),
    **dict.fromkeys(["matmul", "bmm", "mm"], _matmul),
    **dict.fromkeys(["mul", "multiply"], _multiply),
    # A gate and the divisor of a norm (RMSNorm) take no relevance: their values are treated as constants.
    **dict.fromkeys(["sigmoid", "rsqrt"], Call.value),
    "add": _add,
    "linear": _linear,
    "index_put": _index_put,
    "interpolate": _interpolate,
}
