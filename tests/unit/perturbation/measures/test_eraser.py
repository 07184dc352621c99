"""Comprehensiveness and sufficiency of models with a known closed form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipmapper.errors import UserError
from perturbation.measures.eraser import Eraser, comprehensiveness, eraser_masks, sufficiency
from perturbation.removal.order import draw_ties

SHARES = (0.05, 0.1, 0.2, 0.5)


def test_eraser_shares_of_a_sum_model() -> None:
    """The tokens after the class token have the values 20, 19, … 1; the top shares are 1, 2, 4 and 10 tokens."""
    values = np.concatenate([[0.0], np.arange(20, 0, -1)]) / 210
    removable = np.arange(21)[None] > 0
    masks = eraser_masks(values[None], removable, SHARES, np.zeros((1, 21)))
    assert (~masks.without_top).sum(axis=-1).tolist() == [[1, 2, 4, 10]]
    assert masks.only_top.sum(axis=-1).tolist() == [[2, 3, 5, 11]]
    assert masks.without_top[..., 0].all()
    assert masks.only_top[..., 0].all()
    full = np.array([values.sum()])
    top = np.array([[20, 39, 74, 155]]) / 210
    np.testing.assert_allclose(comprehensiveness(full, masks.without_top @ values), top)
    np.testing.assert_allclose(sufficiency(full, masks.only_top @ values), 1 - top)


@settings(deadline=None)
@given(arrays(np.float64, (4, 11), elements=st.integers(0, 3).map(float)), arrays(np.bool_, (4, 11)))
def test_eraser_masks_split_the_removable_tokens(scores: np.ndarray, removable: np.ndarray) -> None:
    ties = draw_ties(0, range(4), "image", 11)
    without_top, only_top = eraser_masks(scores, removable, SHARES, ties)
    assert (without_top ^ only_top)[np.broadcast_to(removable[:, None], only_top.shape)].all()
    assert (without_top & only_top)[np.broadcast_to(~removable[:, None], only_top.shape)].all()
    for sample, n in enumerate(removable.sum(axis=1).tolist()):
        top = [-(-n * percent // 100) for percent in (5, 10, 20, 50)]
        assert (only_top & removable[:, None])[sample].sum(axis=-1).tolist() == top
        for index in range(len(SHARES)):
            in_top = only_top[sample, index] & removable[sample]
            below = without_top[sample, index] & removable[sample]
            if in_top.any() and below.any():
                lowest, highest = scores[sample, in_top].min(), scores[sample, below].max()
                assert lowest >= highest
                if lowest == highest:
                    equal = scores[sample] == lowest
                    assert ties[sample, in_top & equal].max() < ties[sample, below & equal].min()


def test_eraser_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\[B, F\]"):
        comprehensiveness(np.zeros(3), np.zeros((1, 4)))
    with pytest.raises(ValueError, match=r"\[B, F\]"):
        sufficiency(np.zeros((3, 1)), np.zeros((3, 4)))


@pytest.mark.parametrize("share", [0, -0.1, 1.1, "half"])
def test_refused_shares(share: object) -> None:
    with pytest.raises(UserError, match="the shares must be above 0 and at most 1"):
        Eraser([0.5, share])  # type: ignore[list-item]
