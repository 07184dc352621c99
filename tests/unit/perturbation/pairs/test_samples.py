"""The samples of a test as pairs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from clipmapper.any_model.samples import Sample
from clipmapper.data.images import BadImage, FileImage
from perturbation.pairs.samples import first_pair


def test_the_first_pair_is_found_without_naming_the_images_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (4, 3), "red").save(tmp_path / "good.png")
    files = [FileImage(tmp_path / name) for name in ("none.png", "good.png")]
    samples = [Sample(number, file, "a") for number, file in enumerate(files)]
    assert first_pair(samples, "skip").id == 1
    assert capsys.readouterr().err == ""
    with pytest.raises(BadImage, match=r"none\.png: no such image"):
        first_pair(samples, "fail")
