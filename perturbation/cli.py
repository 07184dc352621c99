"""The console command ``clipmapper``: every script of the project as a sub-command.

It lies in the topmost package, since some commands need nothing of ``perturbation`` and none of those may import it.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module

#: By name: the module whose ``main`` runs, and what ``clipmapper --help`` says of it.
COMMANDS = {
    "train": ("clipmapper.commands.train", "train CLIPmapper on frozen features"),
    "evaluate": ("clipmapper.commands.evaluate", "score a trained model, or anyone's result file"),
    "explain": ("clipmapper.commands.explain", "make pictures of explanations"),
    "perturb": ("perturbation.commands.perturb", "test explanations by removing tokens"),
    "pool_seeds": ("perturbation.commands.pool_seeds", "join perturbation runs of several training seeds"),
    "evaluate_explanations": (
        "perturbation.commands.evaluate_explanations",
        "compare explanations with what they should show",
    ),
    "sanity_check": ("perturbation.commands.sanity_check", "compare explanations before and after layers are random"),
    "benchmark": ("perturbation.commands.benchmark", "measure ratios, side by side in one process"),
    "pretrain_clip": ("clipmapper.commands.pretrain_clip", "pre-train the embedded encoder"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sub-command that comes first, with the overrides that follow it.

    Args:
        arguments: What is typed behind ``clipmapper``; by default ``sys.argv[1:]``.
    """
    name, *overrides = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
    elif name in COMMANDS:
        import_module(COMMANDS[name][0]).main(overrides)
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        print(f"error: there is no command {name}; {hint}choose one of: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(1)


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items())
    head = "usage: clipmapper COMMAND [GROUP=CHOICE] [KEY=VALUE] [--multirun]"
    foot = "clipmapper COMMAND --help shows the config of a command."
    return "\n".join([head, "", *lines, "", foot])


if __name__ == "__main__":
    main()
