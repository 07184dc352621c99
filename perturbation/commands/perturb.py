"""The command ``perturb``: explanations tested by removing tokens.

The command removes the tokens that an explanation scores as important (or unimportant), runs the model again, and
measures how much its output changes (docs/method.md, Perturbation tests). This module only checks the config; the work
is in :mod:`perturbation.perturb.run`.
"""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import Unfinished, check_folder_is_given, choice, command, resumed, typed
from clipmapper.config.run_folder import IDENTITY
from perturbation.config import MARK, PerturbBaseConfig
from perturbation.tasks import task_in


@command("perturb", continued=[IDENTITY, MARK.format("*")], shared=True)
def main(config: DictConfig, run: Path) -> Unfinished | None:
    """Run the perturbation tests of one model."""
    checked: PerturbBaseConfig = typed(config, task_in(config).perturb_schema)
    if checked.dry_run:
        from perturbation.benchmark.predicted import print_costs

        print_costs(checked, choice("explainer"), run)
        return None
    if checked.shard is not None:
        check_folder_is_given(f"shard={checked.shard}")
    checked.resume = resumed(checked.resume, run, IDENTITY)
    from perturbation.perturb.run import perturb  # imports torch, which is slow, so only after the config is checked

    return None if perturb(checked, choice("explainer"), run) else Unfinished("parts")
