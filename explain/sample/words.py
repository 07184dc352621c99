"""Words of the user's own question in a rendered prompt, by the character offsets of its tokens."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from explain.traced import Word

MARK = "\u2603question\u2603"  # stands for the question while a template is rendered
WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


def question_span(render: Callable[[str], str], question: str) -> tuple[str, tuple[int, int]]:
    """Return the prompt and the characters of the question in it.

    A template may contain the question's words itself, so the question's place is that of a mark rendered instead of
    it; of several places, the last.

    Raises:
        ValueError: The template changes the question.
    """
    before, found, after = render(MARK).rpartition(MARK)
    before = before.replace(MARK, question.strip())
    prompt = render(question)
    for asked in (question, question.strip()):
        if found and prompt == before + asked + after:
            return prompt, (len(before), len(before) + len(asked))
    raise ValueError("the chat template changes the question, so its words cannot be found in the prompt")


def question_words(
    ids: Sequence[int],
    prompt: str,
    span: tuple[int, int],
    tokenizer: Any,
    options: Mapping[str, Any],
    placeholders: set[int],
) -> list[Word]:
    """Return the words of a question, with the positions of their tokens in the model's input.

    Args:
        ids: The model's input, in which placeholders may be repeated or replaced by other tokens.
        prompt: The rendered prompt.
        span: The question's characters in it.
        tokenizer: A fast tokenizer.
        options: How the tokenizer was called.
        placeholders: Ids of the tokens that stand for images.

    Raises:
        ValueError: The tokenizer knows no offsets, or the prompt's tokens are not those of the input.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"{type(tokenizer).__name__} knows no character offsets: load it with use_fast=True")
    coded = tokenizer(prompt, return_offsets_mapping=True, **options)
    shown: list[int] = coded["input_ids"]
    hidden = placeholders | (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})  # an unknown word is a word
    words: list[tuple[int, int, list[int]]] = []
    starts = {span[0] + found.start() for found in WORD.finditer(prompt[span[0] : span[1]])}
    for place, (start, stop) in enumerate(coded["offset_mapping"]):
        start, stop = _stripped(prompt, max(start, span[0]), min(stop, span[1]))
        if start >= stop or shown[place] in hidden:
            continue
        if words and start not in starts:
            words[-1] = (words[-1][0], max(stop, words[-1][1]), [*words[-1][2], place])
        else:
            words.append((start, stop, [place]))
    moved = _moved(ids, shown, placeholders, [place for _, _, own in words for place in own])
    return [(prompt[start:stop], [moved[place] for place in own]) for start, stop, own in words]


def spans_of(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Return the characters of each word, which follow one another in the text; words may lack its capitals.

    Raises:
        ValueError: A word is not in the text after the words before it.
    """
    small = text.lower()
    written = text if len(small) != len(text) or _follow(text, words) else small
    spans = []
    start = 0
    for word in words:
        start = written.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    return spans


def _follow(text: str, words: Sequence[str]) -> bool:
    """Return whether the words follow one another in the text."""
    start = 0
    for word in words:
        start = text.find(word, start)
        if start < 0:
            return False
        start += len(word)
    return True


def as_read(text: str, words: Sequence[str]) -> str | None:
    """Return a text as its tokenizer reads it, if that changes characters, as CLIP's reads ``&amp;`` as ``&``.

    Args:
        text: The text.
        words: Its words, as the tokenizer reads them.

    Returns:
        The words with spaces between them, which the tokenizer reads as the same words; None if the text has nothing
        else than these words, with or without capitals.
    """
    small = text.lower()
    if len(small) == len(text) and "".join(small.split()) == "".join(words):
        return None
    return " ".join(words)


def _stripped(prompt: str, start: int, stop: int) -> tuple[int, int]:
    while start < stop and prompt[start].isspace():
        start += 1
    while start < stop and prompt[stop - 1].isspace():
        stop -= 1
    return start, stop


def _moved(ids: Sequence[int], shown: Sequence[int], placeholders: set[int], places: Sequence[int]) -> dict[int, int]:
    """Return the position in ``ids`` of tokens of the prompt ``shown``.

    The prompt is cut at its placeholders, and each part is the first of its kind in the input after the part before.
    """
    cuts = [-1, *(k for k, token in enumerate(shown) if token in placeholders), len(shown)]
    moved: dict[int, int] = {}
    at = 0
    for first, last in pairwise(cuts):
        part = list(shown[first + 1 : last])
        wanted = [place for place in places if first < place < last]
        start = _find(ids, part, at)
        if start < 0 and wanted:  # a processor that puts its own tokens around the text
            part, first = part[wanted[0] - first - 1 : wanted[-1] - first], wanted[0] - 1
            start = _find(ids, part, at)
        if start < 0 and wanted:
            raise ValueError("the prompt's tokens are not those of the model's input: the processor does not fit")
        moved |= {place: start + place - first - 1 for place in wanted}
        at = max(at, start + len(part))
    return moved


def _find(ids: Sequence[int], part: Sequence[int], at: int) -> int:
    """Return where a part begins in the input from a position on, or -1."""
    found = (start for start in range(at, len(ids) - len(part) + 1) if list(ids[start : start + len(part)]) == part)
    return next(found, -1)
