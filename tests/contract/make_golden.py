"""Write the files that contract tests compare with: ``python tests/contract/make_golden.py config_keys run_folders``.

Use it only if a contract changes on purpose, and check the difference before you commit it. The parts are
``config_keys``, ``run_folders``, ``shapes``, ``outputs`` (of the checkpoints in ``golden/``), and ``checkpoints``,
which trains these checkpoints.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from pictures import QUESTIONS, saved_pictures
from public import GOLDEN, PROJECT, write_golden

TRAIN = (
    *("data.train_scenes=200", "data.val_scenes=20", "data.test_scenes=20", "data.workers=1", "threads=1"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "mapper.width=16", "mapper.heads=2", "mapper.layers=1"),
    *("task.steps=1500", "task.validate_every=500", "task.optim.batch_size=64", "task.optim.lr=5e-3"),
)


def command(name: str, *arguments: str) -> tuple[int, str, list[str]]:
    """Run a command in a separate process, and return the same values as the fixture ``command`` of the tests."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    line = [sys.executable, str(PROJECT / "scripts" / f"{name}.py"), *arguments]
    ran = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return 0, ran.stdout, []


def config_keys(_: Path) -> None:
    """Write every config key and its default."""
    from test_commands import choices, keys_of, packed

    write_golden("config_keys", packed({line: keys_of(line) for line in choices()}))


def checkpoints(root: Path) -> None:
    """Train small models and save them without the state of the optimizer."""
    for name in ("vqa-a", "vqa-b", "caption-b"):
        task, mapper = name.split("-")
        command(
            "train", *TRAIN, f"task={task}", f"mapper={mapper}", f"paths.root={root}", f"hydra.run.dir={root / name}"
        )
        content = torch.load(root / name / "checkpoints" / "last.ckpt", weights_only=True)
        torch.save({key: content[key] for key in ("clipmapper", "state_dict")}, GOLDEN / f"{name}.ckpt")


def outputs(root: Path) -> None:
    """Write the outputs of the checkpoints for two images."""
    from test_golden_checkpoints import MAPPERS, answer_scores, explain_caption, explain_vqa, logits, word_scores

    images = saved_pictures(root)
    found = {f"logits {mapper}": logits(GOLDEN / f"vqa-{mapper}.ckpt") for mapper in MAPPERS}
    for mapper in MAPPERS:
        command(*explain_vqa(mapper, images[0], QUESTIONS[0]), f"hydra.run.dir={root / mapper}")
        found[f"answer {mapper}"] = answer_scores(root / mapper)
    for number, image in enumerate(images):
        command(*explain_caption(image), f"hydra.run.dir={root / str(number)}")
        found[f"caption {number}"] = word_scores(root / str(number))
    write_golden("outputs", found)


def run_folders(root: Path) -> None:
    """Write the files, columns and keys of all run folders."""
    from test_run_folder import RUNS, Runs, described

    runs = Runs(root)
    write_golden("run_folders", {name: described(runs.folder(name, command), root) for name in RUNS})


def shapes(root: Path) -> None:
    """Write the hashes of a dataset."""
    from test_shapes_hash import WRITE, hashes

    for split in ("train", "val", "test"):
        command(*WRITE, f"split={split}", f"paths.root={root}")
    write_golden("shapes", hashes(root / "cache" / "data"))


PARTS = {part.__name__: part for part in (config_keys, checkpoints, outputs, run_folders, shapes)}

if __name__ == "__main__":
    for part in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            PARTS[part](Path(folder))
