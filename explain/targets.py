"""What is explained: one scalar y a sample, as a function of the model's logits.

A target is a callable; any function of the same kind will do, as long as samples do not interact.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Target = Callable[[Tensor], Tensor]  #: logits [B, C] → y [B]
Classes = int | Sequence[int] | Tensor  #: one class for every sample, or one each


def predicted(logits: Tensor) -> Tensor:
    """The logit of the class that the model prefers: [B, C] → [B]."""
    return given(logits.argmax(-1))(logits)


def given(classes: Classes) -> Target:
    """The logit of a given class, such as the true answer's.

    Raises:
        ValueError: when called on logits that have no such class, or another number of samples.
    """

    def logit(logits: Tensor) -> Tensor:
        return logits.gather(1, _one_each(classes, logits))[:, 0]

    return logit


def margin(preferred: Classes, over: Classes) -> Target:
    """The logit of one class less that of another: why this and not that."""

    def difference(logits: Tensor) -> Tensor:
        return given(preferred)(logits) - given(over)(logits)

    return difference


def token(position: Classes, classes: Classes) -> Target:
    """The logit of a class at one position of a sequence: logits [B, T, C] → [B].

    For a caption: the position whose state predicts the token, and the token.
    """

    def logit(logits: Tensor) -> Tensor:
        places = _one_each(position, logits)
        return given(classes)(logits.gather(1, places[:, :, None].expand(-1, -1, logits.shape[-1]))[:, 0])

    return logit


def _one_each(numbers: Classes, logits: Tensor) -> Tensor:
    """[B, 1], each within the logits' second dimension."""
    each = torch.as_tensor(numbers, device=logits.device).long()
    each = each.expand(len(logits)) if each.ndim == 0 else each
    if each.shape != logits.shape[:1]:
        raise ValueError(
            f"target: expected one number, or one for each of {len(logits)} samples, got {list(each.shape)}"
        )
    if len(each) and (int(each.min()) < 0 or int(each.max()) >= logits.shape[1]):
        raise ValueError(f"target: {each.tolist()} must lie in 0..{logits.shape[1] - 1}")
    return each[:, None]
