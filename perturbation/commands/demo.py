"""The command ``demo``: a page in the browser on which a model answers, is explained, and answers again."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from clipmapper.cli import choice, command, typed
from clipmapper.errors import UserError
from perturbation.config import DemoConfig


@command("demo")
def main(config: DictConfig, run: Path) -> None:
    """Show the page until the command is stopped."""
    checked: DemoConfig = typed(config, DemoConfig)
    from perturbation.demo import serving

    if find_spec("gradio") is None:
        raise UserError("the demo needs the package gradio; install clipmapper[demo]")
    serving.forbid_outside()
    serving.check_free(checked.host, checked.port)
    from clipmapper.explaining.explainers import choose_explainers
    from perturbation.demo.offered import Models
    from perturbation.demo.page import Page
    from perturbation.demo.scenes import scenes_of

    chosen = choose_explainers(config.explainer, choice("explainer"))
    every = choose_explainers(OmegaConf.create({"names": "all"}), "all") | chosen
    usable = {name: each for name, each in every.items() if not each.partners}
    first = [name for name in chosen if name in usable]
    if not first:
        raise UserError(f"explainer={choice('explainer')} needs samples of other images: choose another one")
    models = Models(checked)
    models.load(models.names[0])
    serving.serve(Page(models, scenes_of(checked), usable, first, checked.seed), checked.host, checked.port)
