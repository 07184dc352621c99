"""Write the pictures of README.md to docs/pictures, from the shipped models: ``python docs/write_pictures.py``.

It takes about a minute and a half on one core. Every picture contains the scores that it shows, and a test compares
them with those of the current code (:mod:`readme_pictures.stamp`).
"""

from __future__ import annotations

from pathlib import Path

from readme_pictures import answer, curves, hero, removal
from readme_pictures.stamp import Stamp, rounded, write_image, write_png
from readme_pictures.subject import OVERRIDES, config_of, load_subject

PICTURES = Path(__file__).resolve().parent / "pictures"


def write_pictures(folder: Path) -> None:
    """Write all pictures to a folder."""
    config = config_of()
    subject, overrides = load_subject(config), list(OVERRIDES)
    scene = folder / "scene.png"
    subject.batch.images[0].save(scene, optimize=True)
    for name in answer.CALLS:
        code = answer.readme_code(name)
        picture, found = answer.run(name, code, scene)
        write_image(picture, folder / f"{name}.png", Stamp({"code": code}, rounded(found)))
    for part in (hero, removal):
        name = part.__name__.rpartition(".")[2]
        stamp = Stamp({"overrides": overrides}, rounded(part.scores(subject)))
        write_png(part.draw(subject), folder / f"{name}.png", stamp)
    rows, first = curves.measured(config)
    stamp = Stamp({"overrides": overrides}, rounded(curves.scores(rows, first)))
    write_png(curves.draw(rows), folder / "curves.png", stamp, palette=True)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    write_pictures(PICTURES)
    for path in sorted(PICTURES.glob("*.png")):
        print(f"wrote docs/pictures/{path.name}, {path.stat().st_size / 1000:.0f} kB")
