"""Samples of other images whose weights controls use, drawn among the samples of a run (docs/method.md, Controls)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random

import torch
from torch import Tensor

from clipmapper.errors import UserError
from explain import AttentionTrace, Explainer, Needs, TraceError
from explain.explainers.base.borrowed import BorrowedWeights

AT_ONCE = 8  # samples of the pool that are traced together; not the run's batch size, on which nothing may depend

#: Traces samples by id. The trace's ``sample_ids`` name the sample of each item. Samples that can't be explained are
#: left out; None if none is left.
TraceSamples = Callable[[Sequence[int], Needs], AttentionTrace | None]
Borrowers = Mapping[str, BorrowedWeights]  #: explainers that use the weights of other samples, by name


class Partners:
    """The samples of other images whose weights the samples of a run are explained with.

    With ``Explainer.partners = 1``, a sample has one partner, drawn by the seed and the sample's id. With a larger
    number, all samples share a pool: one sample of each of the first images in an order drawn by the seed. A sample
    does not use the part of the pool that shows its own image. Neither draw depends on the batches.

    Args:
        images: Image id of each sample of the run, by sample id.
        seed: Seed of the draws.
        trace: Function that traces samples of the run.
    """

    def __init__(self, images: Mapping[int, int], seed: int, trace: TraceSamples):
        self.images, self.seed, self.trace = images, seed, trace
        self._order = sorted(images)
        Random(f"{seed}/order").shuffle(self._order)
        self._pools: dict[str, dict[int, Tensor]] = {}

    def bind(
        self, explainers: Mapping[str, Explainer], items: Sequence[int]
    ) -> tuple[dict[str, Explainer], dict[int, int]]:
        """Pass the weights of other samples to the explainers that use them.

        Args:
            explainers: Explainers by name.
            items: Sample id of each item of the batch's trace, such as of each sub-word of its captions.

        Returns:
            The explainers for this batch, and the partner of each sample; no partners if no explainer uses one.

        Raises:
            UserError: The run has no other image that can be explained, or a trace contains NaN or Inf.
        """
        borrowers = {name: each for name, each in explainers.items() if isinstance(each, BorrowedWeights)}
        single = {name: each for name, each in borrowers.items() if each.partners == 1}
        partners, weights = self._of_partners(items, single) if single else ({}, {})
        weights |= {name: self._of_pool(items, name, each) for name, each in borrowers.items() if name not in single}
        return {**explainers, **{name: borrowers[name].with_weights(each) for name, each in weights.items()}}, partners

    def _of_partners(self, items: Sequence[int], explainers: Borrowers) -> tuple[dict[int, int], dict[str, Tensor]]:
        """Return the partner of each sample, and for each item the weights of one item of its partner, [M, steps]."""
        others = {sample: self._others(sample) for sample in items}
        partners: dict[int, int] = {}
        known: dict[int, dict[str, Tensor]] = {}
        while waiting := [sample for sample in others if sample not in partners]:
            try:
                drawn = {sample: next(others[sample]) for sample in waiting}
            except StopIteration:
                raise _refusal(explainers) from None
            known |= self._weights(sorted(set(drawn.values()) - known.keys()), explainers)
            partners |= {sample: other for sample, other in drawn.items() if other in known}
        seen = Counter[int]()
        rows: dict[str, list[Tensor]] = {name: [] for name in explainers}
        for sample in items:
            draw = Random(f"{self.seed}/{sample}/{seen[sample]}").random()
            seen[sample] += 1
            for name, weights in known[partners[sample]].items():
                rows[name].append(weights[int(draw * len(weights))])
        return partners, {name: torch.stack(each) for name, each in rows.items()}

    def _others(self, sample: int) -> Iterator[int]:
        """Yield the samples of other images; the first one that can be explained is the partner."""
        start, count = Random(f"{self.seed}/{sample}").randrange(len(self._order)), len(self._order)
        for other in (self._order[(start + step) % count] for step in range(count)):
            if self.images[other] != self.images[sample]:
                yield other

    def _of_pool(self, items: Sequence[int], name: str, explainer: BorrowedWeights) -> Tensor:
        """Return for each item the mean weights of the pool's samples of other images, [M, steps]."""
        if name not in self._pools:
            pool = list({self.images[each]: each for each in self._order}.values())[: explainer.partners]
            parts = [self._weights(pool[k : k + AT_ONCE], {name: explainer}) for k in range(0, len(pool), AT_ONCE)]
            self._pools[name] = {other: weights[name].mean(0) for part in parts for other, weights in part.items()}
        means = {}
        for sample in dict.fromkeys(items):
            others = [
                weights for other, weights in self._pools[name].items() if self.images[other] != self.images[sample]
            ]
            if not others:
                raise _refusal([name])
            means[sample] = torch.stack(others).mean(0)
        return torch.stack([means[sample] for sample in items])

    def _weights(self, samples: Sequence[int], explainers: Borrowers) -> dict[int, dict[str, Tensor]]:
        """Return w_X of the items of each sample that can be explained, [items, steps] by explainer."""
        needs = Needs.of(explainers.values())
        needs = replace(needs, every=needs.every - {"attention_grad"})  # it is not part of w_X
        try:
            trace = self.trace(samples, needs) if samples else None
        except TraceError as error:
            raise UserError(f"samples {samples[0]} to {samples[-1]} can't be explained: {error}") from error
        if trace is None:
            return {}
        assert trace.sample_ids is not None
        items = defaultdict(list)
        for item, sample in enumerate(trace.sample_ids):
            items[int(sample)].append(item)
        weights = {name: each.own_weights(trace) for name, each in explainers.items()}
        return {sample: {name: each[own] for name, each in weights.items()} for sample, own in items.items()}


def _refusal(explainers: Iterable[str]) -> UserError:
    return UserError(
        f"explainer={next(iter(explainers))}: it uses the weights of a sample of another image, and this run has none "
        "that can be explained; give more samples, or leave this explainer out"
    )
