"""Scenes of the ``shapes`` dataset: objects with attributes, some of which are ambiguous on purpose.

Every attribute has the name that most people would give it. An ambiguous attribute also has a second name, with the
share of people who would use it. A *perception* of a scene is what one annotator sees: each ambiguous attribute gets
one of its names at random, and each position has a small error. Questions are answered on perceptions, so that ten
annotators disagree where ten people would.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

Rgb = tuple[int, int, int]

COLORS: dict[str, Rgb] = {
    "red": (222, 38, 38),
    "orange": (243, 140, 30),
    "yellow": (245, 222, 50),
    "green": (45, 165, 60),
    "teal": (20, 150, 155),
    "blue": (45, 80, 225),
    "purple": (135, 60, 185),
    "pink": (247, 145, 190),
    "brown": (135, 78, 38),
    "black": (22, 22, 24),
    "gray": (135, 135, 138),
    "white": (246, 246, 246),
}
# Similar colors that people confuse; an ambiguous object has a color between the two.
CONFUSED_COLORS = (
    ("red", "orange"),
    ("orange", "yellow"),
    ("green", "teal"),
    ("teal", "blue"),
    ("blue", "purple"),
    ("purple", "pink"),
    ("red", "brown"),
    ("orange", "brown"),
    ("black", "gray"),
    ("gray", "white"),
)
SHAPES = ("circle", "square", "triangle", "rectangle", "diamond", "star", "cross", "heart", "ring", "moon")
SIZES = ("small", "large")
# Radii as shares of the image's width; a radius between the two ranges is ambiguous.
SMALL_RADIUS = (0.11, 0.13)
LARGE_RADIUS = (0.17, 0.20)
MIN_GAP = 0.015
PLACE_NOISE = 0.015  # standard deviation of a perceived position, as a share of the image's width


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute of an object, which is ambiguous if ``doubt`` > 0."""

    #: The name that most people use.
    name: str
    #: The name that the others use.
    other: str = ""
    #: Share of people who use ``other``, 0..1.
    doubt: float = 0.0

    def perceived(self, rng: Random) -> str:
        """Draw the name that one annotator uses."""
        return self.other if self.doubt and rng.random() < self.doubt else self.name


@dataclass(frozen=True, slots=True)
class SceneObject:
    """An object; ``x``, ``y`` and ``radius`` are shares of the image's width, the origin is the top left corner."""

    shape: Attribute
    color: Attribute
    size: Attribute
    rgb: Rgb
    x: float
    y: float
    radius: float
    aspect: float
    angle: float
    outline: bool


@dataclass(frozen=True, slots=True)
class Background:
    """The background of a scene."""

    #: dark or pale.
    tone: str
    #: plain, striped, checked, dotted, noisy or graded.
    texture: str
    rgb: Rgb
    #: Seed of the texture.
    seed: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A background and the objects on it."""

    background: Background
    objects: tuple[SceneObject, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as one annotator sees it."""

    index: int
    shape: str
    color: str
    size: str
    x: float
    y: float


def truth(scene: Scene) -> tuple[Seen, ...]:
    """Return the scene as most people see it: the first name of every attribute, and exact positions."""
    return tuple(Seen(i, o.shape.name, o.color.name, o.size.name, o.x, o.y) for i, o in enumerate(scene.objects))


def perceive(scene: Scene, rng: Random) -> tuple[Seen, ...]:
    """Draw the scene as one annotator sees it."""
    return tuple(
        Seen(
            i,
            o.shape.perceived(rng),
            o.color.perceived(rng),
            o.size.perceived(rng),
            o.x + rng.gauss(0, PLACE_NOISE),
            o.y + rng.gauss(0, PLACE_NOISE),
        )
        for i, o in enumerate(scene.objects)
    )


def sample_scene(rng: Random, min_objects: int = 2, max_objects: int = 4) -> Scene:
    """Draw a scene with ``min_objects`` to ``max_objects`` objects that do not overlap."""
    background = sample_background(rng)
    count = rng.randint(min_objects, max_objects)
    objects: list[SceneObject] = []
    while len(objects) < count:
        candidate = _sample_object(rng, background, objects)
        place = _free_place(rng, candidate.radius, objects)
        if place is None:  # too crowded: start again
            objects = []
            continue
        objects.append(replace(candidate, x=place[0], y=place[1]))
    return Scene(background, tuple(objects))


def sample_background(rng: Random) -> Background:
    """Draw a background."""
    tone = rng.choice(("dark", "pale"))
    base = rng.randint(20, 60) if tone == "dark" else rng.randint(205, 248)
    tint = 16 if tone == "dark" else 12
    rgb = tuple(max(0, min(255, base + rng.randint(-tint, tint))) for _ in range(3))
    texture = rng.choice(("plain", "plain", "plain", "striped", "checked", "dotted", "noisy", "graded"))
    return Background(tone, texture, rgb, rng.randrange(2**31))  # type: ignore[arg-type]


