"""Drawing of a scene: its image, and the mask that shows which pixel belongs to which object."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from clipmapper.data.shapes.scene import Background, Rgb, Scene, SceneObject

OVERSAMPLING = 2  # scenes are drawn at twice the size and then averaged, for smooth edges
Points = tuple[tuple[float, float], ...]


def draw_scene(scene: Scene, pixels: int) -> Image.Image:
    """Draw the image of a scene, RGB, ``pixels`` × ``pixels``."""
    size = pixels * OVERSAMPLING
    image = _background(scene.background, pixels).resize((size, size), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for o in scene.objects:
        line = max(2, size // 85) if o.outline else 0
        ink = _outline_ink(o.rgb)
        for polygon, filled in _polygons(o, size):
            if filled:
                draw.polygon(polygon, fill=o.rgb)
            else:  # the hole of a ring shows the background
                draw.polygon(polygon, fill=scene.background.rgb)
            if line:
                draw.line([*polygon, polygon[0], polygon[1]], fill=ink, width=line, joint="curve")
    return image.reduce(OVERSAMPLING)


def draw_masks(scene: Scene, pixels: int) -> Image.Image:
    """Draw the mask of a scene, mode L, ``pixels`` × ``pixels``: 0 is background, i + 1 is object i."""
    image = Image.new("L", (pixels, pixels), 0)
    draw = ImageDraw.Draw(image)
    for i, o in enumerate(scene.objects):
        for polygon, filled in _polygons(o, pixels):
            draw.polygon(polygon, fill=i + 1 if filled else 0)
    return image


def _polygons(o: SceneObject, pixels: int) -> list[tuple[list[tuple[float, float]], bool]]:
    """Return the object's outlines in pixels, each with whether it is filled (the hole of a ring is not)."""
    root = math.sqrt(abs(o.aspect))  # wide where positive, tall where negative
    stretch_x, stretch_y = (root, 1 / root) if o.aspect > 0 else (1 / root, root)
    cos, sin = math.cos(math.radians(o.angle)), math.sin(math.radians(o.angle))
    scale = o.radius * pixels

    def placed(points: Points) -> list[tuple[float, float]]:
        stretched = [(x * stretch_x, y * stretch_y) for x, y in points]
        return [
            (o.x * pixels + scale * (x * cos - y * sin), o.y * pixels + scale * (x * sin + y * cos))
            for x, y in stretched
        ]

    name = "square" if o.shape.name == "rectangle" else o.shape.name
    return [(placed(points), filled) for points, filled in unit_outlines(name)]


@cache
def unit_outlines(shape: str) -> tuple[tuple[Points, bool], ...]:
    """Return the outlines of a shape of about the size of the unit circle, each with whether it is filled.

    The y axis points down.
    """
    circle = _arc(1.0, 0, 360, 40)
    if shape == "circle":
        return ((circle, True),)
    if shape == "ring":
        return ((circle, True), (_arc(0.52, 0, 360, 32), False))
    if shape == "square":
        return ((((-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)), True),)
    if shape == "triangle":
        return ((_arc(1.08, -90, 270, 3), True),)
    if shape == "diamond":
        return ((((0, -1.1), (0.8, 0), (0, 1.1), (-0.8, 0)), True),)
    if shape == "star":
        return ((_star(5, 1.1, 0.45), True),)
    if shape == "cross":
        a, b = 0.34, 1.0
        points = ((-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a))
        return (((*points, (-a, -a)), True),)
    if shape == "heart":
        return ((_heart(), True),)
    if shape == "moon":
        outer = _arc(1.0, 50, 310, 32)
        inner = tuple((x + 0.52, y) for x, y in reversed(_arc(0.78, 78, 282, 24)))
        return ((outer + inner, True),)
    raise ValueError(f"no such shape: {shape}")


def _arc(radius: float, start: float, stop: float, steps: int) -> Points:
    whole = stop - start == 360
    angles = (start + (stop - start) * k / (steps if whole else steps - 1) for k in range(steps))
    return tuple((radius * math.cos(math.radians(a)), radius * math.sin(math.radians(a))) for a in angles)


def _star(points: int, outer: float, inner: float) -> Points:
    corners = ((outer if k % 2 == 0 else inner, math.radians(-90 + 180 * k / points)) for k in range(2 * points))
    return tuple((r * math.cos(a), r * math.sin(a)) for r, a in corners)


def _heart() -> Points:
    angles = (2 * math.pi * k / 40 for k in range(40))
    return tuple(
        (
            16 * math.sin(t) ** 3 / 16,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in angles
    )


def _outline_ink(rgb: Rgb) -> Rgb:
    """Return the color of an outline: dark for bright objects, bright for dark ones."""
    return (240, 240, 240) if sum(rgb) < 150 else (15, 15, 15)


def _background(background: Background, pixels: int) -> Image.Image:
    base = np.array(background.rgb, np.float32)
    rng = np.random.default_rng(background.seed)
    pattern = _texture(background.texture, pixels, rng)
    if pattern is None:
        return Image.new("RGB", (pixels, pixels), background.rgb)
    amplitude = 26.0 if background.tone == "dark" else -26.0
    return Image.fromarray(np.clip(base + amplitude * pattern[..., None], 0, 255).astype(np.uint8))


def _texture(name: str, pixels: int, rng: np.random.Generator) -> np.ndarray | None:
    """Return the pattern of a texture, [pixels, pixels] with values in 0..1; None for a plain background."""
    if name == "plain":
        return None
    y, x = np.mgrid[0:pixels, 0:pixels].astype(np.float32) / pixels
    if name == "noisy":
        coarse = rng.random((pixels // 4, pixels // 4), np.float32)
        return (
            np.kron(coarse, np.ones((4, 4), np.float32))[:pixels, :pixels] if pixels % 4 == 0 else rng.random(x.shape)
        )
    angle = rng.uniform(0, np.pi)
    across = x * np.cos(angle) + y * np.sin(angle)
    along = y * np.cos(angle) - x * np.sin(angle)
    waves = rng.integers(5, 11)
    if name == "graded":
        return (across - across.min()) / (across.max() - across.min())
    if name == "striped":
        return (np.floor(across * 2 * waves) % 2).astype(np.float32)
    if name == "checked":
        return ((np.floor(across * waves) + np.floor(along * waves)) % 2).astype(np.float32)
    if name == "dotted":
        u, v = (across * waves) % 1 - 0.5, (along * waves) % 1 - 0.5
        return (u * u + v * v < 0.06).astype(np.float32)
    raise ValueError(f"no such texture: {name}")
