"""The style of each explainer."""

import itertools

import colorspacious
import numpy as np
import pytest
from hydra.utils import get_class
from matplotlib.colors import to_rgb
from omegaconf import OmegaConf

from clipmapper.places import CONFIGS
from explain.figures.styles import MOST, in_order, panels_of, styles_of

#: Class of each explainer that has a config.
CLASSES = {
    file.stem: get_class(config["_target_"])
    for file in sorted((CONFIGS / "explainer").glob("*.yaml"))
    if "_target_" in (config := OmegaConf.load(file))
}
CONTROLS = [name for name, each in CLASSES.items() if each.control]
OWN = ["mine", "yours", "theirs"]
VISIONS = (None, "protanomaly", "deuteranomaly", "tritanomaly")


def seen(colour: str, vision: str | None) -> np.ndarray:
    """Return a colour as it is seen, in CAM02-UCS, in which a distance of 1 is barely visible."""
    rgb = np.array(to_rgb(colour))
    if vision is not None:
        space = {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}
        rgb = np.clip(colorspacious.cspace_convert(rgb, space, "sRGB1"), 0, 1)
    return np.asarray(colorspacious.cspace_convert(rgb, "sRGB1", "CAM02-UCS"))


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", ["colour", "on_dark"])
def test_every_two_colours_differ(theme: str, vision: str | None) -> None:
    styles = styles_of([*CLASSES, *OWN])
    colours = {name: seen(getattr(style, theme), vision) for name, style in styles.items()}
    for one, other in itertools.combinations(colours, 2):
        assert np.linalg.norm(colours[one] - colours[other]) >= 10, (one, other)


def test_controls_alone_are_grey_and_dashed() -> None:
    for name, style in styles_of([*CLASSES, *OWN, "my_control"], ["my_control"]).items():
        is_control = name in [*CONTROLS, "my_control"]
        assert bool(style.dash) == is_control, name
        for colour in (style.colour, style.on_dark):
            _, a, b = seen(colour, None)
            assert (np.hypot(a, b) < 6) == is_control, name


@pytest.mark.parametrize("theme", ["colour", "on_dark"])
def test_families_share_a_hue(theme: str) -> None:
    def family(name: str) -> str:
        return CLASSES[name].__module__.split(".")[2]

    tested = [name for name in CLASSES if name not in CONTROLS]
    hues = {}
    for name, style in styles_of(tested).items():
        _, a, b = seen(getattr(style, theme), None)
        hues[name] = np.rad2deg(np.arctan2(b, a))
    for one, other in itertools.combinations(tested, 2):
        apart = abs((hues[one] - hues[other] + 180) % 360 - 180)
        assert (apart < 60) == (family(one) == family(other)), (one, other, apart)


def test_many_unknown_names_still_have_styles() -> None:
    styles = styles_of([f"own{k}" for k in range(9)])
    assert len({(style.colour, style.dash) for style in styles.values()}) == 9
    greys = styles_of(["random", "mine"], ["mine"])
    assert greys["mine"] != greys["random"]


def test_weighted_is_first_and_the_others_keep_their_order() -> None:
    assert in_order(["rollout", "random", "weighted", "random", "genatt"]) == [
        "weighted",
        "rollout",
        "random",
        "genatt",
    ]


def test_panels_have_at_most_eight_curves() -> None:
    assert panels_of(list(CLASSES)[:MOST]) == [in_order(list(CLASSES)[:MOST])]
    panels = panels_of([*CLASSES, "mine", "own_control"], ["own_control"])
    assert all(len(names) <= MOST for names in panels)
    assert {name for names in panels for name in names} == {*CLASSES, "mine", "own_control"}
    for names in panels:
        controls = [name for name in names if name in CONTROLS or name == "own_control"]
        assert controls in ([], names[1:])  # after an explainer to compare with
        assert not controls or names[0] == "weighted"
    names = ["weighted", "genatt", *CONTROLS[:MOST]]  # the controls alone would fit in one panel
    assert all(len(shown) <= MOST for shown in panels_of(names))
