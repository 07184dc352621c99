"""Questions of ``shapes``: answers, evidence and balance, against a second evaluator that reads only the files."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from shapes_data import Asked, asked
from shapes_evaluator import COLORS, SHAPES, SIZES, Thing, evaluate, evidence_words, thing, values_in

from clipmapper.data.shapes.questions import FAR, KINDS, Draft, ask
from clipmapper.data.shapes.scene import Attribute, Scene, Seen, sample_scene, truth
from clipmapper.metrics.vqa import vqa_accuracy

YES_NO = ("exist", "relation", "same")
UNIQUE = tuple(kind for kind in KINDS if kind not in ("exist", "count"))


def things(question: Asked) -> list[Thing]:
    return [thing(entry) for entry in question.objects]


def of_kind(kind: str) -> list[Asked]:
    return [question for question in asked() if question.kind == kind]


def drafts(kind: str, count: int) -> list[tuple[Draft, str, tuple[Seen, ...], Random]]:
    """Return drafts of questions, their texts, their scenes, and a source of random numbers to change the scenes."""
    found = []
    for i in range(20 * count):
        rng = Random(f"draft {kind} {i}")
        seen = truth(sample_scene(rng))
        if len(found) < count and (draft := KINDS[kind](seen, rng)) is not None:
            found.append((draft, draft.wording.replace("[", "").replace("]", ""), seen, rng))
    assert len(found) == count
    return found


def changed(seen: tuple[Seen, ...], which: set[int], rng: Random) -> tuple[Seen, ...]:
    """Return the scene with random attributes and positions for the objects ``which``."""

    def one(s: Seen) -> Seen:
        values = {"shape": rng.choice(SHAPES), "color": rng.choice(COLORS), "size": rng.choice(SIZES)}
        return replace(s, x=rng.random(), y=rng.random(), **values)

    return tuple(one(s) if s.index in which else s for s in seen)


@pytest.mark.parametrize("kind", KINDS)
def test_questions_of_every_kind_have_ten_answers_of_the_right_type(kind: str) -> None:
    expected = "yes/no" if kind in YES_NO else "number" if kind == "count" else "other"
    questions = of_kind(kind)
    assert len(questions) > 40
    for q in questions:
        assert q.annotation["answer_type"] == expected
        assert [answer["answer_id"] for answer in q.annotation["answers"]] == list(range(1, 11))
        assert q.answers.count(q.answer) == max(Counter(q.answers).values())


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_evidence_equal_those_of_a_second_evaluator(kind: str) -> None:
    for q in of_kind(kind):
        found = evaluate(kind, q.text, things(q))
        assert found is not None, f"the objects of {q.text!r} are ambiguous"
        answer, objects = found
        assert set(q.evidence["objects"]) == objects, q.text
        assert len(q.evidence["objects"]) == len(objects)
        on_the_border = kind == "where" and any(abs(v - 0.5) < 0.05 for i in objects for v in _place(q, i))
        if q.is_clear and not on_the_border:
            assert q.answer == answer, q.text


def _place(q: Asked, i: int) -> tuple[float, float]:
    return q.objects[i]["x"], q.objects[i]["y"]


def test_most_annotators_answer_by_the_first_names_even_if_attributes_are_ambiguous() -> None:
    questions = [q for q in asked() if not q.is_clear]
    right = [evaluate(q.kind, q.text, things(q))[0] == q.answer for q in questions]  # type: ignore[index]
    assert len(questions) > 300
    assert sum(right) / len(right) > 0.93


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_words_are_the_words_that_the_answer_depends_on(kind: str) -> None:
    for q in of_kind(kind):
        spans = q.evidence["words"]
        assert spans == sorted(spans)
        assert all(0 <= start < end <= len(q.text) for start, end in spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        words = " ".join(q.text[start:end] for start, end in spans).split()
        assert words == evidence_words(kind, q.text), q.text
        assert "[" not in q.text
        assert "]" not in q.text


@pytest.mark.parametrize("kind", UNIQUE)
def test_objects_outside_the_evidence_do_not_change_the_answer(kind: str) -> None:
    others = 0
    for draft, text, seen, rng in drafts(kind, 40):
        rest = {s.index for s in seen} - set(draft.evidence)
        others += len(rest)
        for _ in range(5):
            moved = changed(seen, rest, rng)
            assert draft.program(moved) == draft.program(seen), text
    assert others > 10


@pytest.mark.parametrize("kind", UNIQUE)
def test_the_answer_depends_on_every_object_of_the_evidence(kind: str) -> None:
    """One or more of 60 random changes to each object must change the second evaluator's answer or evidence."""
    for draft, text, seen, rng in drafts(kind, 25):
        before = evaluate(kind, text, _as_things(seen))
        for i in draft.evidence:
            assert any(evaluate(kind, text, _as_things(changed(seen, {i}, rng))) != before for _ in range(60)), text


