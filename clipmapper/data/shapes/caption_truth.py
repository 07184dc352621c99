"""Whether a caption is true of a ``shapes`` scene, and which objects its words name.

The grammar reads the language of ``captions.py``; every other word is left over, and such a caption is not true:

    caption = [opening] item {[", and" | "," | "and"] item} ["."]
    opening = "a picture of" | "there is" | "there are"
    item    = object [["is"] relation object] | number phrase | "on" ["a" | "an"] [tone] [texture] "background"
    object  = ["a" | "an" | "the"] phrase [["is"] "in the" ("top" | "bottom") ("left" | "right") ["corner"]]
    number  = "no" | "one" | ... | "eight"
    phrase  = [size] [color] (shape | noun), the last word singular or plural

Every object and every number of objects an item names is another part of the picture: "a red circle and a red circle"
needs two. "a" is at least one, a number is exact for the whole picture. A relation holds by any margin, between its own
two objects. Where people differ about an attribute, a caption is true if it is true of what one of them may see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from clipmapper.data.shapes.language import NOUNS, NUMBERS, WORDINGS, Description, holds, plural
from clipmapper.data.shapes.scene import COLORS, SHAPES, SIZES, Seen
from clipmapper.errors import UserError

Span = tuple[int, int]
Groups = tuple[tuple[Seen, ...], ...]  # what each of several mentions names

_ARTICLES = ("a", "an", "the")
_SHAPE_OF = {form: shape for shape in SHAPES for form in (shape, plural(shape))}
_RELATION_OF = {wording: relation for relation, wordings in WORDINGS.items() for wording in wordings}


@dataclass(frozen=True, slots=True)
class KnownScene:
    """The scene in every way annotators may see it, each a tuple of all its objects, and its background."""

    perceptions: tuple[tuple[Seen, ...], ...]
    tone: str
    texture: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One thing a caption says, judged by itself: kind is object, count, place, relation or background.

    ``span`` is [start, end) in characters, ``objects`` the indices of all objects the claim may mean.
    """

    kind: str
    span: Span
    true: bool
    objects: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NamingWord:
    """A word and the indices of the objects it names: none where what it says is not there.

    ``kind`` is size, color, shape, place or relation; a relation's wording is one entry and names both sides. Where the
    caption fits in several ways, the objects of all are named. Where it does not fit as a whole, size, color and shape
    name what fits their relation, or else their place, or else their phrase; other words what fits their own claim.
    """

    text: str
    kind: str
    span: Span
    objects: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CaptionTruth:
    """The verdict on one caption; ``true`` asks for a readable caption whose claims hold together."""

    true: bool
    claims: tuple[Claim, ...]
    words: tuple[NamingWord, ...]
    left_over: tuple[str, ...]

    @property
    def readable(self) -> bool:
        """Whether there is a claim and every word is part of one."""
        return bool(self.claims) and not self.left_over


def scene_from_side_file(entry: Mapping[str, Any]) -> KnownScene:
    """From ``scenes[image_id]`` of a split's ``shapes_{split}_evidence.json``; UserError where it is no such entry."""
    try:
        ways = [_ways_to_see(i, o) for i, o in enumerate(entry["objects"])]
        return KnownScene(tuple(product(*ways)), entry["background"]["tone"], entry["background"]["texture"])
    except (KeyError, TypeError) as error:
        raise UserError(f"not a scene of a shapes evidence file ({error}): write the data set anew") from error


def _ways_to_see(index: int, entry: Mapping[str, Any]) -> list[Seen]:
    names = [
        [entry[of]["name"], entry[of]["other"]] if entry[of]["doubt"] > 0 else [entry[of]["name"]]
        for of in ("shape", "color", "size")
    ]
    return [Seen(index, shape, color, size, entry["x"], entry["y"]) for shape, color, size in product(*names)]


