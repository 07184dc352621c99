"""A stopped training that is continued: its state, and the check that it is the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from clipmapper.checkpoint import CARD, read_checkpoint
from clipmapper.config.run_folder import IDENTITY
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.storage.validation import check
from clipmapper.training.identity import Identity, check_same
from clipmapper.training.trainer import LAST


class IdentityFile(TypedDict):
    """What the numbers of a training depend on; hashes of the data have the name of their kind."""

    config: dict[str, Any]
    versions: dict[str, str]


@dataclass(frozen=True)
class StoppedTraining:
    """The run of a training that is continued."""

    folder: Path
    identity: Identity
    state: Mapping[str, Any]  #: content of its last checkpoint

    @classmethod
    def read(cls, folder: Path) -> StoppedTraining:
        """Read a run folder.

        Raises:
            UserError: It has no checkpoint, a damaged one, or does not record what the run depends on.
        """
        state = read_checkpoint(_last(folder))
        if not (folder / IDENTITY).is_file():
            raise UserError(
                f"resume={folder}: there is no {IDENTITY}, so it is not known whether this training is the same; "
                "give the whole run folder, or train again"
            )
        identity = read_json(folder / IDENTITY, own=True)
        check(IdentityFile, identity, str(folder / IDENTITY), "give the run folder as it was written, or train again")
        return cls(folder, identity, state)

    @property
    def file(self) -> Path:
        """Its last checkpoint."""
        return _last(self.folder)

    @property
    def step(self) -> int:
        """Number of steps that its last checkpoint has made."""
        return int(self.state["global_step"])

    def has_ended(self, max_steps: int) -> bool:
        """Return whether it has made all its steps, or ended early without progress (``trainer.patience``)."""
        early = [state for name, state in self.state["callbacks"].items() if name.startswith("EarlyStopping")]
        return self.step >= max_steps or any(each["wait_count"] >= each["patience"] for each in early)

    def check_settings(self, identity: Identity) -> None:
        """Raise UserError, naming the first key, if the settings of the run that continues it differ."""
        held, wanted = ({"config": each["config"], "versions": each["versions"]} for each in (self.identity, identity))
        check_same(self.folder, held, wanted)

    def check_content(self, identity: Identity, card: Mapping[str, Any]) -> None:
        """Raise UserError if the data of the run that continues it, or the model of the checkpoint, differ."""
        check_same(self.folder, self.identity, identity)
        if differing := [key for key in card if card[key] != self.state[CARD].get(key)]:
            raise UserError(
                f"resume={self.folder}: its {LAST}.ckpt is of another run, which differs in {differing[0]}; "
                "give the folder of that run"
            )


def _last(folder: Path) -> Path:
    return folder / "checkpoints" / f"{LAST}.ckpt"
