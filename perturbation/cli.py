"""The console command ``clipmapper``: every script of the project as a sub-command.

It is in ``perturbation`` because it must know every command, and ``clipmapper`` may not import ``perturbation``. It
imports nothing that is slow, since Ctrl-C ends in a stack trace until :func:`run` is called.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType

#: For each command name: the module whose ``main`` runs, and the description that ``clipmapper --help`` prints.
COMMANDS = {
    "train": ("clipmapper.commands.train", "train CLIPmapper on frozen features"),
    "evaluate": ("clipmapper.commands.evaluate", "score a trained model, or a result file of any model"),
    "explain": ("clipmapper.commands.explain", "draw explanations as figures"),
    "perturb": ("perturbation.commands.perturb", "test explanations by removing tokens"),
    "pool_seeds": ("perturbation.commands.pool_seeds", "join perturbation runs of several training seeds"),
    "evaluate_explanations": (
        "perturbation.commands.evaluate_explanations",
        "compare explanations with what they should show",
    ),
    "sanity_check": ("perturbation.commands.sanity_check", "compare explanations before and after randomising layers"),
    "report": ("perturbation.commands.report", "write one HTML page from finished runs"),
    "reproduce": ("perturbation.commands.reproduce", "run all stages of an experiment, from the models to the report"),
    "demo": ("perturbation.commands.demo", "ask a model in the browser, and see and test the explanation"),
    "benchmark": ("perturbation.commands.benchmark", "measure speed and memory, as ratios in one process"),
    "fetch": ("clipmapper.commands.fetch", "get what a run needs from elsewhere, to run without a network"),
    "cache": ("clipmapper.commands.cache", "list, verify or prune the feature cache"),
    "export": ("clipmapper.commands.export", "write the encoder as a CLIP model of Hugging Face"),
    "pretrain_clip": ("clipmapper.commands.pretrain_clip", "pre-train the embedded encoder"),
    "train_llava": ("clipmapper.commands.train_llava", "train a small LLaVA on the embedded encoder"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the sub-command named by the first argument with the overrides that follow it.

    Args:
        arguments: The arguments after ``clipmapper``; ``sys.argv[1:]`` by default.
    """
    name, *overrides = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print(_usage())
    elif name in ("-sc", "--shell-completion"):
        _complete(overrides)
    elif name in COMMANDS:
        run(name, overrides)
    else:
        import difflib

        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        print(f"error: there is no command {name}; {hint}choose one of: {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(1)


def run(name: str, overrides: Sequence[str] | None = None) -> None:
    """Run a command, which signals stop by the rule of :mod:`clipmapper.process.stopping`, also while it is imported.

    Args:
        name: The command's name.
        overrides: The arguments after the name; ``sys.argv[1:]`` by default.
    """
    with _ctrl_c_in_one_line():
        from clipmapper.process import stopping
    with stopping.stoppable():
        from clipmapper.process import streams, workers

        streams.keep_writing()
        workers.follow_parent()
        import_module(COMMANDS[name][0]).main(overrides)


@contextmanager
def _ctrl_c_in_one_line() -> Iterator[None]:
    """Let Ctrl-C end the process in one line while the body imports the rule for all signals."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _end_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"stopped by Ctrl-C: nothing was begun\n")
    os._exit(130)


def _complete(arguments: Sequence[str]) -> None:
    """Answer the shell's request to complete ``COMP_LINE`` by a command's name, or else as Hydra does."""
    program, _, typed = os.environ.get("COMP_LINE", "").partition(" ")
    name, ended, rest = typed.lstrip().partition(" ")
    if arguments and arguments[0].startswith("query=") and not ended:
        print(" ".join(COMMANDS))
        return
    os.environ["COMP_LINE"] = f"{program} {rest}"
    import_module(COMMANDS.get(name, COMMANDS["train"])[0]).main(["-sc", *arguments])


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = (f"  {name:<{width}}  {about}" for name, (_, about) in COMMANDS.items())
    head = "usage: clipmapper COMMAND [GROUP=CHOICE] [KEY=VALUE] [--multirun]"
    foot = "clipmapper COMMAND --help says what a command does, with examples and its most used keys."
    return "\n".join([head, "", *lines, "", foot])


if __name__ == "__main__":
    main()
