"""The samples that any model reads, and those whose images cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from any_model_runs import samples_of, write_table
from PIL import Image
from tiny_runs import write_vqav2

from clipmapper.any_model.samples import Sample, read_table, readable
from clipmapper.data.images import BadImage
from clipmapper.errors import UserError


def test_a_dual_encoder_reads_captions_and_other_models_questions(tmp_path: Path) -> None:
    scenes = ["data.train_scenes=1", "data.val_scenes=2", "data.test_scenes=1", "data.workers=1", "data.pixels=32"]
    scenes += [f"data.root={tmp_path}", "data.questions_per_scene=3"]
    captions, questions = (samples_of(scenes, "val", dual) for dual in (True, False))
    assert len(captions) == 2
    assert len(questions) == 6
    assert all(sample.text and not sample.text.endswith("?") and sample.answers is None for sample in captions)
    assert all(sample.text and sample.text.endswith("?") for sample in questions)
    assert all(sample.answers and len(sample.answers) == 10 for sample in questions)
    write_vqav2(tmp_path)
    vqa = samples_of(["data=vqav2", f"data.root={tmp_path}", "data.reserved=4"], "val", True)
    assert [sample.text for sample in vqa] == ["is it so 0?", "is it so 1?"] * 2
    content = {
        "images": [{"id": 7, "file_name": "7.jpg"}],
        "annotations": [{"image_id": 7, "id": 1, "caption": "A kite."}],
    }
    (tmp_path / "captions_val2014.json").write_text(json.dumps(content))
    (tmp_path / "captions_train2014.json").write_text(json.dumps(content).replace("7", "8"))
    coco = ["data=coco", f"data.root={tmp_path}", "data.karpathy=null", "data.captions='captions_{split}.json'"]
    assert [(s.id, s.text) for s in samples_of(coco, "val", True)] == [(7, "A kite.")]
    assert [(s.id, s.text) for s in samples_of(coco, "val", False)] == [(7, None)]


def test_samples_without_a_readable_image_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = read_table(write_table(tmp_path / "table.csv", answers=True))
    originals = [np.asarray(Image.open(tmp_path / f"{k}.png")) for k in range(5)]
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "3.png").unlink()
    found = list(readable([*samples, Sample(5, None, "a text alone")], "skip"))
    assert [sample.id for sample, _ in found] == [1, 2, 4, 5]
    assert found[-1][1] is None
    for sample, image in found[:-1]:
        np.testing.assert_array_equal(np.asarray(image), originals[sample.id])
    told = capsys.readouterr().err.splitlines()
    assert [line.split("; ")[0] for line in told] == [
        f"skipped: {tmp_path / '0.png'}: the file is empty",
        f"skipped: {tmp_path / '3.png'}: no such image",
    ]
    with pytest.raises(BadImage, match=r"0\.png: the file is empty; replace it"):
        list(readable(samples, "fail"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"image,text\na.png,\xe9\n", "not a CSV file in UTF-8 (.*); save it as one"),
        (b'image,text\na.png,"red\n', "cannot be read as CSV: unexpected end of data; close every quote, and shorten"),
        (b"text\n" + b"a" * 200_000, r"cannot be read as CSV: field larger than field limit \(131072\); close every"),
        (b"image,image,text\na.png,b.png,red\n", "two columns have the name image; give each its own"),
        (b"image,,\na.png,1,2\n", r"two columns have the name \(empty\); give each its own"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"^data\.file={tmp_path / 't.csv'}: {said}") as refused:
        read_table(tmp_path / "t.csv")
    assert "\n" not in str(refused.value)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\); give a CSV file"):
        read_table(tmp_path)
