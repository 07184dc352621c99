"""Every field of every file that this project writes and reads again, with six bad values.

The structures are the ``TypedDict`` classes of the packages, which are found here by themselves: one without an example
fails. Every bad value is refused in one line that names the field, or is legal for the field's type.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from typing import Any, NotRequired, get_args, get_origin, get_type_hints

import pytest
from typing_extensions import is_typeddict

import clipmapper
import perturbation
from clipmapper.errors import UserError
from clipmapper.storage.validation import check

MAPPER = {
    "name": "b",
    "layers": 2,
    "width": 16,
    "heads": 2,
    "positions": "none",
    "readout": "cls",
    "start": "aligned",
    "dropout": 0.1,
}
ENCODER = {"model": "shapes-tiny", "weights": "embedded", "feature_dtype": "float32", "batch_size": 128}
STATISTICS = {"mean": "AACAPw==", "whitening": "AACAPw=="}
SCORES = {"accuracy": 61.5, "true_captions": 0.5, "CIDEr": None}
CARD = {
    "task": "vqa",
    "data": "shapes",
    "mapper": MAPPER,
    "encoder": ENCODER,
    "encoder_fingerprint": "ab",
    "sees": "both",
    "answers": ["yes", "no"],
    "tokens": [1],
    "seed": 0,
    "steps": 8,
    "metrics": {"val": SCORES, "test": SCORES},
    "familiarity": {"words": ["a"], "images": STATISTICS},
}
OPTIMIZER = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
EVIDENCE = {"objects": [0, 1], "words": [[0, 3]]}
CAPTION = {"ids": [320, 7], "caption": "a ring", "words": ["a", "ring"], "weights": {"equal": [0.5, 0.5]}}
#: An example of every structure, by the name of its class.
EXAMPLES: dict[str, dict[str, Any]] = {
    "MapperEntry": MAPPER,
    "EncoderEntry": ENCODER,
    "StatisticsEntry": STATISTICS,
    "FamiliarityEntry": CARD["familiarity"],
    "Scores": SCORES,
    "Metrics": CARD["metrics"],
    "Card": CARD,
    "CheckpointContent": {"clipmapper": CARD, "state_dict": {"weight": 1}},
    "OptimizerState": OPTIMIZER,
    "TrainingState": {
        "epoch": 0,
        "global_step": 8,
        "pytorch-lightning_version": "2.6",
        "state_dict": {"weight": 1},
        "optimizer_states": [OPTIMIZER],
        "lr_schedulers": [{"last_epoch": 8}],
        "loops": {"fit_loop": {}},
        "callbacks": {"best": {}},
    },
    "EvidenceEntry": EVIDENCE,
    "EvidenceFile": {"scenes": {"7": {"objects": []}}, "questions": {"700": EVIDENCE}},
    "IdentityFile": {"config": {"seed": 0}, "checkpoint": "ab", "records": 3, "versions": {"torch": "2.9.0"}},
    "PooledConfig": {"steps": [0.0, 1.0], "direction": ["positive"], "seed": 0},
    "EngineFile": {"engine_batch": 32, "run": "blake2b:0123"},
    "CaptionEntry": CAPTION,
}
MISSING = object()
#: Values of another kind than every field has, by the kind of the good value.
OTHER: dict[type, Any] = {int: "7", float: "0.5", str: 7, list: {"a": 1}, dict: [1]}
HUGE: dict[type, Any] = {int: 10**30, float: 1e308}
EMPTY: dict[type, Any] = {str: "", list: [], dict: {}}


@cache
def structures() -> dict[str, Any]:
    """Return every ``TypedDict`` of the packages by name."""
    found: dict[str, Any] = {}
    for package in (clipmapper, perturbation):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            content = vars(importlib.import_module(module.name))
            found |= {k: v for k, v in content.items() if is_typeddict(v) and v.__module__ == module.name}
    return found


def fields() -> list[tuple[str, str]]:
    return [(name, field) for name, example in EXAMPLES.items() for field in example]


def test_every_structure_has_a_complete_example() -> None:
    assert structures().keys() == EXAMPLES.keys()
    for name, example in EXAMPLES.items():
        assert get_type_hints(structures()[name]).keys() - {"__pydantic_config__"} == example.keys(), name
        check(structures()[name], example, "file", "correct it")


def bad_values(good: Any) -> Iterator[tuple[str, Any]]:
    """Yield six bad values for a field: missing, null, of two other kinds, empty and huge."""
    yield "missing", MISSING
    yield "null", None
    yield "other", OTHER.get(type(good), "text")
    yield "true", True
    yield "empty", EMPTY.get(type(good), "")
    yield "huge", HUGE.get(type(good), object())


def refusal(name: str, field: str, value: Any) -> str:
    """Return the message for an example with another value of a field; empty if it is accepted."""
    changed = {key: each for key, each in EXAMPLES[name].items() if key != field}
    if value is not MISSING:
        changed[field] = value
    try:
        check(structures()[name], changed, "file.json", "write it again")
    except UserError as error:
        return str(error)
    return ""


#: Bad values that are legal: fields that may be missing or null, and texts, lists and objects that may be empty.
def is_legal(name: str, field: str, how: str) -> bool:
    kind = structures()[name]
    hint = get_type_hints(kind, include_extras=True)[field]
    if how == "missing":
        return get_origin(hint) is NotRequired
    hint = get_args(hint)[0] if get_origin(hint) is NotRequired else hint
    bounds = str(getattr(hint, "__metadata__", ""))
    if how == "null":
        return type(None) in get_args(hint)
    if how == "empty":
        return "min_length" not in bounds and EMPTY.get(type(EXAMPLES[name][field])) is not None
    return how == "huge" and type(EXAMPLES[name][field]) in HUGE and "le=" not in bounds and "lt=" not in bounds


@pytest.mark.parametrize(("name", "field"), fields())
def test_a_bad_value_is_one_line_that_names_the_field(name: str, field: str) -> None:
    for how, value in bad_values(EXAMPLES[name][field]):
        message = refusal(name, field, value)
        if message:
            assert message.startswith("file.json: ")
            assert field in message
            assert message.endswith("; write it again")
            assert "\n" not in message
            assert "pydantic" not in message
        else:
            assert is_legal(name, field, how), f"{name}.{field} accepts {how}"


@pytest.mark.parametrize("name", ["MapperEntry", "EngineFile", "CaptionEntry"])
def test_an_unknown_field_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"file: more is unknown; correct it"):
        check(structures()[name], {**EXAMPLES[name], "more": 1}, "file", "correct it")


@pytest.mark.parametrize("content", [None, [], "text", 7, [{"a": 1}]])
def test_a_file_of_another_kind_is_refused(content: Any) -> None:
    for kind in structures().values():
        with pytest.raises(UserError, match=r"^file: the content is .*; correct it$"):
            check(kind, content, "file", "correct it")
