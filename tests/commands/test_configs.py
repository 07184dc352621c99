"""Every config of the project composes, is accepted and runs; an error names the mistake and how to fix it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_runs import PROJECT, QUIET, SMALL_MAPPER, Tiny, checkpoint_of, composed, finish, write_vqav2

from clipmapper.benchmarks.config import BenchmarkConfig
from clipmapper.cli import typed
from clipmapper.commands.export import ExportConfig
from clipmapper.commands.fetch import FetchConfig
from clipmapper.commands.train import train
from clipmapper.config.data import DATA_SCHEMAS, VQAv2Config
from clipmapper.config.schema import EvaluateConfig, TrainConfig
from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.errors import UserError
from clipmapper.features.config import CacheConfig
from clipmapper.files import read_json
from clipmapper.llava.config import TrainLlavaConfig
from clipmapper.tasks.caption.config import ExplainCaptionConfig
from clipmapper.tasks.vqa.config import ExplainConfig
from clipmapper.training.trainer import build_logger
from perturbation.config import (
    DemoConfig,
    LocaliseConfig,
    PerturbCaptionsConfig,
    PerturbConfig,
    PoolConfig,
    ReportConfig,
    ReproduceConfig,
    SanityConfig,
)

CONFIGS = PROJECT / "configs"
SCHEMAS = {
    "train": TrainConfig,
    "evaluate": EvaluateConfig,
    "explain": ExplainConfig,
    "evaluate_explanations": LocaliseConfig,
    "sanity_check": SanityConfig,
    "perturb": PerturbConfig,
    "pool_seeds": PoolConfig,
    "report": ReportConfig,
    "reproduce": ReproduceConfig,
    "benchmark": BenchmarkConfig,
    "export": ExportConfig,
    "pretrain_clip": PretrainConfig,
    "train_llava": TrainLlavaConfig,
    "cache": CacheConfig,
    "demo": DemoConfig,
    "fetch": FetchConfig,
}
NEEDS = {"pool_seeds": ["runs=[a,b]"]}  # keys without a default
GROUPS = ("task", "mapper", "encoder", "data", "trainer", "logger", "experiment", "paths")
REPRODUCED = {path for path in (CONFIGS / "experiment").glob("*.yaml") if "\nstages:" in path.read_text()}
FILES = [path for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml")) if path not in REPRODUCED]
OPTIONS = [f"{path.parent.name}={path.stem}" for path in FILES]
OF_OPTION = {
    "data=table": ("data.file=table.csv",),
    "encoder=folder": ("encoder.model=folder",),
}  # keys that have no value in a group's file
EXPERIMENTS = sorted(path.stem for path in (CONFIGS / "experiment").glob("*vqa.yaml"))
Command = Callable[..., tuple[int, str, list[str]]]


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_command_without_overrides_is_accepted(name: str) -> None:
    assert isinstance(typed(composed(name, *NEEDS.get(name, [])), SCHEMAS[name]), SCHEMAS[name])


@pytest.mark.parametrize(
    ("name", "schema"),
    [("explain", ExplainCaptionConfig), ("perturb", PerturbCaptionsConfig), ("evaluate_explanations", LocaliseConfig)],
)
def test_captions_have_separate_schemas(name: str, schema: type) -> None:
    assert isinstance(typed(composed(name, "task=caption"), schema), schema)


def test_every_command_is_checked() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(SCHEMAS)


@pytest.mark.parametrize("name", ["train", "evaluate"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_every_group_is_accepted(name: str, option: str) -> None:
    checked = typed(composed(name, option, *OF_OPTION.get(option, ())), SCHEMAS[name])
    assert type(checked.data) is DATA_SCHEMAS[checked.data.name]


@pytest.mark.parametrize("path", sorted(REPRODUCED), ids=lambda path: path.stem)
def test_every_experiment_of_reproduce_is_accepted_there(path: Path) -> None:
    checked = typed(composed("reproduce", f"experiment={path.stem}"), ReproduceConfig)
    assert checked.name == path.stem


@pytest.mark.parametrize(("name", "experiment"), [("train", "quickstart"), ("reproduce", "shipped")])
def test_an_experiment_of_another_command_is_named(
    name: str, experiment: str, command: Command, tmp_path: Path
) -> None:
    status, _, errors = command(name, f"experiment={experiment}", f"paths.root={tmp_path}")
    assert (status, len(errors)) == (1, 1)
    assert errors[0].endswith(f"experiment={experiment} may be for another command")


def test_the_options_of_a_group_are_identified_by_their_names() -> None:
    for group in ("mapper", "logger", "task"):
        for path in (CONFIGS / group).glob("*.yaml"):
            assert getattr(typed(composed("train", f"{group}={path.stem}"), TrainConfig), group).name == path.stem
    for path in (CONFIGS / "data").glob("*.yaml"):
        option = f"data={path.stem}"
        assert typed(composed("train", option, *OF_OPTION.get(option, ())), TrainConfig).data.name == path.stem


def test_the_default_is_the_embedded_setup() -> None:
    config = typed(composed("train"), TrainConfig)
    assert (config.mapper.name, config.encoder.weights, config.data.name) == ("b", "embedded", "shapes")
    assert config.logger.name == "csv"


def test_the_setup_of_the_paper() -> None:
    config = typed(composed("train", "experiment=paper_vqa", "data.root=/x"), TrainConfig)
    assert (config.encoder.model, config.encoder.weights) == ("ViT-B-32-quickgelu", "openai")
    assert isinstance(config.data, VQAv2Config)
    assert (config.data.root, config.data.reserved, config.data.min_answer_questions) == ("/x", 10000, 9)
    assert (config.data.train_splits, config.data.reserve_from) == (["train2014", "val2014"], "val2014")
    assert (config.task.optim.warmup_steps, config.task.optim.decay_start) == (1000, 10000)
    assert (config.mapper.layers, config.mapper.width) == (3, 768)
    assert config.trainer.max_steps > config.task.optim.decay_start
    assert typed(composed("train", "experiment=paper_vqa", "mapper=a"), TrainConfig).mapper.layers == 8


def test_easy_vqa_has_fewer_steps_by_default() -> None:
    usual, easy = (typed(composed("train", option), TrainConfig) for option in ("data=shapes", "data=easy_vqa"))
    assert easy.task.optim.decay_start < easy.task.steps == easy.trainer.max_steps < usual.trainer.max_steps
    assert typed(composed("train", "data=easy_vqa", "task.steps=9"), TrainConfig).trainer.max_steps == 9


WRONG = {
    "foo=1": "unknown config key foo; valid here: data, dry_run, encoder",
    "+foo=1": "unknown config key foo; valid here: data, dry_run, encoder",
    "mapper.widht=8": "unknown config key mapper.widht; did you mean mapper.width? valid here: mapper.dropout, mapper",
    "+mapper.widht=8": "unknown config key mapper.widht; did you mean mapper.width? valid here: mapper.dropout, mapper",
    "+task.optim.momentum=1": "unknown config key task.optim.momentum; ",
    "data.pixelz=64": "unknown config key data.pixelz; did you mean data.pixels?",
    "mapper=c": "there is no mapper=c; choose one of: a, b",
    "data=nothing": "there is no data=nothing; choose one of: coco, easy_vqa, shapes, table, vqav2, vqav2_hub",
    "data=null": "data=null is not the name of a file in data; give data=NAME",
    "experiment=nothing": "there is no experiment=nothing; choose one of: paper, paper_caption, paper_vqa",
    "trainer.max_steps=???": "config key trainer.max_steps has no value: give trainer.max_steps=…",
    "trainer.max_steps=many": "trainer.max_steps=many is not a whole number",
    "mapper.width=[1,2]": "mapper.width=[1,2] is not a whole number",
    "seed=${nothing}": "config key seed: Interpolation key 'nothing' not found",
    "mapper.readout=mean": "mapper.readout=mean is not one of: cls, eot, token",
    "mapper.positions=sine": "mapper.positions=sine is not one of: none, learnt",
    "task.sees=nothing": "task.sees=nothing is not one of: both, question, image",
    "data.on_bad_image=warn": "data.on_bad_image=warn is not one of: fail, skip",
    "data.name=flickr": "data.name=flickr is not one of: shapes, easy_vqa, vqav2, vqav2_hub, coco",
    "logger.name=mlflow": "logger.name=mlflow is not one of: csv, wandb, tensorboard",
    "encoder.feature_dtype=int8": "encoder.feature_dtype=int8 is not one of: float32, float16",
    "mapper.heads=3": "mapper.width=128 is not a multiple of mapper.heads=3",
    "mapper.heads=0": "mapper.heads=0 must be 1 or more",
    "mapper.layers=0": "mapper.layers=0 must be 1 or more",
    "mapper.dropout=1.5": "mapper.dropout=1.5 must be 0 or more and less than 1",
    "encoder.batch_size=0": "encoder.batch_size=0 must be 1 or more",
    "data.test_scenes=0": "data.test_scenes=0 must be 1 or more",
    "data.pixels=0": "data.pixels=0 must be 32 or more",
    "data.reserved=-1": "data.reserved=-1 must be 0 or more",
    "task.optim.lr=-1": "task.optim.lr=-1.0 must be 0 or more",
    "task.optim.batch_size=0": "task.optim.batch_size=0 must be 1 or more",
    "trainer.max_steps=-1": "trainer.max_steps=-1 must be 1 or more",
    "trainer.val_check_interval=0": "trainer.val_check_interval=0 must be 1 or more",
    "trainer.limit_val_batches=0": "trainer.limit_val_batches=0 is not null (all), a number of batches of 1 or more",
    "seed=-1": "seed=-1 must be 0 or more",
    "threads=0": "threads=0 must be 1 or more",
}


@pytest.mark.parametrize("override", WRONG)
def test_an_error_names_the_mistake_and_the_valid_choices(command: Command, tmp_path: Path, override: str) -> None:
    status, _, errors = command("train", f"paths.root={tmp_path}", override)
    assert status == 1
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {WRONG[override]}")


@pytest.mark.parametrize("name", ["evaluate", "pretrain_clip", "train_llava"])
def test_other_commands_give_the_same_error(command: Command, tmp_path: Path, name: str) -> None:
    status, _, errors = command(name, f"paths.root={tmp_path}", "+foo=1")
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith("error: unknown config key foo; valid here: ")


def test_a_key_of_another_dataset_is_unknown() -> None:
    with pytest.raises(UserError, match=r"unknown config key data\.pixels; .*valid here: .*data\.reserve_from"):
        typed(composed("train", "data=vqav2", "+data.pixels=3"), TrainConfig)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("trainer.accelerator=abacus", "is not one of: auto, cpu, "),
        ("trainer.devices=0", "is not auto, a number of devices of 1 or more"),
        ("trainer.precision=3", "is not one of: 32-true, "),
        ("trainer.strategy=none", "invalid strategy name"),
        ("trainer.accelerator=tpu", "torch_xla"),
        ("trainer.precision=transformer-engine", "transformer_engine"),
    ],
)
def test_an_error_of_lightning_is_one_line(tiny: Tiny, command: Command, override: str, said: str) -> None:
    status, _, errors = command("train", *tiny.overrides, override)
    assert (status, len(errors)) == (1, 1)
    assert errors[0].startswith(f"error: {override}")
    assert said in errors[0]


@pytest.mark.slow
def test_a_model_overfits_one_batch_and_the_fast_run_and_the_profiler_end(tmp_path: Path) -> None:
    shared = ("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", f"paths.root={tmp_path}", "threads=2")
    for debug, more in (
        ("overfit", ()),
        ("fast_run", ()),
        ("profiler", ("data.train_scenes=40", "data.val_scenes=10", "data.test_scenes=10", "task.steps=5")),
    ):
        config = typed(composed("train", f"debug={debug}", *shared, *more), TrainConfig)
        (run := tmp_path / debug).mkdir()
        train(config, run)
    rows = list(csv.DictReader((tmp_path / "overfit" / "log" / "metrics.csv").open()))
    assert float([row["train/accuracy"] for row in rows if row["train/accuracy"]][-1]) > 0.95
    assert "optimizer_step" in (tmp_path / "profiler" / "fit-profile.txt").read_text()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(tiny: Tiny, tmp_path: Path, experiment: str) -> None:
    write_vqav2(tmp_path / "vqav2")
    small = ("encoder=shapes_tiny", f"encoder.weights={tiny.weights}", *SMALL_MAPPER, *QUIET, "data.reserved=4")
    overrides = (f"experiment={experiment}", "trainer.fast_dev_run=true", f"paths.root={tmp_path}", *small)
    config = typed(composed("train", *overrides, f"data.root={tmp_path / 'vqav2'}"), TrainConfig)
    metrics = train(config, tmp_path / "run")
    assert metrics["val"]["questions"] == 4
    assert len(read_json(tmp_path / "run" / "split.json")["train"]) == 20
    assert read_json(tmp_path / "run" / "metrics.json")["config"]["data"]["name"] == config.data.name


def test_an_experiment_can_be_swept_over_mappers() -> None:
    for mapper in "ab":
        config = typed(composed("train", "experiment=paper_vqa", f"mapper={mapper}"), TrainConfig)
        assert (config.mapper.name, config.mapper.width) == (mapper, 768)


@pytest.mark.slow
def test_a_sweep_makes_a_run_of_each(tiny: Tiny, tmp_path: Path) -> None:
    arguments = ["--multirun", *tiny.overrides, "mapper=a,b", f"paths.runs={tmp_path}"]
    status, _, err = finish("train", arguments)
    assert status == 0, err
    assert len(list(tmp_path.glob("train/vqa-shapes-a/*/metrics.json"))) == 1
    assert len(list(tmp_path.glob("train/vqa-shapes-b/*/metrics.json"))) == 1


def test_the_csv_log(tiny: Tiny, tmp_path: Path) -> None:
    tiny.train(tmp_path / "run", "logger=csv", "trainer.log_every_n_steps=1")
    lines = (tmp_path / "run" / "log" / "metrics.csv").read_text().splitlines()
    assert sorted(lines[0].split(",")) == sorted(
        ["epoch", "step", "train/loss", "train/accuracy", "val/loss", "val/accuracy"]
    )
    assert len(lines) == 1 + 8 + 2


@pytest.mark.parametrize(("interval", "validated"), [(3, [3, 6, 7]), (7, [7]), (20, [7]), (1, [1, 2, 3, 4, 5, 6, 7])])
def test_the_last_step_is_validated_and_saved(tiny: Tiny, tmp_path: Path, interval: int, validated: list[int]) -> None:
    steps = ("trainer.max_steps=7", f"trainer.val_check_interval={interval}")
    tiny.train(tmp_path / "run", "logger=csv", "trainer.log_every_n_steps=1", *steps)
    rows = list(csv.DictReader((tmp_path / "run" / "log" / "metrics.csv").open()))
    assert [int(row["step"]) + 1 for row in rows if row["val/accuracy"]] == validated
    assert checkpoint_of(tmp_path / "run")["global_step"] == 7


def test_wandb_without_an_account(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "online")  # the config overrides it; monkeypatch restores it at the end
    monkeypatch.setenv("WANDB_SILENT", "true")
    tiny.train(tmp_path / "run", "logger=wandb", "logger.offline=true")
    wandb.finish()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_wandb_that_cannot_sign_in_is_one_line(
    tiny: Tiny, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    wandb.teardown()  # ends what another test may have started
    signed_out = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_API_KEY": "", "WANDB_MODE": "online"}
    for name, value in signed_out.items():
        monkeypatch.setenv(name, value)
    status, _, errors = command("train", *tiny.overrides, "logger=wandb", f"paths.runs={tmp_path}")
    assert (status, len(errors)) == (1, 1)
    assert "wandb login" in errors[0]
    assert "logger.offline=true" in errors[0]
    tiny.train(tmp_path / "run", "logger=wandb", "logger.offline=true")  # the advice holds in the same process
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_tensorboard_logs_or_the_error_names_the_package(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny.config("logger=tensorboard").logger
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(UserError, match="pip install tensorboard"):
            build_logger(config, tmp_path)
    else:
        tiny.train(tmp_path / "run", "logger=tensorboard")
        assert list((tmp_path / "run" / "log").glob("events.*"))
