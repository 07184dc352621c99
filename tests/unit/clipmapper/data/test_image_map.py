"""Images by id that are made when they are asked for: the same as a dict of them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clipmapper.data.images import FileImage
from clipmapper.data.records import ImageMap, ImageSource

IMAGES = st.dictionaries(st.integers(-5, 40), st.text("ab", max_size=2).map(FileImage))


@given(st.lists(IMAGES, min_size=1, max_size=4), st.data())
def test_joined_images_are_those_of_a_dict(parts: list[dict[int, ImageSource]], draw: st.DataObject) -> None:
    expected: dict[int, ImageSource] = {}
    for part in parts:
        expected |= part
    found = ImageMap.joined([ImageMap.joined(parts[:2]), *parts[2:]])
    assert found == expected
    assert list(found) == sorted(expected)
    assert [key in found for key in range(-6, 42)] == [key in expected for key in range(-6, 42)]
    some = draw.draw(st.lists(st.sampled_from(sorted(expected)), max_size=9)) if expected else []
    assert found.only(np.array(some, np.int64)) == {key: expected[key] for key in some}
