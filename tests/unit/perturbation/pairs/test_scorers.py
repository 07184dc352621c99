"""Each kind of model is read as it reads one pair at a time, without this project."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sample_models as models
import torch
from PIL import Image
from sample_models import QUESTION, photo

import perturbation
from clipmapper.api import load_pretrained
from clipmapper.errors import UserError
from perturbation.pairs.reader import PairReader
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.base import PartOfImage
from perturbation.pairs.scorers.choose import scorer_of
from perturbation.pairs.scorers.dual import open_clip_dual
from perturbation.pairs.scorers.generating import GeneratingScorer
from perturbation.pairs.units import Units, cells, words_of
from perturbation.removal.reader import Subsets

pytest.importorskip("transformers")
SCENE = Path(__file__).parents[4] / "docs" / "pictures" / "scene.png"
TEXTS = [QUESTION, "what star", "is the square red ?"]


def pairs() -> list[Pair]:
    return [Pair(k, photo(seed=k), text) for k, text in enumerate(TEXTS)]


def read(scorer: Any, asked: list[Any], say: bool = False) -> Any:
    return scorer.score([pair.image for pair in pairs()], TEXTS, asked, say)


def prompt_of(processor: Any, text: str) -> str:
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
    return str(processor.apply_chat_template(turns, add_generation_prompt=True))


@torch.no_grad()
def one_by_one(model: Any, processor: Any, image: Image.Image, prompt: str, tokens: list[int]) -> tuple[float, str]:
    """Return the probability of an answer, token by token, and the model's own answer, for one pair alone."""
    inputs = dict(processor(images=[image], text=[prompt], add_special_tokens=False, return_tensors="pt"))
    length = inputs["input_ids"].shape[1]
    made = model.generate(**inputs, do_sample=False, max_new_tokens=40)[0, length:].tolist()
    ends = [place for place, token in enumerate(made) if token in processor.tokenizer.all_special_ids]
    probability = 1.0
    for token in tokens:
        probability *= float(model(**inputs, use_cache=False).logits[0, -1].double().softmax(-1)[token])
        for name, value in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.tensor([[value]])], 1)
    return probability, str(processor.tokenizer.decode(made[: (ends or [None])[0]])).strip()


@pytest.mark.parametrize("name", ["llava", "qwen"])
def test_a_language_model(name: str) -> None:
    """Texts of several lengths are read in one batch, with padding on the left."""
    model, processor = getattr(models, name)()
    scorer = scorer_of(model, processor)
    assert isinstance(scorer, GeneratingScorer)
    own = scorer.ask(pairs())
    given = processor.tokenizer(["red star", "blue", "no yes red"], add_special_tokens=False)["input_ids"]
    asked = [replace(each, tokens=tokens) for each, tokens in zip(own, given, strict=True)]
    found = read(scorer, asked, say=True)
    for k, (pair, text) in enumerate(zip(pairs(), TEXTS, strict=True)):
        assert pair.image is not None
        tokens = list(asked[k].tokens)
        value, said = one_by_one(model, processor, pair.image, prompt_of(processor, text), tokens)
        assert found.value[k] == pytest.approx(value, rel=1e-3)
        assert found.said[k] == said
        assert said == processor.tokenizer.decode(own[k].tokens, skip_special_tokens=True).strip()


def test_another_text_stands_in_the_place_of_the_question() -> None:
    """The template says the question's words too, and keeps them."""
    model, processor = models.llava()
    scorer = scorer_of(model, processor)
    asked = [replace(scorer.ask(pairs()[:1])[0], tokens=[11, 9])]  # its own answer has a probability of about 0
    for text in ("what is the star?", ""):
        found = scorer.score([photo()], [text], asked, False).value[0]
        prompt = prompt_of(processor, QUESTION).replace(QUESTION, text)
        expected, _ = one_by_one(model, processor, photo(), prompt, list(asked[0].tokens))
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["clip", "siglip"])
@torch.no_grad()
def test_a_dual_encoder(name: str) -> None:
    model, processor = getattr(models, name)()
    padding = {"padding": "max_length", "max_length": 9} if name == "siglip" else {}
    scorer = scorer_of(model, processor)
    found = read(scorer, scorer.ask(pairs()))
    for k, (pair, text) in enumerate(zip(pairs(), TEXTS, strict=True)):
        made = model(**processor(images=[pair.image], text=[text], return_tensors="pt", **padding))
        expected = torch.nn.functional.cosine_similarity(made.image_embeds, made.text_embeds)
        assert found.value[k] == pytest.approx(float(expected), abs=1e-5)


