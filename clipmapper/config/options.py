"""Check of the options of an explainer or a measure against the types of its constructor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

from hydra.utils import get_object

from clipmapper.config.fields import MOST, Range
from clipmapper.config.values import check_value

_RANGES = {int: Range(-MOST, MOST), float: Range()}
_SEED = Range(0, 2**32 - 1)


def check_options(prefix: str, config: Mapping[str, Any]) -> None:
    """Check the numbers, truth values and texts of a config with ``_target_``; bounds are left to the constructor.

    Args:
        prefix: What begins the keys in messages, such as ``explainer.constant.``.
        config: The options, and the path of the class. A class that cannot be found is not checked.

    Raises:
        UserError: An option is not of the type that the constructor declares, or not a finite number.
    """
    try:
        hints = get_type_hints(get_object(str(config["_target_"])).__init__)
    except Exception:  # whatever goes wrong in a user's module is reported where the class is built
        return
    for key, value in config.items():
        if (kind := hints.get(key)) in (int, float, bool, str):
            rule = _SEED if (key, kind) == ("seed", int) else _RANGES.get(kind)
            check_value(f"{prefix}{key}=", value, kind, rule)
