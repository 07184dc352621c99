"""Result files, as the official evaluation servers take them: one answer a question, or one caption an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from clipmapper.data.fields import read_field
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json


class ResultFields(NamedTuple):
    """What the two fields of an entry are called."""

    id: str
    text: str


ANSWERS = ResultFields("question_id", "answer")
CAPTIONS = ResultFields("image_id", "caption")


def read_results(path: Path, fields: ResultFields) -> dict[int, str]:
    """Texts by id, in the file's order.

    Raises ``UserError`` where the file is missing or holds no list, an entry lacks a field or has one of a wrong type,
    or an id occurs twice.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise UserError(f'{path}: not a result file; give a list [{{"{fields.id}": 1, "{fields.text}": "…"}}]')
    results: dict[int, str] = {}
    for number, entry in enumerate(content):
        at = f"{path}: [{number}]"
        id_ = read_field(entry, fields.id, int, at)
        if id_ in results:
            raise UserError(f"{at}: {fields.id} {id_} occurs twice; remove one of the two")
        results[id_] = read_field(entry, fields.text, str, at)
    return results


def write_results(path: Path, fields: ResultFields, results: Mapping[int, str]) -> None:
    """Writes texts by id in their order; raises ``UserError`` where the folder cannot be written."""
    write_json(path, [{fields.id: id_, fields.text: text} for id_, text in results.items()])
