"""The explanation of one answer: its map, its words, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from explain.interaction import interaction, mutual_interaction
from explain.sample.html import page
from explain.sample.maps import Array, photo_maps
from explain.sample.scores import Scores
from explain.sample.traced import Answer, TracedSample
from explain.trace import AttentionTrace, TraceError
from explain.traced import Traced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from explain.figures import Sample


@dataclass(frozen=True, eq=False, repr=False)
class Explained:
    """The explanation of one answer by one or more explainers; ``e["rollout"]`` is that of one of them.

    ``image`` and ``words`` are those of the first explainer. A notebook shows it; :meth:`save` writes it to a file.
    """

    sample: TracedSample
    scores: Mapping[str, Scores]  #: by name of the explainer

    def __repr__(self) -> str:
        sizes = ", ".join(" × ".join(map(str, each.shape)) for each in self.images)
        about = f"{len(self.sample.words)} words; patches: {sizes or 'none'}; by {', '.join(self.scores)}"
        return f"Explained({str(self.answer)!r}; {about})"

    def __getitem__(self, explainer: str) -> Explained:
        if explainer not in self.scores:
            raise KeyError(f"{explainer} was not computed: choose one of {', '.join(self.scores)}")
        return Explained(self.sample, {explainer: self.scores[explainer]})

    @property
    def answer(self) -> Answer:
        """The model's own answer."""
        return self.sample.answer

    @property
    def explained(self) -> Answer:
        """The explained answer, which is the model's own unless a target was given."""
        return self.sample.explained

    @property
    def runner_up(self) -> Answer | None:
        """The second most probable answer (:class:`~explain.sample.traced.TracedSample`); None if not known."""
        return self.sample.runner_up

    @property
    def traced(self) -> Traced:
        """The trace, with the meaning of its tokens."""
        return self.sample.traced

    @property
    def trace(self) -> AttentionTrace:
        """The trace that all explainers read."""
        return self.traced.trace

    @property
    def images(self) -> Sequence[Array]:
        """Relevance of the patches of each image, [rows, cols]."""
        return self._first.images

    @property
    def image(self) -> Array:
        """Relevance of the patches, [rows, cols].

        Raises:
            ValueError: There is not exactly one image.
        """
        if len(self.images) != 1:
            raise ValueError(f"the sample has {len(self.images)} images: use e.images, a list of maps")
        return self.images[0]

    @property
    def words(self) -> list[tuple[str, float]]:
        """The words of the question, each with its relevance."""
        return [(word, float(score)) for (word, _), score in zip(self.sample.words, self._first.words, strict=True)]

    @cached_property
    def interaction(self) -> Sequence[Array] | None:
        """Interaction of each word with the patches of each image, [n_words, rows, cols].

        It is mutual where the patches also attend to the words. None if the model has no attention between words and
        patches, or the explainers need no gradients of all its attention.
        """
        if not {"image", "text"} <= set(self.trace.sizes) or not self.sample.words:
            return None
        try:
            rows = self._rows(mutual_interaction(self.trace, "text", "image"))
            if not bool(rows.any()):  # words after the image in a causal model: only they attend to it
                rows = self._rows(interaction(self.trace, "text", "image"))
        except TraceError:
            return None
        if not bool(rows.any()):
            return None
        maps = [photo_maps(self.sample, row[-self.traced.patches :]) for row in rows]
        return [np.stack(of_photo) for of_photo in zip(*maps, strict=True)]

    def _rows(self, matrix: Tensor) -> Tensor:
        """Return the sums of each word's rows of an interaction [M, n_text, n_image], a mean: [n_words, n_image]."""
        mean = matrix.mean(0)
        first = self.trace.span("text").start
        return torch.stack([mean[[place - first for place in places]].sum(0) for _, places in self.sample.words])

    def figure(self) -> Figure:
        """Draw the explanation with all images, or with the words alone, as :func:`explain.figures.draw` does."""
        from explain.figures import draw

        return draw(self.figure_content())

    def figure_content(self) -> Sample:
        """Return the content of the figure."""
        from explain.figures import Explanation, Photo, Sample

        photos = [Photo(photo, seen) for photo, seen in zip(self.sample.photos, self.sample.seen, strict=True)]
        explanations = [Explanation(name, each.images, each.words) for name, each in self.scores.items()]
        return Sample(
            photos[0] if len(photos) == 1 else photos,
            self.sample.question,
            [word for word, _ in self.sample.words],
            str(self.answer),
            self.answer.probability,
            explanations,
            _note(self.sample),
        )

    def save(self, path: str | Path) -> list[Path]:
        """Write the figure to a file, such as ``x.pdf`` or ``x.png``; without a suffix, to both.

        Returns:
            The paths of the files.

        Raises:
            ValueError: The suffix is unknown.
        """
        from explain.figures import save

        path = Path(path)
        return save(self.figure(), path.with_suffix(""), [path.suffix[1:]] if path.suffix else ["png", "pdf"])

    def show(self) -> None:
        """Show the explanation in a notebook, or else its figure in the system's image viewer."""
        try:
            from IPython import get_ipython
            from IPython.display import display
        except ImportError:
            notebook = False
        else:
            notebook = get_ipython() is not None
        if notebook:
            display(self)
            return
        Image.open(BytesIO(self._repr_png_())).show()

    def _repr_png_(self) -> bytes:
        from explain.figures.saving import png

        return png(self.figure())

    def _repr_html_(self) -> str:
        return page(self.sample, self.scores, self.interaction)

    @property
    def _first(self) -> Scores:
        return next(iter(self.scores.values()))


def _note(sample: TracedSample) -> str:
    """Return the second line of a figure: the explained answer, if it is not the model's own."""
    if sample.over is not None:
        return f"explained: {sample.explained} rather than {sample.over}"
    return "" if sample.explained == sample.answer else f"explained: {sample.explained}"
