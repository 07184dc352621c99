"""The command ``evaluate_explanations`` for captions: words' explanations compared with the objects they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import CAPTION_TASK, TEST_IMAGES, says, words_of, write_untrained
from PIL import Image
from tiny_runs import Tiny, composed

from clipmapper.cli import typed
from clipmapper.data.shapes.caption_truth import check_caption
from clipmapper.data.shapes.caption_words import named_objects, read_scenes
from clipmapper.data.shapes.evidence import read_evidence
from clipmapper.encoder.load import TextBatch
from clipmapper.files import read_json
from clipmapper.nn import TokenSubset
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.caption.trained import CaptionedBatch, TrainedCaptioner, load_trained
from explain import explainers
from perturbation.config import LocaliseConfig
from perturbation.localise.caption import localise_words
from perturbation.localise.samples import read_samples
from perturbation.localise.words import word_localisation_rows

Command = Callable[..., tuple[int, str, list[str]]]
SIDE = 6
RULES = {"weighted": explainers.Weighted(), "uniform": explainers.Uniform()}


@pytest.fixture(scope="module")
def overrides(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("untrained")
    checkpoint = write_untrained(tiny, folder)
    long = ("task.max_length=30", f"samples={TEST_IMAGES}", "batch_size=20", f"paths.runs={folder / 'runs'}")
    return (*tiny.overrides, *CAPTION_TASK, f"checkpoint={checkpoint}", *long)


def config_of(overrides: tuple[str, ...]) -> LocaliseConfig:
    checked: LocaliseConfig = typed(composed("evaluate_explanations", *overrides), LocaliseConfig)
    return checked


def drawn(config: LocaliseConfig) -> list[int]:
    """Return the rows of the images in the order in which they are captioned."""
    return [int(row) for row in np.random.default_rng(config.seed).permutation(TEST_IMAGES)[: config.samples]]


def references(overrides: tuple[str, ...]) -> tuple[list[int], list[str]]:
    """Return the image ids and one caption per image, in this order; every third caption is false."""
    config = config_of(overrides)
    trained = load_trained(config, "test", config.checkpoint)
    images = [trained.images[row] for row in drawn(config)]
    texts = [image.captions[0] if k % 3 else "a zebra and a circle" for k, image in enumerate(images)]
    return [image.image_id for image in images], texts


def token_probabilities(model: CLIPMapperCaption, pixels: torch.Tensor, caption: list[int]) -> np.ndarray:
    """Return the probability of each token, [T, 1 + P], with all patches and without each patch, one pass for each."""
    ids = torch.tensor([[model.vocabulary.start, *caption]])
    text = TextBatch(ids, torch.ones_like(ids, dtype=torch.bool), 0)
    classes = [model.vocabulary.ids.index(number) for number in caption]
    rows = []
    for patch in range(SIDE * SIDE + 1):  # 0 is the class token, which stays
        kept = torch.tensor([[k == 0 or k != patch for k in range(SIDE * SIDE + 1)]])
        logits = model(pixels, text, image_subset=TokenSubset.from_mask(kept))[0, :-1]
        rows.append(logits.softmax(-1)[range(len(caption)), classes].numpy())
    return np.array(rows).T


@pytest.mark.slow
def test_relevance_and_evidence_equal_those_of_each_word_alone(
    overrides: tuple[str, ...], tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(overrides)
    trained = load_trained(config, "test", config.checkpoint)
    evidence = read_evidence(config.data, "test")
    scenes = read_scenes(evidence)
    ids, texts = references(overrides)
    says(monkeypatch, tiny, texts)
    found = localise_words(trained, evidence, RULES, config)
    says(monkeypatch, tiny, texts)
    batch = trained.batch(drawn(config))
    assert batch is not None
    at = 0
    for b, (image_id, text) in enumerate(zip(ids, texts, strict=True)):
        decoder = trained.model.encoder.tokenizer.decoder
        places = words_of(batch.captions[b], decoder)
        words = ["".join(decoder[batch.captions[b][k]] for k in word).removesuffix("</w>") for word in places]
        if not (named := named_objects(words, scenes[image_id])):
            continue
        assert check_caption(text, scenes[image_id]).true
        traced = trace_captions(trained.model, batch.pixels[b : b + 1], [batch.captions[b]], sample_ids=[image_id])
        probability = token_probabilities(trained.model, batch.pixels[b : b + 1], batch.captions[b])
        mask = np.asarray(Image.open(evidence.folder / f"masks/test/shapes_test_{image_id:012d}.png"))
        large = mask.repeat(3, 0).repeat(3, 1)  # so that a patch is a whole number of pixels
        cell = len(large) // SIDE
        for word in named:
            shown = np.isin(large, [o + 1 for o in word.objects]).reshape(SIDE, cell, SIDE, cell).mean((1, 3))
            assert found.evidence[at].tolist() == (shown >= 0.25).ravel().tolist()
            assert (found.kinds[at], found.captions[at]) == (word.kind, image_id)
            for name, rule in RULES.items():
                direct = rule(traced.trace, traced.rows)[places[word.word], 1 : 1 + SIDE * SIDE].mean(0)
                np.testing.assert_allclose(found.relevance[name][at], direct, rtol=1e-4, atol=1e-7)
            falls = np.mean([p[0] - p[1:] for p in probability[places[word.word]]], 0)
            np.testing.assert_allclose(found.relevance["deletion"][at], falls, rtol=1e-3, atol=1e-6)
            at += 1
    assert at == len(found.kinds) == len(found.evidence) > 10
    true = sum(check_caption(text, scenes[image_id]).true for image_id, text in zip(ids, texts, strict=True))
    assert 0 < true <= TEST_IMAGES * 2 // 3
    assert found.counts == {"pictures": TEST_IMAGES, "true": true, "captions": len(set(found.captions))}


@pytest.mark.slow
def test_controls_with_partners_do_not_depend_on_the_batches(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(overrides)
    trained = load_trained(config, "test", config.checkpoint)
    ids, texts = references(overrides)
    _caption_by_image(monkeypatch, dict(zip(ids, texts, strict=True)))
    every, found = {"shuffled": explainers.Shuffled(), "depth_matched": explainers.DepthMatched()}, []
    for size in (1, 40):
        config = config_of((*overrides, f"batch_size={size}"))
        found.append(localise_words(trained, read_evidence(config.data, "test"), every, config))
    assert found[0].captions == found[1].captions
    for name in every:
        np.testing.assert_allclose(found[0].relevance[name], found[1].relevance[name], rtol=1e-4, atol=1e-7)


def _caption_by_image(patch: pytest.MonkeyPatch, texts: dict[int, str]) -> None:
    """Give each image its caption in every batch, also when a caption is generated again for a partner."""
    generated = TrainedCaptioner.batch

    def batch(self: TrainedCaptioner, rows: Sequence[int]) -> CaptionedBatch | None:
        found = generated(self, rows)
        assert found is not None
        encode = self.model.encoder.tokenizer.encode
        return replace(found, captions=tuple(encode(texts[number]) for number in found.ids))

    patch.setattr(TrainedCaptioner, "batch", batch)


def test_the_command_writes_and_prints_the_table(
    overrides: tuple[str, ...], tiny: Tiny, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(monkeypatch, tiny, references(overrides)[1])
    status, out, errors = command("evaluate_explanations", *overrides, "explainer=paper")
    assert (status, errors) == (0, [])
    run = Path(out.splitlines()[0].removeprefix("run folder: "))
    table, content = (run / "word_localisation.md").read_text(), read_json(run / "word_localisation.json")
    ids, kinds, values = read_samples(run / "word_localisation.parquet")
    tables = word_localisation_rows(values["image"], kinds, ids.tolist(), {"task": "caption", "mapper": "b"}, 0)
    assert tables == {name: content[name] for name in tables}
    for row in [row for row in content["rows"] if row["kind"] == "all"]:
        lines = [line for line in out.splitlines() if line.startswith(f"{row['explainer']} ")]
        assert any(f" {row['value']:.3f}" in line for line in lines)
    assert "words of captions of shapes test" in out
    assert max(len(line) for line in out.splitlines() if "/" not in line) <= 100
    counts = {name: content[name] for name in ("pictures", "true", "captions", "words", "left_out")}
    assert counts["pictures"] == TEST_IMAGES
    assert f"{counts['true']} captions are true of their scene" in table
    assert f"{counts['words']} words in all ({counts['left_out']} left out" in table
    every = [row for row in content["rows"] if row["kind"] == "all" and row["explainer"] == "weighted"]
    assert {row["metric"] for row in every} == {"mass_accuracy", "rank_accuracy", "pointing_game"}
    assert {row["words"] for row in every} == {counts["words"] - counts["left_out"]}
    heads = [line for line in table.splitlines() if line.startswith("| explainer")]
    kinds = [kind for kind in ("color", "shape", "size", "position", "all") if f"| {kind} (" in heads[0]]
    assert len(heads) == 2
    assert kinds[-1] == "all"
    assert {row["kind"] for row in content["rows"]} == set(kinds)
    for metric, title in (("mass_accuracy", "mass on the named objects"), ("pointing_game", "pointing game")):
        part = table[table.index(title) :]
        row = next(line for line in part.splitlines() if line.startswith("| genatt"))
        expected = next(
            r for r in content["rows"] if (r["explainer"], r["kind"], r["metric"]) == ("genatt", "all", metric)
        )
        assert row.split(" | ")[-1].startswith(f"{expected['value']:.3f}")
    for name in ("weighted", "uniform", "rollout", "genatt", "deletion", "random", "chance"):
        assert table.count(f"| {name} |") == 2


WRONG = {
    "samples=10": "samples=10: 0 captions are true of their images, and none of them identifies the object it names",
    f"samples={TEST_IMAGES + 1}": f"samples={TEST_IMAGES + 1}: the test split has {TEST_IMAGES} images; give fewer",
    "split=dev": "split=dev: data=shapes has evidence for train, val, test",
    "samples=1": "samples=1 must be 2 or more",
    "data=coco data.root=/none": "data=coco does not say what its answers depend on: give data=shapes",
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_ends_in_one_line(overrides: tuple[str, ...], command: Command, case: str) -> None:
    scenes = ("data.train_scenes", "data.val_scenes", "data.test_scenes", "data.workers")
    kept = [o for o in overrides if "data=coco" not in case or not o.startswith(scenes)]
    status, _, errors = command("evaluate_explanations", *kept, "explainer=uniform", *case.split())
    assert (status, len(errors)) == (1, 1)
    assert WRONG[case] in errors[0]
