"""Damaged run folders through whole commands: every file that a command reads from the folder of another run.

The files are found by watching what a command opens, so a file that a later version reads is covered by itself. Each is
damaged twice: one bit is changed, and its end is cut off. A damage is refused in one line that names the file, or named
while the results are made without it or are made again, or the results are identical.

``pytest -n 0 -s -m slow tests/contract/test_damaged_runs.py`` prints the counts by command and file.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random

import pytest
from killed_runs import killed_at
from no_figures import without_figures
from test_damaged_files import cut, flip
from test_run_folder import BASE, POOLED, RUNS, STEPS, Runs

from clipmapper.tasks.vqa.training import VQATraining
from perturbation.reproduce.stages import DONE, Stage, save

Command = Callable[..., tuple[int, str, list[str]]]

MODEL = ("checkpoint={train-vqa}",)
CONTINUED = ("hydra.run.dir={stopped}", "resume={stopped}")
REPORTED = ("train-vqa", "evaluate-vqa", "explain-vqa", "perturb-pooled", "evaluate_explanations-vqa", "sanity_check")
#: Commands that read run folders, with their overrides; ``{…}`` is a copy of a run's folder.
READERS: dict[str, tuple[str, ...]] = {
    "evaluate": ("evaluate", *BASE, *MODEL),
    "evaluate a result file": (
        *("evaluate", "paths.root={root}", "predictions={evaluate-vqa}/submission_test.json"),
        "questions={data}/v2_OpenEnded_shapes_test_questions.json",
        "annotations={data}/v2_shapes_test_annotations.json",
    ),
    "explain": ("explain", *BASE, *MODEL, "samples=1"),
    "perturb": ("perturb", *BASE, *MODEL, "samples=2", "batch_samples=2", "engine_batch=16", "faithfulness=false"),
    "sanity_check": ("sanity_check", *BASE, *MODEL, "samples=4"),
    "train, resumed": ("train", *BASE, *STEPS, *(each.replace("stopped", "stopped-train") for each in CONTINUED)),
    "perturb, resumed": (
        *("perturb", *BASE, "checkpoint={root}/other.ckpt", *POOLED),
        *(each.replace("stopped", "stopped-perturb") for each in CONTINUED),
    ),
    "pool_seeds": RUNS["pool_seeds"],
    "report": ("report", "paths.root={root}", f"runs=[{','.join('{' + name + '}' for name in REPORTED)}]"),
    "reproduce": ("reproduce", "--config-dir", "{root}/configs", "experiment=one", "hydra.run.dir={reproduced}"),
}
OPENED: list[str] = []
ENDINGS: dict[str, Counter[str]] = {}


def note_opened(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and not set(str(arguments[1])) & set("wax+"):
        OPENED.append(arguments[0])


sys.addaudithook(note_opened)


class Folders:
    """Run folders, and a fresh copy of each for every command that reads it."""

    def __init__(self, root: Path) -> None:
        self.root, self._runs = root, Runs(root)
        self.command: Command

    def copied(self, name: str) -> Path:
        """Copy a run's folder to the place that the commands read."""
        target = self.root / "copies" / name
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._made(name), target)
        return target

    def place(self, name: str) -> str:
        if name == "root":
            return str(self.root)
        if name == "data":
            self._made("evaluate-vqa")
            return str(next((self.root / "cache" / "data" / "shapes").iterdir()))
        return str(self.root / "copies" / name)

    def _made(self, name: str) -> Path:
        made = {"stopped-train": self._train, "stopped-perturb": self._perturb, "reproduced": self._reproduced}
        folder = self.root / "made" / name
        if name not in made:
            return self._runs.folder(name, self.command)
        if not folder.exists():
            made[name](folder)
        return folder

    def _train(self, folder: Path) -> None:
        root = [each.format(root=self.root) for each in BASE]
        with killed_at(VQATraining, 6):
            self.command("train", *root, *STEPS, f"hydra.run.dir={folder}")

    def _perturb(self, folder: Path) -> None:
        """Make a run that was stopped after its first part."""
        shutil.copytree(self._runs.folder("perturb-pooled-other", self.command), folder)
        kept = ("config.yaml", "identity.json", "engine.json")
        results = [file for file in folder.iterdir() if file.is_file() and file.name not in kept]
        for file in (*results, *folder.glob("parts/part-000001.*")):
            file.unlink()

    def _reproduced(self, folder: Path) -> None:
        """Make an experiment with one stage that has ended."""
        stage = Stage("explained", "explain", "explain", ["samples=1"], [], DONE, 1.0)
        config = {"explained": {"title": "explain", "command": "explain", "arguments": ["samples=1"]}}
        text = f"# @package _global_\nname: one\nshared: []\nstages: {json.dumps(config)}\n"
        (self.root / "configs" / "experiment").mkdir(parents=True)
        (self.root / "configs" / "experiment" / "one.yaml").write_text(text)
        shutil.copytree(self._runs.folder("explain-vqa", self.command), folder / "explained")
        save([stage], folder)


