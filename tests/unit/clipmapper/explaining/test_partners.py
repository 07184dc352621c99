"""The samples of other images whose weights a run's samples use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from explain_traces import make_trace
from torch import Tensor

from clipmapper.errors import UserError
from clipmapper.explaining.partners import AT_ONCE, Partners
from explain import AttentionTrace, Explainer, Needs, TraceError, explainers

IMAGES = {10 * image + number: image for image in range(1, 41) for number in range(3)}  #: three questions per image


def weight(sample: int, item: int) -> list[float]:
    """Return made-up weights of two steps, which name the sample and the item."""
    return [float(sample), sample + item / 10]


def known(trace: AttentionTrace) -> Tensor:
    assert trace.sample_ids is not None
    ids = list(trace.sample_ids)
    return torch.tensor([weight(int(each), ids[:place].count(each)) for place, each in enumerate(ids)])


class Single(explainers.Shuffled):
    """``shuffled`` with weights that name their sample."""

    def own_weights(self, trace: AttentionTrace) -> Tensor:
        return known(trace)


class Mean(explainers.DepthMatched):
    """``depth_matched`` with weights that name their sample."""

    def own_weights(self, trace: AttentionTrace) -> Tensor:
        return known(trace)


def tracing(
    items: int = 1, unreadable: Sequence[int] = (), seen: list[list[int]] | None = None
) -> Callable[[Sequence[int], Needs], AttentionTrace | None]:
    """Return a function that traces samples of ``items`` items each, and notes the samples in ``seen``."""

    def trace(ids: Sequence[int], needs: Needs) -> AttentionTrace | None:
        assert needs.every == {"attention", "residual", "residual_grad", "output", "output_grad"}
        if seen is not None:
            seen.append(list(ids))
        names = [each for each in ids if each not in unreadable for _ in range(items)]
        return replace(make_trace(batch=len(names)), sample_ids=names) if names else None

    return trace


def partners(seed: int = 0, **options: object) -> Partners:
    return Partners(IMAGES, seed, tracing(**options))  # type: ignore[arg-type]


def weights_of(bound: dict[str, Explainer], name: str) -> list[list[float]]:
    each = bound[name]
    assert isinstance(each, explainers.Shuffled | explainers.DepthMatched)
    assert each.weights is not None
    found: list[list[float]] = each.weights.tolist()
    return found


def test_each_sample_has_a_partner_of_another_image_whose_weights_it_uses() -> None:
    bound, found = partners().bind({"shuffled": Single(), "uniform": explainers.Uniform()}, list(IMAGES))
    assert list(found) == list(IMAGES)
    assert all(IMAGES[partner] != IMAGES[sample] for sample, partner in found.items())
    assert len(set(found.values())) > len(IMAGES) / 2  # partners are drawn for each sample
    assert weights_of(bound, "shuffled") == [weight(partner, 0) for partner in found.values()]
    assert isinstance(bound["uniform"], explainers.Uniform)


def test_partners_depend_on_seed_and_sample_but_not_on_the_batch() -> None:
    every, ids = {"shuffled": Single(), "depth_matched": Mean()}, list(IMAGES)
    whole, found = partners().bind(every, ids)
    by_batch = [partners().bind(every, ids[start : start + 7]) for start in range(0, len(ids), 7)]
    assert {sample: partner for _, of_batch in by_batch for sample, partner in of_batch.items()} == found
    for name in every:
        assert [row for bound, _ in by_batch for row in weights_of(bound, name)] == weights_of(whole, name)
    assert partners(seed=1).bind(every, ids)[1] != found


def test_an_item_of_a_caption_uses_an_item_of_the_partner() -> None:
    items = [sample for sample in IMAGES for _ in range(4)]
    bound, found = partners(items=5).bind({"shuffled": Single()}, items)
    rows = weights_of(bound, "shuffled")
    drawn = [round(10 * (last - first)) for first, last in rows]
    assert [first for first, _ in rows] == [found[sample] for sample in items]
    assert set(drawn) == set(range(5))
    assert len(set(map(tuple, zip(*[iter(drawn)] * 4, strict=True)))) > 1  # not the same items for every sample


def test_a_sample_that_cannot_be_explained_is_nobodys_partner() -> None:
    _, usual = partners().bind({"shuffled": Single()}, list(IMAGES))
    gone = set(list(usual.values())[:20])
    _, found = partners(unreadable=tuple(gone)).bind({"shuffled": Single()}, list(IMAGES))
    assert not gone & set(found.values())
    assert all(IMAGES[partner] != IMAGES[sample] for sample, partner in found.items())
    assert {s: p for s, p in usual.items() if p not in gone}.items() <= found.items()


def test_the_pool_has_one_sample_of_each_image_and_leaves_out_the_samples_own() -> None:
    seen: list[list[int]] = []
    pool = partners(seen=seen)
    bound, found = pool.bind({"depth_matched": Mean()}, list(IMAGES))
    assert found == {}
    traced = [sample for part in seen for sample in part]
    assert sorted(IMAGES[sample] for sample in traced) == sorted(set(IMAGES.values()))
    assert max(map(len, seen)) == AT_ONCE
    for sample, row in zip(IMAGES, weights_of(bound, "depth_matched"), strict=True):
        others = [other for other in traced if IMAGES[other] != IMAGES[sample]]
        assert row == pytest.approx([sum(others) / 39] * 2)
    pool.bind({"depth_matched": Mean()}, list(IMAGES)[:2])
    assert sum(map(len, seen)) == 40  # the pool is traced once


def test_the_pool_has_at_most_64_samples() -> None:
    seen: list[list[int]] = []
    many = {number: number for number in range(100)}
    Partners(many, 0, tracing(seen=seen)).bind({"depth_matched": Mean()}, [3, 4])
    assert sum(map(len, seen)) == 64


def test_nothing_is_traced_for_explainers_without_partners() -> None:
    seen: list[list[int]] = []
    every = {"weighted": explainers.Weighted(), "random": explainers.Random()}
    assert partners(seen=seen).bind(every, [10, 11]) == (every, {})
    assert seen == []


@pytest.mark.parametrize("explainer", [explainers.Shuffled(), explainers.DepthMatched()])
def test_a_run_without_another_image_is_refused(explainer: Explainer) -> None:
    for images, unreadable in (({1: 7, 2: 7}, ()), ({1: 7, 2: 8}, (2,))):
        run = Partners(images, 0, tracing(unreadable=unreadable))
        with pytest.raises(UserError, match="explainer=mine: it uses the weights of a sample of another image, and"):
            run.bind({"mine": explainer}, [1])


def test_a_trace_that_fails_is_one_line() -> None:
    def trace(ids: Sequence[int], needs: Needs) -> AttentionTrace:
        raise TraceError("step 2: residual holds NaN or Inf")

    with pytest.raises(UserError, match=r"samples \d+ to \d+ can't be explained: step 2: residual holds NaN"):
        Partners(IMAGES, 0, trace).bind({"shuffled": Single()}, [10, 11])