def test_a_dual_encoder_encodes_what_pairs_share_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = models.clip()
    counts: list[int] = []
    plain = model.get_image_features
    monkeypatch.setattr(model, "get_image_features", lambda **x: (counts.append(len(x["pixel_values"])), plain(**x))[1])
    scorer, image = scorer_of(model, processor), photo()
    scorer.score([image] * 3, TEXTS, [None] * 3, False)
    assert counts == [1]


def encoded(patch: pytest.MonkeyPatch, model: Any, noise: float = 0) -> dict[str, int]:
    """Return the numbers of images and texts that a dual encoder has encoded; add noise to each embedding."""
    counts = {"image": 0, "text": 0}

    def watch(name: str, key: str) -> None:
        plain = getattr(model, f"get_{name}_features")

        def counted(**inputs: Any) -> Any:
            counts[name] += len(inputs[key])
            made = plain(**inputs)
            made.pooler_output = made.pooler_output + noise * torch.randn(made.pooler_output.shape)
            return made

        patch.setattr(model, f"get_{name}_features", counted)

    watch("image", "pixel_values")
    watch("text", "input_ids")
    return counts


def test_a_dual_encoder_encodes_what_is_not_removed_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = models.clip()
    counts = encoded(monkeypatch, model)
    reader = PairReader(scorer_of(model, processor), "mean", "drop", 2, correct=False)
    units = [Units((2, 2), cells((2, 2), (0, 0, 30, 20)), words_of(text), text) for text in TEXTS]
    without = {"image": ~np.eye(4, dtype=np.bool_), "text": ~np.eye(2, 6, dtype=np.bool_)}
    subsets = [Subsets.only(name, np.stack([kept] * 3)) for name, kept in without.items()]  # type: ignore[arg-type]
    samples = reader.samples(pairs(), units, 0)
    kept = [reader.read(samples, each, [None] * 3).responses for each in subsets]
    # 3 × 4 images lack a cell and 3 × 2 texts a word; 3 of both are complete.
    assert counts == {"image": 12 + 3, "text": 6 + 3}

    samples = reader.samples(pairs(), units, 0)
    reader.scorer.keep([])
    for each, expected in zip(subsets, kept, strict=True):
        np.testing.assert_allclose(reader.read(samples, each, [None] * 3).responses, expected, atol=1e-6)
    # Now each batch of two pairs encodes a complete text or image, too: 6 batches lack cells, and 3 words.
    assert counts == {"image": 15 + 12 + 3, "text": 9 + 6 + 6}


def test_what_a_dual_encoder_keeps_is_forgotten_with_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor = models.clip()
    counts = encoded(monkeypatch, model)
    scorer, (first, second, _) = scorer_of(model, processor), pairs()
    for total, pair in enumerate((first, second, first), start=1):
        scorer.keep([pair])
        for _ in range(2):
            scorer.score([pair.image], [pair.text], [None], False)
        assert counts == {"image": total, "text": total}


def test_a_dual_encoder_that_changes_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, processor = models.clip()
    encoded(monkeypatch, model, noise=0.1)
    perturbation.test(model, processor, [(photo(), QUESTION)], explainers={"own": lambda *_: (np.ones((2, 2)), None)})
    assert "the model is not deterministic: its similarity of the same sample differs" in capsys.readouterr().err


@torch.no_grad()
def test_vilt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "multinomial", lambda weights, count, **_: torch.arange(count) % len(weights))
    model, processor = models.vilt()
    scorer = scorer_of(model, processor)
    asked = scorer.ask(pairs())
    found = read(scorer, asked)
    for k, (pair, text) in enumerate(zip(pairs(), TEXTS, strict=True)):
        logits = model(**processor(images=[pair.image], text=[text], return_tensors="pt")).logits[0]
        assert asked[k] == int(logits.argmax())
        assert found.value[k] == pytest.approx(float(logits.sigmoid().max()), abs=1e-5)
        assert found.said[k] == model.config.id2label[asked[k]]


