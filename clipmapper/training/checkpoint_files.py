"""How the Trainer writes checkpoints: whole or not at all, and known to a resumed run."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from clipmapper.files import write_atomic

BEST, LAST = "best", "last"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the place and renames. Lightning's own writes in the system's temporary folder, which is often
    another disk: then a process killed meanwhile leaves half a checkpoint where the last whole one was.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Raises ``OSError`` where the disk is full; what was at ``path`` then stays."""
        place = Path(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        content = BytesIO()
        torch.save(checkpoint, content)
        write_atomic(place, content.getbuffer())


class KeptCheckpoint(ModelCheckpoint):
    """``checkpoints/{name}.ckpt`` of the run folder, written after a validation: the newest, or ``monitor``'s best.

    A resumed run has a folder of its own, and Lightning forgets what was best where the folder changes; here the best
    checkpoint comes along (:func:`copy_best`) with its score.
    """

    def __init__(self, run: Path, name: str, monitor: str | None = None):
        super().__init__(
            run / "checkpoints",
            name,
            monitor=monitor,
            mode="max",
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        here = Path(str(self.dirpath)) / f"{self.filename}.ckpt"
        if not here.is_file():
            return
        moved = {name: str(here) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {str(here): score for score in state_dict["best_k_models"].values()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": best, "dirpath": self.dirpath})


def copy_best(stopped: Path, run: Path) -> None:
    """Copies the best checkpoint of a stopped run into the folder of the run that goes on with it, if there is one."""
    source, target = (folder / "checkpoints" / f"{BEST}.ckpt" for folder in (stopped, run))
    if source.is_file() and source.resolve() != target.resolve():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
