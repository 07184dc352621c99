"""The command ``sanity_check``, which randomises a model."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from models import CAPTION_TASK, random_vqa, write_untrained
from tiny_runs import Tiny

from clipmapper.files import read_json
from perturbation.randomise.layers import layers_from_the_top
from perturbation.randomise.run import curve_rows
from perturbation.randomise.samples import read_samples

Command = Callable[..., tuple[int, str, list[str]]]
NAMES = ("a", "b")


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("randomised") / "run"
    tiny.train(run)
    return run


def test_the_command_writes_curves_and_a_figure(tiny: Tiny, trained: Path, command: Command, tmp_path: Path) -> None:
    few = ("explainer.names=[weighted,random]", "samples=7", "batch_size=4", f"checkpoint={trained}")
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        status, out, errors = command("sanity_check", *tiny.overrides, *few, f"hydra.run.dir={folder}")
        assert (status, errors) == (0, [])
        assert "weighted" in out
        found.append(read_json(folder / "sanity.json"))
        assert (folder / "sanity.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "sanity.pdf").read_bytes().startswith(b"%PDF")
    rows = found[0]["rows"]
    assert rows == found[1]["rows"]
    assert found[0]["config"]["samples"] == 7
    # The trained model has one mapper layer less than random_vqa, but one encoder block more.
    assert len(rows) == 2 * 2 * (1 + len(layers_from_the_top(random_vqa("b"))))
    assert {row["samples"] for row in rows} == {7}
    assert curve_rows(read_samples(tmp_path / "one" / "sanity.parquet"), {"task": "vqa", "mapper": "b"}, 0) == rows
    with (tmp_path / "one" / "sanity.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(line["correlation"]) for line in written] == [row["correlation"] for row in rows]
    assert [line["layer"] for line in written] == [row["layer"] for row in rows]
    assert [float(line["ci95_high"]) for line in written] == [row["ci95"][1] for row in rows]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("samples=61", "samples=61: split=test has 60 questions; give samples=60 or fewer"),
        ("samples=1", "samples=1 must be 2 or more"),
        ("split=dev", "split=dev: this data has train, val, test"),
    ],
)
def test_bad_input_is_one_line(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path, override: str, message: str
) -> None:
    place = (f"checkpoint={trained}", f"hydra.run.dir={tmp_path / 'run'}")
    status, _, errors = command("sanity_check", *tiny.overrides, *place, override)
    assert status == 1
    assert errors == [f"error: {message}"]


@pytest.mark.slow
def test_captions(tiny: Tiny, command: Command, tmp_path: Path) -> None:
    checkpoint = write_untrained(tiny, tmp_path)
    few = ("explainer.names=[weighted,random,last_to_first]", "samples=5", "batch_size=3", f"checkpoint={checkpoint}")
    status, _, errors = command(
        "sanity_check", *tiny.overrides, *CAPTION_TASK, *few, f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert (status, errors) == (0, [])
    rows = read_json(tmp_path / "run" / "sanity.json")["rows"]
    assert {(row["explainer"], row["modality"]) for row in rows} == {("weighted", "image"), ("random", "image")}
    assert {row["samples"] for row in rows} == {5}
    assert [row["correlation"] for row in rows if row["layer"] == "none"] == pytest.approx([1, 1])
    last = [row["correlation"] for row in rows if row["layer"] == "embeddings" and row["explainer"] == "weighted"]
    assert last[0] < 0.9


def test_more_images_than_the_split_has_are_refused(tiny: Tiny, command: Command, tmp_path: Path) -> None:
    place = (f"checkpoint={write_untrained(tiny, tmp_path)}", f"hydra.run.dir={tmp_path / 'run'}")
    status, _, errors = command("sanity_check", *tiny.overrides, *CAPTION_TASK, *place, "samples=11")
    assert status == 1
    assert errors == ["error: samples=11: split=test has 10 images; give samples=10 or fewer"]


def test_a_trace_that_an_explainer_refuses_is_one_line(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path
) -> None:
    odd = ("explainer.names=[odd]", "explainer.odd={_target_:odd_explainers.Refusing}")
    place = (f"checkpoint={trained}", f"hydra.run.dir={tmp_path / 'run'}", "samples=4")
    status, _, errors = command("sanity_check", *tiny.overrides, *place, *odd)
    assert (status, len(errors)) == (1, 1)
    assert re.fullmatch(r"error: questions \d+ to \d+ can't be explained: step 2 holds NaN", errors[0])