def twin(scene: Scene, rng: Random) -> Scene:
    """Return a copy with one change: another color, shape or size of an object, or two objects at swapped positions.

    The copy can be equal to the scene, if the drawn attribute is the old one.
    """
    objects = list(scene.objects)
    i = rng.randrange(len(objects))
    change = rng.choice(("color", "shape", "size", "swap", "swap"))
    if change == "swap" and len(objects) > 1:
        j = rng.choice([k for k in range(len(objects)) if k != i])
        # The positions are swapped but not the radii, so a large object can come close to another object.
        a, b = objects[i], objects[j]
        objects[i], objects[j] = replace(a, x=b.x, y=b.y), replace(b, x=a.x, y=a.y)
        return Scene(scene.background, tuple(_move_inside(o) for o in objects))
    fresh = _sample_object(rng, scene.background, [])
    old = objects[i]
    if change == "shape":
        objects[i] = replace(old, shape=fresh.shape, aspect=fresh.aspect, angle=fresh.angle)
    elif change == "size":
        radius, size = _sample_size(rng)
        if len(objects) <= 3 or radius <= old.radius:  # four objects leave no room for a larger one
            objects[i] = _move_inside(replace(old, radius=radius, size=size))
    else:
        objects[i] = replace(old, color=fresh.color, rgb=fresh.rgb, outline=fresh.outline)
    return Scene(scene.background, tuple(objects))


def turned(scene: Scene, quarter_turns: int, mirrored: bool) -> Scene:
    """Return the scene of the image that is first mirrored left to right and then turned anticlockwise by quarters."""

    def place(o: SceneObject) -> SceneObject:
        x, y = (1 - o.x if mirrored else o.x), o.y
        for _ in range(quarter_turns % 4):
            x, y = y, 1 - x
        return replace(o, x=x, y=y)

    return Scene(scene.background, tuple(place(o) for o in scene.objects))


def _move_inside(o: SceneObject) -> SceneObject:
    low, high = o.radius + 0.01, 1 - o.radius - 0.01
    return replace(o, x=min(max(o.x, low), high), y=min(max(o.y, low), high))


def _sample_object(rng: Random, background: Background, others: list[SceneObject]) -> SceneObject:
    # Repeated colors and shapes make questions about numbers, and descriptions of two words, more informative.
    if others and rng.random() < 0.3:
        like = rng.choice(others)
        color, rgb = like.color, like.rgb
    else:
        color, rgb = _sample_color(rng, background)
    if others and rng.random() < 0.25:
        like = rng.choice(others)
        shape, aspect = like.shape, like.aspect
    else:
        shape, aspect = _sample_shape(rng)
    radius, size = _sample_size(rng)
    angle = rng.uniform(-12, 12)
    outline = rng.random() < 0.7 or _contrast(rgb, background.rgb) < 150
    return SceneObject(shape, color, size, rgb, 0.5, 0.5, radius, aspect, angle, outline)


def _sample_color(rng: Random, background: Background) -> tuple[Attribute, Rgb]:
    while True:
        if rng.random() < 0.1:
            name, other = rng.sample(rng.choice(CONFUSED_COLORS), 2)
            share = rng.uniform(0.3, 0.5)
            attribute = Attribute(name, other, round((share - 0.2) * 1.5, 2))
            mixed = zip(COLORS[name], COLORS[other], strict=True)
            rgb = tuple(round(a * (1 - share) + b * share) for a, b in mixed)
        else:
            name = rng.choice(tuple(COLORS))
            attribute, rgb = Attribute(name), COLORS[name]
        rgb = tuple(max(0, min(255, c + rng.randint(-10, 10))) for c in rgb)
        if _contrast(rgb, background.rgb) > 90:
            return attribute, rgb  # type: ignore[return-value]


def _sample_shape(rng: Random) -> tuple[Attribute, float]:
    """Draw a shape and its aspect ratio; a square that is almost a rectangle is ambiguous."""
    name = rng.choice(SHAPES)
    if name == "rectangle":
        return Attribute(name), rng.choice((1, -1)) * rng.uniform(1.6, 2.0)
    if name == "square" and rng.random() < 0.3:
        aspect = rng.uniform(1.15, 1.35)
        return Attribute(name, "rectangle", round((aspect - 1.1) * 1.8, 2)), aspect
    return Attribute(name), 1.0


def _sample_size(rng: Random) -> tuple[float, Attribute]:
    if rng.random() < 0.12:  # neither small nor large
        radius = rng.uniform(SMALL_RADIUS[1], LARGE_RADIUS[0])
        share_large = (radius - SMALL_RADIUS[1]) / (LARGE_RADIUS[0] - SMALL_RADIUS[1])
        if share_large < 0.5:
            return radius, Attribute("small", "large", round(share_large, 2))
        return radius, Attribute("large", "small", round(1 - share_large, 2))
    name = rng.choice(SIZES)
    return rng.uniform(*(SMALL_RADIUS if name == "small" else LARGE_RADIUS)), Attribute(name)


def _free_place(rng: Random, radius: float, others: list[SceneObject]) -> tuple[float, float] | None:
    margin = radius + 0.02
    for _ in range(30):
        x, y = rng.uniform(margin, 1 - margin), rng.uniform(margin, 1 - margin)
        if all((x - o.x) ** 2 + (y - o.y) ** 2 > (radius + o.radius + MIN_GAP) ** 2 for o in others):
            return x, y
    return None


def _contrast(a: Rgb | tuple[int, ...], b: Rgb | tuple[int, ...]) -> float:
    return float(sum(abs(p - q) for p, q in zip(a, b, strict=True)))
