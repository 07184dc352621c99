"""The questions of the ``shapes`` dataset: one function for each kind, which draws a wording and a program.

The program answers the question for any perception of the scene. If the answers would otherwise be unbalanced, a kind
first draws the answer and then looks for a question with it. The evidence is what the answer depends on: objects by
index, and the bracketed words of the wording.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from clipmapper.data.shapes.language import (
    NOUNS,
    RELATIONS,
    WORDINGS,
    Description,
    article,
    describe,
    holds,
    parse,
    place,
    plural,
)
from clipmapper.data.shapes.scene import COLORS, SHAPES, SIZES, Scene, Seen, perceive, truth

Program = Callable[[Sequence[Seen]], str]
CLEAR = 0.08  # smallest distance, as a share of the image's width, at which people agree on a relation
FAR = 0.2  # smallest distance of two compared objects: more than the width of a patch of the embedded encoder


@dataclass(frozen=True, slots=True)
class Draft:
    """A question before annotators have answered it; in ``wording``, the evidence is in brackets."""

    kind: str
    answer_type: str
    wording: str
    program: Program
    evidence: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ShapesQuestion:
    """A question with its ten answers and its evidence."""

    kind: str
    answer_type: str
    text: str
    words: tuple[tuple[int, int], ...]
    objects: tuple[int, ...]
    answers: tuple[str, ...]
    answer: str


Kind = Callable[[Sequence[Seen], Random], "Draft | None"]


def ask(scene: Scene, kind: str, rng: Random) -> ShapesQuestion | None:
    """Draw a question of a kind with the answers of ten annotators; return None if the draw does not fit the scene."""
    draft = KINDS[kind](truth(scene), rng)
    if draft is None:
        return None
    answers = tuple(draft.program(perceive(scene, rng)) for _ in range(10))
    most_common = Counter(answers).most_common(1)[0][0]
    text, words = parse(draft.wording)
    return ShapesQuestion(kind, draft.answer_type, text, words, draft.evidence, answers, most_common)


def _only_match(scene: Sequence[Seen], description: Description) -> Seen | None:
    found = description.among(scene)
    return found[0] if len(found) == 1 else None


def _attribute_of(name: str, description: Description, fallback: Seen) -> Program:
    """Return a program that reads an attribute of the described object.

    If an annotator sees the scene differently and no single object fits the description, it reads ``fallback``.
    """

    def program(scene: Sequence[Seen]) -> str:
        return str(getattr(_only_match(scene, description) or scene[fallback.index], name))

    return program


def _exists(scene: Sequence[Seen], rng: Random) -> Draft | None:
    exists = rng.random() < 0.5
    description = describe(rng.choice(scene), rng)
    if not exists:  # change one word, so that a similar object is in the scene
        description = _change_one_word(description, rng)
    if bool(description.among(scene)) != exists:
        return None
    noun = rng.choice(NOUNS)
    what = f"[{description.words(noun)}]"
    negated = rng.random() < 0.15
    a = article(description.words(noun)).split(" ", 1)[0]
    wording = rng.choice(
        (f"is there [not] {a} {what}?", f"does the image [not] contain {a} {what}?", f"is [no] {what} present?")
        if negated
        else (
            f"is there {a} {what}?",
            f"is there {a} {what} in the image?",
            f"does the image contain {a} {what}?",
            f"is {a} {what} present?",
            f"do you see {a} {what}?",
        )
    )

    def program(seen: Sequence[Seen]) -> str:
        return "yes" if bool(description.among(seen)) != negated else "no"

    return Draft("exist", "yes/no", wording, program, tuple(s.index for s in description.among(scene)))


def _change_one_word(description: Description, rng: Random) -> Description:
    choices = [name for name in ("color", "shape", "size") if getattr(description, name)]
    name = rng.choice(choices)
    values = {"color": tuple(COLORS), "shape": SHAPES, "size": SIZES}[name]
    fields = {"size": description.size, "color": description.color, "shape": description.shape}
    return Description(**{**fields, name: rng.choice([v for v in values if v != fields[name]])})


def _relation_holds(scene: Sequence[Seen], rng: Random) -> Draft | None:
    pair = _described_pair(scene, rng)
    if pair is None:
        return None
    a, b, of_a, of_b = pair
    relation = rng.choice(RELATIONS)
    if not (holds(relation, a, b, FAR) or holds(relation, b, a, FAR)):
        return None
    noun = rng.choice(NOUNS)
    how = rng.choice(WORDINGS[relation])
    wording = f"is the [{of_a.words(noun)}] [{how}] the [{of_b.words(noun)}]?"

    def program(seen: Sequence[Seen]) -> str:
        return "yes" if holds(relation, seen[a.index], seen[b.index]) else "no"

    return Draft("relation", "yes/no", wording, program, (a.index, b.index))


def _side(scene: Sequence[Seen], rng: Random) -> Draft | None:
    """Draw a question that names both sides ("left or right of"), whose answer is one of them instead of yes or no."""
    pair = _described_pair(scene, rng)
    if pair is None:
        return None
    a, b, of_a, of_b = pair
    relation = rng.choice(RELATIONS)
    if not holds(relation, a, b, FAR):
        return None
    noun = rng.choice(NOUNS)
    level = relation in ("left of", "right of")
    how = rng.choice(("left or right of", "right or left of") if level else ("above or below", "below or above"))
    wording = f"is the [{of_a.words(noun)}] [{how}] the [{of_b.words(noun)}]?"

    def program(seen: Sequence[Seen]) -> str:
        if level:
            return "left" if holds("left of", seen[a.index], seen[b.index]) else "right"
        return "above" if holds("above", seen[a.index], seen[b.index]) else "below"

    return Draft("side", "other", wording, program, (a.index, b.index))


def _same(scene: Sequence[Seen], rng: Random) -> Draft | None:
    name = rng.choice(("color", "size", "shape"))
    pair = _described_pair(scene, rng, without=name)
    if pair is None:
        return None
    a, b, of_a, of_b = pair
    if (getattr(a, name) == getattr(b, name)) != (rng.random() < 0.5):
        return None
    noun = rng.choice(NOUNS)
    wording = f"do the [{of_a.words(noun)}] and the [{of_b.words(noun)}] have the [same] [{name}]?"

    def program(seen: Sequence[Seen]) -> str:
        return "yes" if getattr(seen[a.index], name) == getattr(seen[b.index], name) else "no"

    return Draft("same", "yes/no", wording, program, (a.index, b.index))


def _described_pair(
    scene: Sequence[Seen], rng: Random, without: str = ""
) -> tuple[Seen, Seen, Description, Description] | None:
    if len(scene) < 2:
        return None
    a, b = rng.sample(list(scene), 2)
    of_a, of_b = describe(a, rng, without), describe(b, rng, without)
    if _only_match(scene, of_a) is None or _only_match(scene, of_b) is None:
        return None
    return a, b, of_a, of_b


def _count(scene: Sequence[Seen], rng: Random) -> Draft | None:
    noun = rng.choice(NOUNS)
    description = _to_count(scene, rng)
    words = description.words(noun).split(" ")
    what = " ".join((*words[:-1], plural(words[-1])))
    wording = rng.choice(
        (
            f"[how many] [{what}] are there?",
            f"[how many] [{what}] are in the image?",
            f"[how many] [{what}] do you see?",
            f"what is the [number] of [{what}]?",
        )
    )

    def program(seen: Sequence[Seen]) -> str:
        return str(len(description.among(seen)))

    return Draft("count", "number", wording, program, tuple(s.index for s in description.among(scene)))


def _to_count(scene: Sequence[Seen], rng: Random) -> Description:
    """Draw a description that fits 0 to 4 objects, with the numbers balanced as far as the scenes allow."""
    number = rng.choice((0, 1, 1, 2, 2, 3, 3, 4))
    candidates = [Description(color=s.color) for s in scene] + [Description(shape=s.shape) for s in scene]
    candidates += [Description(size=size) for size in SIZES] + [Description()]
    if number == 0:
        return rng.choice((Description(color=rng.choice(tuple(COLORS))), Description(shape=rng.choice(SHAPES))))
    usable = [d for d in candidates if len(d.among(scene)) == number]
    return rng.choice(usable or candidates)


def _attribute(name: str, wordings: tuple[str, ...]) -> Kind:
    def kind(scene: Sequence[Seen], rng: Random) -> Draft | None:
        target = rng.choice(scene)
        description = describe(target, rng, without=name)
        if _only_match(scene, description) is None:
            return None
        what = f"[{description.words(rng.choice(NOUNS))}]"
        wording = rng.choice(wordings).format(what=what)
        return Draft(name, "other", wording, _attribute_of(name, description, target), (target.index,))

    return kind


def _where(scene: Sequence[Seen], rng: Random) -> Draft | None:
    target = rng.choice(scene)
    description = describe(target, rng)
    if _only_match(scene, description) is None:
        return None
    what = f"[{description.words(rng.choice(NOUNS))}]"
    wording = rng.choice((f"[where] is the {what}?", f"in which [corner] is the {what}?"))

    def program(seen: Sequence[Seen]) -> str:
        return place(seen[target.index])

    return Draft("where", "other", wording, program, (target.index,))


def _related_attribute(name: str, wordings: tuple[str, ...]) -> Kind:
    """Return a kind that asks for an attribute of the only object that is in a given relation to another object."""

    def kind(scene: Sequence[Seen], rng: Random) -> Draft | None:
        anchor = rng.choice(scene)
        description = describe(anchor, rng)
        relation = rng.choice(RELATIONS)
        others = [s for s in scene if s.index != anchor.index]
        targets = [s for s in others if holds(relation, s, anchor, CLEAR)]
        unclear = len(targets) != sum(holds(relation, s, anchor, -CLEAR) for s in others)
        if _only_match(scene, description) is None or len(targets) != 1 or unclear:
            return None
        target = targets[0]
        noun = rng.choice(NOUNS)
        what = f"[{rng.choice(WORDINGS[relation])}] the [{description.words(noun)}]"
        wording = rng.choice(wordings).format(what=what, noun=rng.choice(NOUNS))

        def program(seen: Sequence[Seen]) -> str:
            return str(getattr(seen[target.index], name))

        return Draft(f"relation_{name}", "other", wording, program, (anchor.index, target.index))

    return kind


KINDS: dict[str, Kind] = {
    "exist": _exists,
    "relation": _relation_holds,
    "side": _side,
    "same": _same,
    "count": _count,
    "color": _attribute("color", ("what [color] is the {what}?", "what is the [color] of the {what}?")),
    "shape": _attribute("shape", ("what [shape] is the {what}?", "what is the [shape] of the {what}?")),
    "size": _attribute("size", ("what [size] is the {what}?", "[how big] is the {what}?")),
    "where": _where,
    "relation_color": _related_attribute(
        "color", ("what [color] is the {noun} {what}?", "what is the [color] of the {noun} {what}?")
    ),
    "relation_shape": _related_attribute(
        "shape", ("what [shape] is {what}?", "what is the [shape] of the {noun} {what}?")
    ),
}
# Share of each kind in percent: half of the questions are about two objects, a third are yes/no, a seventh are numbers.
SHARES: dict[str, int] = {
    "exist": 12,
    "relation": 16,
    "side": 16,
    "same": 6,
    "count": 14,
    "color": 6,
    "shape": 6,
    "size": 4,
    "where": 4,
    "relation_color": 8,
    "relation_shape": 8,
}


def ask_several(scene: Scene, count: int, rng: Random) -> list[ShapesQuestion]:
    """Draw ``count`` different questions about a scene, with the kinds in their shares."""
    questions: dict[str, ShapesQuestion] = {}
    kinds, parts = tuple(SHARES), tuple(SHARES.values())
    while len(questions) < count:
        # Some kinds rarely fit a scene; repeating the draw with the same kind preserves the shares.
        question = _ask_repeatedly(scene, rng.choices(kinds, parts)[0], rng)
        if question is not None:
            questions.setdefault(question.text, question)
    return list(questions.values())


def ask_more(
    scene: Scene, counts: Mapping[str, int], rng: Random, asked: Sequence[ShapesQuestion]
) -> list[ShapesQuestion]:
    """Draw up to ``counts[kind]`` further questions of each kind, different from one another and from those ``asked``.

    There are fewer where a scene offers no more.
    """
    texts = {question.text for question in asked}
    further: dict[str, ShapesQuestion] = {}
    for kind, count in counts.items():
        for _ in range(count):
            question = _ask_repeatedly(scene, kind, rng)
            if question is not None and question.text not in texts:
                further.setdefault(question.text, question)
    return list(further.values())


def _ask_repeatedly(scene: Scene, kind: str, rng: Random) -> ShapesQuestion | None:
    return next((q for q in (ask(scene, kind, rng) for _ in range(25)) if q is not None), None)
