"""Overrides that make the runs of the command lines in README and docs small."""

from __future__ import annotations

from collections.abc import Sequence

SCENES = ("data.train_scenes=40", "data.val_scenes=10", "data.test_scenes=10", "data.workers=1")
#: Data in FOLDER has few images, and the paper's encoder would be downloaded.
FILES = {
    "data=easy_vqa": (),
    "data=vqav2": ("data.reserved=4",),
    "data=coco": (),
    "experiment=paper_vqa": ("data.reserved=4", "encoder=shapes_tiny"),
}
QUIET = ("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "threads=1")
MODEL = (*QUIET, "mapper.width=16", "mapper.heads=2", "mapper.layers=1")
#: The overrides of commands on other models.
OF_MODEL = {
    "explain": ("samples=2", "formats=[png]"),
    "perturb": ("samples=4", "batch_samples=2", "random_seeds=1"),
    "evaluate_explanations": ("samples=4",),
    "sanity_check": ("samples=4",),
    "fetch": (),
}
#: Commands without a model.
BARE = ("pool_seeds", "report", "reproduce", "export", "pretrain_clip", "train_llava", "cache", "demo")
CAPTION = ("task.max_length=20",)
#: The golden captioning model is rarely right about scenes that it was not trained on.
JUDGED = ("split=train", "samples=30")
#: Every command, with the overrides of its own.
TINY = {
    "train": ("trainer.max_steps=4", "trainer.val_check_interval=4", "task.optim.batch_size=16"),
    "evaluate": (),
    "explain": ("samples=2", "formats=[png]"),
    "perturb": ("samples=4", "batch_samples=2", "engine_batch=16", "random_seeds=1"),
    "evaluate_explanations": ("samples=4",),
    "sanity_check": ("samples=4",),
    "pool_seeds": (),
    "report": (),
    "reproduce": (),
    "benchmark": ("sizes=[tiny]", "task.optim.batch_size=8"),
    "cache": (),
    "fetch": (),
    "demo": ("scenes=1", "port=0", "threads=1"),
    "export": ("encoder=shapes_tiny",),  # the paper's encoder would be downloaded
    "pretrain_clip": (
        *("steps=2", "batch_size=16", "warmup_steps=1", "pool_scenes=64", "probe_scenes=60"),
        *("workers=1", "threads=1"),
    ),
    "train_llava": (
        *("steps=2", "batch_size=8", "warmup_steps=1", "validate_every=2", "decoder.layers=1"),
        *("threads=1", *SCENES),
    ),
}


def small(script: str, arguments: Sequence[str]) -> list[str]:
    """Return the overrides that make a run of a command with these arguments small."""
    if script in BARE:
        return [*TINY[script]]
    if any(each.startswith("model=") for each in arguments):
        data = () if "data=table" in arguments else SCENES
        return [*data, *QUIET, *OF_MODEL[script]]
    task = CAPTION if "task=caption" in arguments else ()
    data = next((overrides for choice, overrides in FILES.items() if choice in arguments), SCENES)
    if "what=[precision]" in arguments:
        return [*QUIET, *SCENES]  # of the shipped model
    judged = JUDGED if task and script == "evaluate_explanations" else ()
    return [*MODEL, *data, *task, *TINY[script], *judged]
