"""The check of values against the declarations of a schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from omegaconf import MISSING

from clipmapper.config.fields import Choice, Range, choice, items, path, real, text, whole
from clipmapper.config.values import check_values
from clipmapper.errors import UserError


@dataclass
class Inner:
    count: int | None = whole(1, 100)
    share: float = real(0, 1, above=True)
    rate: float = real(0)
    flag: bool = MISSING


@dataclass
class Outer:
    inner: Inner = MISSING
    kind: str = choice("a", "b")
    names: list[str] = items(Choice(("x", "y")))
    extra: dict[str, int] = items(Range(0, 3))
    lists: dict[str, list[int]] | None = items(Range(0))
    file: str | None = path()
    note: str = text()


@pytest.mark.parametrize(
    "values",
    [
        {"inner": {"count": 100, "share": 1, "rate": "1e-3", "flag": "yes"}},
        {"inner": {"count": None, "share": "???", "rate": 0}, "file": None},
        {"kind": "a", "names": ["y", "x"], "extra": {"any": 3}, "note": "", "unknown": [1]},
        {"file": "${paths.root}", "extra": {}, "note": 3, "lists": {"a": [0, 2], "b": [1]}},
    ],
)
def test_good_values_pass(values: dict[str, Any]) -> None:
    check_values(Outer, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lists": {"a": 1}}, "lists.a=1 is not a list; write lists.a=[…]"),
        ({"lists": {"a": [0, "b"]}}, "lists.a: b is not a whole number"),
        ({"lists": {"a": [-1]}}, "lists.a: -1 must be 0 or more"),
        ({"lists": {"a": []}}, "lists.a is an empty list: give at least one"),
        ({"inner": {"count": 0}}, "inner.count=0 must be 1 or more and at most 100"),
        ({"inner": {"count": 1.0}}, "inner.count=1.0 is not a whole number"),
        ({"inner": {"count": True}}, "inner.count=true is not a whole number"),
        ({"inner": {"share": 0}}, "inner.share=0.0 must be above 0 and at most 1"),
        ({"inner": {"rate": "nan"}}, "inner.rate=nan must be a finite number"),
        ({"inner": {"rate": 10**400}}, f"inner.rate=1{29 * '0'}…{20 * '0'} is not a number"),
        ({"inner": {"rate": -1}}, "inner.rate=-1.0 must be 0 or more"),
        ({"inner": {"rate": None}}, "inner.rate=null: a value is needed"),
        ({"inner": {"flag": "maybe"}}, "inner.flag=maybe is not true or false"),
        ({"inner": 3}, "inner=3 is not a section: give its keys, such as inner.count=…"),
        ({"kind": "c"}, "kind=c is not one of: a, b"),
        ({"kind": ["a"]}, "kind=[a] is not a text"),
        ({"names": "x"}, "names=x is not a list; write names=[…]"),
        ({"names": []}, "names is an empty list: give at least one of: x, y"),
        ({"names": ["x", "x"]}, "names=[x,x] contains a value twice: name each value once"),
        ({"names": ["x", None]}, "names: null: a value is needed"),
        ({"extra": {"same": -1}}, "extra.same=-1 must be 0 or more and at most 3"),
        ({"extra": [1]}, "extra=[1] is not a group of values; write extra={NAME:VALUE}"),
        ({"file": " "}, "file=  is empty: give a path"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_values(Outer, values)
    assert str(refused.value) == message


def test_a_section_may_have_the_schema_that_its_name_selects() -> None:
    check_values(Outer, {"inner": {"count": 0}}, {"inner": Outer})
    with pytest.raises(UserError, match=r"inner\.kind=z is not one of"):
        check_values(Outer, {"inner": {"kind": "z"}}, {"inner": Outer})
