"""Run folders with known results, written without a model, for the page that ``report`` makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from no_figures import without_figures
from PIL import Image

from clipmapper.explaining.output import CONTENTS
from clipmapper.files import write_json
from explain.figures import Caption, Explanation, Photo, Sample, WordMaps, caption_content, sample_content
from perturbation.localise.tables import localisation_rows
from perturbation.measures.areas import Areas
from perturbation.page.assemble import make_page
from perturbation.page.runs import read_run
from perturbation.perturb.results import pool
from perturbation.randomise.run import curve_rows

STEPS = [0.0, 0.5, 1.0]
Report = tuple[str, dict[str, bytes]]
GAPS = {"good": 30.0, "similar": 29.9, "random": 0.0}  #: gap of each explainer, in points of area; random is a control
CONFIG: dict[str, Any] = {
    "task": {"name": "vqa"},
    "mapper": {"name": "b", "layers": 2, "width": 16, "heads": 2},
    "encoder": {"model": "shapes-tiny", "weights": "embedded"},
    "data": {"name": "shapes"},
    "split": "test",
    "seed": 0,
}
VERSIONS = {"python": "3.11.0", "torch": "2.9.0"}
EVIL = '"onmouseover="pwned=1" <script>pwned=1</script> </script> {{ 7 * 191 }} <img src=x onerror=pwned=1> \'\\'


def write_config(folder: Path, command: str, arguments: str = "", **more: Any) -> None:
    """Write ``config.yaml`` as a command does."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**CONFIG, **more})  # JSON is YAML
    (folder / "config.yaml").write_text(f"# python scripts/{command}.py {arguments}\n{text}\n", encoding="utf-8")


def samples_table(gaps: Mapping[str, float], modalities: tuple[str, ...], samples: int, seed: int) -> pa.Table:
    """Return ``samples.parquet`` of explainers with these gaps: the accuracy is 1, then around ½, then 0."""
    draw, rows = np.random.default_rng(seed), []
    for modality in modalities:
        for name, gap in gaps.items():
            noise = draw.normal(0, 0.05, samples)
            for direction, sign in (("positive", -1), ("negative", 1)):
                for number in range(samples):
                    middle = 0.5 + sign * (gap / 100 + noise[number] - noise.mean())
                    about = {"question_id": number, "modality": modality, "explainer": name, "seed": 0}
                    about |= {"direction": direction, "control": name == "random", "correct": [1.0, middle, 0.0]}
                    rows.append(about)
    return pa.Table.from_pylist(rows)


def write_perturb(
    folder: Path,
    gaps: Mapping[str, float] = GAPS,
    modalities: tuple[str, ...] = ("image", "text"),
    samples: int = 40,
    questions: str = "first",
    seed: int = 0,
) -> Path:
    """Write a finished run of ``perturb``, without figures; ``questions`` is the digest of its samples."""
    write_config(folder, "perturb", "explainer=all")
    table = samples_table(gaps, modalities, samples, seed)
    content, files = _areas(tuple(gaps.items()), modalities, samples, seed)
    for name, written in files.items():
        (folder / name).write_bytes(written)
    more = {"steps": STEPS, "samples": samples, "direction": ["positive", "negative"], "target": "predicted"}
    config = {**CONFIG, **more, "modality": [*modalities], "removal": {"image": "mask", "text": "mask"}}
    identity = {"config": config, "checkpoint": f"model {seed}", "questions": questions, "versions": VERSIONS}
    pa.parquet.write_table(table, folder / "samples.parquet")
    write_json(folder / "identity.json", identity)
    write_json(folder / "perturbation.json", {**json.loads(content), **identity})
    return folder


