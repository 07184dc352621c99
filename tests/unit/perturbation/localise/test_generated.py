"""Words of captions that the small LLaVA generates: their numbers from the files of the scenes and the model alone."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sample_models
import torch
from PIL import Image
from ranks import in_ranks
from tiny_runs import QUIET, composed

from clipmapper.any_model.load import LoadedModel, load_model
from clipmapper.cli import typed
from clipmapper.data.shapes.caption_truth import check_caption
from clipmapper.data.shapes.caption_words import named_objects, read_scenes
from clipmapper.data.shapes.evidence import read_evidence
from clipmapper.data.shapes.write import write_shapes
from clipmapper.errors import UserError
from clipmapper.llava.conversations import DESCRIBE
from clipmapper.llava.evaluate import generate, prompt_of
from explain import Explainer, Needs, explainers
from explain.adapters import trace_hugging_face
from explain.targets import answer
from perturbation.config import LocaliseConfig, LocaliseModelConfig
from perturbation.localise import any_model, generated

pytest.importorskip("transformers")
SCENES = ("data.train_scenes=1", "data.val_scenes=1", "data.test_scenes=4", "data.workers=1")
SIDE, PATCH, PIXELS = 6, 10, 60  # patches, and the pixels that the model reads of each and of the whole image
METRICS = ["mass_accuracy", "rank_accuracy", "pointing_game"]


def config_of(root: Path, *overrides: str) -> LocaliseModelConfig:
    model = ["model=huggingface", "model.path=embedded", f"prompt='{DESCRIBE}'", f"data.root={root}", *SCENES, *QUIET]
    config: LocaliseModelConfig = typed(composed("evaluate_explanations", *model, *overrides), LocaliseModelConfig)
    return config


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_shapes(config_of(root).data, "test")  # type: ignore[arg-type]
    return root


def metrics(scores: np.ndarray, evidence: np.ndarray) -> list[float]:
    """Return the mass accuracy, the rank accuracy and the pointing game of scores that differ."""
    mass, order, count = np.maximum(scores, 0), np.argsort(-scores), int(evidence.sum())
    return [mass[evidence].sum() / mass.sum(), evidence[order[:count]].mean(), float(evidence[order[0]])]


@torch.no_grad()
def probabilities(loaded: LoadedModel, image: Image.Image, said: list[int]) -> np.ndarray:
    """Return the probability of each token that the model said, [T], with an image."""
    inputs = loaded.processor(images=image, text=prompt_of(loaded.processor, DESCRIBE), return_tensors="pt")
    whole = torch.cat([inputs["input_ids"], torch.tensor([said])], 1)
    logits = loaded.model(input_ids=whole, pixel_values=inputs["pixel_values"]).logits[0, -len(said) - 1 : -1]
    return np.asarray(logits.softmax(-1)[range(len(said)), said])


def effects(loaded: LoadedModel, image: Image.Image, said: list[int]) -> np.ndarray:
    """Return how much the probability of each token falls without each patch, [T, P]."""
    edges = [round(k * image.width / SIDE) for k in range(SIDE + 1)]
    mean = np.rint(np.asarray(image).reshape(-1, 3).mean(0)).astype(np.uint8)
    found, whole = [], probabilities(loaded, image, said)
    for row in range(SIDE):
        for col in range(SIDE):
            pixels = np.array(image)
            pixels[edges[row] : edges[row + 1], edges[col] : edges[col + 1]] = mean
            found.append(whole - probabilities(loaded, Image.fromarray(pixels), said))
    return np.stack(found, 1)


def test_the_words_of_two_captions(root: Path, tmp_path: Path) -> None:
    """Captions, evidence, explanations of single words, and effects are found again one by one."""
    config = config_of(root, "samples=4", "seed=2", "batch_size=7")
    by: dict[str, Explainer] = {"weighted": explainers.Weighted(), "random": explainers.Random()}
    any_model.run_localisation(config, by, tmp_path)
    table = pd.read_parquet(tmp_path / "word_localisation.parquet")
    report = json.loads((tmp_path / "word_localisation.json").read_text())
    assert set(table["explainer"]) == {"weighted", "random", "deletion", "chance"}
    loaded, evidence = load_model(config), read_evidence(config.data, "test")
    scenes = read_scenes(evidence)
    rows: list[dict[str, Any]] = []
    true = 0
    for place in np.random.default_rng(2).permutation(4):
        image_id = sorted(scenes)[place]
        file = evidence.folder / "images" / "test" / f"shapes_test_{image_id:012d}.png"
        image = Image.open(file).convert("RGB")
        (caption,) = generate(loaded.model, loaded.processor, [(image, DESCRIBE)], 40)
        true += check_caption(caption, scenes[image_id]).true
        said = loaded.processor.tokenizer(caption, add_special_tokens=False)["input_ids"]
        words = loaded.processor.tokenizer.convert_ids_to_tokens(said)
        fall = effects(loaded, image, said)
        inputs = dict(loaded.processor(images=image, text=prompt_of(loaded.processor, DESCRIBE), return_tensors="pt"))
        for each in named_objects(words, scenes[image_id]):
            target = answer(said, span=(each.word, each.word + 1))
            traced = trace_hugging_face(loaded.model, inputs, target, needs=Needs.of([explainers.Weighted()]))
            scores = traced.explain(explainers.Weighted())["image"][0].numpy()
            marked = evidence.object_patches(image_id, each.objects, SIDE, config.patch_share)
            about = {"image_id": image_id, "kind": each.kind}
            for name, values in (("weighted", scores), ("deletion", fall[each.word])):
                rows.append({**about, "explainer": name, **dict(zip(METRICS, metrics(values, marked), strict=True))})
            rows.append({**about, "explainer": "chance", **dict.fromkeys(METRICS, marked.mean())})
    expected = pd.DataFrame(rows)
    for name, own in expected.groupby("explainer"):
        found = table[table["explainer"] == name].reset_index(drop=True)
        assert found[["image_id", "kind"]].values.tolist() == own[["image_id", "kind"]].values.tolist()
        columns = METRICS[:1] if name == "deletion" else METRICS  # ranks of effects may differ by rounding
        np.testing.assert_allclose(found[columns], own[columns], rtol=1e-3, atol=1e-5)
    assert len(expected) > 12
    assert (report["pictures"], report["true"], report["words"]) == (4, true, len(expected) // 3)


def test_what_cannot_be_judged_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by: dict[str, Explainer] = {"rollout": explainers.Rollout()}
    with pytest.raises(UserError, match=r"^samples=5: the test split has 4 images; give fewer$"):
        any_model.run_localisation(config_of(root, "samples=5"), by, tmp_path)
    said = r"^samples=2: 0 captions are true of their images, and no word of them names an object; give more samples"
    with pytest.raises(UserError, match=said):
        any_model.run_localisation(config_of(root, "samples=2", "prompt='what color is the ring?'"), by, tmp_path)
    vilt = LoadedModel(*sample_models.vilt(), "tiny", dual=False)
    monkeypatch.setattr(generated, "load_model", lambda config: vilt)
    with pytest.raises(UserError, match=r"^prompt=describe the image.: the model generates no text; leave prompt out"):
        any_model.run_localisation(config_of(root, "samples=2"), by, tmp_path)


def test_a_prompt_is_not_for_clipmapper() -> None:
    with pytest.raises(UserError, match=r"^prompt=describe: CLIPmapper's captions have no prompt; give task=caption"):
        typed(composed("evaluate_explanations", "prompt=describe"), LocaliseConfig)


def test_explainers_that_run_the_model_again_are_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    every = {"ig": explainers.IntegratedGradients(), "random": explainers.Random(), "rollout": explainers.Rollout()}
    assert list(generated.of_one_trace(every)) == ["rollout"]
    assert capsys.readouterr().err == "explainer ig is left out: it runs the model again for each word\n"


@pytest.mark.slow
def test_two_processes_share_the_captions_and_write_the_files_of_one(root: Path, tmp_path: Path) -> None:
    by, folders = {"genatt": explainers.GenAtt()}, [tmp_path / name for name in ("alone", "0", "1")]
    for folder in folders:
        folder.mkdir()

    def work(rank: int) -> None:
        with redirect_stdout(StringIO()):
            any_model.run_localisation(config_of(root, "samples=4"), by, folders[1 + rank])

    any_model.run_localisation(config_of(root, "samples=4"), by, folders[0])
    in_ranks(tmp_path, work)
    assert not list(folders[2].iterdir())
    for name in ("word_localisation.parquet", "word_localisation.md", "word_localisation.json"):
        assert (folders[1] / name).read_bytes() == (folders[0] / name).read_bytes()
