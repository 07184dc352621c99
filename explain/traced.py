"""A trace, and what its tokens mean: what every adapter returns, and what figures and measures read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.trace import AttentionTrace

Word = tuple[str, Sequence[int]]  #: a word and the joint positions of its tokens


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Traced:
    """A trace of B samples with image and text, and what the joint positions are.

    The image's own tokens, such as a class token, come before its patches (or objects); padding comes last.
    """

    trace: AttentionTrace
    logits: Tensor  #: [B, C]
    removable: Tensor  #: bool [B, N]: patches and sub-words; neither markers, such as a class token, nor padding
    #: Modality → joint position [B] whose row of R explains it; the same for all in fusion models.
    readout: Mapping[str, Tensor]
    grid: tuple[int, int] | None = None  #: rows and columns of the patches; None: no grid, or one of its own a sample
    #: Where each patch lies in the pixels the model takes: left, top, right, bottom, [P, 4], or [B, P, 4].
    boxes: Tensor | None = None
    words: Sequence[Sequence[Word]] | None = None  #: the words of each sample's text; None: each token by itself
    picture_ids: Sequence[int | str] | None = None  #: whose picture each sample shows, B

    def __repr__(self) -> str:
        known = [name for name in ("grid", "boxes", "words", "picture_ids") if getattr(self, name) is not None]
        steps, words = len(self.trace.steps), self.trace.sizes["text"]
        return (
            f"Traced(batch of {len(self.logits)}, {self.patches} patches, {words} text tokens, {steps} steps, "
            f"logits {list(self.logits.shape)}; {', '.join(known) or 'no grid, boxes or words'})"
        )

    @property
    def rows(self) -> Tensor:
        """The joint position of the image's read-out token, [B]: the only one of a model that fuses its modalities."""
        return self.readout["image"]

    @property
    def answers(self) -> Tensor:
        """The preferred class, [B]."""
        return self.logits.argmax(-1)

    @property
    def patches(self) -> int:
        """P, the image tokens from the first patch (or object) on, padding included."""
        of_image = self.removable[:, self.trace.span("image")].any(0)
        return len(of_image) - int(of_image.int().argmax()) if bool(of_image.any()) else 0

    def scores(self, scores: Tensor, modality: str) -> Tensor:
        """The part of scores [B, N] that belongs to patches, [B, P], or to all tokens of the text, [B, n_t]."""
        span = self.trace.span(modality)
        return scores[:, span.stop - self.patches : span.stop] if modality == "image" else scores[:, span]

    def explain(self, explainer: Explainer) -> dict[str, Tensor]:
        """Scores of the patches, ``"image"`` [B, P], and of the words, ``"text"`` [B, n_words].

        Each modality is scored by the row of its own read-out token. A word has the sum of its tokens' scores, and
        samples with fewer words end in zeros; where the words are not known, all tokens of the text are scored.

        Raises:
            TraceError: the trace lacks what the explainer needs.
        """
        rows = {modality: self._row(modality) for modality in ("image", "text")}
        image = explainer(self.trace, rows["image"])
        shared = rows["text"] is rows["image"]
        text = image if shared else explainer(self.trace, rows["text"])
        return {"image": self.scores(image, "image"), "text": self._of_words(text)}

    def _row(self, modality: str) -> Tensor:
        """The modality's own row, or the only one."""
        return self.readout.get(modality, self.rows)

    def _of_words(self, scores: Tensor) -> Tensor:
        """[B, N] → [B, n_words]."""
        if self.words is None:
            return self.scores(scores, "text")
        tokens = [
            (sample, word, position)
            for sample, words in enumerate(self.words)
            for word, (_, positions) in enumerate(words)
            for position in positions
        ]
        sample, word, position = torch.tensor(tokens, dtype=torch.long, device=scores.device).view(-1, 3).unbind(1)
        of_words = scores.new_zeros(len(scores), max(map(len, self.words), default=0))
        return of_words.index_put_((sample, word), scores[sample, position], accumulate=True)


def grid_boxes(grid: tuple[int, int], patch: tuple[int, int], device: torch.device) -> Tensor:
    """Left, top, right, bottom in pixels of each patch, row by row, [P, 4]."""
    (rows, cols), (height, width) = grid, patch
    row, col = torch.meshgrid(torch.arange(rows, device=device), torch.arange(cols, device=device), indexing="ij")
    corners = torch.stack([col * width, row * height, (col + 1) * width, (row + 1) * height], -1)
    return corners.flatten(0, 1)
