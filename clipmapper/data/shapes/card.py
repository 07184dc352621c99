"""The numbers of the data card docs/reference/shapes.md: ``python -m clipmapper.data.shapes.card`` prints its tables.

Scenes and questions are drawn as for the test split of the default data; no file is written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import mean

from clipmapper.config.data import ShapesConfig
from clipmapper.data.shapes.disagreement import AGREEMENT, agreement
from clipmapper.data.shapes.questions import SHARES, ShapesQuestion
from clipmapper.data.shapes.scene import Scene
from clipmapper.data.shapes.write import draw_sample

SEED, SCENES, QUESTIONS = 0, 1000, 6  # of the default data's test split


def tables() -> list[str]:
    """Return the tables of scenes, of questions by kind, and of agreement by answer type, as Markdown."""
    scenes, plain = draw("none")
    _, mixed = draw("vqav2")
    return [scene_table(scenes), kind_table(plain), agreement_table(plain, mixed)]


def draw(disagreement: str) -> tuple[list[Scene], list[ShapesQuestion]]:
    """Draw the scenes of the test split and all their questions."""
    config = ShapesConfig(
        seed=SEED, questions_per_scene=QUESTIONS, extra_questions={}, disagreement=disagreement, pixels=128
    )
    samples = [draw_sample(config, "test", index) for index in range(SCENES)]
    return [scene for scene, _, _ in samples], [question for _, asked, _ in samples for question in asked]


def scene_table(scenes: Sequence[Scene]) -> str:
    """Return the shares of scenes by number of objects, and of objects by ambiguous attribute."""
    objects = [o for scene in scenes for o in scene.objects]
    rows = [[f"scenes of {n} objects", _percent(len(s.objects) == n for s in scenes)] for n in (2, 3, 4)]
    rows += [
        [f"objects of ambiguous {name}", _percent(getattr(o, name).doubt > 0 for o in objects)]
        for name in ("color", "shape", "size")
    ]
    return _table(["what", "%"], rows)


def kind_table(questions: Sequence[ShapesQuestion]) -> str:
    """Return a row per kind of question; all numbers are in percent."""
    rows = []
    for kind in SHARES:
        chosen = [q for q in questions if q.kind == kind]
        share = _percent(q.kind == kind for q in questions)
        rows.append([f"`{kind}`", chosen[0].answer_type, share, *_about(chosen)])
    rows.append(["all", "", "100.0", *_about(questions)])
    heads = ["kind", "answer type", "share", "no evidence object", "ten equal answers", "agreement", "constant answer"]
    return _table(heads, rows)


def agreement_table(plain: Sequence[ShapesQuestion], mixed: Sequence[ShapesQuestion]) -> str:
    """Return the agreement by answer type, without and with ``disagreement=vqav2``.

    Args:
        plain: Questions without disagreement.
        mixed: The same questions with disagreement.
    """
    rows = []
    for answer_type, published in AGREEMENT.items():
        before, after = ([q for q in each if q.answer_type == answer_type] for each in (plain, mixed))
        other_label = _percent(a.answer != b.answer for a, b in zip(before, after, strict=True))
        numbers = [_agreement(before), _unanimous(before), _agreement(after), _unanimous(after), other_label]
        rows.append([answer_type, *numbers, f"{100 * published:.2f}"])
    modes = ["`none`: agreement", "ten equal", "`vqav2`: agreement", "ten equal", "other label"]
    return _table(["answer type", *modes, "Antol et al. 2015"], rows)


def constant_answer(questions: Sequence[ShapesQuestion]) -> float:
    """Return the share of correct answers if every kind of question always gets its most common answer, 0..1."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for q in questions:
        answers[q.kind][q.answer] += 1
    return sum(max(counts.values()) for counts in answers.values()) / len(questions)


def _about(questions: Sequence[ShapesQuestion]) -> list[str]:
    no_object = _percent(not q.objects for q in questions)
    return [no_object, _unanimous(questions), _agreement(questions), f"{100 * constant_answer(questions):.1f}"]


def _agreement(questions: Sequence[ShapesQuestion]) -> str:
    return f"{100 * mean(agreement(q.answers) for q in questions):.1f}"


def _unanimous(questions: Sequence[ShapesQuestion]) -> str:
    return _percent(len(set(q.answers)) == 1 for q in questions)


def _percent(values: Iterable[bool]) -> str:
    return f"{100 * mean(map(float, values)):.1f}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    print("\n".join(tables()))
