"""Command that draws figures of explanations and writes their scores."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, named, typed
from clipmapper.config.explain import ModelPictureConfig
from clipmapper.tasks import TASKS


@command("explain")
def main(config: DictConfig, run: Path) -> None:
    """Write figures and scores of the samples that the config chooses."""
    count = _explain_model(config, run) if "model" in config else _explain_clipmapper(config, run)
    from clipmapper.explaining.output import PICTURES, SCORES

    print(f"explained {count}: figures in {run / PICTURES}, scores in {run / SCORES}")


def _explain_clipmapper(config: DictConfig, run: Path) -> str:
    task = named(config, "task", TASKS)
    checked = typed(config, task.explain_schema)
    from clipmapper.choice import describe
    from clipmapper.explaining.explainers import choose_explainers, print_lrp_precision

    explainers = choose_explainers(config.explainer, choice("explainer"))
    trained = task.trained(checked)
    print(f"checkpoint: {describe(trained.checkpoint)}", flush=True)
    print_lrp_precision(explainers.values(), trained.model)
    return f"{task.write_pictures(trained, explainers, checked, run)} {task.samples}"


def _explain_model(config: DictConfig, run: Path) -> str:
    checked: ModelPictureConfig = typed(config, ModelPictureConfig)
    from clipmapper.any_model.load import load_model
    from clipmapper.any_model.pictures import write_pictures
    from clipmapper.explaining.explainers import choose_explainers

    explainers = choose_explainers(config.explainer, choice("explainer"))
    loaded = load_model(checked)
    print(loaded.name, flush=True)
    return f"{write_pictures(loaded, explainers, checked, run)} samples"