def check_caption(caption: str, scene: KnownScene) -> CaptionTruth:
    """Judges any text as a caption of a scene."""
    said = _Reader(caption)
    solved = [(part, _solutions(part, scene)) for part in _parts(said)]
    claims = [Claim(p.kind, p.span, bool(found), _objects(found, range(len(p.of)))) for p, found in solved[1:]]
    for ground in said.grounds:
        fits = (ground["tone"] or scene.tone, ground["texture"] or scene.texture) == (scene.tone, scene.texture)
        claims.append(Claim("background", ground.span("all"), fits, ()))
    words = sorted(_naming_words(said, solved), key=lambda word: word.span)
    true = bool(claims) and not said.left_over and bool(solved[0][1]) and all(claim.true for claim in claims)
    return CaptionTruth(true, tuple(sorted(claims, key=lambda c: c.span)), tuple(words), tuple(said.left_over))


def _any(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(words)})"


def _pattern(text: str) -> re.Pattern[str]:
    """A space stands for any white space."""
    return re.compile(r"\s*" + text.replace(" ", r"\s+"))


_DESCRIPTION = (
    rf"(?:(?P<size>{_any(SIZES)}) )?(?:(?P<color>{_any(COLORS)}) )?"
    rf"(?:(?P<shape>{_any(_SHAPE_OF)})|{_any(NOUNS)}s?)\b"
)
_PHRASE = _pattern(rf"(?P<all>(?:(?P<number>{_any((*_ARTICLES, *NUMBERS))}) )?{_DESCRIPTION})")
_RELATION = _pattern(rf"(?:is )?(?P<how>{_any(_RELATION_OF)})(?= (?:{_any(_ARTICLES)} )?{_DESCRIPTION})")
_PLACE = _pattern(r"(?:is )?in the (?P<height>top|bottom) (?P<side>left|right)(?: corner)?\b")
_GROUND = _pattern(
    r"(?P<all>on(?: an?)?(?! background)(?: (?P<tone>dark|pale))?"
    r"(?: (?P<texture>plain|striped|checked|dotted|noisy|graded))? background)\b"
)
_OPENING = _pattern(r"(?:a picture of|there is|there are)\b")
_SEPARATOR = _pattern(r"(?:,\s*and\b|,|and\b)")
_UNKNOWN = _pattern(r"(?P<word>\w[\w'-]*|\S)")


@dataclass(frozen=True, slots=True)
class _Mention:
    """An object, or with ``number`` exactly so many."""

    description: Description
    number: int | None
    phrase: re.Match[str]
    place: re.Match[str] | None


@dataclass(frozen=True, slots=True)
class _Relation:
    """Between two mentions, by their positions."""

    first: int
    second: int
    wording: re.Match[str]

    def holds(self, groups: Groups) -> bool:
        relation = _RELATION_OF[" ".join(self.wording["how"].split())]
        return holds(relation, groups[self.first][0], groups[self.second][0])


