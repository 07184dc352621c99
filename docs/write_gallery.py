"""Write docs/gallery.md with a picture of each explainer to docs/gallery: ``python docs/write_gallery.py``.

All pictures show the question of README.md's first picture, answered by the shipped model. Each contains its scores,
which a test compares with those of the current code. ``docs/gallery.yaml`` says when to use which explainer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from readme_pictures.stamp import Stamp, rounded, write_png
from readme_pictures.subject import OVERRIDES, RULE, Subject, config_of, load_subject
from write_reference import table

from clipmapper.config.groups import chosen_configs
from clipmapper.explaining.explainers import build_explainers
from clipmapper.explaining.output import seen_box, small_photo
from clipmapper.tasks.vqa.explaining import AnswerTarget, question_partners
from clipmapper.tasks.vqa.pictures import figure_of
from clipmapper.tasks.vqa.sample import explain_samples
from clipmapper.tasks.vqa.trained import TrainedVQA
from explain import Explainer
from explain.figures.layout import Page
from explain.figures.sample import Explanation, Sample
from explain.figures.scale import Scale
from explain.figures.text import set_words, words_height

DOCS = Path(__file__).resolve().parent
FOLDER, PAGE = DOCS / "gallery", DOCS / "gallery.md"
CELL, EDGE, BELOW = 110.0, 4.0, 5.0  # points
COLUMNS = 4  # pictures side by side
DPI = 216
#: Titles of the families in the order of the page, by the folder of their classes.
FAMILIES = {
    "accumulation": "Accumulated over all blocks",
    "last_attention": "The last attention only",
    "gradient": "Gradients of the input",
    "controls": "Controls that read nothing of the model",
}
INTRO = """<!-- Written by `python docs/write_gallery.py` from the code and docs/gallery.yaml. -->

# Gallery of explainers

One scene, one question, one answer of the shipped model (mapper B), and all explainers. Patches and words in darker
colours have more relevance; where scores have both signs, negative ones are blue. Each map has its own scale. The
dashed lines are the known evidence, the objects and words that the answer depends on.

**{question}** Answer: **{answer}**, probability {probability:.3f}.

<img src="pictures/scene.png" alt="A gray ring below a teal circle, and a black ring" width="160">

A picture is an example and no test. Which explainer is true to the model more often is measured in [perturbation
tests](results/perturbation.md), and which one is on the evidence in [localisation](results/localisation.md).

*Forward* and *backward* are the passes through the model for one explanation, including those that record the trace.
One pass serves the whole batch, and explainers that run together share the trace ([speed](results/speed.md) has
times). Formulas, and which explainers are controls, are in [the reference](reference/explainers.md).
"""


@dataclass(frozen=True, eq=False)
class Gallery:
    """The explained question, and the explainers by name."""

    sample: Sample
    explainers: dict[str, Explainer]

    @property
    def families(self) -> dict[str, list[str]]:
        """Names of the explainers by family, the default explainer first."""
        family = {name: type(each).__module__.split(".")[2] for name, each in self.explainers.items()}
        names = sorted(self.explainers, key=lambda name: (name != "weighted", self.explainers[name].control, name))
        return {each: [name for name in names if family[name] == each] for each in FAMILIES}


def load_gallery(subject: Subject) -> Gallery:
    """Explain the question by all explainers; the other scenes of the split are the partners of the controls."""
    trained = subject.trained
    explainers = build_explainers(chosen_configs("explainer", "all", OmegaConf.create({"names": "all"})))
    aim = AnswerTarget()
    partners = question_partners(trained, _one_of_each_scene(trained, subject), subject.config.seed, aim.of_logits)
    bound, _ = partners.bind(explainers, subject.batch.ids)
    sample = next(explain_samples(trained.model, subject.batch, bound, aim))
    box = seen_box(sample.photo.size, trained.model.encoder.vision.visual.preprocess_cfg)
    return Gallery(figure_of(sample, small_photo(sample.photo, box), subject.evidence), explainers)


def _one_of_each_scene(trained: TrainedVQA, subject: Subject) -> list[int]:
    """Return the row of the question, and that of the first question about each other scene."""
    rows = {question.image_id: row for row, question in reversed(list(enumerate(trained.questions)))}
    chosen = next(row for row, each in enumerate(trained.questions) if each.question_id == subject.question.question_id)
    return sorted({**rows, subject.question.image_id: chosen}.values())


def stamp_of(gallery: Gallery, shown: Explanation) -> Stamp:
    """Return what a picture shows; scores are shares of the largest one."""
    scores = {
        name: Scale.over([values]).share(np.ravel(values)).tolist()
        for name, values in (("patches", shown.maps[0]), ("words", shown.word_scores))
    }
    config: Any = {"overrides": list(OVERRIDES), "explainer": shown.explainer, "rule": RULE}
    return Stamp(config, rounded({"answer": gallery.sample.answer, **scores}))


def draw(gallery: Gallery, shown: Explanation) -> Figure:
    """Draw a map on the scene, with the words below it."""
    sample = gallery.sample
    placed = set_words(sample.words, CELL)
    page = Page(CELL + 2 * EDGE, CELL + BELOW + words_height(placed) + 2 * EDGE)
    page.figure.set_dpi(DPI)
    patches, words = Scale.pair([shown.maps[0]], [shown.word_scores])
    sample.photos[0].show_heat(page.panel(EDGE, EDGE, CELL, CELL), shown.maps[0], patches, "patches")
    page.words(EDGE, EDGE + CELL + BELOW, placed, shown.word_scores, words, sample.evidence)
    return page.figure


def page_of(gallery: Gallery) -> str:
    """Return docs/gallery.md."""
    texts: Any = OmegaConf.to_container(OmegaConf.load(DOCS / "gallery.yaml"))
    sample = gallery.sample
    about = {"question": sample.question, "answer": sample.answer, "probability": sample.probability}
    parts = [INTRO.format(**about)]
    for family, names in gallery.families.items():
        parts += [f"\n## {FAMILIES[family]}\n\n", *_pictures(names)]
        rows = [(f"`{name}`", *texts[name].values(), *map(str, gallery.explainers[name].passes)) for name in names]
        parts.append(table(("explainer", "use", "careful", "forward", "backward"), rows))
    return "".join(parts)


def _pictures(names: list[str]) -> Iterator[str]:
    """Yield tables of pictures below the names of their explainers."""
    for start in range(0, len(names), COLUMNS):
        row = names[start : start + COLUMNS]
        cells = [f'<img src="gallery/{name}.png" alt="The map of {name}, and its words" width="160">' for name in row]
        yield table([f"`{name}`" for name in row], [cells]) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    gallery = load_gallery(load_subject(config_of()))
    for shown in gallery.sample.explanations:
        path = FOLDER / f"{shown.explainer}.png"
        write_png(draw(gallery, shown), path, stamp_of(gallery, shown), palette=True)
    PAGE.write_text(page_of(gallery), encoding="utf-8")
    sizes = sum(path.stat().st_size for path in FOLDER.glob("*.png"))
    print(f"wrote docs/gallery.md and {len(gallery.explainers)} pictures, {sizes / 1000:.0f} kB")