@cache
def _areas(gaps: tuple[tuple[str, float], ...], modalities: tuple[str, ...], samples: int, seed: int) -> Report:
    """Return the report of the areas as JSON, and the files that it writes; the bootstrap takes a second."""
    table = samples_table(dict(gaps), modalities, samples, seed)
    with TemporaryDirectory() as folder, without_figures():
        areas = Areas(STEPS, ["positive", "negative"], {"task": "vqa", "mapper": "b"})
        content = areas.report_runs([table], Path(folder))
        return json.dumps(content), {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def write_pooled(folder: Path, root: Path) -> Path:
    """Write a run of ``pool_seeds`` over two runs of ``perturb``, which are written below ``root``."""
    runs = [write_perturb(root / f"seed {seed}", seed=seed) for seed in (1, 2)]
    write_config(folder, "pool_seeds")
    pool(runs, folder)
    return folder


def photo() -> Photo:
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[20:40, 30:50] = 255
    return Photo(Image.fromarray(pixels), (10, 0, 70, 60))


def answers(names: tuple[str, ...] = ("weighted", "genatt"), question: str = "is it red?") -> dict[str, Any]:
    """Return the content of the figure of a question of two words, whose second word interacts with the last patch."""
    maps = [Explanation(name, np.eye(2) * (k + 1), [0.25, 0.5]) for k, name in enumerate(names)]
    sample = Sample(photo(), question, ["is", "red"], "yes", 0.75, maps, "people: yes (10)")
    interaction = np.zeros((2, 2, 2))
    interaction[0, 0, 0], interaction[1, 1, 1] = 0.5, 1
    return {"name": "question_1", **sample_content(sample, interaction)}


def captions(names: tuple[str, ...] = ("weighted", "genatt"), text: str = "a kite") -> dict[str, Any]:
    """Return the content of the figure of a caption of two words, of which the second one names the white square."""
    words = np.zeros((2, 2, 2))
    words[0, 0, 1], words[1, 1, 0] = 1, 2
    maps = [WordMaps(name, words, words.sum(0)) for name in names]
    named = np.zeros((60, 80), np.bool_)
    named[20:40, 30:50] = True
    return {
        "name": "image_1",
        **caption_content(Caption(photo(), text, text.split(" ", 1), maps, "people: a red kite", {1: named})),
    }


def write_explain(folder: Path, *contents: Mapping[str, Any], **config: Any) -> Path:
    """Write a finished run of ``explain``, of one question by default."""
    write_config(folder, "explain", **{"overlay": "bilinear", "scale": "each", **config})
    lines = (json.dumps(content) for content in contents or (answers(),))
    (folder / CONTENTS).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return folder


def write_localisation(folder: Path) -> Path:
    """Write a run of ``evaluate_explanations`` in which only ``near`` is on the evidence more often than chance."""
    write_config(folder, "evaluate_explanations")
    draw = np.random.default_rng(0)
    values = {name: draw.uniform(low, low + 0.2, (30, 3)) for name, low in (("near", 0.7), ("far", 0.1))}
    columns = {**values, "deletion": np.full((30, 3), 0.9), "chance": np.full((30, 3), 0.2)}
    tables = localisation_rows({"image": columns}, ["color"] * 30, {"mapper": "b"}, 0)
    about = {"questions": 30, "checkpoint": "best.ckpt", "config": CONFIG, "versions": VERSIONS}
    write_json(folder / "localisation.json", {**tables, **about})
    return folder


def write_sanity(folder: Path) -> Path:
    """Write a run of ``sanity_check`` in which ``stays`` agrees with the original after all layers are random."""
    write_config(folder, "sanity_check")
    draw = np.random.default_rng(0)
    found = {
        ("image", name): {
            layer: at + draw.normal(0, 0.05, 20) for layer, at in (("none", 1), ("head", 0.5 + last / 2), ("all", last))
        }
        for name, last in (("stays", 0.6), ("falls", 0.0))
    }
    about = {"checkpoint": "best.ckpt", "config": CONFIG, "versions": VERSIONS}
    write_json(folder / "sanity.json", {"rows": curve_rows(found, {"mapper": "b"}, 0), **about})
    return folder


def write_evaluation(folder: Path) -> Path:
    """Write a run of ``evaluate``: an accuracy of 87.5 %."""
    write_config(folder, "evaluate")
    scores = {"accuracy": 87.5, "by_answer_type": {"other": 80.0}, "by_question_type": {"color": 90.0}, "questions": 8}
    about = {"checkpoint": "best.ckpt", "config": CONFIG, "versions": VERSIONS}
    write_json(folder / "metrics.json", {"test": scores, **about})
    return folder


def write_llava(folder: Path, **settings: Any) -> Path:
    """Write a run of ``train_llava``: an accuracy of 97.5 %, and 80 % true captions."""
    decoder = {"layers": 4, "heads": 2, "mlp_width": 8}
    about = {"data": {"name": "shapes"}, "decoder": decoder, "blind": False, **settings}
    folder.mkdir(parents=True, exist_ok=True)
    line = "# python scripts/train_llava.py threads=1"
    (folder / "config.yaml").write_text(f"{line}\n{json.dumps(about)}\n", encoding="utf-8")
    vqa = {"accuracy": 97.5, "by_answer_type": {"other": 99.0}, "by_question_type": {"same": 87.0}, "questions": 6}
    test = {"vqa": vqa, "exact": 96.0, "true_captions": 80.0}
    content = {"test": test, "parameters": 1500, "words": 113, "config": about, "versions": VERSIONS}
    write_json(folder / "llava.json", content)
    return folder


def write_all(root: Path) -> list[Path]:
    """Write six runs, one of each kind of result."""
    return [
        write_evaluation(root / "evaluate"),
        write_explain(root / "explain", answers(), answers(question="how many?")),
        write_explain(root / "captions", captions(), task={"name": "caption"}),
        write_perturb(root / "perturb"),
        write_localisation(root / "localise"),
        write_sanity(root / "sanity"),
    ]


def page_of(*folders: Path, samples: int = 12, root: Path = Path("/")) -> str:
    """Return the page of runs that all have results."""
    page, problems = make_page([read_run(folder) for folder in folders], samples, root)
    assert problems == {}
    return page


class Parsed(HTMLParser):
    """A page as a list of tags with their attributes, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag."""
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.text += data

    def every(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of all tags of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]