class _Reader:
    """What a caption says, read item by item; a word that begins no item is left over."""

    def __init__(self, caption: str) -> None:
        self.mentions: list[_Mention] = []
        self.relations: list[_Relation] = []
        self.grounds: list[re.Match[str]] = []
        self.left_over: list[str] = []
        # ASCII only: other letters' lower case may be longer, and the spans would be wrong.
        self._text = re.sub("[A-Z]", lambda m: m[0].lower(), caption).rstrip().removesuffix(".").rstrip()
        self._at = 0
        self._next(_OPENING)
        while self._at < len(self._text):
            start = self._at
            if self.mentions or self.grounds:
                self._next(_SEPARATOR)
            if ground := self._next(_GROUND):
                self.grounds.append(ground)
            elif not self._item():
                self._at = start
                if unknown := self._next(_UNKNOWN):
                    self.left_over.append(unknown["word"])

    def _next(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        if match := pattern.match(self._text, self._at):
            self._at = match.end()
        return match

    def _item(self) -> bool:
        first = len(self.mentions)
        if not self._mention():
            return False
        if self.mentions[first].number is None and (wording := self._next(_RELATION)):
            self._mention()
            self.relations.append(_Relation(first, first + 1, wording))
        return True

    def _mention(self) -> bool:
        if (phrase := self._next(_PHRASE)) is None:
            return False
        number = NUMBERS.index(phrase["number"]) if phrase["number"] in NUMBERS else None
        place = self._next(_PLACE) if number is None else None
        description = Description(phrase["size"] or "", phrase["color"] or "", _SHAPE_OF.get(phrase["shape"], ""))
        self.mentions.append(_Mention(description, number, phrase, place))
        return True


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of a caption's mentions, ``of`` by their positions, and what must hold of them."""

    kind: str
    span: Span
    of: tuple[int, ...]
    mentions: tuple[_Mention, ...]
    relations: tuple[_Relation, ...] = ()


Solved = Sequence[tuple[_Part, list[Groups]]]


def _parts(said: _Reader) -> list[_Part]:
    """The whole caption, then its claims, those that say most first."""
    mentions, phrases = said.mentions, [replace(m, place=None) for m in said.mentions]
    parts = [_Part("whole", (0, 0), tuple(range(len(mentions))), tuple(mentions), tuple(said.relations))]
    for r in said.relations:
        a, b = phrases[r.first], phrases[r.second]
        span = (a.phrase.start("all"), b.phrase.end("all"))
        parts.append(_Part("relation", span, (r.first, r.second), (a, b), (replace(r, first=0, second=1),)))
    for k, m in enumerate(mentions):
        if m.place:
            parts.append(_Part("place", (m.phrase.start("all"), m.place.end()), (k,), (m,)))
    for k, m in enumerate(phrases):
        parts.append(_Part("object" if m.number is None else "count", m.phrase.span("all"), (k,), (m,)))
    return parts


def _solutions(part: _Part, scene: KnownScene) -> list[Groups]:
    """Every way in which the mentions name different objects, as some annotator sees them."""
    if sum(1 if m.number is None else m.number for m in part.mentions) > len(scene.perceptions[0]):
        return []
    return [groups for seen in scene.perceptions for groups in _readings(part, seen)]


def _readings(part: _Part, seen: Sequence[Seen]) -> Iterator[Groups]:
    for groups in product(*(_candidates(mention, seen) for mention in part.mentions)):
        named = [s.index for group in groups for s in group]
        if len(set(named)) == len(named) and all(relation.holds(groups) for relation in part.relations):
            yield groups


def _candidates(mention: _Mention, seen: Sequence[Seen]) -> list[tuple[Seen, ...]]:
    found = mention.description.among(seen)
    if mention.number is not None:
        return [found] if len(found) == mention.number else []
    return [(s,) for s in found if mention.place is None or _is_at(mention.place, s)]


def _is_at(place: re.Match[str], seen: Seen) -> bool:
    """The middle is on both sides: the side file's places are rounded."""
    across = seen.x <= 0.5 if place["side"] == "left" else seen.x >= 0.5
    return across and (seen.y <= 0.5 if place["height"] == "top" else seen.y >= 0.5)


def _objects(solutions: Sequence[Groups], mentions: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({s.index for k in mentions for groups in solutions for s in groups[k]}))


def _naming_words(said: _Reader, solved: Solved) -> Iterator[NamingWord]:
    for k, m in enumerate(said.mentions):
        for kind in ("size", "color", "shape"):
            if m.phrase[kind]:
                yield NamingWord(m.phrase[kind], kind, m.phrase.span(kind), _named(kind, (k,), solved))
        if m.place:
            for part in ("height", "side"):
                yield NamingWord(m.place[part], "place", m.place.span(part), _named("place", (k,), solved))
    for r in said.relations:
        objects = _named("relation", (r.first, r.second), solved)
        yield NamingWord(r.wording["how"], "relation", r.wording.span("how"), objects)


def _named(kind: str, mentions: tuple[int, ...], solved: Solved) -> tuple[int, ...]:
    """What the mentions name in the first part that holds and that a word of this kind is about."""
    for part, found in solved:
        about = kind in ("size", "color", "shape") or part.kind in ("whole", kind)
        if found and about and set(mentions) <= set(part.of):
            return _objects(found, [part.of.index(k) for k in mentions])
    return ()
