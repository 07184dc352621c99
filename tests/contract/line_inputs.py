"""What the command lines in README and docs read: run folders, result files and datasets, all small.

Everything is made in the root folder of the tests when the first line needs it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path

import sample_models
import torch
from pictures import saved_pictures
from public import GOLDEN
from readme import CommandLine
from small_runs import small
from tiny_runs import write_vqav2

from clipmapper.training.checkpoint_file import write_checkpoint

Command = Callable[..., tuple[int, str, list[str]]]


def place_run(folder: Path, name: str) -> None:
    """Copy the golden checkpoint ``name`` to ``folder`` as the best checkpoint of a finished training run."""
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(GOLDEN / f"{name}.ckpt", folder / "checkpoints" / "best.ckpt")
    (folder / "metrics.json").write_text('{"test": {}}')


#: Files in FOLDER that an override ``KEY=FILE`` means.
FILES = {
    "predictions": "submission.json",
    "questions": "questions.json",
    "annotations": "annotations.json",
    "references": "captions.json",
}


def filled(line: CommandLine, root: Path, runs: Iterable[Path], folder: Path) -> list[str]:
    """Return the arguments with paths filled in, without those that contain ``…``.

    ``checkpoint=shipped`` is left out, because the tests run lines on smaller models, which are found without it.

    Args:
        line: The command line.
        root: The folder into which the image for ``PHOTO`` is written.
        runs: The run folders, one for each ``RUN_FOLDER``.
        folder: The folder for ``FOLDER``.
    """
    remaining, photo = iter(runs), saved_pictures(root)[0]

    def path(name: re.Match[str]) -> str:
        return str({"FOLDER": folder, "PHOTO": photo}[name[0]] if name[0] != "RUN_FOLDER" else next(remaining))

    named = [re.sub("(.+)=FILE$", lambda m: f"{m[1]}=FOLDER/{FILES[m[1]]}", each) for each in line.arguments]
    if "model=huggingface" in named:
        named = [re.sub(r"^data\.file=.*", f"data.file={table(root)}", each) for each in named]
        if not any(each.startswith(("prompt=", "model.layers=")) for each in named):  # which need the shipped model
            named = [re.sub(r"^model\.path=.*", f"model.path={answering_vilt(root)}", each) for each in named]
    kept = [each for each in named if "…" not in each and each != "checkpoint=shipped"]
    return [re.sub("RUN_FOLDER|FOLDER|PHOTO", path, each) for each in kept]


def table(root: Path) -> Path:
    """Write a table with four samples of an image, a question and an answer."""
    path = root / "table.csv"
    rows = [f"{image.name},what is {word} ?,{word}" for image in saved_pictures(root) for word in ("red", "blue")]
    path.write_text("\n".join(["image,text,answer", *rows]))
    return path


def answering_vilt(root: Path) -> Path:
    """Save a tiny random ViLT whose classes are answers to questions about scenes of ``shapes``."""
    folder = root / "vilt"
    if not folder.exists():
        model, processor = sample_models.vilt()
        model.config.id2label = dict(enumerate(("yes", "no", "1", "red")))
        model.config.label2id = {label: number for number, label in model.config.id2label.items()}
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return folder


def golden_run(line: CommandLine, root: Path) -> Path:
    """Return the run folder with the golden model of the line's task and mapper."""
    task = "caption" if "task=caption" in line.arguments else "vqa"
    mapper = "a" if "mapper=a" in line.arguments else "b"
    return root / "runs" / "train" / f"{task}-shapes-{mapper}" / "trained"


def runs_of(line: CommandLine, root: Path, command: Command) -> Iterator[Path]:
    """Yield the run folders that the line reads, in order."""
    if line.script in ("pool_seeds", "report"):
        yield from (perturbed(seed, root, command) for seed in count())
    elif "resume=RUN_FOLDER" in line.arguments and line.script == "perturb":
        more = [each for each in line.arguments if each != "resume=RUN_FOLDER"]
        yield made(root / "stopped", root, command, "perturb", *more)
    elif "resume=RUN_FOLDER" in line.arguments:
        yield unfinished(root, command)
    else:
        yield golden_run(line, root)


def folder_of(line: CommandLine, root: Path, command: Command) -> Path:
    """Return the folder that the line reads as ``FOLDER``."""
    if {"data=vqav2", "experiment=paper_vqa"} & {*line.arguments}:
        return vqav2(root)
    if "data=coco" in line.arguments:
        return coco(root)
    if line.script == "evaluate":
        return results(golden_run(line, root), root, command)
    return root / f"FOLDER-{line.script}"


