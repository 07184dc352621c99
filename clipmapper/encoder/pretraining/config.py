"""Typed schema of the pre-training's config."""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from clipmapper.config.schema import PathsConfig


@dataclass
class PretrainConfig:
    """Pre-training of the embedded encoder. Weights of 0 and the two switches take parts of the recipe out.

    ``caption_weight``: open_clip's contrastive loss on pictures and captions; ``patch_weight``: linear heads that read
    attributes and relations off each patch token; ``prompt_weight``: the same through the text encoder.
    """

    steps: int = MISSING
    batch_size: int = MISSING
    lr: float = MISSING
    warmup_steps: int = MISSING
    caption_weight: float = MISSING
    patch_weight: float = MISSING
    prompt_weight: float = MISSING
    twins: bool = MISSING
    caption_kinds: bool = MISSING
    pool_scenes: int = MISSING
    workers: int = MISSING
    threads: int | None = MISSING
    seed: int = MISSING
    output: str | None = MISSING  # where the weights go besides the run folder; null: nowhere
    probe_scenes: int = MISSING
    save_every: int = MISSING
    paths: PathsConfig = MISSING
