"""Config schema of the pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.fields import MOST_IN_BATCH, MOST_THREADS, path, real, whole
from clipmapper.config.schema import PathsConfig
from clipmapper.errors import UserError


@dataclass
class PretrainConfig:
    """Config of the pre-training of the embedded encoder.

    Parts of the training can be switched off: the losses with a weight of 0, ``twins`` and ``caption_kinds`` with
    false.
    """

    steps: int = whole(1)
    batch_size: int = whole(2, MOST_IN_BATCH)
    lr: float = real(0, 100)
    warmup_steps: int = whole(1)
    caption_weight: float = real(0, 1e6)  # weight of open_clip's contrastive loss between images and captions
    patch_weight: float = real(0, 1e6)  # weight of the linear heads on patch tokens
    prompt_weight: float = real(0, 1e6)  # weight of the same predictions by similarity to prompts
    twins: bool = MISSING  # batches of pairs of scenes that differ in one thing
    caption_kinds: bool = MISSING  # captions of all kinds, not only lists of the objects
    pool_scenes: int = whole(2)  # scenes drawn before training
    workers: int = whole(1, MOST_THREADS)  # processes that draw the scenes
    threads: int | None = whole(1, MOST_THREADS)
    seed: int = whole(0, 2**32 - 1)
    output: str | None = path()  # a folder to which the weights are also written; null: only the run folder
    probe_scenes: int = whole(20)
    save_every: int = whole(1)  # steps between saved weights
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        if not self.caption_weight + self.patch_weight + self.prompt_weight:
            raise UserError("caption_weight=0 patch_weight=0 prompt_weight=0 trains nothing; give one above 0")
        pairs, drawn = self.pool_scenes // 2, self.batch_size // 2 if self.twins else self.batch_size
        if drawn > pairs:
            raise UserError(
                f"pool_scenes={self.pool_scenes} must be {2 * drawn} or more for batch_size={self.batch_size}"
            )
