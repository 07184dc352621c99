"""A trace together with the meaning of its tokens: what the adapters and CLIPmapper's tasks return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explain.explainers.base.explainer import Explainer
from explain.trace import AttentionTrace

Word = tuple[str, Sequence[int]]  #: a word, and the joint positions of its tokens


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Traced:
    """A trace of B samples with an image, a text or both, and the meaning of its joint positions.

    Several scalars per sample, such as the tokens of an answer, are B items. Within the image, special tokens such as a
    class token come before the patches (or objects), and padding comes last.
    """

    trace: AttentionTrace
    logits: Tensor  #: the model's logits, [B, C]
    #: bool [B, N]: True for patches and sub-words, False for padding and special tokens, such as a class token.
    removable: Tensor
    #: For each modality, the joint position [B] whose row of R explains it. A model that fuses its modalities has the
    #: same position for all of them. A model that reads a mean of tokens has weights of all rows, float [B, N_rows].
    readout: Mapping[str, Tensor]
    #: Rows and columns of the patches; None if there is no grid, or if the samples have different grids.
    grid: tuple[int, int] | None = None
    #: The box of each patch or object (left, top, right, bottom), [P, 4] or [B, P, 4]: in pixels of the model's input,
    #: or for LXMERT as fractions of the image's width and height.
    boxes: Tensor | None = None
    #: For several images (or tiles of an image) per sample, the number of the one in which a box lies, [P] or [B, P].
    images: Tensor | None = None
    words: Sequence[Sequence[Word]] | None = None  #: the words of each sample's text; None: tokens are not grouped
    picture_ids: Sequence[int | str] | None = None  #: ids of the B samples' images

    def __repr__(self) -> str:
        known = [name for name in ("grid", "boxes", "words", "picture_ids") if getattr(self, name) is not None]
        steps, words = len(self.trace.steps), self.trace.sizes.get("text", 0)
        return (
            f"Traced(batch of {len(self.logits)}, {self.patches} patches, {words} text tokens, {steps} steps, "
            f"logits {list(self.logits.shape)}; {', '.join(known) or 'no grid, boxes or words'})"
        )

    @property
    def rows(self) -> Tensor:
        """Joint position of the image's read-out token, [B]; the only one in a model that fuses its modalities.

        A model of texts alone has that of the text.
        """
        return self.readout["image" if "image" in self.readout else "text"]

    @property
    def answers(self) -> Tensor:
        """Index of the most likely class, [B]."""
        return self.logits.argmax(-1)

    @property
    def patches(self) -> int:
        """P, the number of image tokens from the first patch (or object) on, including padding."""
        if "image" not in self.trace.sizes:
            return 0
        of_image = self.removable[:, self.trace.span("image")].any(0)
        return len(of_image) - int(of_image.int().argmax()) if bool(of_image.any()) else 0

    def scores(self, scores: Tensor, modality: str) -> Tensor:
        """Return one modality's part of the scores [B, N].

        Returns:
            The scores of the patches, [B, P], or of all text tokens, [B, n_t].

        Raises:
            TraceError: The trace has no such modality.
        """
        span = self.trace.span(modality)
        return scores[:, span.stop - self.patches : span.stop] if modality == "image" else scores[:, span]

    def explain(self, explainer: Explainer) -> dict[str, Tensor]:
        """Score the patches, ``"image"`` [B, P], and the words, ``"text"`` [B, n_words].

        Each modality is scored by the row of its read-out token. A word's score is the sum of its tokens' scores.
        Samples with fewer words are padded with zeros. If the words are unknown, every text token is scored. A modality
        that the trace does not have is left out.

        Raises:
            TraceError: The trace lacks a field that the explainer needs.
        """
        found: dict[str, Tensor] = {}
        scored: dict[int, Tensor] = {}  # a row that explains both modalities is computed once
        for modality in [name for name in ("image", "text") if name in self.trace.sizes]:
            rows = self._readout_row(modality)
            if id(rows) not in scored:
                scored[id(rows)] = explainer(self.trace, rows)
            scores = scored[id(rows)]
            found[modality] = self.scores(scores, "image") if modality == "image" else self._word_scores(scores)
        return found

    def _readout_row(self, modality: str) -> Tensor:
        """Return the modality's read-out position, or the image's if the modality has none."""
        return self.readout.get(modality, self.rows)

    def _word_scores(self, scores: Tensor) -> Tensor:
        """Sum the scores of each word's tokens: [B, N] → [B, n_words]."""
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
    """Return the box of each patch in pixels: left, top, right, bottom, [P, 4], row by row."""
    (rows, cols), (height, width) = grid, patch
    row, col = torch.meshgrid(torch.arange(rows, device=device), torch.arange(cols, device=device), indexing="ij")
    corners = torch.stack([col * width, row * height, (col + 1) * width, (row + 1) * height], -1)
    return corners.flatten(0, 1)
