"""Reading COCO's and Karpathy's caption files, and one clear line for every kind of error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shapes_data import shapes_config, write_all

from clipmapper.data.caption_files import CaptionData, CaptionImage, read_coco_captions, read_karpathy
from clipmapper.data.images import FileImage, load_rgb
from clipmapper.errors import UserError

Change = Callable[[Any], Any]
IMAGES = Path("images")


def coco() -> dict[str, Any]:
    return {
        "info": {},
        "images": [{"id": 9, "file_name": "nine.jpg", "width": 4}, {"id": 3, "file_name": "three.jpg"}],
        "annotations": [
            {"image_id": 3, "id": 51, "caption": "Un café, l'été 猫"},
            {"image_id": 9, "id": 50, "caption": "a dog\n"},
            {"image_id": 3, "id": 52, "caption": "a cat"},
        ],
    }


def karpathy_image(cocoid: int, split: str, *texts: str) -> dict[str, Any]:
    folder = "train2014" if split == "train" else "val2014"
    sentences = [
        {"tokens": text.split(), "raw": text, "imgid": cocoid, "sentid": 100 * cocoid + k}
        for k, text in enumerate(texts)
    ]
    return {"filepath": folder, "filename": f"{cocoid}.jpg", "cocoid": cocoid, "split": split, "sentences": sentences}


def karpathy() -> dict[str, Any]:
    return {
        "dataset": "coco",
        "images": [
            karpathy_image(1, "train", "One."),
            karpathy_image(2, "restval", "two", "zwei"),
            karpathy_image(3, "val", "three"),
            karpathy_image(4, "test", *(f"four {k}" for k in range(7))),
        ],
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def ids(data: CaptionData) -> list[int]:
    return [image.image_id for image in data.images]


def test_captions_are_joined_to_their_images_in_file_order_and_unchanged(tmp_path: Path) -> None:
    data = read_coco_captions(write(tmp_path / "c.json", coco()), IMAGES)
    assert data.images == (
        CaptionImage(9, ("a dog\n",), FileImage(IMAGES / "nine.jpg")),
        CaptionImage(3, ("Un café, l'été 猫", "a cat"), FileImage(IMAGES / "three.jpg")),
    )
    assert data.references() == {9: ("a dog\n",), 3: ("Un café, l'été 猫", "a cat")}
    assert data.captioned == data.images
    assert data.left_out == ""


def test_images_without_captions_are_left_out_of_training_and_reported(tmp_path: Path) -> None:
    content = coco()
    content["images"] += [{"id": 20 + k, "file_name": "x.jpg"} for k in range(6)]
    data = read_coco_captions(write(tmp_path / "c.json", content), IMAGES)
    assert [image.image_id for image in data.captioned] == [9, 3]
    assert data.left_out.startswith(f"{tmp_path / 'c.json'}: 6 images (20, 21, 22, 23, 24, …) without a caption")
    with pytest.raises(UserError, match=r"c\.json: 6 images \(20, .*without a caption to score against"):
        data.references()


@pytest.mark.parametrize(
    ("split", "restval_in_train", "expected"),
    [
        ("train", True, [1, 2]),
        ("train", False, [1]),
        ("restval", True, [2]),
        ("val", True, [3]),
        ("test", True, [4]),
    ],
)
def test_karpathys_splits(tmp_path: Path, split: str, restval_in_train: bool, expected: list[int]) -> None:
    data = read_karpathy(write(tmp_path / "k.json", karpathy()), IMAGES, split, restval_in_train)
    assert ids(data) == expected


def test_karpathys_images_can_have_any_number_of_captions_and_different_folders(tmp_path: Path) -> None:
    path = write(tmp_path / "k.json", karpathy())
    assert read_karpathy(path, IMAGES, "train").images == (
        CaptionImage(1, ("One.",), FileImage(IMAGES / "train2014" / "1.jpg")),
        CaptionImage(2, ("two", "zwei"), FileImage(IMAGES / "val2014" / "2.jpg")),
    )
    assert len(read_karpathy(path, IMAGES, "test").images[0].captions) == 7


def edit(*path: str | int, to: Any) -> Change:
    """Return a function that replaces one value of a file's content, or removes it if ``to`` is ``...``."""

    def change(content: Any) -> Any:
        at = content
        for key in path[:-1]:
            at = at[key]
        if to is ...:
            del at[path[-1]]
        else:
            at[path[-1]] = to
        return content

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("images", to=...), "c.json: has no \"images\" (found: 'info', 'annotations'); add it"),
        (edit("annotations", to={}), 'c.json: "annotations" is {}, not a list'),
        (lambda _: [1], 'c.json: is [1], not an object with "images"'),
        (edit("images", to=[]), 'c.json: annotations[0]: "image_id" 3 is not in the file\'s images'),
        (lambda _: {"images": [], "annotations": []}, "c.json: holds no images"),
        (edit("images", 1, "id", to=...), 'c.json: images[1]: has no "id"'),
        (edit("images", 1, "id", to="3"), "c.json: images[1]: \"id\" is '3', not a whole number"),
        (edit("images", 1, "id", to=True), 'c.json: images[1]: "id" is True, not a whole number'),
        (edit("images", 1, "id", to=9), "c.json: images[1]: id 9 occurs twice"),
        (edit("images", 0, "file_name", to=None), 'c.json: images[0]: "file_name" is None, not a string'),
        (edit("images", 0, to=7), 'c.json: images[0]: is 7, not an object with "id"'),
        (edit("annotations", 2, "id", to=50), "c.json: annotations[2]: id 50 occurs twice"),
        (edit("annotations", 2, "id", to=...), 'c.json: annotations[2]: has no "id"'),
        (edit("annotations", 1, "image_id", to=77), 'c.json: annotations[1]: "image_id" 77 is not in the file\'s'),
        (edit("annotations", 1, "caption", to=...), 'c.json: annotations[1]: has no "caption"'),
        (edit("annotations", 1, "caption", to=["a"]), "c.json: annotations[1]: \"caption\" is ['a'], not a string"),
        (edit("annotations", 1, "caption", to=" \n"), 'c.json: annotations[1]: "caption" is empty'),
    ],
)
def test_a_bad_coco_file_gives_one_line_with_file_entry_and_field(tmp_path: Path, change: Change, message: str) -> None:
    path = write(tmp_path / "c.json", change(coco()))
    with pytest.raises(UserError) as raised:
        read_coco_captions(path, IMAGES)
    assert str(raised.value).startswith(f"{tmp_path}/{message}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("images", 2, "cocoid", to=...), 'images[2]: has no "cocoid"'),
        (edit("images", 2, "cocoid", to=1), "images[2]: id 1 occurs twice"),
        (edit("images", 0, "split", to=5), 'images[0]: "split" is 5, not a string'),
        (edit("images", 0, "filepath", to=...), 'images[0]: has no "filepath"'),
        (edit("images", 0, "filename", to=...), 'images[0]: has no "filename"'),
        (edit("images", 0, "sentences", to="a cat"), "images[0]: \"sentences\" is 'a cat', not a list"),
        (edit("images", 3, "sentences", 4, "raw", to=...), 'images[3]: sentences[4]: has no "raw"'),
        (edit("images", 3, "sentences", 4, "raw", to=""), 'images[3]: sentences[4]: "raw" is empty'),
        (edit("images", 3, "sentences", 4, "sentid", to=300), "images[3]: sentences[4]: id 300 occurs twice"),
        (edit("images", to=[]), "holds no images"),
    ],
)
def test_a_bad_karpathy_file_gives_one_line(tmp_path: Path, change: Change, message: str) -> None:
    path = write(tmp_path / "k.json", change(karpathy()))
    with pytest.raises(UserError) as raised:
        read_karpathy(path, IMAGES, "train")
    line = str(raised.value)
    assert line.startswith(str(path))
    assert message in line
    assert "\n" not in line


