"""``explain.explain`` on families that tile, average or query an image, and on models of images or texts alone."""

import numpy as np
import pytest
import sample_models as samples
from sample_families import SAMPLES
from sample_models import QUESTION, photo

import explain
from explain import explainers, targets
from explain.adapters import trace_hugging_face

pytest.importorskip("transformers")
WORDS = ["what", "color", "is", "the", "star", "?"]


def red(processor):
    return targets.answer([processor.tokenizer.convert_tokens_to_ids("red")])


def image_scores(traced):
    return traced.explain(explainers.Weighted())["image"][0].numpy()


@pytest.mark.parametrize("name", ["gemma3", "smolvlm", "instructblip", "llava_onevision"])
def test_a_generated_answer(name):
    model, processor = SAMPLES[name]()
    explained = explain.explain(model, processor, photo(), QUESTION, target="red")
    assert [word for word, _ in explained.words] == WORDS
    assert len({score for _, score in explained.words}) > 3
    scores = image_scores(explained.traced)
    shapes = {"gemma3": (4, 4), "smolvlm": (8, 12), "instructblip": (3, 3), "llava_onevision": (3, 4)}
    assert explained.image.shape == shapes[name]
    if name == "llava_onevision":  # parts of its tiles are padding
        assert 0 < explained.image.sum() <= scores.sum() * (1 + 1e-4)
    else:
        assert explained.image.sum() == pytest.approx(scores.sum(), rel=1e-4)
    with pytest.raises(ValueError, match=r"^no text: "):
        explain.explain(model, processor, photo())


def test_gemma3_is_explained_as_by_its_adapter():
    model, processor = samples.gemma3()
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    inputs = dict(processor(images=[photo()], text=[prompt], add_special_tokens=False, return_tensors="pt"))
    explained = explain.explain(model, processor, photo(), QUESTION, target="red")
    expected = image_scores(trace_hugging_face(model, inputs, red(processor)))
    assert explained.image.ravel() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_instructblip_is_explained_as_by_its_adapter():
    model, processor = samples.instructblip()
    inputs = dict(processor(images=[photo()], text=[QUESTION], return_tensors="pt"))
    explained = explain.explain(model, processor, photo(), QUESTION, target="red")
    expected = image_scores(trace_hugging_face(model, inputs, red(processor)))
    assert explained.image.ravel() == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_siglip2_reads_an_image_in_its_own_shape():
    model, processor = SAMPLES["siglip2"]()
    sizes = {"patch_size": 4, "max_num_patches": 9, "padding": "max_length", "max_length": 9}
    inputs = dict(processor(images=[photo()], text=[QUESTION], return_tensors="pt", **sizes))
    explained = explain.explain(model, processor, photo(), QUESTION)
    assert explained.image.shape == tuple(inputs["spatial_shapes"][0].tolist()) == (2, 3)
    traced = trace_hugging_face(model, inputs)
    expected = image_scores(traced)[: explained.image.size]
    assert explained.image.ravel() == pytest.approx(expected, rel=1e-4, abs=1e-9)
    assert explained.answer.similarity == pytest.approx(float(traced.logits[0, 0]), abs=1e-5)
    assert [word for word, _ in explained.words] == WORDS


def test_dinov2_has_no_words():
    model, processor = samples.dinov2()
    explained = explain.explain(model, processor, photo())
    assert explained.words == []
    expected = image_scores(trace_hugging_face(model, dict(processor(photo(), return_tensors="pt"))))
    assert explained.image.ravel() == pytest.approx(expected, rel=1e-4, abs=1e-9)
    with pytest.raises(ValueError, match="reads images alone"):
        explain.explain(model, processor, photo(), QUESTION)


def test_bert_has_no_image(tmp_path):
    model, words = samples.bert()
    explained = explain.explain(model, words, text="what color is the star", target=("LABEL_1", 2))
    assert [word for word, _ in explained.words] == ["what", "color", "is", "the", "star"]
    assert len(explained.images) == 0
    inputs = dict(words("what color is the star", return_tensors="pt"))
    traced = trace_hugging_face(model, inputs, targets.margin(1, 2), tokenizer=words)
    expected = traced.explain(explainers.Weighted())["text"][0].numpy()
    assert np.asarray([score for _, score in explained.words]) == pytest.approx(expected, rel=1e-4, abs=1e-9)
    for match, given, options in (
        ("reads texts alone", photo(), {"text": "what"}),
        ("no text: BertForSequenceClassification needs", None, {}),
        ("a text of 16 tokens: BertForSequenceClassification reads at most 12", None, {"text": 2 * QUESTION}),
    ):
        with pytest.raises(ValueError, match=match):
            explain.explain(model, words, given, **options)
    assert explained.save(tmp_path / "x.png") == [tmp_path / "x.png"]
