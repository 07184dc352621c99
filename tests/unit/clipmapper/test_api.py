"""``explain.explain`` on a CLIPmapper: the scores are those of a trace; doubtful input gives a warning or an error."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clipmapper.api import load_pretrained
from clipmapper.tasks.caption import explaining
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption
from clipmapper.tasks.caption.sentence import Word
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import explain
from explain.explainers import GenAtt, Shuffled
from explain.targets import margin

SCENE = Path(__file__).parents[3] / "docs" / "pictures" / "scene.png"
QUESTION = "what color is the circle?"


@pytest.fixture(scope="module")
def model() -> CLIPMapperVQA:
    loaded: CLIPMapperVQA = load_pretrained("vqa", "b")
    return loaded


def test_the_scores_are_those_of_the_trace(model: CLIPMapperVQA) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = explain(model, None, SCENE, QUESTION, explainer="genatt")
    pixels, text = model.encoder.pixels([Image.open(SCENE).convert("RGB")]), model.encoder.tokenize([QUESTION])
    with torch.no_grad():
        logits = model(pixels, text)[0]
    traced = trace_vqa(model, pixels, text)
    patches = traced.scores(GenAtt()(traced.trace).row(traced.rows), "image")
    assert found.answer.text == model.answers[int(logits.argmax())]
    assert found.answer.probability == pytest.approx(float(logits.max().sigmoid()), abs=1e-5)
    assert list(found.scores) == ["genatt"]
    assert found.image.ravel() == pytest.approx(patches[0].detach().numpy().astype(float), rel=1e-3, abs=1e-6)
    assert [word for word, _ in found.words] == ["what", "color", "is", "the", "circle", "?"]


def test_the_default_is_weighted_relevance(model: CLIPMapperVQA) -> None:
    content = explain(model, None, str(SCENE), QUESTION).figure_content()
    assert [each.explainer for each in content.explanations] == ["weighted"]
    assert content.question == QUESTION
    assert np.array_equal(content.photos[0].pixels, np.asarray(Image.open(SCENE).convert("RGB")))


def test_an_unfamiliar_question_gives_a_warning(model: CLIPMapperVQA) -> None:
    with pytest.warns(UserWarning, match="no training question contains: zebra"):
        explain(model, None, SCENE, "where is the zebra?")


def test_a_question_that_is_cut_off_gives_a_warning(model: CLIPMapperVQA) -> None:
    with pytest.warns(UserWarning, match="the question is longer than the encoder's 40 tokens: cut off"):
        explain(model, None, SCENE, "is the circle red and " * 12)


def test_the_second_most_probable_answer(model: CLIPMapperVQA) -> None:
    pixels, text = model.encoder.pixels([Image.open(SCENE).convert("RGB")]), model.encoder.tokenize([QUESTION])
    with torch.no_grad():
        shares = model(pixels, text)[0].sigmoid()
    second = explain(model, None, SCENE, QUESTION).runner_up
    assert second is not None
    assert second.text == model.answers[int(shares.argsort(descending=True)[1])]
    assert second.probability == pytest.approx(float(shares.sort(descending=True).values[1]), rel=1e-3)


def test_a_missing_image_is_an_error(model: CLIPMapperVQA, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing\.png: no such image"):
        explain(model, None, tmp_path / "missing.png", QUESTION)


def test_an_explainer_that_needs_other_images_is_an_error(model: CLIPMapperVQA) -> None:
    with pytest.raises(ValueError, match="explainer shuffled needs samples of other images"):
        explain(model, None, SCENE, QUESTION, explainer={"shuffled": Shuffled()})


def test_explain_takes_a_target(model: CLIPMapperVQA) -> None:
    pixels, text = model.encoder.pixels([Image.open(SCENE).convert("RGB")]), model.encoder.tokenize([QUESTION])
    red, blue = model.answers.index("red"), model.answers.index("blue")
    traced = trace_vqa(model, pixels, text, margin(red, blue))
    patches = traced.scores(GenAtt()(traced.trace).row(traced.rows), "image")[0]
    explained = explain(model, None, SCENE, QUESTION, explainer="genatt", target=("red", "blue"))
    assert explained.image.ravel() == pytest.approx(patches.numpy().astype(float), rel=1e-4)
    assert explained.figure_content().caption == "explained: red rather than blue"
    with pytest.raises(ValueError, match="target='zebra' is not one of the model's"):
        explain(model, None, SCENE, QUESTION, target="zebra")


@pytest.mark.parametrize(("images", "words"), [([], QUESTION), ([SCENE, SCENE], QUESTION), (SCENE, None)])
def test_explain_needs_one_image_and_a_question(
    model: CLIPMapperVQA, images: Path | list[Path], words: str | None
) -> None:
    with pytest.raises(ValueError, match=r"CLIPMapperVQA needs (one|a question)"):
        explain(model, None, images, words)


def test_options_that_do_not_fit_an_answer_are_refused(model: CLIPMapperVQA) -> None:
    with pytest.raises(ValueError, match="context: CLIPMapperVQA generates no text"):
        explain(model, None, SCENE, QUESTION, context=True)
    with pytest.raises(ValueError, match="layers: CLIPMapperVQA always records all of its layers"):
        explain(model, None, SCENE, QUESTION, layers=[0])


@pytest.fixture(scope="module")
def captioner() -> CLIPMapperCaption:
    loaded: CLIPMapperCaption = load_pretrained("caption", "b")
    return loaded


def own_caption(model: CLIPMapperCaption) -> tuple[torch.Tensor, list[int], list[str]]:
    """Return the pixels of the scene, and the caption in tokens and in words, all of which have one token."""
    pixels = model.encoder.pixels([Image.open(SCENE).convert("RGB")])
    (ids,) = greedy(model, model.encoder.vision(pixels), 39)
    words = [model.vocabulary.text([number]) for number in ids]
    assert len(words) > 5
    return pixels, ids, words


def test_a_word_of_a_caption_is_explained(captioner: CLIPMapperCaption) -> None:
    pixels, ids, words = own_caption(captioner)
    traced = trace_captions(captioner, pixels, [ids])
    place = words.index("circle")
    scores = GenAtt()(traced.trace, traced.rows)
    explained = explain(captioner, image=SCENE, target="circle", explainer="genatt", context=True)
    assert explained.answer.text == " ".join(words)
    assert explained.image.ravel() == pytest.approx(traced.scores(scores, "image")[place].numpy(), rel=1e-4, abs=1e-7)
    assert [word for word, _ in explained.words] == words[:place]
    first = traced.trace.span("text").start + 1
    expected = scores[place, first : first + place].numpy()
    assert [score for _, score in explained.words] == pytest.approx(expected, rel=1e-4, abs=1e-7)
    share = traced.logits[place].softmax(-1)[int(captioner.vocabulary.classes(np.array(ids))[place])]
    assert explained.explained.probability == pytest.approx(float(share), rel=1e-5)
    assert explained.figure_content().caption == "explained: circle"
    without = explain(captioner, image=SCENE, target=place, explainer="genatt")
    assert (without.words, without.image.tolist()) == ([], explained.image.tolist())


def test_the_last_word_is_explained_by_default(captioner: CLIPMapperCaption) -> None:
    _, _, words = own_caption(captioner)
    explained = explain(captioner, image=SCENE)
    assert explained.explained.text == words[-1]
    assert explained.image == pytest.approx(explain(captioner, image=SCENE, target=len(words) - 1).image)


def test_a_word_rather_than_another(captioner: CLIPMapperCaption) -> None:
    pixels, ids, words = own_caption(captioner)
    square = captioner.vocabulary.classes(np.array(captioner.encoder.tokenizer.encode("square")))[0]
    traced = trace_captions(captioner, pixels, [ids], against=int(square))
    explained = explain(captioner, image=SCENE, target=("circle", "square"), explainer="genatt")
    patches = traced.scores(GenAtt()(traced.trace, traced.rows), "image")[words.index("circle")]
    assert explained.image.ravel() == pytest.approx(patches.numpy(), rel=1e-4, abs=1e-7)
    assert explained.figure_content().caption == "explained: circle rather than square"


def test_the_scores_of_a_word_are_the_means_of_its_sub_words(
    captioner: CLIPMapperCaption, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, ids, words = own_caption(captioner)
    joined = [Word(words[0], 1), Word("two", 2), *(Word(word, 1) for word in words[3:])]
    monkeypatch.setattr(explaining, "split_words", lambda *_: joined)
    traced = trace_captions(captioner, pixels, [ids])
    scores = traced.scores(GenAtt()(traced.trace, traced.rows), "image")[1:3].mean(0)
    explained = explain(captioner, image=SCENE, target="two", explainer="genatt")
    assert explained.image.ravel() == pytest.approx(scores.numpy(), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "what?"}, r"text='what\?': CLIPMapperCaption writes a text itself"),
        ({"target": "zebra"}, "target='zebra' is not a word of the caption: a "),
        ({"target": 99}, "target=99 is not a word of the caption"),
        ({"target": ("circle", "zebra")}, "target: zebra is not a word that the model can generate"),
        ({"layers": [0]}, "layers: CLIPMapperCaption always records all of its layers"),
    ],
)
def test_captions_refuse_in_one_line(captioner: CLIPMapperCaption, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        explain(captioner, image=SCENE, **options)
    assert "\n" not in str(caught.value)