@pytest.mark.parametrize("kind", ["exist", "count"])
def test_programs_answer_for_any_scene_like_the_second_evaluator(kind: str) -> None:
    for draft, text, seen, rng in drafts(kind, 60):
        for _ in range(10):
            other = changed(seen, {s.index for s in seen}, rng)
            found = evaluate(kind, text, _as_things(other))
            assert found is not None
            assert draft.program(other) == found[0], text


def _as_things(seen: tuple[Seen, ...]) -> list[Thing]:
    return [Thing(s.shape, s.color, s.size, s.x, s.y) for s in seen]


def test_questions_do_not_contain_the_attribute_they_ask_for() -> None:
    values = {"color": COLORS, "shape": SHAPES, "size": SIZES}
    for q in asked():
        if q.kind in values:
            assert not set(values[q.kind]) & set(values_in(q.text)), q.text


@pytest.mark.parametrize("kind", ["relation", "side"])
def test_compared_objects_are_far_apart(kind: str) -> None:
    for q in of_kind(kind):
        (ax, ay), (bx, by) = (_place(q, i) for i in q.evidence["objects"])
        along_x = "left" in q.text or "right" in q.text
        assert abs(ax - bx if along_x else ay - by) > FAR - 1e-3


def test_clear_objects_make_annotators_agree() -> None:
    clear = [q for q in asked() if q.is_clear and q.kind not in ("where", "relation")]
    assert len(clear) > 200
    assert all(len(set(q.answers)) == 1 for q in clear)
    placed = [q for q in asked() if q.is_clear and q.kind in ("where", "relation")]
    assert sum(len(set(q.answers)) == 1 for q in placed) / len(placed) > 0.9


@pytest.mark.parametrize("kind", ["color", "shape", "size"])
def test_ambiguous_objects_make_annotators_disagree(kind: str) -> None:
    others = {"color": "purple", "shape": "rectangle", "size": "large"}
    given: Counter[str] = Counter()
    for i in range(60):
        rng = Random(f"doubt {kind} {i}")
        scene = sample_scene(rng, 1, 1)
        o = replace(scene.objects[0], shape=Attribute("square"), color=Attribute("blue"), size=Attribute("small"))
        first = getattr(o, kind).name
        o = replace(o, **{kind: Attribute(first, others[kind], 0.4)})
        question = ask(Scene(scene.background, (o,)), kind, rng)
        assert question is not None
        given.update(question.answers)
    assert set(given) == {first, others[kind]}
    assert 0.3 < given[others[kind]] / given.total() < 0.5


def test_places_near_the_border_make_annotators_disagree() -> None:
    for x, unanimous in ((0.5, False), (0.65, True)):
        scene = sample_scene(Random(0), 1, 1)
        o = replace(scene.objects[0], x=x, y=0.2)
        question = ask(Scene(scene.background, (o,)), "where", Random(1))
        assert question is not None
        assert (len(set(question.answers)) == 1) is unanimous


def test_some_questions_are_ambiguous() -> None:
    split = [len(set(q.answers)) > 1 for q in asked()]
    assert 0.03 < sum(split) / len(split) < 0.15


@pytest.mark.parametrize("kind", YES_NO)
def test_yes_and_no_are_balanced(kind: str) -> None:
    answers: Counter[str] = Counter()
    for i in range(700):
        rng = Random(f"balance {i}")
        scene = sample_scene(rng)
        question = next((q for q in (ask(scene, kind, rng) for _ in range(25)) if q is not None), None)
        answers[question.answer if question is not None else "none"] += 1
    assert answers["none"] < 140
    assert answers["yes"] + answers["no"] + answers["none"] == 700
    assert 0.4 <= answers["yes"] / (answers["yes"] + answers["no"]) <= 0.6


@pytest.mark.parametrize(("kind", "most"), [("color", 0.2), ("shape", 0.2), ("where", 0.4), ("count", 0.45)])
def test_no_answer_of_a_kind_dominates(kind: str, most: float) -> None:
    answers = Counter(q.answer for q in of_kind(kind))
    assert max(answers.values()) / answers.total() < most


def test_the_question_alone_does_not_determine_the_answer() -> None:
    """Guess the most common answer of the kind, or of known questions with the same words; the scores must be low."""
    train, held_out = asked()[:1800], asked()[1800:]
    for key in (lambda q: q.kind, lambda q: (q.kind, tuple(sorted(values_in(q.text))))):
        seen: defaultdict[object, Counter[str]] = defaultdict(Counter)
        for q in train:
            seen[key(q)][q.answer] += 1
            seen[q.kind][q.answer] += 1
        guesses = [(seen.get(key(q)) or seen[q.kind]).most_common(1)[0][0] for q in held_out]
        scores = [vqa_accuracy(g, q.annotation["answers"]) for g, q in zip(guesses, held_out, strict=True)]
        assert 0.15 < sum(scores) / len(scores) < 0.5
