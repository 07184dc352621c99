"""Scenes with their patch tokens and texts, and the conversations that the model is trained on.

In a row of a batch, several conversations of one turn share the patches of their picture, and see nothing of one
another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from random import Random
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from clipmapper.config.data import ShapesConfig
from clipmapper.console import progress
from clipmapper.data.shapes.questions import ShapesQuestion
from clipmapper.data.shapes.render import draw_scene
from clipmapper.data.shapes.scene import Scene
from clipmapper.data.shapes.write import draw_sample
from clipmapper.llava.words import ASSISTANT, END, IMAGE, PAD, USER, split_words
from clipmapper.process.workers import pool

DESCRIBE = "describe the image."  #: the question that a caption answers
IGNORED = -100  #: label of tokens that are not learned
_CHUNK = 200  # scenes drawn and encoded together

Turn = tuple[list[int], list[int]]  # token ids of a question and of its answer
Encode = Callable[[list[Image.Image]], Tensor]


@dataclass(frozen=True)
class Picture:
    """A scene with its questions and captions."""

    scene: Scene
    questions: list[ShapesQuestion]
    captions: list[str]

    @property
    def texts(self) -> list[str]:
        """All its texts: questions, answers and captions."""
        return [*(text for q in self.questions for text in (q.text, q.answer)), *self.captions]


@dataclass(frozen=True)
class Pictures:
    """The pictures of a split."""

    items: list[Picture]
    #: Their patch tokens, float16 [n, P, D].
    patches: Tensor


@dataclass(frozen=True)
class Batch:
    """The conversations about B pictures, padded at the end."""

    #: Patch tokens, [B, P, D].
    patches: Tensor
    #: Token ids, [B, N]; those at positions 1 to P stand for the image.
    ids: Tensor
    #: The ids that are learned, and :data:`IGNORED` at all other tokens, [B, N].
    labels: Tensor
    #: Number of the conversation of each token from 1, 0 for the tokens that all of them share, -1 at padding, [B, N].
    turns: Tensor
    #: Position of each token in its conversation, [B, N].
    positions: Tensor

    @property
    def mask(self) -> Tensor:
        """Whether a token (row) attends to another: an earlier one of its conversation, bool [B, 1, N, N]."""
        query, key = self.turns[:, None, :, None], self.turns[:, None, None, :]
        return ((query == key) | (key == 0)).tril()

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in fields(self)))


def draw_pictures(config: ShapesConfig, split: str, encode: Encode) -> Pictures:
    """Draw the scenes of a split of ``shapes`` with their texts, and encode their images, without writing files.

    Args:
        config: The dataset.
        split: ``train``, ``val`` or ``test``.
        encode: Function from n images to their patch tokens, [n, P, D].
    """
    count = getattr(config, f"{split}_scenes")
    chunks = [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
    items: list[Picture] = []
    patches = []
    with pool(config.workers) as processes, progress(count, f"drawing {split}", "scenes") as advance:
        for drawn, images in processes.map(partial(_draw, config=config, split=split), chunks):
            items += drawn
            patches.append(encode(images).half())
            advance(len(drawn))
    return Pictures(items, torch.cat(patches))


def draw_picture(config: ShapesConfig, split: str, index: int) -> Picture:
    """Draw a scene of ``shapes`` with its texts."""
    return Picture(*draw_sample(config, split, index))


def _draw(indices: Sequence[int], config: ShapesConfig, split: str) -> tuple[list[Picture], list[Image.Image]]:
    items = [draw_picture(config, split, index) for index in indices]
    return items, [draw_scene(item.scene, config.pixels) for item in items]


@torch.no_grad()
def patch_tokens(tower: Any, image_processor: Any, images: list[Image.Image]) -> Tensor:
    """Return the patch tokens of CLIP's vision tower that LLaVA's projector reads, [n, P, D]."""
    pixels = image_processor(images, return_tensors="pt")["pixel_values"]
    return tower(pixels, output_hidden_states=True).hidden_states[-1][:, 1:]


class Conversations(Dataset[Batch]):
    """Conversations about pictures: one caption of each picture and some of its questions.

    The item of a list of picture numbers is a batch, which depends on the seed and on the list.

    Args:
        pictures: The pictures.
        vocab: Token id of every word.
        questions: Number of questions about a picture.
        seed: Seed of the choice of captions and questions.
    """

    def __init__(self, pictures: Pictures, vocab: dict[str, int], questions: int, seed: int):
        self.patches, self.vocab, self.count, self.seed = pictures.patches, vocab, questions, seed
        self._questions = [[turn(q.text, q.answer, vocab) for q in item.questions] for item in pictures.items]
        self._captions = [[turn(DESCRIBE, text, vocab) for text in item.captions] for item in pictures.items]

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, rows: list[int]) -> Batch:
        rng = Random(f"{self.seed} {rows}")
        turns = [[*rng.sample(self._questions[row], self.count), rng.choice(self._captions[row])] for row in rows]
        return collate(self.patches[rows], turns, self.vocab)


class SingleQuestions(Dataset[Batch]):
    """The questions of pictures, each in a row of its own.

    Args:
        pictures: The pictures.
        vocab: Token id of every word.
    """

    def __init__(self, pictures: Pictures, vocab: dict[str, int]):
        self.patches, self.vocab = pictures.patches, vocab
        self._rows = [
            (k, turn(q.text, q.answer, vocab)) for k, item in enumerate(pictures.items) for q in item.questions
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: list[int]) -> Batch:
        asked = [self._rows[row] for row in rows]
        return collate(self.patches[[k for k, _ in asked]], [[said] for _, said in asked], self.vocab)


def turn(question: str, answer: str, vocab: dict[str, int]) -> Turn:
    """Return the token ids of a question with the mark that asks for an answer, and of the answer with its end."""
    asked, said = ([vocab[word] for word in split_words(text)] for text in (question, answer))
    return [*asked, vocab[ASSISTANT]], [*said, vocab[END]]


def collate(patches: Tensor, turns: Sequence[Sequence[Turn]], vocab: dict[str, int]) -> Batch:
    """Return the turns about each picture as a batch, in which the answers are learned."""
    shared = [vocab[USER], *[vocab[IMAGE]] * patches.shape[1]]
    ids, labels, numbers, positions = [], [], [], []
    for row in turns:
        ids.append([*shared, *(token for asked, said in row for token in (*asked, *said))])
        labels.append([IGNORED] * len(shared) + [x for asked, said in row for x in (*[IGNORED] * len(asked), *said)])
        lengths = [len(asked) + len(said) for asked, said in row]
        numbers.append([0] * len(shared) + [k for k, length in enumerate(lengths, 1) for _ in range(length)])
        positions.append([*range(len(shared)), *(len(shared) + k for length in lengths for k in range(length))])
    padded = (_padded(x, value) for x, value in ((ids, vocab[PAD]), (labels, IGNORED), (numbers, -1), (positions, 0)))
    return Batch(patches.float(), *padded)


def _padded(rows: list[list[int]], value: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])
