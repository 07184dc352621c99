"""One explained caption: all numbers behind its figure, and the rows of the file that stores them."""

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
# The file has one row per word and explainer. ``index`` is the word's position in the caption, ``weight`` its weight
# u_k (Huang et al. 2023, Eq. 21). All scores are means over the word's sub-words: ``special`` has those of the read-out
# token (if there is one) and the class token, ``patches`` those of the patches row by row, ``text`` those of the start
# token, of each earlier word, and of the word itself, since its later sub-words are generated from its earlier ones.
# ``against`` is the word whose logit was subtracted, null for none.
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
    """An image, its generated caption of n words, and the explanations of the words."""

    image: CaptionImage
    photo: Image.Image
    caption: str
    words: Sequence[str]  #: [n]
    weights: Sequence[float]  #: weight of each word (Huang et al. 2023, Eq. 21), [n]
    grid: tuple[int, int]  #: rows and columns of the patches
    #: Scores by explainer, [n, n_v]: of the read-out token (if there is one), the class token and the patches.
    image_scores: Mapping[str, Array]
    text_scores: Mapping[str, Array]  #: scores of the start token and the words by explainer, [n, 1 + n]

    def patches(self, explainer: str) -> Array:
        """Return the patches' scores for each word, [n, rows, cols]."""
        rows, cols = self.grid
        return self.image_scores[explainer][:, -rows * cols :].reshape(-1, rows, cols)

    def whole(self, explainer: str) -> Array:
        """Return the patches' relevance to the whole caption (Huang et al. 2023, Eq. 20), [rows, cols]."""
        summed: Array = np.tensordot(np.asarray(self.weights, np.float32), self.patches(explainer), 1)
        return summed


def explained_captions(
    batch: CaptionedBatch,
    explained: ExplainedWords,
    weights: Mapping[int, Sequence[float]],
    texts: Sequence[str],
    grid: tuple[int, int],
) -> Iterator[ExplainedCaption]:
    """Yield the explained captions of a batch.

    Args:
        batch: The images and captions.
        explained: The scores of their words.
        weights: Weight of each word of a caption, by image id.
        texts: Text of each caption.
        grid: Rows and columns of the patches.
    """
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
            text_scores={name: _sum_sub_words(every[own, text], words) for name, every in scores.items()},
        )


def _sum_sub_words(scores: Array, words: Sequence[Word]) -> Array:
    """Sum the scores of each word's sub-words after the start token: [n, 1 + sub-words + padding] → [n, 1 + n]."""
    starts = np.cumsum([0, 1, *(word.sub_words for word in words)])
    summed: Array = np.add.reduceat(scores[:, : starts[-1]], starts[:-1], axis=1)
    return summed


def score_rows(caption: ExplainedCaption, against: str | None) -> Iterator[dict[str, Any]]:
    """Yield a caption's rows of the file, as ``SCHEMA`` describes them."""
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
