"""The command ``fetch``: what it gets from the hub, what it names as missing, and runs without a network after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import sample_models
from folder_models import write_family
from hub_server import NO_NETWORK, hub_of
from models import random_clip, register, saved
from PIL import Image
from tiny_runs import QUIET, SMALL_MAPPER, Tiny, composed, finish, write_vqav2

from clipmapper.benchmarks import full_size
from clipmapper.cli import typed
from clipmapper.config.schema import TrainConfig
from clipmapper.data.needed import needed_files
from clipmapper.files import read_json

Command = Callable[..., tuple[int, str, list[str]]]


def write_hub(root: Path) -> None:
    """Write an encoder, a model of ``transformers`` and a dataset as repositories of the hub."""
    write_family(root / "models" / "test" / "clip", "average")
    for part in sample_models.vilt():
        part.save_pretrained(root / "models" / "test" / "vilt")
    datasets = pytest.importorskip("datasets")
    folder = root / "datasets" / "test" / "vqa" / "data"
    folder.mkdir(parents=True)
    whole = datasets.Dataset.from_list([_row(number) for number in range(12)])
    whole.cast_column("image", datasets.Image()).to_parquet(str(folder / "validation-00000-of-00001.parquet"))


def _row(number: int) -> dict[str, object]:
    answer = "red" if number % 2 else "yes"
    answers = [{"answer": answer, "answer_id": k, "answer_confidence": "yes"} for k in range(10)]
    image = Image.fromarray(np.full((24, 24, 3), 20 * number, np.uint8))
    return {
        "question_id": number,
        "image_id": number,
        "question": "what is it?",
        "answers": answers,
        "image": image,
        "multiple_choice_answer": answer,
        "answer_type": "other",
        "question_type": "what",
    }


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    """An empty hub, and environments of commands with it and without any network, which share a home folder."""
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(NO_NETWORK)
    home = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    online = {**home, "HF_HUB_OFFLINE": "0"}
    offline = {**home, "HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{blocked}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return tmp_path / "hub", online, offline


def done(name: str, given: Sequence[str], run: Path, environment: dict[str, str]) -> str:
    """Run a command that must end without an error, and return its stdout."""
    status, out, errors = finish(name, [*given, f"hydra.run.dir={run}"], **environment)
    assert status == 0, out + errors
    return out


FEW = ("samples=2", "explainer=weighted", "random_seeds=1", "controls=[random]", "steps=[0,0.5,1]", "split=val")


@pytest.mark.slow
def test_after_fetch_commands_run_without_a_network(
    tiny: Tiny, network: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    hub, online, offline = network
    write_hub(hub)
    data = ("data=vqav2_hub", "data.root=test/vqa", "data.reserved=4")
    base = [each for each in tiny.base if not each.startswith("encoder.weights")]
    encoder = ("encoder.model=hf-hub:test/clip", "encoder.weights=null")
    given = [*base, *data, "data.min_answer_questions=1", *encoder]
    model = ("model=huggingface", "model.path=test/vilt")
    status, _, errors = finish("fetch", [*given, *model, f"hydra.run.dir={tmp_path / 'none'}"], **offline)
    assert status == 1
    assert "error: 3 of 3 parts are missing, the first is: encoder hf-hub:test/clip;" in errors
    with hub_of(hub) as address:
        out = done("fetch", [*given, *model], tmp_path / "fetched", {**online, "HF_ENDPOINT": address})
    assert "Everything is there" in out
    parts = read_json(tmp_path / "fetched" / "fetched.json")["parts"]
    assert [(each["what"], each["there"]) for each in parts] == [
        ("encoder hf-hub:test/clip", True),
        ("model test/vilt", True),
        ("dataset test/vqa", True),
    ]
    done("train", given, tmp_path / "run", offline)
    trained = (*data, *encoder, *SMALL_MAPPER, *QUIET, f"paths.root={tiny.root}", f"checkpoint={tmp_path / 'run'}")
    done("evaluate", [*trained, "split=val"], tmp_path / "evaluated", offline)
    done("perturb", [*trained, *FEW], tmp_path / "perturbed", offline)
    drawn = ("samples=2", "formats=[png]", "split=train", *QUIET, f"paths.root={tiny.root}")
    done("explain", [*model, *data, *drawn], tmp_path / "explained", offline)


@pytest.mark.slow
def test_after_fetch_the_papers_experiments_run_without_a_network(
    tiny: Tiny, network: tuple[Path, dict[str, str], dict[str, str]], tmp_path: Path
) -> None:
    """Their encoder is a tag of open_clip, whose entry on the hub is a small model here."""
    hub, online, offline = network
    name = "ViT-B-32-quickgelu"
    small = tmp_path / "small"
    small.mkdir()
    model = random_clip(register(small, "small-quickgelu", {}, {}, quick_gelu=True))
    (small / "small-quickgelu.json").rename(small / f"{name}.json")
    place = hub / "models" / open_clip.get_pretrained_cfg(name, "openai")["hf_hub"]
    place.mkdir(parents=True)
    saved(model, place / "open_clip_model.safetensors")
    resize = f"import open_clip\nopen_clip.add_model_config({str(small / f'{name}.json')!r})\n"
    (small / "sitecustomize.py").write_text(resize)
    blocked = tmp_path / "blocked" / "sitecustomize.py"
    blocked.write_text(resize + blocked.read_text())
    online |= {"PYTHONPATH": f"{small}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    full_size.write(tmp_path / "data", 0.0005, 32)
    root = f"paths.root={tmp_path / 'root'}"
    steps = ("trainer.max_steps=4", "trainer.val_check_interval=2", "task.optim.batch_size=32")
    given = (root, *SMALL_MAPPER, *QUIET)
    vqa = ("experiment=paper_vqa", f"data.root={tmp_path / 'data' / 'vqav2'}", *given)
    short = "task.max_length=6"
    captions = ("experiment=paper_caption", f"data.root={tmp_path / 'data' / 'coco'}", short, *given)
    answers = ("data.min_answer_questions=1", "data.reserved=2", "data.test_split=null")
    status, _, errors = finish("fetch", [*vqa, *answers, f"hydra.run.dir={tmp_path / 'none'}"], **offline)
    assert status == 1
    assert f"parts are missing, the first is: encoder {name};" in errors
    with hub_of(hub) as address:
        done("fetch", [*vqa, *answers], tmp_path / "fetched", {**online, "HF_ENDPOINT": address})
    done("fetch", captions, tmp_path / "fetched-again", offline)
    done("train", [*vqa, *answers, *steps], tmp_path / "vqa", offline)
    done("evaluate", [*vqa, *answers, "split=val", f"checkpoint={tmp_path / 'vqa'}"], tmp_path / "evaluated", offline)
    done("perturb", [*vqa, *answers, *FEW, f"checkpoint={tmp_path / 'vqa'}"], tmp_path / "perturbed", offline)
    done("train", [*captions, *steps], tmp_path / "captions", offline)
    done("perturb", [*captions, *FEW, f"checkpoint={tmp_path / 'captions'}"], tmp_path / "words", offline)


def test_files_that_are_downloaded_by_hand_are_named_with_their_addresses(
    tiny: Tiny, command: Command, tmp_path: Path
) -> None:
    data = tmp_path / "vqav2"
    given = (*tiny.base, "data=vqav2", f"data.root={data}")
    status, out, errors = command("fetch", *given, f"hydra.run.dir={tmp_path / 'before'}")
    assert status == 1
    assert errors == [
        "error: 6 of 7 parts are missing, the first is: questions; get them as the lines above say, and run this "
        "command again"
    ]
    for name in ("v2_Questions_Train", "v2_Annotations_Train", "v2_Questions_Val", "v2_Annotations_Val"):
        assert f": https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/{name}_mscoco.zip\n" in out
    for split in ("train2014", "val2014"):
        assert f"missing: images, {data / 'images' / split}: http://images.cocodataset.org/zips/{split}.zip\n" in out
    write_vqav2(data)
    status, out, errors = command("fetch", *given, f"hydra.run.dir={tmp_path / 'after'}")
    assert (status, errors) == (0, [])
    assert "Everything is there" in out


@pytest.mark.parametrize("data", ["shapes", "easy_vqa", "vqav2", "vqav2_hub", "coco", "table"])
def test_the_files_of_every_dataset_are_known(data: str, tiny: Tiny, tmp_path: Path) -> None:
    """A dataset that is neither generated nor got by a library has files, which are missing in an empty folder."""
    given = (f"data.file={tmp_path / 'none.csv'}",) if data == "table" else (f"data.root={tmp_path / 'none'}",)
    task = "caption" if data == "coco" else "vqa"
    config = typed(composed("train", *tiny.base, f"data={data}", f"task={task}", *given), TrainConfig).data
    found = needed_files(config)
    assert bool(found) == (data not in ("shapes", "vqav2_hub"))
    assert all(each.advice for each in found)
    assert data == "easy_vqa" or not any(each.there for each in found)