def unfinished(root: Path, command: Command) -> Path:
    """Train with the settings of the line that resumes the run, which continues at the last step."""
    return made(root / "unfinished", root, command, "train")


def perturbed(seed: int, root: Path, command: Command) -> Path:
    """Run ``perturb`` on the golden model with noise in its weights, as if it was trained with another seed."""
    content = torch.load(GOLDEN / "vqa-b.ckpt", weights_only=True)
    draw = torch.Generator().manual_seed(seed)
    for tensor in content["state_dict"].values():
        tensor += 0.01 * torch.randn(tensor.shape, generator=draw)
    write_checkpoint(root / f"seed{seed}.ckpt", content)
    return made(root / f"perturbed{seed}", root, command, "perturb", f"checkpoint={root / f'seed{seed}.ckpt'}")


def results(model: Path, root: Path, command: Command) -> Path:
    """Evaluate a model, and add the files of the questions or the captions that its result file answers."""
    task = model.parent.name.split("-")[0]
    folder = made(root / f"results-{task}", root, command, "evaluate", f"task={task}", f"checkpoint={model}")
    [data] = (
        path for path in (root / "cache" / "data" / "shapes").glob("*-seed0-40-10-10x6-[0-9]*px") if path.is_dir()
    )
    shutil.copy(folder / "submission_test.json", folder / "submission.json")
    shutil.copy(data / "v2_OpenEnded_shapes_test_questions.json", folder / "questions.json")
    shutil.copy(data / "v2_shapes_test_annotations.json", folder / "annotations.json")
    shutil.copy(data / "captions_shapes_test.json", folder / "captions.json")
    shutil.copy(data / "captions_shapes_test.json", folder / "image_info_test2014.json")
    shutil.copy(folder / "submission.json", folder / "captions_test2014_my-model_results.json")
    return folder


def made(folder: Path, root: Path, command: Command, script: str, *overrides: str) -> Path:
    """Run a command with little data in ``folder``, if no earlier line did, and return the folder."""
    if not folder.exists():
        places = (f"paths.root={root}", f"hydra.run.dir={folder}")
        status, _, errors = command(script, *small(script, overrides), *places, *overrides)
        assert (status, errors) == (0, [])
    return folder


def vqav2(root: Path) -> Path:
    """Write eighteen images with two questions about each, in the layout of VQAv2."""
    if not (folder := root / "vqav2").exists():
        write_vqav2(folder, splits=("train2014", "val2014", "test2015"))
    return folder


def coco(root: Path) -> Path:
    """Write six images with two captions each, in Karpathy's layout."""
    if not (folder := root / "coco").exists():
        pictures, images = saved_pictures(root), []
        for cocoid, split in enumerate(("train", "train", "restval", "val", "val", "test")):
            filepath, filename = "train2014" if split == "train" else "val2014", f"{cocoid}.png"
            (folder / "images" / filepath).mkdir(parents=True, exist_ok=True)
            shutil.copy(pictures[cocoid % 2], folder / "images" / filepath / filename)
            sentences = [{"sentid": 2 * cocoid + k, "raw": text} for k, text in enumerate(("A red kite.", "A kite!"))]
            about = {"cocoid": cocoid, "split": split, "filepath": filepath, "filename": filename}
            images.append({**about, "sentences": sentences})
        (folder / "dataset_coco.json").write_text(json.dumps({"images": images}))
        for split in ("train2014", "val2014", "test2014"):
            own_files(folder, split)
    return folder


def own_files(folder: Path, split: str) -> None:
    """Write COCO's own file of a split: its captions, or the list of the images of a test split, which are copied."""
    if split == "test2014":
        shutil.copytree(folder / "images" / "val2014", folder / "images" / split)
    names = sorted(path.name for path in (folder / "images" / split).iterdir())
    start = 100 if split == "test2014" else 0
    images = [{"id": start + int(Path(name).stem), "file_name": name} for name in names]
    said = [{"id": each["id"], "image_id": each["id"], "caption": "A red kite."} for each in images]
    kind, content = ("image_info", {}) if split == "test2014" else ("captions", {"annotations": said})
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / "annotations" / f"{kind}_{split}.json").write_text(json.dumps({"images": images, **content}))
