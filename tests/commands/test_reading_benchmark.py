"""The benchmark of reading any model: its ways agree, and the model runs as often as each way says."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_benchmarks import shrink_benchmarks

from clipmapper.files import read_json
from perturbation.benchmark.pair_models import photos_with_text, tiny_clip, tiny_llava
from perturbation.benchmark.reading import EXPLAINERS, GRID, Curves
from perturbation.benchmark.region_loop import region_loop
from perturbation.measures.base import SAMPLES
from perturbation.perturb.parts import Tables

pytest.importorskip("transformers")
Command = Callable[..., tuple[int, str, list[str]]]
STEPS = [k / 36 for k in range(4)]
DIRECTIONS = ("positive", "negative")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clip() -> tuple[Any, Any]:
    return tiny_clip()


def sizes_read(patch: pytest.MonkeyPatch, model: Any, name: str, key: str = "pixel_values") -> list[int]:
    """Return a list to which each call of a method adds the number of images or texts that it reads."""
    sizes: list[int] = []
    plain = getattr(model, name)
    patch.setattr(model, name, lambda **inputs: (sizes.append(len(inputs[key])), plain(**inputs))[1])
    return sizes


def values(tables: Tables) -> dict[tuple[str, str], np.ndarray]:
    """Return the similarities [samples, steps] by explainer and direction."""
    found = {}
    for table in tables[SAMPLES]:
        about = tuple(table[name][0].as_py() for name in ("explainer", "direction"))
        found[about] = np.array(table["similarity"].to_pylist())
    return found


@pytest.mark.slow
def test_every_figure_is_a_positive_number(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shrink_benchmarks(monkeypatch)
    status, out, errors = command("benchmark", "what=[reading]", "threads=1", f"hydra.run.dir={tmp_path}")
    assert (status, errors) == (0, [])
    assert out.count("reading, size tiny") == 1
    figures = read_json(tmp_path / "benchmark.json")
    del figures["versions"]
    assert len(figures) == 7
    assert all(np.isfinite(value) and value > 0 for value in figures.values())


def test_transformers_is_needed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    status, _, errors = command("benchmark", "what=[reading]")
    assert status == 1
    assert errors == ['error: what=reading: transformers is not installed: pip install -e ".[transformers]"']


def test_batches_need_fewer_runs_of_the_model_and_read_subsets_no_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = tiny_llava()
    curves = Curves(model, processor, 1, STEPS)
    sizes = sizes_read(monkeypatch, model.model, "get_image_features")
    again = curves.reading()
    again()
    # The complete pair, and for each modality 2 explainers × 2 directions × 3 steps that remove something.
    distinct = sum(sizes)
    assert 13 < distinct <= 1 + 2 * len(EXPLAINERS) * len(DIRECTIONS) * 3
    assert len(sizes) == 1  # all fit into one batch
    again()
    assert sum(sizes) == distinct
    curves.read(1)
    assert sizes[1:] == [1] * distinct


def test_a_dual_encoder_keeps_what_is_complete(clip: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    curves = Curves(*clip, 2, STEPS, ["image"])
    texts = sizes_read(monkeypatch, clip[0], "get_text_features", "input_ids")
    one = curves.read(4)
    assert texts == [1]  # both photos have the same text
    two = curves.read(4, keep=False)
    assert texts[1:] == [1] * (len(texts) - 1)
    assert len(texts) > 4
    for about, expected in values(one).items():
        np.testing.assert_allclose(values(two)[about], expected, atol=1e-6)


def test_the_region_loop_gives_the_curves(clip: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos have the size that the model reads, so that removing cells before and after preprocessing is the same."""
    monkeypatch.setattr("perturbation.benchmark.pair_models.PHOTO", 60)
    monkeypatch.setattr("perturbation.benchmark.reading.PHOTO", 60)
    assert photos_with_text(1)[0].image.size == (60, 60)  # type: ignore[union-attr]
    curves = Curves(*clip, 2, STEPS, ["image"])
    sizes = sizes_read(monkeypatch, clip[0], "forward")
    found = region_loop(*clip, curves.pairs, curves.scores["image"], GRID, len(STEPS))
    assert sizes == [1] * (2 * len(EXPLAINERS) * len(DIRECTIONS) * len(STEPS))
    expected = values(curves.read())
    assert found.keys() == expected.keys()
    for about, curve in found.items():
        np.testing.assert_allclose(curve, expected[about], atol=1e-3)  # the mean colour is rounded to 8 bits
        assert np.ptp(curve, axis=1).min() > 1e-2
