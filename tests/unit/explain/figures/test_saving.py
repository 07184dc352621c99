"""Saving of figures: the same bytes every time, and no partial files."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from figure_checks import (
    make_sample,
    random_explanations,
)
from matplotlib.figure import Figure
from PIL import Image
from small_disk import small_disk

from explain.figures import Explanation, draw, save, saving
from explain.figures.saving import png


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


@pytest.mark.slow
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


@pytest.mark.parametrize("dpi", [72, 300])
def test_every_figure_has_300_pixels_per_inch_and_embedded_fonts(dpi, tmp_path):
    """The figures of all commands are saved by this function: no other code saves a figure."""
    figure = Figure(figsize=(2, 1), dpi=dpi)
    axes = figure.subplots()
    axes.plot([0, 1], label="ä")
    axes.set_title("$\\alpha$ bold", fontweight="bold")
    with matplotlib.rc_context({"pdf.fonttype": 3, "pdf.use14corefonts": True, "savefig.dpi": 50}):
        image, document = save(figure, tmp_path / "a")
        assert png(figure) == image.read_bytes()
    with Image.open(image) as drawn:
        assert drawn.size == (600, 300)
        assert drawn.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    content = document.read_bytes()
    kinds = re.findall(rb"/Subtype /(Type\d\w*|TrueType|CIDFontType\d)", content)
    assert kinds
    assert not {b"Type3", b"Type1"} & set(kinds)
    fonts = content.count(b"/Type /FontDescriptor")
    assert content.count(b"/FontFile2 ") == fonts > 1  # one file for each font


def test_no_other_code_saves_a_figure():
    project, rooms = Path(saving.__file__).parents[2], ("explain", "clipmapper", "perturbation", "scripts")
    files = [file for name in rooms for file in (project / name).rglob("*.py")]
    assert len(files) > 100
    found = [file for file in files if re.search(r"savefig\(|print_(png|pdf|figure)\(", file.read_text())]
    saved = [file.relative_to(project).as_posix() for file in found]
    assert saved == ["explain/figures/saving.py"]


def test_a_failed_save_keeps_the_old_file(tmp_path):
    figure = draw(make_sample(*random_explanations(1)))
    (tmp_path / "a.png").write_bytes(b"old")
    with small_disk(1000), pytest.raises(OSError, match="File too large"):
        save(figure, tmp_path / "a")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]
