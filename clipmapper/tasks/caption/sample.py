"""One explained caption: every number behind its picture, as it is kept in a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from clipmapper.data.caption_files import CaptionImage
from clipmapper.tasks.caption.explaining import ExplainedWords
from clipmapper.tasks.caption.sentence import Word
from clipmapper.tasks.caption.trained import CaptionedBatch

Array = NDArray[np.float32]
_SCORES = pa.list_(pa.float32())
# A row a word and explainer. ``index`` is the word's place in the caption and ``weight`` its w of Eq. 21. Scores are
# means over the word's sub-words: ``special`` of a read-out token (if there is one) and the class token, ``patches``
# row by row, ``text`` of the start token, each earlier word, and the word itself: of those of its sub-words that a
# later one was generated from. ``against`` is the word whose logit was taken off, null for none.
SCHEMA = pa.schema(
    {
        "image_id": pa.int64(),
        "caption": pa.string(),
        "explainer": pa.string(),
        "index": pa.int32(),
        "word": pa.string(),
        "weight": pa.float32(),
        "special": _SCORES,
        "patches": _SCORES,
        "text": _SCORES,
        "against": pa.string(),
    }
)


@dataclass(frozen=True, eq=False)
class ExplainedCaption:
    """``words`` [n] and their ``weights`` (Eq. 21) [n]; ``grid`` is (rows, cols) of the patches.

    By explainer, ``image_scores`` [n, n_v] are those of a read-out token (if there is one), the class token and the
    patches, and ``text_scores`` [n, 1 + n] those of the start token and the words.
    """

    image: CaptionImage
    photo: Image.Image
    caption: str
    words: Sequence[str]
    weights: Sequence[float]
    grid: tuple[int, int]
    image_scores: Mapping[str, Array]
    text_scores: Mapping[str, Array]

    def patches(self, explainer: str) -> Array:
        """[n, rows, cols]."""
        rows, cols = self.grid
        return self.image_scores[explainer][:, -rows * cols :].reshape(-1, rows, cols)

    def whole(self, explainer: str) -> Array:
        """The patches' relevance to the whole caption (Eq. 20), [rows, cols]."""
        summed: Array = np.tensordot(np.asarray(self.weights, np.float32), self.patches(explainer), 1)
        return summed


def explained_captions(
    batch: CaptionedBatch,
    explained: ExplainedWords,
    weights: Mapping[int, Sequence[float]],
    texts: Sequence[str],
    grid: tuple[int, int],
) -> Iterator[ExplainedCaption]:
    """The captions of a batch, whose ``texts`` are given, with the weights of their words by image id."""
    trace, first = explained.traced.trace, 0
    image, text = trace.span("image"), trace.span("text")
    scores = {name: of_batch.float().cpu().numpy() for name, of_batch in explained.scores.items()}
    for k, words in enumerate(explained.words):
        own = slice(first, first + len(words))
        first = own.stop
        yield ExplainedCaption(
            image=batch.images[k],
            photo=batch.photos[k],
            caption=texts[k],
            words=[word.text for word in words],
            weights=weights[batch.images[k].image_id],
            grid=grid,
            image_scores={name: every[own, image] for name, every in scores.items()},
            text_scores={name: _by_word(every[own, text], words) for name, every in scores.items()},
        )


def _by_word(scores: Array, words: Sequence[Word]) -> Array:
    """Scores of the start token and the sub-words, then padding → those of the start token and the words, summed."""
    starts = np.cumsum([0, 1, *(word.sub_words for word in words)])
    summed: Array = np.add.reduceat(scores[:, : starts[-1]], starts[:-1], axis=1)
    return summed


def score_rows(caption: ExplainedCaption, against: str | None) -> Iterator[dict[str, Any]]:
    """What the file says of a caption, rows of ``SCHEMA``."""
    rows, cols = caption.grid
    for explainer, image in caption.image_scores.items():
        for index, (word, weight) in enumerate(zip(caption.words, caption.weights, strict=True)):
            yield {
                "image_id": caption.image.image_id,
                "caption": caption.caption,
                "explainer": explainer,
                "index": index,
                "word": word,
                "weight": weight,
                "special": image[index, : -rows * cols].tolist(),
                "patches": image[index, -rows * cols :].tolist(),
                "text": caption.text_scores[explainer][index, : index + 2].tolist(),
                "against": against,
            }
