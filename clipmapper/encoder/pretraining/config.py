"""Config schema of the pre-training."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.schema import PathsConfig


@dataclass
class PretrainConfig:
    """Config of the pre-training of the embedded encoder.

    Parts of the training can be switched off: the losses with a weight of 0, ``twins`` and ``caption_kinds`` with
    false.
    """

    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    warmup_steps: int = MISSING
    caption_weight: float = MISSING  # weight of open_clip's contrastive loss between images and captions
    patch_weight: float = MISSING  # weight of the linear heads that predict attributes and relations from patch tokens
    prompt_weight: float = MISSING  # weight of the same predictions by similarity to prompts
    twins: bool = MISSING  # batches of pairs of scenes that differ in one thing
    caption_kinds: bool = MISSING  # captions of all kinds, not only lists of the objects
    pool_scenes: int = MISSING  # scenes drawn before training
    workers: int = MISSING  # processes that draw the scenes
    threads: int | None = MISSING
    seed: int = MISSING
    output: str | None = MISSING  # a folder to which the weights are also written; null: only the run folder
    probe_scenes: int = MISSING
    save_every: int = MISSING  # steps between saved weights
    paths: PathsConfig = MISSING
