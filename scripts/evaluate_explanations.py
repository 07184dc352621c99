"""Compares explanations with what they should show: ``python scripts/evaluate_explanations.py mapper=b``.

Explanations of answers with what the answers depend on, and with ``task=caption`` those of a caption's words with the
objects that the words name.
"""

from pathlib import Path

from omegaconf import DictConfig

from clipmapper.cli import choice, command, typed
from perturbation.config import LocaliseConfig


@command("evaluate_explanations")
def main(config: DictConfig, run: Path) -> None:
    """How much of each explanation lies on the evidence, printed and written."""
    checked: LocaliseConfig = typed(config, LocaliseConfig)
    from clipmapper.explaining.explainers import choose_explainers
    from perturbation.localise.caption import run_word_localisation
    from perturbation.localise.vqa import run_localisation

    explainers = choose_explainers(config.explainer, choice("explainer"))
    run_task = run_word_localisation if checked.task.name == "caption" else run_localisation
    run_task(checked, explainers, run)


if __name__ == "__main__":
    main()
