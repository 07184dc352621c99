"""Data with the columns of ``lmms-lab/VQAv2``: Parquet files like those of the Hub, and errors in them."""

from __future__ import annotations

import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from clipmapper.data.hub import read_hub, read_parquet
from clipmapper.data.images import BadImage, load_rgb
from clipmapper.errors import UserError
from clipmapper.features import hashes
from clipmapper.features.hashes import Hashes, hash_of

ANSWER = {"answer": datasets.Value("string"), "answer_confidence": datasets.Value("string")}
FEATURES = datasets.Features(
    {
        "question_type": datasets.Value("string"),
        "multiple_choice_answer": datasets.Value("string"),
        "answers": [{**ANSWER, "answer_id": datasets.Value("int64")}],
        "image_id": datasets.Value("int64"),
        "answer_type": datasets.Value("string"),
        "question_id": datasets.Value("int64"),
        "question": datasets.Value("string"),
        "image": datasets.Image(),
    }
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encoded(color: str) -> bytes:
    stream = BytesIO()
    Image.new("RGB", (6, 5), color).save(stream, "PNG")
    return stream.getvalue()


def row(question_id: int, color: str = "red", **changes: Any) -> dict[str, Any]:
    """Return a question whose id begins with the id of its image, as in VQAv2."""
    answers = [{"answer": "kite", "answer_confidence": "yes", "answer_id": i} for i in range(1, 11)]
    labels = {"answers": answers, "multiple_choice_answer": "kite", "answer_type": "other", "question_type": "what"}
    image = {"bytes": encoded(color), "path": None}
    ids = {"question_id": question_id, "image_id": question_id // 1000}
    return {**ids, "question": f"what is {question_id}?", "image": image, **labels, **changes}


def unlabelled(question_id: int) -> dict[str, Any]:
    return row(question_id, answers=None, multiple_choice_answer=None, answer_type=None, question_type=None)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_list(list(rows), features=FEATURES).to_parquet(path)
    return path


def test_a_parquet_file_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "val.parquet", row(7000, "red"), row(7001, "red"), row(8000, "blue"))
    data = read_parquet(path, "validation")
    assert [record.question_id for record in data.questions] == [7000, 7001, 8000]
    assert data.questions[0].question == "what is 7000?"
    assert data.questions[0].answers == tuple(row(7000)["answers"])
    assert data.questions[0].multiple_choice_answer == "kite"
    assert list(data.images) == [7, 8]
    assert load_rgb(data.images[7]).getpixel((0, 0)) == (255, 0, 0)
    assert load_rgb(data.images[8]).getpixel((0, 0)) == (0, 0, 255)
    assert data.images[8].name == f"{path} (validation), row 2"


def test_images_stay_encoded_and_on_the_disk(tmp_path: Path) -> None:
    path = write(tmp_path / "val.parquet", row(7000))
    image = read_parquet(path, "validation").images[7]
    assert image.read() == encoded("red")
    assert len(pickle.dumps(image)) < 20_000  # the workers of the data loader get the name of the file, not its content
    assert list((tmp_path / "cache").rglob("*.arrow"))
    assert pickle.loads(pickle.dumps(image)).read() == encoded("red")


def test_a_folder_like_the_hubs_is_read_by_split(tmp_path: Path) -> None:
    write(tmp_path / "data" / "validation-00000-of-00002.parquet", row(1000))
    write(tmp_path / "data" / "validation-00001-of-00002.parquet", row(2000))
    write(tmp_path / "data" / "test-00000-of-00001.parquet", unlabelled(3000))
    write(tmp_path / "data" / "testdev-00000-of-00001.parquet", unlabelled(4000))
    write(tmp_path / "mine.parquet", row(5000))
    found = {split: read_parquet(tmp_path, split).questions for split in ("validation", "test", "testdev", "mine")}
    ids = {split: [record.question_id for record in records] for split, records in found.items()}
    assert ids == {"validation": [1000, 2000], "test": [3000], "testdev": [4000], "mine": [5000]}
    assert found["test"][0].answers == ()
    assert found["test"][0].multiple_choice_answer == ""
    with pytest.raises(UserError, match=r"no train-\*\.parquet in this folder \(found: test-00000"):
        read_parquet(tmp_path, "train")


def test_a_file_written_by_other_tools_is_read(tmp_path: Path) -> None:
    """The file has no metadata of ``datasets``, and the images are plain bytes."""
    for image in (encoded("red"), {"bytes": encoded("red")}):
        table = pyarrow.Table.from_pylist([row(7000, image=image)])
        path = tmp_path / f"{type(image).__name__}.parquet"
        pyarrow.parquet.write_table(table, path)
        assert load_rgb(read_parquet(path, "train").images[7]).size == (6, 5)


def test_a_hub_id_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``datasets`` reads a local folder of this name instead of the hub."""
    for split, question_id in (("validation", 7000), ("test", 8000)):
        write(tmp_path / "lmms-lab" / "VQAv2" / "data" / f"{split}-00000-of-00001.parquet", row(question_id))
    monkeypatch.chdir(tmp_path)
    data = read_hub("lmms-lab/VQAv2", "validation")
    assert [question.question_id for question in data.questions] == [7000]
    assert data.images[7].name == "lmms-lab/VQAv2 (validation), row 0"


def test_an_unreachable_hub_is_an_error() -> None:
    """All tests run with ``HF_HUB_OFFLINE`` set."""
    with pytest.raises(UserError, match=r"^lmms-lab/VQAv2 \(validation\): cannot be loaded .*check the name") as caught:
        read_hub("lmms-lab/VQAv2", "validation")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["nowhere/val.parquet", "/no/such/folder", "../nowhere", "a/b/c"])
def test_a_missing_path_is_an_error(source: str) -> None:
    with pytest.raises(UserError, match=f"^{source}: no such file or folder, and not a hub id"):
        read_hub(source, "validation")
    with pytest.raises(UserError, match=f"^{source}: no such file or folder; correct the path"):
        read_parquet(Path(source), "validation")


def test_a_file_that_is_not_parquet_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match=r"val\.parquet \(validation\): cannot be loaded .*Parquet") as caught:
        read_parquet(path, "validation")
    assert "\n" not in str(caught.value)


def test_a_damaged_parquet_file_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "val.parquet", row(7000))
    intact = path.read_bytes()
    path.write_bytes(intact[:200] + bytes(300) + intact[500:])
    with pytest.raises(UserError, match=r"val\.parquet \(validation\): cannot be loaded .*Invalid data") as caught:
        read_parquet(path, "validation")
    assert "\n" not in str(caught.value)


def test_missing_columns_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    datasets.Dataset.from_list([{"question_id": 1, "question": "why?", "image_id": 1}]).to_parquet(path)
    with pytest.raises(UserError, match=r"no column answers, multiple_choice_answer, .*, image; rename"):
        read_parquet(path, "validation")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row(7000), row(7000)], "question_id 7000 occurs twice"),
        ([row(7000), unlabelled(8000)], 'question_id 8000: "answers" is None, not a list'),
        ([row(7000, question=" ")], 'question_id 7000: "question" is empty'),
        ([row(7000, image_id=None)], 'question_id 7000: "image_id" is None, not a whole number'),
        ([row(7000, answers=[{"answer": None}])], "question_id 7000: an answer is"),
        ([row(7000, answer_type=None)], 'question_id 7000: "answer_type" is None, not a string'),
    ],
)
def test_malformed_rows_are_an_error(tmp_path: Path, rows: list[dict[str, Any]], reason: str) -> None:
    path = write(tmp_path / "val.parquet", *rows)
    with pytest.raises(UserError, match=reason) as caught:
        read_parquet(path, "validation")
    assert str(caught.value).startswith(f"{path} (validation): ")


@pytest.mark.parametrize("image", [None, {"bytes": None, "path": "photo.jpg"}, {"bytes": b"", "path": None}])
def test_a_cell_without_bytes_is_an_error_when_the_image_is_opened(tmp_path: Path, image: Any) -> None:
    path = tmp_path / "val.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(6000), row(7000, image=image)]), path)
    with pytest.raises(BadImage, match=r"row 1: the image cell holds no bytes"):
        load_rgb(read_parquet(path, "validation").images[7])


def test_an_image_column_without_images_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "val.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(7000, image=3)]), path)
    with pytest.raises(UserError, match='the column "image" holds no images'):
        read_parquet(path, "validation")


def test_the_hashes_of_cells_are_remembered_until_their_file_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "SETTLED", 0)
    folder, index = tmp_path / "hub", tmp_path / "index"
    folder.mkdir()
    colors = {1: "red", 2: "blue", 3: "green"}
    write(folder / "val-0.parquet", row(1001, "red"), row(1002, "red"), row(2001, "blue"))
    second = write(folder / "val-1.parquet", row(3001, "green"))
    remembered = Hashes(index)
    for image in read_parquet(folder, "val").images.values():
        assert remembered.known(image) is None
        remembered.read(image)
    remembered.save()
    again = read_parquet(folder, "val").images
    expected = {image_id: hash_of(encoded(color)) for image_id, color in colors.items()}
    assert {image_id: Hashes(index).known(image) for image_id, image in again.items()} == expected
    write(second, row(3001, "white"))
    changed = {image_id: Hashes(index).known(image) for image_id, image in read_parquet(folder, "val").images.items()}
    assert changed == {**expected, 3: None}
