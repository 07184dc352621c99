"""What all commands share: config composition by Hydra, typed configs, a run folder, and errors in one line."""

from clipmapper.cli.chosen import check_folder_is_given, choice, resumed
from clipmapper.cli.decorator import Unfinished, command
from clipmapper.cli.typed_config import named, typed

__all__ = ["Unfinished", "check_folder_is_given", "choice", "command", "named", "resumed", "typed"]
