"""What W&B and TensorBoard get from a training and from a perturbation run, read from their own files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_runs import TASK, make_quick
from perturb_runs import Trained
from PIL import Image
from tiny_runs import Tiny
from wandb_log import read_wandb

from clipmapper.data.datasets import load_data
from clipmapper.data.images import load_rgb
from clipmapper.files import read_json

LOGGERS = ("wandb", "tensorboard")
Command = Callable[..., tuple[int, str, list[str]]]


@dataclass
class Logged:
    """What a run logged: numbers by name and step, tables by name, and pictures with their captions by name."""

    config: dict[str, Any]
    numbers: dict[str, dict[int, float]]
    tables: dict[str, list[list[str]]]
    pictures: dict[str, tuple[np.ndarray, str]]

    def last(self, name: str) -> float:
        return self.numbers[name][max(self.numbers[name])]


def from_wandb(run: Path) -> Logged:
    log = read_wandb(run)
    found = Logged(log.config, {}, {}, {})
    for row in log.history:
        for name, value in row.items():
            if isinstance(value, int | float):
                found.numbers.setdefault(name, {})[int(row.get("trainer/global_step", 0))] = value
            elif isinstance(value, dict) and value["_type"] == "table-file":
                table = json.loads((log.folder / value["path"]).read_text())
                found.tables[name] = [table["columns"], *table["data"]]
            elif isinstance(value, dict) and value["_type"] == "images/separated":
                image = Image.open(log.folder / value["filenames"][0])
                found.pictures[name] = np.asarray(image.convert("RGB")), value["captions"][0]
    return found


def from_tensorboard(run: Path) -> Logged:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "log"), size_guidance={"images": 0, "tensors": 0, "scalars": 0})
    events.Reload()
    numbers = {name: {each.step: each.value for each in events.Scalars(name)} for name in events.Tags()["scalars"]}
    texts = {
        name.removesuffix("/text_summary"): events.Tensors(name)[-1].tensor_proto.string_val[0].decode()
        for name in events.Tags()["tensors"]
        if name.endswith("/text_summary")
    }
    tables = {
        name: [line.strip("| ").split(" | ") for line in text.splitlines() if "---" not in line]
        for name, text in texts.items()
        if text.startswith("|")
    }
    images = {name: events.Images(name)[-1].encoded_image_string for name in events.Tags()["images"]}
    pictures = {name: (np.asarray(Image.open(BytesIO(data))), texts[name]) for name, data in images.items()}
    return Logged(dict(map(tuple, tables["config"][1:])), numbers, tables, pictures)


@pytest.fixture(params=LOGGERS)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    pytest.importorskip(chosen)
    return chosen


def within(part: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Return whether a nested dict has all values of another one."""
    return all(
        within(value, whole[key]) if isinstance(value, dict) else value == whole[key] for key, value in part.items()
    )


def read(name: str, run: Path) -> Logged:
    return from_wandb(run) if name == "wandb" else from_tensorboard(run)


def test_a_training_logs_config_curves_scores_a_table_and_pictures(name: str, tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics = tiny.train(run, f"logger={name}", "logger.offline=true", "trainer.log_every_n_steps=1")
    logged = read(name, run)
    mapper = {"mapper": {"width": 16, "heads": 2}} if name == "wandb" else {"mapper.width": "16", "mapper.heads": "2"}
    assert within(mapper, logged.config)
    assert {*logged.numbers["train/loss"]} == {*range(8)}
    assert {*logged.numbers["val/accuracy"]} == {3, 7}  # steps are counted from 0
    assert logged.last("final/test/accuracy") == pytest.approx(metrics["test"]["accuracy"])
    assert logged.last("final/val/by_answer_type/other") == pytest.approx(metrics["val"]["by_answer_type"]["other"])
    heads, *rows = logged.tables["scores"]
    assert heads == ["score", "value"]
    assert float(dict(map(tuple, rows))["test/accuracy"]) == metrics["test"]["accuracy"]
    examples = [logged.pictures[f"examples/{k}"] for k in range(8)]
    rows = read_json(run / "predictions_test.json")
    answers = {f"{row['question']} {row['answer']} ({row['probability']:.3f})": row["image_id"] for row in rows}
    images = load_data(tiny.config().data).part("test").images
    for picture, text in examples:
        np.testing.assert_array_equal(picture, np.asarray(load_rgb(images[answers[text]])))
    assert len({answers[text] for _, text in examples}) == 8  # not eight questions about one image


def test_an_evaluation_logs_config_and_final_scores(name: str, tiny: Tiny, tmp_path: Path, command: Command) -> None:
    tiny.train(tmp_path / "trained")
    log = (f"logger={name}", "logger.offline=true", f"hydra.run.dir={tmp_path / 'run'}")
    status, _, errors = command("evaluate", *tiny.overrides, f"checkpoint={tmp_path / 'trained'}", *log)
    assert (status, errors) == (0, [])
    logged = read(name, tmp_path / "run")
    assert within({"split": "test"}, logged.config)
    scores = read_json(tmp_path / "run" / "metrics.json")["test"]
    assert logged.last("final/test/accuracy") == pytest.approx(scores["accuracy"])
    assert dict(map(tuple, logged.tables["scores"]))["test/questions"] in (60, "60.0")


def test_a_captioner_logs_its_captions(name: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_quick(monkeypatch)
    run = tmp_path / "run"
    metrics = tiny.train(run, *TASK, f"logger={name}", "logger.offline=true")
    logged = read(name, run)
    assert logged.last("final/test/CIDEr") == pytest.approx(metrics["test"]["CIDEr"])
    captions = {row["caption"] for row in read_json(run / "captions_test.json")}
    assert {text for _, text in logged.pictures.values()} <= captions
    assert logged.pictures


@pytest.mark.slow
def test_a_perturbation_run_logs_config_curves_areas_tables_and_figures(
    name: str, trained: Trained, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    found = trained.perturb(
        run, f"logger={name}", "logger.offline=true", "steps=[0,0.5,1]", "measure.names=[areas]", figures=True
    )
    logged = read(name, run)
    removal = {"removal": {"image": "mask"}} if name == "wandb" else {"removal.image": "mask"}
    assert within(removal, logged.config)
    for row in found["rows"]:
        test = f"{row['explainer']}/{row['modality']}_{row['direction']}"
        assert logged.last(f"auc/{test}") == pytest.approx(row["auc"])
        curve = logged.numbers[f"accuracy/{test}"]
        assert [*curve] == [0, 50, 100]
        assert [*curve.values()] == pytest.approx(row["accuracy"])
    with (run / "areas_probability.csv").open() as lines:
        assert logged.tables["areas_probability"] == [*csv.reader(lines)]
    picture, text = logged.pictures["curves_accuracy"]
    np.testing.assert_array_equal(picture, np.asarray(Image.open(run / "curves_accuracy.png").convert("RGB")))
    assert text.startswith("curves_accuracy")


def test_two_runs_in_one_process_do_not_share_a_log(tiny: Tiny, tmp_path: Path) -> None:
    """A sweep runs its jobs in one process."""
    for seed in (0, 1):
        tiny.train(tmp_path / str(seed), "logger=wandb", "logger.offline=true", f"seed={seed}")
    assert [from_wandb(tmp_path / str(seed)).config["seed"] for seed in (0, 1)] == [0, 1]
