"""Targets: what is explained, one scalar y per sample, as a function of the model's logits.

A target is a callable, and any function of this kind can be used, as long as samples do not interact. For a language
model, the logits [B, C] are those of the next token, and :func:`answer` explains the tokens of a whole answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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


def log_probability(classes: Classes) -> Target:
    """Return a target that is the log-probability of a class, such as the next token."""

    def log(logits: Tensor) -> Tensor:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return given(classes)(logits.log_softmax(-1))

    return log


def contrast(preferred: Sequence[int], over: Sequence[int]) -> Target:
    """Return a target that is the log-odds of some classes against others, such as the spellings of "yes" and "no".

    It is log Σ exp of the logits of ``preferred``, minus the same of ``over``.
    """

    def odds(logits: Tensor) -> Tensor:
        return logits[:, list(preferred)].logsumexp(-1) - logits[:, list(over)].logsumexp(-1)

    return odds


@dataclass(frozen=True, eq=False)
class Answer:
    """The log-probability of a given or generated answer, whose tokens are added to the text; see :func:`answer`."""

    tokens: Sequence[int] | Sequence[Sequence[int]] | Tensor
    span: tuple[int, int] | None
    each: bool

    def rows(self, batch: int) -> list[list[int]]:
        """Return the tokens of each sample's answer.

        Raises:
            ValueError: An answer is empty, the span is outside it, or there is not one for each sample.
        """
        tokens: list[Any] = self.tokens.tolist() if isinstance(self.tokens, Tensor) else list(self.tokens)
        nested = bool(tokens) and not isinstance(tokens[0], int)
        rows: list[list[int]] = [[int(token) for token in row] for row in tokens] if nested else [tokens] * batch
        if len(rows) != batch:
            raise ValueError(f"answer: expected one answer, or one for each of {batch} samples, got {len(rows)}")
        for row in rows:
            first, last = self.span or (0, len(row))
            if not 0 <= first < last <= len(row):
                raise ValueError(f"answer: tokens {first} to {last} of an answer of {len(row)} tokens")
        return rows

    def wanted_tokens(self, batch: int, device: torch.device) -> Tensor:
        """Return which tokens are explained, bool [B, T], where T is the number of tokens of the longest answer."""
        rows = self.rows(batch)
        wanted = torch.zeros(batch, max(map(len, rows)), dtype=torch.bool, device=device)
        for sample, row in enumerate(rows):
            first, last = self.span or (0, len(row))
            wanted[sample, first:last] = True
        return wanted

    def wanted(self, batch: int, device: torch.device) -> Tensor | None:
        """Return the scalars to explain, bool [B, T], or None for one scalar per sample."""
        return self.wanted_tokens(batch, device) if self.each else None

    def __call__(self, logits: Tensor) -> Tensor:
        """Return y from the logits that predict the answer's tokens, [B, T, V]: [B], or [B, T] for each token."""
        wanted = self.wanted_tokens(len(logits), logits.device)
        ids = torch.zeros_like(wanted, dtype=torch.long)
        for sample, row in enumerate(self.rows(len(logits))):
            ids[sample, : len(row)] = torch.tensor(row, device=logits.device)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        each = logits.log_softmax(-1).gather(2, ids[:, :, None])[:, :, 0]
        return each if self.each else each.where(wanted, 0).sum(1)


def answer(
    tokens: Sequence[int] | Sequence[Sequence[int]] | Tensor, span: tuple[int, int] | None = None, each: bool = False
) -> Answer:
    """Return a target that is the log-probability of an answer of a language model.

    The answer's tokens are added to the text, so that one forward pass gives all of them.

    Args:
        tokens: Token ids of the answer, for all samples or for each sample.
        span: Explain only the tokens from ``span[0]`` up to, and without, ``span[1]``; None explains all.
        each: Explain each token alone: the trace has one item for each, ordered by sample. Otherwise y is the sum.
    """
    return Answer(tokens, span, each)


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
