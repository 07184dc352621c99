"""The precision of the LRP pass, and the context manager that runs it in float64 without changing the model."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

MAX_BYTES = 1e9  # "auto" runs models with smaller weights, counted in float32, in float64


def chosen_precision(model: nn.Module, precision: str | None) -> str:
    """Return ``"float64"`` or ``"model"``, the precision in which the LRP pass of a model runs.

    Args:
        model: The model, on the device that it runs on.
        precision: ``"float64"``, ``"model"`` for the model's own precision, or ``"auto"`` or None: float64 if the
            model's weights take less than 1 GB in float32 and its device supports it.
    """
    if precision in ("float64", "model"):
        return str(precision)
    parameters = list(model.parameters())
    small = 4 * sum(parameter.numel() for parameter in parameters) < MAX_BYTES
    return "float64" if small and all(parameter.device.type != "mps" for parameter in parameters) else "model"


def in_float64() -> TorchFunctionMode:
    """Return a context manager in which torch functions compute in float64, whatever the type of their arguments.

    Every floating-point tensor is converted when a function reads it. The model and its inputs do not change, and a
    conversion lasts only as long as it is used. Autocast does not apply to float64. Parameters are converted as
    constants, without gradients, as LRP treats them. Start it inside :func:`explain.lrp.lrp`::

        with lrp(), in_float64():
            logits = model(images, questions)
    """
    return _Float64Mode()


class _Float64Mode(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":  # an attribute of a tensor; a dtype becomes float64, so that models convert nothing back
            found = func(*args, **kwargs)
            return _in_float64(found) if isinstance(found, torch.dtype) else found
        if name in ("__set__", "__setitem__") or (name.endswith("_") and not name.endswith("__")):
            return func(*args, **kwargs)  # writes in place, so it needs the tensor itself
        if name in ("float", "half", "bfloat16"):
            func = Tensor.double
        return func(*_in_float64(args), **_in_float64(kwargs))


def _in_float64(value: Any) -> Any:
    """Return tensors and data types of floating-point numbers as float64, also inside lists, tuples and dicts."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64:
        return (value.detach() if isinstance(value, nn.Parameter) else value).double()
    if isinstance(value, torch.dtype) and value.is_floating_point:
        return torch.float64
    if type(value) in (list, tuple):
        return type(value)(map(_in_float64, value))
    return {key: _in_float64(one) for key, one in value.items()} if type(value) is dict else value
