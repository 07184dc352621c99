"""Targets: what is explained, one scalar y per sample, as a function of the model's logits.

A target is a callable, and any function of this kind can be used, as long as samples do not interact.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Target = Callable[[Tensor], Tensor]  #: takes logits [B, C] and returns y [B]
Classes = int | Sequence[int] | Tensor  #: one class for all samples, or one for each sample


def predicted(logits: Tensor) -> Tensor:
    """Return the logit of each sample's most likely class: [B, C] → [B]."""
    return given(logits.argmax(-1))(logits)


def given(classes: Classes) -> Target:
    """Return a target that picks the logit of a given class, such as the true answer.

    Raises:
        ValueError: When the target is called on logits that do not have this class, or have a different number of
            samples.
    """

    def logit(logits: Tensor) -> Tensor:
        return logits.gather(1, _indices(classes, logits))[:, 0]

    return logit


def margin(preferred: Classes, over: Classes) -> Target:
    """Return a target that is the logit of one class minus the logit of another.

    It explains why the model prefers the first class to the second.
    """

    def difference(logits: Tensor) -> Tensor:
        return given(preferred)(logits) - given(over)(logits)

    return difference


def token(position: Classes, classes: Classes) -> Target:
    """Return a target that picks the logit of a class at one position of a sequence: logits [B, T, C] → [B].

    Args:
        position: The position whose logits are read. In a caption, this is the position that predicts the token.
        classes: The class; in a caption, the id of the predicted token.
    """

    def logit(logits: Tensor) -> Tensor:
        places = _indices(position, logits)
        return given(classes)(logits.gather(1, places[:, :, None].expand(-1, -1, logits.shape[-1]))[:, 0])

    return logit


def _indices(numbers: Classes, logits: Tensor) -> Tensor:
    """Return one index per sample, [B, 1]; check that each is valid in the second dimension of the logits."""
    each = torch.as_tensor(numbers, device=logits.device).long()
    each = each.expand(len(logits)) if each.ndim == 0 else each
    if each.shape != logits.shape[:1]:
        raise ValueError(
            f"target: expected one number, or one for each of {len(logits)} samples, got shape {list(each.shape)}"
        )
    if len(each) and (int(each.min()) < 0 or int(each.max()) >= logits.shape[1]):
        raise ValueError(f"target: {each.tolist()} must be in 0..{logits.shape[1] - 1}")
    return each[:, None]
