"""The part of a photo that an encoder sees, compared with open_clip's own preprocessing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from clipmapper.errors import UserError
from clipmapper.explaining.output import seen_box


@settings(max_examples=40, deadline=None)
@example(129, 64, 32)
@example(64, 133, 32)
@example(64, 256, 32)
@given(st.integers(64, 300), st.integers(64, 300), st.sampled_from([32, 48, 63]))
def test_the_box_is_what_the_preprocessing_keeps(width: int, height: int, side: int) -> None:
    """Preprocess a photo whose pixels are their coordinates; the result shows which part the encoder sees."""
    ramps = np.zeros((height, width, 3))
    ramps[..., 0], ramps[..., 1] = np.arange(0.5, width) / width, np.arange(0.5, height)[:, None] / height
    dither = np.random.default_rng(0).random(ramps.shape)  # rounds up or down, so that the average is exact
    photo = Image.fromarray(np.floor(255 * ramps + dither).clip(0, 255).astype(np.uint8))
    preprocess = image_transform_v2(PreprocessCfg(size=side, mean=(0, 0, 0), std=(1, 1, 1)), is_train=False)
    seen = preprocess(photo).double().numpy()
    left, top, right, bottom = seen_box((width, height), {"size": side, "resize_mode": "shortest"})
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    pixel = min(width, height) / side  # size of one pixel of the encoder's input, in pixels of the photo
    for ramp, first, last, length in ((seen[0].mean(0), left, right, width), (seen[1].mean(1), top, bottom, height)):
        expected = first + np.arange(0.5, side) / side * (last - first)
        off = (ramp * length - expected)[4:-4] / pixel  # without the edges, where scaling repeats the last pixel
        assert abs(off.mean()) < 0.25  # 8 bits: at most 0.21; a box that is rounded in another way: 0.5
        assert abs(off[:10].mean()) < 0.4
        assert abs(off[-10:].mean()) < 0.4


def test_a_mark_in_the_photo_is_seen_where_it_is() -> None:
    """Patch (1, 3) of 8 × 8 patches of the box is painted; then patch (1, 3) of the encoder has this colour."""
    side, size = 48, (301, 170)
    left, top, right, _ = seen_box(size, {"size": (side, side), "resize_mode": "shortest"})
    step = (right - left) / 8
    mark = [round(v) for v in (left + 3 * step, top + step, left + 4 * step, top + 2 * step)]
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[mark[1] : mark[3], mark[0] : mark[2]] = 255
    cfg = PreprocessCfg(size=side, mean=(0, 0, 0), std=(1, 1, 1))
    seen = image_transform_v2(cfg, is_train=False)(Image.fromarray(pixels)).mean(0)
    means = torch.nn.functional.avg_pool2d(seen[None], side // 8)[0]
    assert divmod(int(means.argmax()), 8) == (1, 3)
    assert means[1, 3] > 0.9
    assert means.sum() - means[1, 3] < 0.15


def test_other_preprocessing() -> None:
    assert seen_box((90, 60), {"size": 32, "resize_mode": "squash"}) == (0, 0, 90, 60)
    for settings_ in ({"size": 32, "resize_mode": "longest"}, {"size": (32, 48)}):
        with pytest.raises(UserError, match="can't be drawn"):
            seen_box((90, 60), settings_)
