"""Saving of figures: the same bytes every time, and no partial files."""

import dataclasses
import os
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from figure_checks import (
    make_sample,
    random_explanations,
)
from PIL import Image
from small_disk import small_disk

from explain.figures import Explanation, draw, save


def test_the_same_input_gives_the_same_bytes(tmp_path):
    sample = make_sample(*random_explanations(2))
    figure = draw(sample)
    first, again = save(figure, tmp_path / "a"), save(figure, tmp_path / "b.c" / "d.e")
    user = {
        "savefig.bbox": "tight",
        "pdf.fonttype": 3,
        "image.origin": "lower",
        "font.size": 20,
    }
    with matplotlib.rc_context(user):
        others = save(draw(sample), tmp_path / "c")
    assert [p.name for p in again] == ["d.e.png", "d.e.pdf"]
    for a, b, c in zip(first, again, others, strict=True):
        assert a.read_bytes() == b.read_bytes() == c.read_bytes()
    pdf = first[1].read_bytes()
    assert b"Date" not in pdf
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    with Image.open(first[0]) as png:
        assert png.info["dpi"] == pytest.approx((300, 300), abs=0.1)
        assert not {"Software", "Creation Time"} & set(png.info)


def test_another_process_writes_the_same_bytes_without_importing_pyplot(tmp_path):
    code = """
import sys, numpy as np
from explain.figures import *
e = Explanation("weighted", np.eye(3), [0.5, 1])
s = Sample(Photo(np.zeros((9, 9, 3), np.uint8), (0, 0, 9, 9)), "Is it 😀?", ["is", "it"], "yes", 0.5, [e])
files = save(draw(s, scale="common"), sys.argv[1])
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = os.environ | {"PYTHONHASHSEED": "7", "SOURCE_DATE_EPOCH": "7"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "other"], check=True, env=environment)
    image = np.zeros((9, 9, 3), np.uint8)
    e = Explanation("weighted", np.eye(3), [0.5, 1])
    sample = make_sample(e, image=image, box=(0, 0, 9, 9), question="Is it 😀?")
    sample = dataclasses.replace(sample, probability=0.5)
    for file in save(draw(sample, scale="common"), tmp_path / "own"):
        assert file.read_bytes() == (tmp_path / f"other{file.suffix}").read_bytes()


def test_a_failed_save_keeps_the_old_file(tmp_path):
    figure = draw(make_sample(*random_explanations(1)))
    (tmp_path / "a.png").write_bytes(b"old")
    with small_disk(1000), pytest.raises(OSError, match="File too large"):
        save(figure, tmp_path / "a")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]
