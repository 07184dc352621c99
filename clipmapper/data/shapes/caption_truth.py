"""A check of captions of ``shapes`` scenes: whether a caption is true, and which objects its words name.

The grammar describes the language of ``captions.py``. A caption with any other words is not true; these words are
reported as left over.

    caption = [opening] item {[", and" | "," | "and"] item} ["."]
    opening = "a picture of" | "there is" | "there are"
    item    = object [["is"] relation object] | number phrase | "on" ["a" | "an"] [tone] [texture] "background"
    object  = ["a" | "an" | "the"] phrase [["is"] "in the" ("top" | "bottom") ("left" | "right") ["corner"]]
    number  = "no" | "one" | ... | "eight"
    phrase  = [size] [color] (shape | noun), the last word singular or plural

Different mentions name different objects: "a red circle and a red circle" needs two red circles. "a" means at least
one, and a number is the exact number in the whole image. A relation holds between its own two objects, by any margin.
If annotators can see an attribute differently, a caption is true if it is true of the scene as at least one of them
sees it.
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
Groups = tuple[tuple[Seen, ...], ...]  # the objects that each mention names

_ARTICLES = ("a", "an", "the")
_SHAPE_OF = {form: shape for shape in SHAPES for form in (shape, plural(shape))}
_RELATION_OF = {wording: relation for relation, wordings in WORDINGS.items() for wording in wordings}


@dataclass(frozen=True, slots=True)
class KnownScene:
    """A scene as the check of captions knows it."""

    #: All ways in which annotators can see the scene, each a tuple of all objects.
    perceptions: tuple[tuple[Seen, ...], ...]
    tone: str
    texture: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a caption, judged independently of the others."""

    #: object, count, place, relation or background.
    kind: str
    #: [start, end) in characters of the caption.
    span: Span
    true: bool
    #: Indices of all objects that the claim can mean.
    objects: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NamingWord:
    """A word of a caption and the objects that it names.

    If the caption fits the scene in several ways, the word names the objects of all of them. If the caption as a whole
    does not fit, words for size, color and shape name the objects that fit their relation, or else their place, or else
    their phrase; the other words name the objects that fit their own claim.
    """

    text: str
    #: size, color, shape, place or relation. A relation's words are one entry, which names the objects on both sides.
    kind: str
    #: [start, end) in characters of the caption.
    span: Span
    #: Indices of the named objects; empty if no object fits.
    objects: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CaptionTruth:
    """The result of the check of a caption."""

    #: Whether the caption is readable and all its claims hold for the same reading of the scene.
    true: bool
    claims: tuple[Claim, ...]
    words: tuple[NamingWord, ...]
    #: Words that are not part of the grammar.
    left_over: tuple[str, ...]

    @property
    def readable(self) -> bool:
        """Whether the caption makes at least one claim and has no words left over."""
        return bool(self.claims) and not self.left_over


def scene_from_side_file(entry: Mapping[str, Any]) -> KnownScene:
    """Return the scene described by ``scenes[image_id]`` of a file ``shapes_{split}_evidence.json``.

    Raises:
        UserError: ``entry`` is not such an entry.
    """
    try:
        ways = [_ways_to_see(i, o) for i, o in enumerate(entry["objects"])]
        return KnownScene(tuple(product(*ways)), entry["background"]["tone"], entry["background"]["texture"])
    except (KeyError, TypeError) as error:
        raise UserError(f"not a scene of a shapes evidence file ({error}): generate the dataset again") from error


def _ways_to_see(index: int, entry: Mapping[str, Any]) -> list[Seen]:
    names = [
        [entry[of]["name"], entry[of]["other"]] if entry[of]["doubt"] > 0 else [entry[of]["name"]]
        for of in ("shape", "color", "size")
    ]
    return [Seen(index, shape, color, size, entry["x"], entry["y"]) for shape, color, size in product(*names)]


def check_caption(caption: str, scene: KnownScene) -> CaptionTruth:
    """Check any text as a caption of a scene."""
    said = _Reader(caption)
    solved = [(part, _solutions(part, scene)) for part in _parts(said)]
    claims = [Claim(p.kind, p.span, bool(found), _objects(found, range(len(p.of)))) for p, found in solved[1:]]
    for ground in said.grounds:
        fits = (ground["tone"] or scene.tone, ground["texture"] or scene.texture) == (scene.tone, scene.texture)
        claims.append(Claim("background", ground.span("all"), fits, ()))
    words = sorted(_naming_words(said, solved), key=lambda word: word.span)
    true = bool(claims) and not said.left_over and bool(solved[0][1]) and all(claim.true for claim in claims)
    return CaptionTruth(true, tuple(sorted(claims, key=lambda c: c.span)), tuple(words), tuple(said.left_over))


