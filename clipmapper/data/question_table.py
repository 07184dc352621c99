"""Questions in columns: all of VQAv2 takes about 100 MB, and a question is built when it is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipmapper.data.records import Question

_TEXT = pa.dictionary(pa.int32(), pa.string())
_TEXTS = ("question", "multiple_choice_answer", "answer_type", "question_type", "others")
#: ``others`` holds what the answers have beside their text, such as their ids: one JSON list for a question.
SCHEMA = pa.schema(
    [
        ("question_id", pa.int64()),
        ("image_id", pa.int64()),
        ("answers", pa.list_(_TEXT)),
        *((name, _TEXT) for name in _TEXTS),
    ]
)
_AT_ONCE = 4096  # questions that are built together


class QuestionTable(Sequence[Question]):
    """Questions as a table, with numpy arrays of its columns for work on all of them.

    It is equal to any sequence of the same questions.
    """

    def __init__(self, table: pa.Table):
        self.table = table.combine_chunks()

    @classmethod
    def of(cls, questions: Iterable[Question]) -> QuestionTable:
        """Return questions as a table."""
        if isinstance(questions, cls):
            return questions
        columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
        for each in questions:
            columns["question_id"].append(each.question_id)
            columns["image_id"].append(each.image_id)
            columns["question"].append(each.question)
            columns["answers"].append([answer["answer"] for answer in each.answers])
            columns["multiple_choice_answer"].append(each.multiple_choice_answer)
            columns["answer_type"].append(each.answer_type)
            columns["question_type"].append(each.question_type)
            rest = [{key: value for key, value in answer.items() if key != "answer"} for answer in each.answers]
            columns["others"].append(json.dumps(rest))
        return cls(
            pa.table({name: _array(values, SCHEMA.field(name).type) for name, values in columns.items()}, SCHEMA)
        )

    @classmethod
    def joined(cls, parts: Iterable[Iterable[Question]]) -> QuestionTable:
        """Return the questions of several parts, in order."""
        return cls(pa.concat_tables([cls.of(part).table for part in parts]).unify_dictionaries())

    @property
    def ids(self) -> np.ndarray:
        """Ids of the questions, int64 [n]."""
        found: np.ndarray = self.table["question_id"].to_numpy()
        return found

    @property
    def image_ids(self) -> np.ndarray:
        """Ids of their images, int64 [n]."""
        found: np.ndarray = self.table["image_id"].to_numpy()
        return found

    def texts(self, column: str) -> tuple[np.ndarray, list[str]]:
        """Return a column of texts, such as ``question``, as numbers [n] of distinct texts, and these texts."""
        return _distinct(_whole(self.table[column]))

    @property
    def answered(self) -> np.ndarray:
        """Which questions have human answers, bool [n]."""
        found: np.ndarray = pc.list_value_length(_whole(self.table["answers"])).to_numpy() > 0
        return found

    def answers(self) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """Return the human answers of all questions.

        Returns:
            The number of the question of each answer, in order; the number of its text; and the distinct texts.
        """
        lists = _whole(self.table["answers"])
        rows = np.repeat(np.arange(len(self)), pc.list_value_length(lists).to_numpy())
        return rows, *_distinct(pc.list_flatten(lists))

    def digest(self, *columns: str) -> str:
        """Return a hash of the content of these columns."""
        found = hashlib.blake2b(digest_size=16)
        for name in columns:
            for piece in _pieces(_whole(self.table[name])):
                found.update(piece)
        return found.hexdigest()

    def take(self, rows: np.ndarray) -> QuestionTable:
        """Return the questions of these rows, in this order."""
        if np.array_equal(rows, np.arange(len(self))):
            return self  # not a copy
        return QuestionTable(self.table.take(pa.array(np.asarray(rows, np.int64))))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, place: int) -> Question: ...
    @overload
    def __getitem__(self, place: slice) -> QuestionTable: ...
    def __getitem__(self, place: int | slice) -> Question | QuestionTable:
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return next(_built(self.table.slice(range(len(self))[place], 1)))

    def __iter__(self) -> Iterator[Question]:
        for start in range(0, len(self), _AT_ONCE):
            yield from _built(self.table.slice(start, _AT_ONCE))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(self) == len(other)
            and all(a == b for a, b in zip(self, other, strict=True))
        )

    __hash__ = None  # type: ignore[assignment]


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == _TEXT:
        return pa.array(values, pa.string()).dictionary_encode()
    if pa.types.is_list(kind):
        lists = pa.array(values, pa.list_(pa.string()))
        return pa.ListArray.from_arrays(lists.offsets, lists.values.dictionary_encode())
    return pa.array(values, kind)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _pieces(column: pa.Array) -> Iterator[memoryview | bytes]:
    """Yield the values of a column as bytes, the same for equal values however they are stored."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    yield f"{len(column)} ".encode()
    if pa.types.is_list(column.type):
        yield pc.list_value_length(column).to_numpy().data
        yield from _pieces(pc.list_flatten(column))
    elif pa.types.is_string(column.type):
        yield pc.binary_length(column).to_numpy().data
        _, places, content = column.cast(pa.large_string()).buffers()
        ends = np.frombuffer(places, np.int64)[column.offset : column.offset + len(column) + 1]
        yield memoryview(content or b"")[ends[0] : ends[-1]]
    else:
        yield column.to_numpy().data


def _distinct(texts: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Return the numbers and the texts of a dictionary array, without the texts that do not occur."""
    places = texts.indices.to_numpy()
    occurs = np.bincount(places, minlength=len(texts.dictionary)) > 0
    numbers = np.cumsum(occurs, dtype=np.int32) - 1
    return numbers[places], texts.dictionary.filter(pa.array(occurs)).to_pylist()


def _built(table: pa.Table) -> Iterator[Question]:
    columns = {name: table[name].to_pylist() for name in SCHEMA.names}
    others: dict[str, list[Mapping[str, object]]] = {text: json.loads(text) for text in set(columns["others"])}
    for row in range(table.num_rows):
        said = zip(columns["answers"][row], others[columns["others"][row]], strict=True)
        yield Question(
            columns["question_id"][row],
            columns["image_id"][row],
            columns["question"][row],
            tuple({"answer": text, **rest} for text, rest in said),
            columns["multiple_choice_answer"][row],
            columns["answer_type"][row],
            columns["question_type"][row],
        )
