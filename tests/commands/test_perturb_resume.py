"""Perturbation runs that are killed and resumed, or run in two processes: the results have the same bytes."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from caption_runs import Captioner
from killed_runs import killed_after
from perturb_runs import WHOLE, Trained, key, records, results
from tiny_runs import composed, finish, start
from watching import watched

from clipmapper.cli import typed
from clipmapper.data.images import EncodedImage, FileImage
from clipmapper.errors import UserError
from clipmapper.features import hashes
from clipmapper.files import read_json
from perturbation.config import PerturbCaptionsConfig
from perturbation.perturb import caption, lightning
from perturbation.perturb.identity import IMAGES
from perturbation.perturb.parts import finished
from perturbation.perturb.vqa import build_tests
from perturbation.removal.batch_size import CANDIDATES


@pytest.mark.slow  # a part of it is tested with the partners of samples
@pytest.mark.parametrize(("parts", "in_place"), [(0, True), (1, True), (1, False), (2, False)])
def test_a_resumed_run_has_the_same_bytes(
    trained: Trained, whole: Path, tmp_path: Path, parts: int, in_place: bool
) -> None:
    stopped, resumed = tmp_path / "stopped", tmp_path / ("stopped" if in_place else "resumed")
    with killed_after(parts):
        trained.perturb(stopped, *WHOLE)
    assert not (stopped / "perturbation.json").exists()
    assert finished(stopped, range(2)) == list(range(parts))
    written: list[int] = []
    with watched(lightning, "write_part", lambda _run, number, _tables: written.append(number)):
        trained.perturb(resumed, *WHOLE, *(() if in_place else (f"resume={stopped}",)))
    assert written == list(range(parts, 2))  # no finished part is written again
    assert results(resumed) == results(whole)


OTHER_FILLS = ("mean", "zero", "blur", "noisy_linear")


@pytest.mark.parametrize("how", ["noise", *(pytest.param(how, marks=pytest.mark.slow) for how in OTHER_FILLS)])
def test_filled_patches_depend_on_neither_the_batches_nor_a_stop(trained: Trained, tmp_path: Path, how: str) -> None:
    reduced = (f"removal.image={how}", "modality=[image]", "steps=[0,0.5,1]", "measure.names=[areas]", "controls=[]")
    whole, stopped, other = (tmp_path / name for name in ("whole", "stopped", "other"))
    trained.perturb(whole, *reduced)
    with killed_after(1):
        trained.perturb(stopped, *reduced)
    trained.perturb(stopped, *reduced)
    assert results(stopped) == results(whole)
    trained.perturb(other, *reduced, "batch_samples=6", "engine_batch=5")
    there = {key(row, "direction"): row for row in records(whole)}
    assert len(there) == 6 * 2
    for row in records(other):
        assert row["probability"] == pytest.approx(there[key(row, "direction")]["probability"], abs=1e-5)


@pytest.mark.slow
def test_the_engine_s_batch_size_is_measured_once(trained: Trained, tmp_path: Path) -> None:
    small = ("engine_batch=null", "samples=2", "modality=[text]", "faithfulness=false")
    trained.perturb(tmp_path / "one", *small)
    chosen = tmp_path / "one" / "engine.json"
    assert json.loads(chosen.read_text())["engine_batch"] in CANDIDATES["cpu"]
    chosen.write_text('{"engine_batch": 3}')  # not among the candidates
    trained.perturb(tmp_path / "two", *small, f"resume={tmp_path / 'one'}")
    assert read_json(tmp_path / "two" / "engine.json")["engine_batch"] == 3
    assert results(tmp_path / "one") == results(tmp_path / "two")


@pytest.mark.slow
def test_another_config_is_not_resumed(trained: Trained, whole: Path, tmp_path: Path) -> None:
    for override, named in (
        ("steps=chefer", "steps"),
        ("seed=1", "questions|seed"),
        ("removal.text=drop", "removal.text"),
    ):
        with pytest.raises(UserError, match=f"contains a run with .*({named})"):
            trained.perturb(tmp_path, *WHOLE, override, f"resume={whole}")
    with pytest.raises(UserError, match="explainers"):
        trained.perturb(tmp_path, *WHOLE, f"resume={whole}", explainer="genatt")
    assert list(tmp_path.glob("parts/*")) == []


def test_replaced_images_are_part_of_the_identity(trained: Trained, captioner: Captioner) -> None:
    image = EncodedImage("other", lambda: b"other")
    answers = build_tests(trained.config(), [], {})
    other: Any = replace(answers, trained=replace(answers.trained, images=dict.fromkeys(answers.trained.images, image)))
    assert changed(answers.content, other.content) == {IMAGES}
    config = typed(composed("perturb", *captioner.overrides), PerturbCaptionsConfig)
    captions = caption.build_tests(config, [], {})
    shown = tuple(replace(each, image=image) for each in captions.trained.images)
    other = replace(captions, trained=replace(captions.trained, images=shown))
    assert changed(captions.content, other.content) == {IMAGES}


def test_the_second_start_reads_no_image(
    trained: Trained, captioner: Captioner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hashes, "SETTLED", 0)  # the images were written a moment ago
    cache = f"paths.cache={tmp_path}"
    answers = build_tests(trained.config(cache), [], {})
    captions = typed(composed("perturb", *captioner.overrides, cache), PerturbCaptionsConfig)
    read, seen = list[str](), set[str]()
    with watched(FileImage, "read", lambda image: read.append(image.name)):
        for tests in (answers, caption.build_tests(captions, [], {})):
            first = tests.content
            images = {image.name for image in tests.images}
            assert set(read) == images - seen  # captions of the same images read only the others
            seen |= images
            read.clear()
            assert tests.content == first
            assert read == []


def changed(one: Mapping[str, str], other: Mapping[str, str]) -> set[str]:
    return {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)}


def test_a_finished_run_without_a_part_s_file_is_completed(
    trained: Trained, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "parts" / "part-000001.faithfulness.parquet").unlink()
    trained.perturb(run, *WHOLE, f"resume={run}")
    assert "1 of 2 parts are finished; 1 are computed" in capsys.readouterr().out
    assert results(run) == results(whole)


@pytest.mark.slow
def test_two_processes_write_the_same_files(trained: Trained, whole: Path, tmp_path: Path) -> None:
    arguments = [*trained.overrides, *WHOLE, "trainer.devices=2", "trainer.strategy=ddp"]
    status, _, err = finish("perturb", [*arguments, f"hydra.run.dir={tmp_path}"])
    assert status == 0, err
    assert results(tmp_path, figures=True) == results(whole, figures=True)


@pytest.mark.slow
def test_a_run_killed_by_the_system_and_resumed_has_the_same_bytes(trained: Trained, tmp_path: Path) -> None:
    arguments = [*trained.overrides, "samples=24", "batch_samples=2"]
    stopped = tmp_path / "stopped"
    process = start("perturb", [*arguments, f"hydra.run.dir={stopped}"])
    while len(list(stopped.glob("parts/*"))) < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (stopped / "perturbation.json").exists()
    for folder, resume in (("resumed", [f"resume={stopped}"]), ("whole", [])):
        status, _, err = finish("perturb", [*arguments, *resume, f"hydra.run.dir={tmp_path / folder}"])
        assert status == 0, err
    assert results(tmp_path / "resumed", figures=True) == results(tmp_path / "whole", figures=True)
