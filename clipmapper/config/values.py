"""Check of the values of a composed config against the declarations of its schema (:mod:`clipmapper.config.fields`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from clipmapper.config.fields import ITEMS, RULE, Items, Rule
from clipmapper.errors import UserError

Schemas = Mapping[str, type[Any]]  # the schema of a section whose keys depend on its name, by section


def check_values(schema: type[Any], values: Mapping[str, Any], chosen: Schemas | None = None, prefix: str = "") -> None:
    """Check all values that a config gives to the keys of a schema.

    Unknown keys, missing values and texts with interpolations are not checked.

    Args:
        schema: The dataclass of the config, or of a section.
        values: The config's values.
        chosen: Schemas of sections that are not those of the field's type.
        prefix: The section, with a dot at its end.

    Raises:
        UserError: A value is not of the type of its key, or outside its bounds; the message names the key.
    """
    hints = get_type_hints(schema)
    for declared in fields(schema):
        value, key = values.get(declared.name, MISSING), f"{prefix}{declared.name}"
        kind = (chosen or {}).get(declared.name) if not prefix else None
        if not isinstance(value, str) or (value != MISSING and "${" not in value):
            _check_field(key, value, kind or hints[declared.name], declared)


def _check_field(key: str, value: Any, kind: Any, declared: Field[Any]) -> None:
    if get_origin(kind) in (Union, UnionType):
        if value is None:
            return
        [kind] = [each for each in get_args(kind) if each is not type(None)]
    if value is None and kind is not Any:
        raise UserError(f"{key}=null: a value is needed")
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            first = fields(kind)[0].name
            raise UserError(f"{key}={shown(value)} is not a section: give its keys, such as {key}.{first}=…")
        assert isinstance(kind, type)
        check_values(kind, value, prefix=f"{key}.")
    elif get_origin(kind) in (list, dict):
        _check_items(key, value, kind, declared.metadata.get(ITEMS))
    else:
        check_value(f"{key}=", value, kind, declared.metadata.get(RULE))


def _check_items(key: str, value: Any, kind: Any, declared: Items | None) -> None:
    """Check a list or a dict and all its items."""
    container, of = get_origin(kind), get_args(kind)[-1]
    if not isinstance(value, container):
        written = f"a list; write {key}=[…]" if container is list else f"a group of values; write {key}={{NAME:VALUE}}"
        raise UserError(f"{key}={shown(value)} is not {written}")
    for name, item in value.items() if isinstance(value, dict) else ((None, item) for item in value):
        if get_origin(of) is list:
            _check_items(f"{key}.{name}", item, of, declared)
            continue
        start = f"{key}: " if name is None else f"{key}.{name}="
        check_value(start, item, of, declared.rule if declared else None)
    if declared is None or not isinstance(value, list):
        return
    if not value and not declared.empty:
        names = getattr(declared.rule, "names", ())
        raise UserError(f"{key} is an empty list: give at least one" + (f" of: {', '.join(names)}" if names else ""))
    if len({*map(str, value)}) < len(value) and not declared.repeated:
        raise UserError(f"{key}={shown(value)} contains a value twice: name each value once")


def check_value(start: str, value: Any, kind: Any, rule: Rule | None) -> None:
    """Check the type of a value, and its rule.

    Args:
        start: Begin of the message.
        value: The value.
        kind: Its type; those of numbers, truth values and texts are checked.
        rule: What the value must be besides.

    Raises:
        UserError: The value is of another type, or breaks the rule.
    """
    if value is None and kind in _CONVERSIONS:
        raise UserError(f"{start}null: a value is needed")
    read = _CONVERSIONS.get(kind, lambda given: given)
    try:
        found = read(value)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{start}{shown(value)} is not {_KINDS[kind]}") from None
    if rule is not None and (problem := rule(found)) is not None:
        raise UserError(f"{start}{shown(found)} {problem}")


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError
    return int(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TypeError
    return float(value)


def _truth(value: Any) -> bool:
    """Read a truth value as OmegaConf does, without numbers other than 0 and 1."""
    if isinstance(value, bool):
        return value
    if str(value).lower() not in ("0", "1", "true", "false", "yes", "no", "on", "off", "y", "n", "t", "f"):
        raise ValueError
    return str(value).lower() in ("1", "true", "yes", "on", "y", "t")


def _text(value: Any) -> str:
    if not isinstance(value, str | int | float):
        raise TypeError
    return str(value)


_CONVERSIONS = {int: _whole, float: _real, bool: _truth, str: _text}
_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def shown(value: Any) -> str:
    """Return a value as it is written on the command line, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{','.join(shown(item) for item in value[:8])}{',…' if len(value) > 8 else ''}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{name}:{shown(item)}" for name, item in list(value.items())[:8]) + "}"
    text = str(value)
    return text if len(text) <= 60 else f"{text[:30]}…{text[-20:]}"
