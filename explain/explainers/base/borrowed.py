"""The weighted update with the weights of other samples, for controls that must not adapt to the explained sample."""

from __future__ import annotations

import copy
from random import Random
from typing import Self

import torch
from torch import Tensor

from explain.explainers.base.accumulation import Accumulation, Update, weighted_update
from explain.explainers.base.importance import ResidualGradient, check_option, needed_fields, residual_weight
from explain.trace import AttentionStep, AttentionTrace, TraceError


class BorrowedWeights(Accumulation):
    """Base class of controls that replace w_X by its mean over up to ``partners`` samples of other images.

    A run draws these samples and passes their weights by :meth:`with_weights`. Otherwise they are drawn from the batch,
    where ``AttentionTrace.picture_ids`` names the samples' images; the draw depends on the names of the samples.

    Args:
        residual_gradient: The ∇X of Huang et al. 2023, Eq. 7: ``total`` or ``branch``, as in
            :class:`~explain.explainers.Weighted`.

    Raises:
        ValueError: ``residual_gradient`` is unknown.
        TraceError: When called, if the weights do not fit the trace, or if they come from the batch and a sample has no
            sample of another image in it.
    """

    weights: Tensor | None = None  #: w_X of each sample and step, [B, steps]; None takes them from the batch

    def __init__(self, residual_gradient: ResidualGradient = "total") -> None:
        check_option("residual_gradient", residual_gradient, ResidualGradient)
        self.residual_gradient: ResidualGradient = residual_gradient
        self.needs = needed_fields(residual_gradient)

    def with_weights(self, weights: Tensor) -> Self:
        """Return a copy that uses the given w_X of each sample and step, [B, steps]."""
        other = copy.copy(self)
        other.weights, other.needs = weights, ("attention_grad",)
        return other

    def own_weights(self, trace: AttentionTrace) -> Tensor:
        """Return w_X that each sample itself has at each step (Huang et al. 2023, Eq. 5), [B, steps]."""
        each = [residual_weight(trace, step, self.residual_gradient, "matrix") for step in trace.attention_steps]
        return torch.cat(each, 1)[:, :, 0]

    def update(self, trace: AttentionTrace, step: AttentionStep) -> Update:
        """Return the weighted update of one step with the w_X of other samples."""
        weights = self._weights(trace)
        number = next(place for place, each in enumerate(trace.attention_steps) if each is step)
        return weighted_update(trace, step, weights[:, number, None, None])

    def matrix(self, trace: AttentionTrace) -> Tensor:
        """Return R after the last step, [B, N, N]."""
        return super(BorrowedWeights, self.with_weights(self._weights(trace))).matrix(trace)

    def scores(self, trace: AttentionTrace, rows: Tensor) -> Tensor:
        """Return one row of R per sample, [B, N]."""
        return super(BorrowedWeights, self.with_weights(self._weights(trace))).scores(trace, rows)

    def _weights(self, trace: AttentionTrace) -> Tensor:
        """Return the w_X to use, [B, steps]."""
        if self.weights is None:
            return self._shares(trace) @ self.own_weights(trace)
        if self.weights.shape != (expected := (trace.batch, len(trace.attention_steps))):
            name = type(self).__name__
            raise TraceError(f"{name}: expected weights {list(expected)}, got {list(self.weights.shape)}")
        return self.weights

    def _shares(self, trace: AttentionTrace) -> Tensor:
        """Return the share of each sample of the batch in the weights of each sample, [B, B]; rows sum to 1."""
        names = range(trace.batch) if trace.sample_ids is None else trace.sample_ids
        pictures = range(trace.batch) if trace.picture_ids is None else trace.picture_ids
        in_order = sorted(range(trace.batch), key=lambda place: str(names[place]))  # whatever the order of the batch
        shares = torch.zeros(trace.batch, trace.batch, dtype=trace.dtype, device=trace.device)
        for sample, picture in enumerate(pictures):
            others = [place for place in in_order if pictures[place] != picture]
            if not others:
                raise TraceError(
                    f"{type(self).__name__} takes its weights from samples of other images, and the batch of sample "
                    f"{names[sample]} has none: trace samples of two or more images together"
                )
            drawn = Random(str(names[sample])).sample(others, min(self.partners, len(others)))
            shares[sample, drawn] = 1 / len(drawn)
        return shares
