"""The page of the demo and its events, made with Gradio. What a user does is kept in the states of their session."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

import gradio as gr
from PIL import Image

from clipmapper.errors import UserError
from explain import Explainer
from explain.figures.styles import in_order
from perturbation.demo import drawing
from perturbation.demo.answered import MODALITIES, Answered, Said, ask
from perturbation.demo.offered import Models
from perturbation.demo.scenes import Scene, uploaded

MOST_EXPLAINERS = 8
FORGET = 3600  # seconds after which an idle session and its files are removed
NOTHING: frozenset[int] = frozenset()
HEAD = """
# What does the answer depend on?
Choose a picture, ask a question, and see which patches and words the model used. Then remove them, and see whether it
still knows the answer.
"""
# A click on a part is an event; the part keeps the focus when the piece of HTML is replaced.
PICKED = """
element.addEventListener('click', event => {
  const part = event.target.closest('[data-part]');
  if (part) { element.dataset.last = part.dataset.part; trigger('picked', {part: part.dataset.part}); }
});
watch('value', () => {
  const last = element.dataset.last;
  const part = last && element.querySelector(`[data-part="${CSS.escape(last)}"]`);
  if (part) part.focus({preventScroll: true});
  delete element.dataset.last;
});
"""


@dataclass(frozen=True, eq=False)
class Chosen:
    """The picture that is asked about."""

    image: Image.Image
    scene: int | None = None  #: its number; None for an uploaded picture
    notes: Sequence[str] = ()  #: what was changed in an uploaded picture


@dataclass(frozen=True, eq=False)
class Removing:
    """An answered question, and the parts that were removed from it."""

    answered: Answered
    before: Said  #: what the model says when nothing is removed
    cells: frozenset[int] = NOTHING
    words: frozenset[int] = NOTHING

    def after(self, part: str) -> Removing:
        """Return what is removed after a click on a part: ``c3`` is a cell, ``w0`` a word, ``all`` the button.

        Raises:
            UserError: There is no such part.
        """
        if part == "all":
            return replace(self, cells=NOTHING, words=NOTHING)
        found = re.fullmatch(r"([cw])(\d{1,6})", part, re.ASCII)
        kind = "cells" if found and found[1] == "c" else "words"
        if found is None or int(found[2]) >= self.answered.counts("image" if kind == "cells" else "text"):
            raise UserError("there is no such part: ask the question again")
        return replace(self, **{kind: getattr(self, kind) ^ {int(found[2])}})


class Page:
    """What the page does. Models are not safe to be used by two threads, so that a lock lets in one event at a time.

    Args:
        models: The models that can be chosen.
        scenes: The pictures that can be chosen.
        explainers: The explainers that can be chosen, by name.
        chosen: Names of those that are chosen first.
        seed: Seed of random draws.
    """

    def __init__(
        self,
        models: Models,
        scenes: Sequence[Scene],
        explainers: Mapping[str, Explainer],
        chosen: Sequence[str],
        seed: int,
    ) -> None:
        self.models, self.scenes, self.explainers, self.chosen, self.seed = models, scenes, explainers, chosen, seed
        self._lock = Lock()

    def answer(self, chosen: Chosen | None, model: str, names: Sequence[str], question: str) -> Iterator[list[Any]]:
        """Yield the removing state, and the HTML of answer, parts, maps and strips; first without the strips."""
        empty = [None, "", "", "", ""]
        try:
            if chosen is None:
                raise UserError("there is no picture: choose a scene, or upload another picture")
            explainers = {name: self.explainers[name] for name in in_order(names) if name in self.explainers}
            with self._lock:
                loaded = self.models.load(model)
                found, answered, doubts = ask(loaded, explainers, chosen.image, question, self.seed)
                before = answered.without(NOTHING, NOTHING)
            removing = Removing(answered, before)
            shown = [drawing.answer(found, [*chosen.notes, *doubts]), _parts(removing, before), drawing.maps(found)]
            del found  # its trace takes much memory
            yield [removing, *shown, ""]
            with self._lock:
                of_image, of_text = (answered.strips(modality, self.seed) for modality in MODALITIES)
            yield [removing, *shown, drawing.strips(answered, of_image, of_text)]
        except (UserError, ValueError) as error:
            yield [*empty[:1], drawing.problem(error), *empty[2:]]

    def remove(self, removing: Removing | None, event: gr.EventData) -> tuple[Removing | None, str]:
        """Remove the part that was clicked on, or put it back."""
        if removing is None:
            return None, ""
        try:
            after = removing.after(str(event.part))
            with self._lock:
                said = after.answered.without(after.cells, after.words)
        except (UserError, ValueError) as error:
            return removing, drawing.problem(error)
        return after, _parts(after, said)

    def choose_scene(self, event: gr.EventData) -> tuple[Chosen, str, str, str, str]:
        """Choose a scene, and the first question about it."""
        number = min(max(int(event.part), 0), len(self.scenes) - 1)
        scene = self.scenes[number]
        first = next(iter(scene.questions), "")
        lists = drawing.scene_list(self.scenes, number), drawing.question_list(scene.questions)
        return Chosen(scene.image, number), *lists, "", first

    def choose_question(self, chosen: Chosen | None, event: gr.EventData) -> str:
        """Return a question of the chosen scene."""
        questions = self.scenes[chosen.scene].questions if chosen and chosen.scene is not None else []
        number = int(event.part)
        return questions[number] if 0 <= number < len(questions) else ""

    def upload(self, file: str | None) -> tuple[Any, str, str, str]:
        """Read an uploaded picture; one that cannot be read is told in one line, and the one before stays chosen."""
        try:
            if file is None:
                raise UserError("the upload did not end: try again")
            image, notes = uploaded(Path(file))
        except (UserError, OSError) as error:
            return gr.skip(), gr.skip(), gr.skip(), drawing.problem(error)
        lists = drawing.scene_list(self.scenes, None), drawing.question_list([])
        return Chosen(image, None, notes), *lists, ""


def _parts(removing: Removing, said: Said) -> str:
    return drawing.parts(removing.answered, removing.cells, removing.words, said, removing.before)


def blocks_of(page: Page) -> gr.Blocks:
    """Return the page as Gradio's blocks."""
    first = page.scenes[0]
    with gr.Blocks(title="CLIPmapper demo", analytics_enabled=False, delete_cache=(FORGET, FORGET)) as blocks:
        chosen, removing = (gr.State(value, time_to_live=FORGET) for value in (Chosen(first.image, 0), None))
        gr.Markdown(HEAD)
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300, elem_id="ask"):
                scenes = gr.HTML(drawing.scene_list(page.scenes, 0), js_on_load=PICKED)
                file = gr.UploadButton("Upload another picture", size="sm", variant="secondary")
                file_problem = gr.HTML()
                question = gr.Textbox(first.questions[0] if first.questions else "", label="Question", lines=1)
                button = gr.Button("Ask", variant="primary")
                questions = gr.HTML(drawing.question_list(first.questions), js_on_load=PICKED)
                model = gr.Dropdown(page.models.names, value=page.models.names[0], label="Model")
                names = gr.Dropdown(
                    in_order(page.explainers),
                    value=in_order(page.chosen)[:MOST_EXPLAINERS],
                    multiselect=True,
                    max_choices=MOST_EXPLAINERS,
                    label="Explainers",
                )
            with gr.Column(scale=5, min_width=320, elem_id="shown"):
                gr.Markdown("## Answer")
                answer = gr.HTML(elem_id="answer")
                gr.Markdown("## Click on a patch or a word to remove it")
                parts = gr.HTML(js_on_load=PICKED)
                gr.Markdown("## Relevance")
                maps = gr.HTML(elem_id="maps")
                strips = gr.HTML(elem_id="strips")
        shown = [removing, answer, parts, maps, strips]
        asked: dict[str, Any] = {"fn": page.answer, "inputs": [chosen, model, names, question], "outputs": shown}
        asked |= {"show_progress": "minimal", "trigger_mode": "always_last", "api_visibility": "private"}
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        gr.on([blocks.load, button.click, question.submit, model.input, names.input], **asked)
        picture = [chosen, scenes, questions, file_problem]
        scenes.picked(page.choose_scene, None, [*picture, question], **quiet).then(**asked)
        questions.picked(page.choose_question, [chosen], [question], **quiet).then(**asked)
        file.upload(page.upload, [file], picture, **quiet).then(**asked)
        parts.picked(page.remove, [removing], [removing, parts], **quiet)
    return blocks
