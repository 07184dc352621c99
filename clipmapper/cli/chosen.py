"""What the user chose for the running command, as Hydra knows it: files of config groups, and the run folder."""

from __future__ import annotations

from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from clipmapper.errors import UserError
from clipmapper.process.requeue import AUTO


def choice(group: str) -> str:
    """Return the name of the file that the running command chose from a config group.

    Raises:
        UserError: No file or several files were chosen.
    """
    chosen = HydraConfig.get().runtime.choices.get(group)
    if chosen is None:
        raise UserError(f"{group}: give one choice, {group}=NAME; to run several, give {group}.names=[NAME,…]")
    return str(chosen)


def check_folder_is_given(argument: str) -> None:
    """Raise UserError if the name of the run folder is new in every job, but an argument needs the same one."""
    given = [str(each) for each in HydraConfig.get().overrides.hydra]
    if not any(each.startswith(("hydra.run.dir=", "hydra.sweep.subdir=")) for each in given):
        raise UserError(f"{argument}: give hydra.run.dir=FOLDER (in a sweep hydra.sweep.subdir), the same in all jobs")


def resumed(resume: str | None, folder: Path, file: str) -> str | None:
    """Return the run that a command continues: with ``auto`` that in its own folder, if there is one.

    Args:
        resume: The config key; ``auto`` needs a run folder whose name is given.
        folder: The run folder.
        file: A file that a run to continue has.

    Raises:
        UserError: The name of the run folder is not given.
    """
    if resume != AUTO:
        return resume
    check_folder_is_given("resume=auto")
    return str(folder) if (folder / file).is_file() else None
