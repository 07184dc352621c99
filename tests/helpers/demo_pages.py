"""The demo's page with the shipped models, two scenes and two explainers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from public import PROJECT, composed

from clipmapper.config.data import ShapesConfig
from clipmapper.config.schema import PathsConfig
from clipmapper.config.trainer import LoggerConfig, TrainerConfig
from clipmapper.data.shapes.render import draw_scene
from clipmapper.data.shapes.write import draw_sample
from explain.explainers import GenAtt, Weighted
from perturbation.config import DemoConfig
from perturbation.demo.offered import Models
from perturbation.demo.page import Page
from perturbation.demo.scenes import Scene

__all__ = ["EXPLAINERS", "PROJECT", "demo_config", "demo_page"]
EXPLAINERS = {"weighted": Weighted(), "genatt": GenAtt()}


def demo_config(root: Path, **values: Any) -> DemoConfig:
    """Return the command's config, with its defaults, for a folder of everything that is written."""
    config = composed("demo", [f"paths.root={root}"])
    given: Any = OmegaConf.to_container(config, resolve=True)
    sections: dict[str, Any] = {
        "data": ShapesConfig(**given["data"]),
        "trainer": TrainerConfig(**given["trainer"]),
        "logger": LoggerConfig(**given["logger"]),
        "paths": PathsConfig(**given["paths"]),
        "explainer": {},
    }
    return DemoConfig(**{**given, **sections, **values})


def demo_page(root: Path, **values: Any) -> Page:
    """Return the page of a config, without drawing scenes to files."""
    config = demo_config(root, **values)
    assert isinstance(config.data, ShapesConfig)
    drawn = [draw_sample(config.data, "test", k) for k in range(2)]
    scenes = [Scene(draw_scene(scene, 128), [each.text for each in asked]) for scene, asked, _ in drawn]
    return Page(Models(config), scenes, EXPLAINERS, ["weighted"], config.seed)