class Reader:
    """A command that reads run folders."""

    def __init__(self, name: str, folders: Folders, said: Callable[[], str]) -> None:
        self._script, *self._overrides = READERS[name]
        self._folders, self._said = folders, said
        found = {run for each in self._overrides for run in re.findall(r"{([\w-]+)}", each)}
        self._runs = sorted(found - {"root", "data"})
        self.out = folders.root / "out"

    def run(self, damaged: Path | None, how: Callable[[bytes], bytes]) -> tuple[int, list[str], str, dict[str, bytes]]:
        """Run it on fresh copies, with one file damaged; return the status, errors, stderr and results."""
        for run in self._runs:
            self._folders.copied(run)
        if damaged is not None:
            damaged.write_bytes(how(damaged.read_bytes()))
        shutil.rmtree(self._folders.root / "out", ignore_errors=True)
        overrides = [re.sub(r"{([\w-]+)}", lambda m: self._folders.place(m[1]), each) for each in self._overrides]
        given = [each.partition("=")[2] for each in overrides if each.startswith("hydra.run.dir=")]
        self.out = Path(given[0]) if given else self.out
        self._said()
        with without_figures():
            status, _, errors = self._folders.command(self._script, *overrides, f"hydra.run.dir={self.out}")
        return status, errors, self._said(), dict(results(self.out))

    def files(self) -> list[Path]:
        """Return the files of run folders that it reads; of the parts of a run one file of each table."""
        self.run(None, bytes)  # makes the folders
        OPENED.clear()
        self.run(None, bytes)
        opened, found = sorted({Path(each).absolute() for each in OPENED}), dict[str, Path]()
        there = {path for run in self._runs for path in self._folders.copied(run).rglob("*") if path.is_file()}
        for path in opened:
            if path in there:
                found.setdefault(re.sub(r"\d{4,}", "#", str(path)), path)
        return list(found.values())


def results(run: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the result files; times are left out."""
    for file in sorted(run.rglob("*") if run.is_dir() else ()):
        name = str(file.relative_to(run))
        if file.is_file() and file.suffix in (".json", ".jsonl", ".parquet", ".csv", ".md", ".html"):
            content = re.sub(rb'"seconds": [\d.]+', b"", file.read_bytes())
            yield name, content


def ending(reader: Reader, file: Path, how: Callable[[bytes], bytes], good: Mapping[str, bytes]) -> str:
    status, errors, said, found = reader.run(file, how)
    own = {name for name in good if file == reader.out / name}  # a run that is resumed in its folder keeps the file
    named = file.name in said or file.name.split(".")[0].replace("-", " ").replace("000000", "0") in said
    if status == 1:
        return "refused" if len(errors) == 1 and file.name in errors[0] else f"refused, but without its name: {errors}"
    if all(found.get(name) == each for name, each in good.items() if name not in own) and found.keys() == good.keys():
        return "identical" if not named else "named"
    page = found.get("report.html", b"").decode()  # it names the runs that cannot be read
    told = (named and "damaged" in said) or (file.name in page and "unreadable" in page)
    return "named" if told else "ANOTHER RESULT"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("damaged"))


@pytest.fixture
def folders(made: Folders, command: Command) -> Folders:
    made.command = command
    return made


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_of_a_run_is_noticed(name: str, folders: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    reader = Reader(name, folders, lambda: capsys.readouterr().err)
    files = reader.files()
    assert files
    status, errors, _, good = reader.run(None, bytes)
    assert (status, errors) == (0, [])
    found = {}
    for number, file in enumerate(files):
        for damage in (flip, cut):
            end = ending(reader, file, lambda content, d=damage, n=number: d(content, Random(n)), good)
            found[f"{file.parent.name}/{file.name}, {damage.__name__}"] = end
            ENDINGS.setdefault(f"{name}: {file.name}", Counter())[end] += 1
    assert {place: end for place, end in found.items() if end not in ("refused", "named", "identical")} == {}


@pytest.mark.slow
def test_enough_damages_were_tried(capsys: pytest.CaptureFixture[str]) -> None:
    if len({name.partition(":")[0] for name in ENDINGS}) < len(READERS):
        pytest.skip("run the whole file in one process")
    with capsys.disabled():
        for name, counts in ENDINGS.items():
            print(f"\n{name:60} {', '.join(f'{end}: {count}' for end, count in sorted(counts.items()))}", end="")
        print(f"\n{'all':60} {dict(sum(ENDINGS.values(), Counter()))}")
    assert sum(sum(counts.values()) for counts in ENDINGS.values()) >= 25
