"""Annotators of ``shapes`` who disagree about as much as those of VQA (``data.disagreement=vqav2``).

The agreement of people in VQA is their mean official accuracy against the other annotators. For real images it is
95.77 % for yes/no questions, 83.39 % for numbers and 72.67 % for other answers (Antol et al. 2015, Table 1, question
and image). VQAv2 collects its ten answers in the same way (Goyal et al. 2017).

In the model of this file, each annotator independently gives, with a probability that depends on the answer type only,
another answer from the same group, each with the same probability. The probabilities are fitted to the three numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

from clipmapper.data.shapes.questions import ShapesQuestion
from clipmapper.data.shapes.scene import COLORS, SHAPES, SIZES

AGREEMENT = {"yes/no": 0.9577, "number": 0.8339, "other": 0.7267}  # Antol et al. 2015, Table 1
OTHER_ANSWER = {"yes/no": 0.048, "number": 0.185, "other": 0.335}  # share of annotators who give another answer
# Answers that people give to the same question; "medium", "big" and "little" are only given as another answer.
GROUPS = (
    ("yes", "no"),
    ("0", "1", "2", "3", "4"),
    tuple(COLORS),
    SHAPES,
    (*SIZES, "medium", "big", "little"),
    ("left", "right", "above", "below"),
    ("top left", "top right", "bottom left", "bottom right"),
)


def agreement(answers: Sequence[str]) -> float:
    """Return the mean official accuracy of each annotator's answer against those of the others, 0..1."""
    counts = Counter(answers)
    return sum(n * min(1.0, (n - 1) / 3) for n in counts.values()) / len(answers)


def disagree(question: ShapesQuestion, rng: Random) -> ShapesQuestion:
    """Return the question with some answers replaced by others, and with the answer that is now the most common."""
    share = OTHER_ANSWER[question.answer_type]
    answers = tuple(_another(answer, rng) if rng.random() < share else answer for answer in question.answers)
    return replace(question, answers=answers, answer=Counter(answers).most_common(1)[0][0])


def _another(answer: str, rng: Random) -> str:
    group = next(group for group in GROUPS if answer in group)
    return rng.choice([each for each in group if each != answer])
