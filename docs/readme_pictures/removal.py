"""removal.png: one scene without a growing share of its patches, and what the model then thinks of its answer.

The patches that are removed, their order and the model's answers are those of the measure ``areas`` of ``perturb``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from explain.figures.layout import GREY, Page
from explain.figures.styles import styles_of
from perturbation.measures.areas import Areas
from perturbation.measures.base import ScoredBy
from perturbation.perturb.candidates import candidates_of
from perturbation.perturb.vqa import explained_questions, target_of
from perturbation.removal.engine import Engine, Removal, VQAReader
from perturbation.removal.reader import SubsetOutputs, Subsets
from readme_pictures.subject import RULE, Subject

STEPS = (0.0, 0.1, 0.25, 0.5)
EXPLAINER, CONTROL = "weighted", "random"
CELL, GAP, EDGE = 256 / 3, 12.0, 10.0
HEAD, TEXT, SMALL = 8.0, 7.0, 6.0  # font sizes
TITLES, BELOW, ROW_GAP = 14.0, 27.0, 11.0  # heights: of the titles, of the text below a scene, between the rows
LABEL = 84.0  # width of the labels at the left
BAR = 3.5
GRID, EMPTY = "#C4C4C4", "#EBEBEB"  # colours of the hatches of removed patches, and of the rest of a bar
DPI = 216  # 3 pixels per point, so that a pixel of a scene becomes 2 × 2 pixels and stays sharp


@dataclass(frozen=True, eq=False)
class Removed:
    """One order of removal."""

    kept: NDArray[np.bool_]  #: the kept patches at every step, [S, P]
    probability: NDArray[np.float64]  #: the probability of the answer at every step, [S]
    said: list[str]  #: the predicted answer at every step


def removals(subject: Subject) -> dict[ScoredBy, Removed]:
    """Remove patches in the order of the explainer and in random orders, and read the model again."""
    config, model = subject.config, subject.trained.model
    explainers = {name: each for name, each in subject.explainers().items() if name in (EXPLAINER, CONTROL)}
    removal = Removal(config.removal.image, config.removal.text)  # type: ignore[arg-type]
    reader = VQAReader(Engine(model, 32, removal))
    samples = reader.samples(subject.batch)
    target = target_of(config.target, samples.inputs.logits)
    candidates = candidates_of(explainers, config.random_seeds)
    batch = explained_questions(model, subject.batch, candidates, target, ["image"], seed=config.seed)

    def read(subsets: Subsets) -> SubsetOutputs:
        return reader.read(samples, subsets, samples.inputs.answers)

    found = {}
    for (_, scored_by, _), subsets in Areas(STEPS, ["positive"], {}).ask(batch, read).items():
        outputs = read(subsets)
        assert subsets.image is not None
        found[scored_by] = Removed(subsets.image[0], outputs.values["probability"][0], outputs.said[0].tolist())
    return found


def scores(subject: Subject) -> Any:
    """Return what the picture shows, by explainer and seed."""
    orders = {
        str(scored_by): {
            "removed": [np.flatnonzero(~kept).tolist() for kept in order.kept],
            "probability": order.probability.tolist(),
            "answer": order.said,
        }
        for scored_by, order in removals(subject).items()
    }
    return {"rule": RULE, "question": subject.question.question, "steps": list(STEPS), "orders": orders}


def draw(subject: Subject) -> Figure:
    """Draw the picture."""
    found, styles = removals(subject), styles_of([EXPLAINER, CONTROL])
    best = next(order for name, order in found.items() if name.name == EXPLAINER)
    randoms = [order for name, order in found.items() if name.name == CONTROL]
    mean = np.mean([order.probability for order in randoms], axis=0)
    row = CELL + BELOW
    page = Page(2 * EDGE + LABEL + len(STEPS) * (CELL + GAP) - GAP, 2 * EDGE + TITLES + 2 * row + ROW_GAP)
    page.figure.set_dpi(DPI)
    left = EDGE + LABEL
    for column, step in enumerate(STEPS):
        title = f"{100 * step:.0f} % removed" if step else "nothing removed"
        page.text(left + column * (CELL + GAP), EDGE + HEAD, title, HEAD, bold=True)
    top = EDGE + TITLES
    scene = subject.batch.images[0]
    labels = (["most relevant", "patches first"], ["by weighted relevance"])
    says = ["" if said == best.said[0] else f"now says {said}" for said in best.said]
    _draw_row(page, top, labels, (scene, best.kept), (best.said[0], best.probability, says), styles[EXPLAINER].colour)
    labels = (["patches in", "random order"], ["one order shown, mean", f"probability of {len(randoms)} orders"])
    ranges = [_range([order.probability[step] for order in randoms]) for step in range(len(STEPS))]
    below = top + row + ROW_GAP
    _draw_row(page, below, labels, (scene, randoms[0].kept), (best.said[0], mean, ranges), styles[CONTROL].colour)
    return page.figure


def _range(shares: list[float]) -> str:
    """Return the lowest and the highest share as text, or no text if they look the same."""
    low, high = f"{min(shares):.2f}", f"{max(shares):.2f}"
    return "" if low == high else f"{low} to {high}"


def _draw_row(
    page: Page,
    top: float,
    labels: tuple[list[str], list[str]],
    shown: tuple[Image.Image, NDArray[np.bool_]],
    answered: tuple[str, NDArray[np.float64], list[str]],
    colour: str,
) -> None:
    """Draw the scenes of one order.

    Args:
        page: The page.
        top: Upper edge of the scenes.
        labels: Lines of the label and lines below it in small print.
        shown: The scene, and the kept patches at every step, [S, P].
        answered: The answer, its probability at every step, [S], and a note at every step.
        colour: Colour of the label and of the bars.
    """
    end = page.lines(EDGE, top + CELL / 2 - 2 * HEAD, labels[0], HEAD, bold=True, color=colour)
    page.lines(EDGE, end + 1, labels[1], SMALL, color=GREY)
    (scene, every_kept), (answer, probability, notes) = shown, answered
    for column, (kept, share, note) in enumerate(zip(every_kept, probability, notes, strict=True)):
        left = EDGE + LABEL + column * (CELL + GAP)
        _draw_scene(page.panel(left, top, CELL, CELL), scene, kept)
        _draw_probability(page, left, top + CELL, f"p({answer}) = {share:.2f}", share, colour)
        page.text(left, top + CELL + 7 + BAR + 2.3 * TEXT, note, SMALL, color=GREY)


def _draw_scene(axes: Axes, scene: Image.Image, kept: NDArray[np.bool_]) -> None:
    """Draw the scene, with hatched cells for the removed patches."""
    side = round(len(kept) ** 0.5)
    size = scene.width / side
    axes.imshow(np.asarray(scene), extent=(0, scene.width, scene.height, 0), aspect="auto")
    for patch in np.flatnonzero(~kept):
        row, column = divmod(int(patch), side)
        cell = Rectangle((column * size, row * size), size, size, facecolor="white", edgecolor=GRID, linewidth=0.4)
        cell.set(hatch="/////", hatch_linewidth=0.35)
        axes.add_patch(cell)
    axes.add_patch(Rectangle((0, 0), scene.width, scene.height, fill=False, edgecolor=GRID, linewidth=0.6))
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))


def _draw_probability(page: Page, left: float, top: float, text: str, share: float, colour: str) -> None:
    """Draw the answer with its probability, as a number and as a bar."""
    page.ink.add_patch(Rectangle((left, top + 5), CELL, BAR, facecolor=EMPTY, edgecolor="none"))
    page.ink.add_patch(Rectangle((left, top + 5), CELL * share, BAR, facecolor=colour, edgecolor="none"))
    page.text(left, top + 7 + BAR + TEXT, text, TEXT)