@pytest.mark.parametrize("name", ["../nine.jpg", "/etc/passwd"])
def test_no_file_name_leads_out_of_the_image_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c.json"
    content = coco()
    content["images"][1]["file_name"] = name
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'c\.json: images\[1\]: "file_name": .* leads out of the image folder images'):
        read_coco_captions(path, IMAGES)
    for field in ("filename", "filepath"):
        path.write_text(json.dumps({"images": [{**karpathy_image(1, "test", "a dog"), field: name}]}))
        with pytest.raises(
            UserError, match=r'images\[0\]: "filepath" and "filename": .* leads out of the image folder'
        ):
            read_karpathy(path, IMAGES, "test")


def test_the_error_for_an_unknown_split_lists_the_existing_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "k.json", karpathy())
    with pytest.raises(UserError, match=r"has no split dev; choose one of: restval, test, train, val"):
        read_karpathy(path, IMAGES, "dev")


@pytest.mark.parametrize("content", ["", '{"images": [{"id": 1, "fil', "null"])
def test_the_error_for_an_empty_or_cut_off_file_has_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "c.json"
    path.write_text(content)
    for read in (lambda: read_coco_captions(path, IMAGES), lambda: read_karpathy(path, IMAGES, "val")):
        with pytest.raises(UserError, match=r"c\.json: "):
            read()


def test_the_error_for_a_missing_file_has_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file"):
        read_coco_captions(tmp_path / "none.json", IMAGES)


def test_both_formats_of_real_captions_give_the_same_data(real_mini: Path) -> None:
    """The data are 78 images with five captions each; the Karpathy file has their paths under one folder."""
    splits = [read_karpathy(real_mini / "dataset_coco.json", real_mini / "images", s) for s in ("train", "val", "test")]
    joined = {image.image_id: image for data in splits for image in data.images}
    parts = [
        read_coco_captions(real_mini / f"captions_{name}_subset.json", real_mini / "images" / name)
        for name in ("train2014", "val2014")
    ]
    apart = {image.image_id: image for data in parts for image in data.images}
    assert len(joined) == 78
    assert {i: sorted(image.captions) for i, image in joined.items()} == {
        i: sorted(image.captions) for i, image in apart.items()
    }
    assert {i: image.image for i, image in joined.items()} == {i: image.image for i, image in apart.items()}
    assert load_rgb(parts[0].images[0].image).mode == "RGB"


def test_the_same_reader_reads_generated_captions(shapes_split: Path) -> None:
    data = read_coco_captions(shapes_split / "captions_shapes_val.json", shapes_split / "images" / "val")
    assert all(len(image.captions) == 5 for image in data.images)
    assert load_rgb(data.images[0].image).mode == "RGB"


@pytest.fixture
def shapes_split(tmp_path: Path) -> Path:
    sizes = {"train_scenes": 1, "val_scenes": 2, "test_scenes": 1, "questions_per_scene": 2, "pixels": 128}
    return write_all(shapes_config(tmp_path, **sizes))