@torch.no_grad()
def test_a_model_of_images_alone() -> None:
    model, processor = models.vit()
    result = perturbation.test(model, processor, [(photo(seed=k), None) for k in range(2)], steps=[0, 0.5, 1])
    full = next(row["probability"][0] for row in result.content["rows"])
    logits = torch.cat([model(**processor(images=[photo(seed=k)], return_tensors="pt")).logits for k in range(2)])
    assert full == pytest.approx(float(logits.softmax(-1).amax(1).mean()), abs=1e-5)
    assert result.values == ["probability"]


@pytest.mark.parametrize("answers", [None, pytest.param(["red"], marks=pytest.mark.slow)])
def test_values_with_and_without_answers_of_people(answers: list[str] | None) -> None:
    model, processor = models.llava()
    given = [(photo(), QUESTION, answers)]
    result = perturbation.test(model, processor, given, steps=[0, 0.5, 1], random_seeds=1, explainers="weighted")
    assert result.values == (["probability"] if answers is None else ["accuracy", "probability"])
    with torch.no_grad():
        expected = GeneratingScorer(model, processor).score(
            [photo()], [QUESTION], GeneratingScorer(model, processor).ask([Pair(0, photo(), QUESTION)]), False
        )
    shown = [row["probability"][0] for row in result.content["rows"]]
    np.testing.assert_allclose(shown, expected.value[0], rtol=1e-4)


@torch.no_grad()
def test_a_clipmapper() -> None:
    model = load_pretrained(task="vqa", mapper="b")
    images, questions = (
        [Image.open(SCENE).convert("RGB")] * 2,
        ["what color is the circle?", "how many stars are there?"],
    )
    result = perturbation.test(model, None, [*zip(images, questions, strict=True)], steps=[0, 1], random_seeds=1)
    logits = model(model.encoder.pixels(images), model.encoder.tokenize(questions))
    shown = [row["probability"][0] for row in result.content["rows"]]
    np.testing.assert_allclose(shown, float(logits.sigmoid().amax(1).mean()), rtol=1e-5)


def test_dropped_patches_do_not_enter_an_open_clip_model() -> None:
    """The reference runs open_clip's own transformer on the embedded tokens that are left."""
    model, processor = models.open_clip()
    preprocess, tokenizer = processor
    image, text = photo(), "a red cat"
    visual = model.visual
    with torch.no_grad():
        pixels = preprocess(image)[None]
        patches = visual.conv1(pixels).flatten(2).mT
        tokens = torch.cat([visual.class_embedding[None, None], patches], 1) + visual.positional_embedding
        words = model.encode_text(tokenizer([text]), normalize=True)
        count = patches.shape[1]
        for kept in (np.arange(count) % 2 == 0, np.zeros(count, np.bool_), np.arange(count) == 3):
            rows = [0, *(1 + np.flatnonzero(kept))]
            left = visual.transformer(visual.ln_pre(tokens[:, rows]))
            embedding = torch.nn.functional.normalize(visual.ln_post(left[:, 0]) @ visual.proj, dim=-1)
            found = open_clip_dual(model, processor).score([PartOfImage(image, kept)], [text], [None], False)
            assert found.value[0] == pytest.approx(float((embedding * words).sum()), abs=1e-5)


@pytest.mark.slow
def test_patches_are_masked_where_the_model_can() -> None:
    options: dict[str, Any] = {"samples": [(photo(), "a red cat")], "random_seeds": 1, "image_removal": "mask"}
    model, processor = models.open_clip()
    masked = perturbation.test(model, processor, **options)
    filled = perturbation.test(model, processor, **{**options, "image_removal": "mean"})
    one, other = masked.records["samples"].to_pylist(), filled.records["samples"].to_pylist()
    assert all(a["similarity"][0] == pytest.approx(b["similarity"][0]) for a, b in zip(one, other, strict=True))
    same = {
        modality: [
            a["similarity"] == pytest.approx(b["similarity"], abs=1e-5)
            for a, b in zip(one, other, strict=True)
            if a["modality"] == modality
        ]
        for modality in ("image", "text")
    }
    assert all(same["text"])
    assert not all(same["image"])
    with pytest.raises(UserError, match="cannot read an image without some of its tokens; choose mean"):
        perturbation.test(*models.clip(), **options)
