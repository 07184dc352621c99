"""Makes pictures of explanations, and writes the scores behind them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from clipmapper.cli import command, typed
from clipmapper.config.explain import PictureConfig
from clipmapper.tasks import TASKS


@command("explain")
def explain_samples(config: DictConfig, run: Path) -> None:
    """Pictures and scores of the samples that the config chooses."""
    task = TASKS.get(config.task.name)
    checked = typed(config, task.explain_schema if task else PictureConfig)  # which refuses an unknown task
    assert task is not None
    from clipmapper.explaining.explainers import choose_explainers
    from clipmapper.explaining.output import SCORES

    explainers = choose_explainers(config.explainer, HydraConfig.get().runtime.choices["explainer"])
    trained = task.trained(checked)
    print(f"checkpoint: {trained.checkpoint}", flush=True)
    pictures, scores = run / "pictures", run / SCORES
    count = task.write_pictures(trained, explainers, checked, pictures, scores)
    print(f"explained {count} {task.samples}: pictures in {pictures}, scores in {scores}")


def main() -> None:
    """The command; a path and a question are taken as they are typed, with blanks, commas and apostrophes."""
    sys.argv[1:] = [as_typed(argument) for argument in sys.argv[1:]]
    explain_samples()


def as_typed(argument: str) -> str:
    """``image`` and ``question`` in Hydra's quotes, unless they have some; other arguments as they are."""
    key, _, value = argument.partition("=")
    if key not in ("image", "question") or value == "null" or value[:1] in ("'", '"'):
        return argument
    quoted = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"{key}='{quoted}'"