def _one_of(words: Iterable[str]) -> str:
    return f"(?:{'|'.join(words)})"


def _pattern(text: str) -> re.Pattern[str]:
    """Compile a pattern in which a space matches any white space."""
    return re.compile(r"\s*" + text.replace(" ", r"\s+"))


_DESCRIPTION = (
    rf"(?:(?P<size>{_one_of(SIZES)}) )?(?:(?P<color>{_one_of(COLORS)}) )?"
    rf"(?:(?P<shape>{_one_of(_SHAPE_OF)})|{_one_of(NOUNS)}s?)\b"
)
_PHRASE = _pattern(rf"(?P<all>(?:(?P<number>{_one_of((*_ARTICLES, *NUMBERS))}) )?{_DESCRIPTION})")
_RELATION = _pattern(rf"(?:is )?(?P<how>{_one_of(_RELATION_OF)})(?= (?:{_one_of(_ARTICLES)} )?{_DESCRIPTION})")
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
    """A phrase that names one object or, with ``number``, exactly that many objects."""

    description: Description
    number: int | None
    phrase: re.Match[str]
    place: re.Match[str] | None


@dataclass(frozen=True, slots=True)
class _Relation:
    """A relation between two mentions, given by their positions."""

    first: int
    second: int
    wording: re.Match[str]

    def holds(self, groups: Groups) -> bool:
        relation = _RELATION_OF[" ".join(self.wording["how"].split())]
        return holds(relation, groups[self.first][0], groups[self.second][0])


class _Reader:
    """Parser of a caption, which reads item by item; a word that does not begin an item is left over."""

    def __init__(self, caption: str) -> None:
        self.mentions: list[_Mention] = []
        self.relations: list[_Relation] = []
        self.grounds: list[re.Match[str]] = []
        self.left_over: list[str] = []
        # Only ASCII is lower-cased: the lower case of other letters can be longer, and the spans would be wrong.
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
    """Some of the mentions of a caption (``of``: their positions) and the relations that must hold between them."""

    kind: str
    span: Span
    of: tuple[int, ...]
    mentions: tuple[_Mention, ...]
    relations: tuple[_Relation, ...] = ()


Solved = Sequence[tuple[_Part, list[Groups]]]


def _parts(said: _Reader) -> list[_Part]:
    """Return the whole caption as one part, then its claims, with the most specific kinds first."""
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
    """Return all ways to assign different objects to the mentions, in any perception of the scene."""
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
    """Return whether an object is at a place; the middle is on both sides, since positions in the file are rounded."""
    across = seen.x <= 0.5 if place["side"] == "left" else seen.x >= 0.5
    return across and (seen.y <= 0.5 if place["height"] == "top" else seen.y >= 0.5)


def _objects(solutions: Sequence[Groups], mentions: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted({s.index for k in mentions for groups in solutions for s in groups[k]}))


def _naming_words(said: _Reader, solved: Solved) -> Iterator[NamingWord]:
    for k, m in enumerate(said.mentions):
        for kind in ("size", "color", "shape"):
            if m.phrase[kind]:
                yield NamingWord(m.phrase[kind], kind, m.phrase.span(kind), _objects_named(kind, (k,), solved))
        if m.place:
            for part in ("height", "side"):
                yield NamingWord(m.place[part], "place", m.place.span(part), _objects_named("place", (k,), solved))
    for r in said.relations:
        objects = _objects_named("relation", (r.first, r.second), solved)
        yield NamingWord(r.wording["how"], "relation", r.wording.span("how"), objects)


def _objects_named(kind: str, mentions: tuple[int, ...], solved: Solved) -> tuple[int, ...]:
    """Return the objects of the mentions in the first part that holds and that concerns words of this kind."""
    for part, found in solved:
        about = kind in ("size", "color", "shape") or part.kind in ("whole", kind)
        if found and about and set(mentions) <= set(part.of):
            return _objects(found, [part.of.index(k) for k in mentions])
    return ()
