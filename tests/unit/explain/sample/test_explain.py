"""``explain.explain`` gives what an adapter and an explainer give, on the user's own words and the photo's grid."""

import numpy as np
import pytest
import sample_models as samples
import torch
from PIL import Image
from sample_models import QUESTION, photo

import explain
from explain import explainers, targets
from explain.adapters import trace_hugging_face, trace_vilt

transformers = pytest.importorskip("transformers")
WORDS = ["what", "color", "is", "the", "star", "?"]


def processed(processor, **options):
    return dict(processor(images=[photo()], text=[QUESTION], return_tensors="pt", **options))


def templated(processor):
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    return dict(processor(images=[photo()], text=[prompt], add_special_tokens=False, return_tensors="pt"))


def long_way(traced, words):
    """Return the map of the patches and the words' scores; ``words`` are positions among the text tokens."""
    first = traced.trace.span("text").start
    image = traced.scores(explainers.Weighted()(traced.trace, traced.rows), "image")[0]
    text = explainers.Weighted()(traced.trace, traced.readout.get("text", traced.rows))[0]
    return image, torch.stack([text[first + place] for place in words])


def check(explained, traced, words, shape):
    image, scores = long_way(traced, words)
    assert [word for word, _ in explained.words] == WORDS
    assert np.asarray([score for _, score in explained.words]) == pytest.approx(scores.numpy(), rel=1e-4, abs=1e-9)
    assert explained.image.shape == shape
    assert explained.image.ravel() == pytest.approx(image.numpy(), rel=1e-4, abs=1e-9)
    assert scores.unique().numel() > 3


@pytest.mark.parametrize(("name", "shape", "before"), [("llava", (3, 3), 13), ("qwen", (4, 8), 15)])
def test_a_model_with_a_chat_template(name, shape, before):
    """The template has 13 text tokens before the question: <s>, eleven words, USER and a colon, or two more marks."""
    model, processor = getattr(samples, name)()
    explained = explain.explain(model, processor, photo(), QUESTION, target="red")
    inputs = templated(processor)
    red = processor.tokenizer.convert_tokens_to_ids("red")
    traced = trace_hugging_face(model, inputs, targets.answer([red]))
    text = inputs["input_ids"][0][inputs["input_ids"][0] != model.config.image_token_id].tolist()
    asked = processor.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    starts = [k for k in range(len(text)) if text[k : k + len(asked)] == asked]
    assert len(starts) == 1
    assert starts[0] >= before - 2
    check(explained, traced, range(starts[0], starts[0] + len(asked)), shape)
    with torch.no_grad():
        share = model(**inputs).logits[0, -1].softmax(-1)[red]
    assert explained.explained.text == "red"
    assert explained.explained.probability == pytest.approx(float(share), rel=1e-3)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_dual_encoder(name):
    model, processor = getattr(samples, name)()
    padding = {"padding": "max_length", "max_length": 9} if name == "siglip" else {}
    inputs = processed(processor, **padding)
    traced = trace_hugging_face(model, inputs)
    explained = explain.explain(model, processor, photo(), QUESTION)
    check(explained, traced, range(1, 7) if name == "clip" else range(6), (3, 3))
    assert explained.answer.similarity == pytest.approx(float(traced.logits[0, 0]), abs=1e-5)
    assert explained.answer.probability is None


@pytest.mark.usefixtures("_patches_in_order")
def test_vilt():
    model, processor = samples.vilt()
    inputs = processed(processor)
    explained = explain.explain(model, processor, photo(), QUESTION, target="LABEL_2")
    traced = trace_vilt(model, inputs, targets.given(2), tokenizer=processor.tokenizer)
    scores = traced.explain(explainers.Weighted())
    assert explained.image.ravel() == pytest.approx(scores["image"][0].numpy(), rel=1e-4)
    assert [word for word, _ in explained.words] == WORDS  # "star" has two pieces
    assert [score for _, score in explained.words] == pytest.approx(scores["text"][0].tolist(), rel=1e-4)
    assert explained.answer.text == f"LABEL_{int(traced.answers[0])}"
    assert explained.explained == explain.explain(model, processor, photo(), QUESTION, target=2).explained
    assert explained.explained.probability == pytest.approx(float(traced.logits[0, 2].sigmoid()), rel=1e-4)


@pytest.mark.parametrize("kind", ["blip", "flava", "chinese_clip"])
def test_models_that_match_an_image_and_a_text(kind):
    model, processor = samples.matching(kind)
    inputs = processed(processor)
    explained = explain.explain(model, processor, photo(), QUESTION)
    traced = trace_hugging_face(model, inputs, tokenizer=processor.tokenizer)
    scores = traced.explain(explainers.Weighted())
    assert explained.image.shape == (3, 3)
    assert explained.image.ravel() == pytest.approx(scores["image"][0].numpy(), rel=1e-4)
    assert [word for word, _ in explained.words] == WORDS  # "star" has two pieces
    assert [score for _, score in explained.words] == pytest.approx(scores["text"][0].tolist(), rel=1e-4)
    if kind == "chinese_clip":
        assert explained.answer.similarity == pytest.approx(float(traced.logits[0, 0]), abs=1e-5)
        return
    with torch.no_grad():
        output = model(**inputs)
    shares = output["itm_score" if kind == "blip" else "itm_logits"][0].softmax(-1)
    answers = [explain.explain(model, processor, photo(), QUESTION, target=each) for each in ("no match", "match")]
    assert [each.explained.probability for each in answers] == pytest.approx(shares.tolist(), rel=1e-4)
    assert explained.answer.text == ["no match", "match"][int(shares.argmax())]


def test_a_processor_that_puts_the_placeholders_itself():
    model, processor = samples.blip2()
    explained = explain.explain(model, processor, photo(), QUESTION, target="red")
    red = processor.tokenizer.convert_tokens_to_ids("red")
    check(explained, trace_hugging_face(model, processed(processor), targets.answer([red])), range(6), (3, 3))


def test_an_image_classifier_has_no_words():
    model, processor = samples.vit()
    explained = explain.explain(model, processor, photo())
    with torch.no_grad():
        shares = model(**processor(photo(), return_tensors="pt")).logits[0].softmax(-1)
    assert explained.words == []
    assert explained.image.shape == (3, 3)
    assert explained.answer.probability == pytest.approx(float(shares.max()), rel=1e-4)


def test_an_open_clip_model():
    pytest.importorskip("open_clip")
    from explain.adapters import trace_open_clip

    model, (preprocess, tokenizer) = samples.open_clip()
    explained = explain.explain(model, (preprocess, tokenizer), photo(), QUESTION)
    traced = trace_open_clip(model, preprocess(photo())[None], tokenizer([QUESTION]))
    check(explained, traced, range(1, 7), (3, 3))
    assert explained.sample.seen == [(5, 0, 25, 20)]  # the middle of 30 × 20 pixels


def test_a_generated_answer_is_explained_by_default():
    model, processor = samples.llava()
    inputs = templated(processor)
    with torch.no_grad():
        made = model.generate(**inputs, do_sample=False, max_new_tokens=40)[0, inputs["input_ids"].shape[1] :]
    explained = explain.explain(model, processor, photo(), QUESTION)
    assert explained.answer.text == processor.tokenizer.decode(made, skip_special_tokens=True).strip()
    again = explain.explain(model, processor, photo(), QUESTION, target=explained.answer.text)
    assert again.image == pytest.approx(explained.image)
    assert again.explained.probability == pytest.approx(explained.answer.probability, rel=1e-3)


def test_the_second_most_probable_answer():
    llava, processor = samples.llava()
    with torch.no_grad():
        shares = llava(**templated(processor)).logits[0, -1].softmax(-1)
    second = explain.explain(llava, processor, photo(), QUESTION).runner_up
    assert second.probability == pytest.approx(float(shares.sort(descending=True).values[1]), rel=1e-3)
    assert second.text == processor.tokenizer.decode(shares.argsort(descending=True)[1])
    vilt, processor = samples.vilt()
    explained = explain.explain(vilt, processor, photo(), QUESTION, target="LABEL_2")
    shares = explained.traced.logits[0].sigmoid()
    assert explained.runner_up.text == f"LABEL_{int(shares.argsort(descending=True)[1])}"
    assert explained.runner_up.probability == pytest.approx(float(shares.sort(descending=True).values[1]))
    assert explain.explain(*samples.clip(), photo(), QUESTION).runner_up is None


def test_a_contrast():
    model, processor = samples.llava()
    explained = explain.explain(model, processor, photo(), QUESTION, target=("red", "blue"))
    red, blue = processor.tokenizer.convert_tokens_to_ids(["red", "blue"])
    traced = trace_hugging_face(model, templated(processor), targets.contrast([red], [blue]))
    image, _ = long_way(traced, [0])
    assert explained.image.ravel() == pytest.approx(image.numpy(), rel=1e-4)
    assert (explained.explained.text, explained.sample.over.text) == ("red", "blue")


def test_several_explainers_share_one_trace(monkeypatch):
    from explain.sample import generated

    model, processor = samples.llava()
    passes = []
    traces = []
    trace = generated.trace_hugging_face
    monkeypatch.setattr(generated, "trace_hugging_face", lambda *a, **k: traces.append(trace(*a, **k)) or traces[-1])
    model.register_forward_hook(lambda *_: passes.append(1))
    alone = explain.explain(model, processor, photo(), QUESTION, explainer="weighted")
    count, passes[:] = len(passes), []
    both = explain.explain(model, processor, photo(), QUESTION, explainer=["weighted", explainers.Rollout()])
    assert len(passes) == count
    assert len(traces) == 2
    assert both.trace is traces[-1].trace
    assert np.array_equal(both.image, alone.image)
    rollout = explain.explain(model, processor, photo(), QUESTION, explainer="rollout")
    assert both["rollout"].image == pytest.approx(rollout.image, rel=1e-4)
    assert not np.allclose(both["rollout"].image, both.image)
    with pytest.raises(KeyError, match="choose one of weighted, rollout"):
        both["genatt"]


def test_only_what_the_explainers_read_is_recorded():
    model, processor = samples.llava()
    explained = explain.explain(model, processor, photo(), QUESTION, explainer="rollout")
    assert all(step.attention_grad is None for step in explained.trace.attention_steps)
    assert explained.interaction is None


def test_layers_are_chosen():
    model, processor = samples.llava()
    explained = explain.explain(model, processor, photo(), QUESTION, layers={"image": [], "text": [2]})
    assert len(explained.trace.steps) < len(explain.explain(model, processor, photo(), QUESTION).trace.steps)


def test_several_images_have_one_map_each():
    model, processor = samples.llava()
    explained = explain.explain(model, processor, [photo(), photo((40, 40), seed=1)], QUESTION, target="red")
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    images = [photo(), photo((40, 40), seed=1)]
    inputs = dict(processor(images=images, text=[prompt], add_special_tokens=False, return_tensors="pt"))
    traced = trace_hugging_face(model, inputs, targets.answer([processor.tokenizer.convert_tokens_to_ids("red")]))
    image, _ = long_way(traced, [0])
    assert np.stack(explained.images).ravel() == pytest.approx(image.numpy(), rel=1e-4)
    with pytest.raises(ValueError, match=r"2 images: use e\.images"):
        explained.image  # noqa: B018
    assert [word for word, _ in explained.words] == WORDS


def test_earlier_words_of_the_answer_on_request():
    model, processor = samples.llava()
    without = explain.explain(model, processor, photo(), QUESTION, target="red blue yes")
    explained = explain.explain(model, processor, photo(), QUESTION, target="red blue yes", context=True)
    assert explained.words[:6] == without.words
    assert "".join(word for word, _ in explained.words[6:]).replace(" ", "") == "redblue"
    ids = processor.tokenizer("red blue yes", add_special_tokens=False)["input_ids"]
    traced = trace_hugging_face(model, templated(processor), targets.answer(ids))
    row = explainers.Weighted()(traced.trace, traced.rows)[0]
    stop = traced.trace.span("text").stop
    assert sum(score for _, score in explained.words[6:]) == pytest.approx(float(row[stop - 3 : stop - 1].sum()))


@pytest.mark.parametrize("word", ["blue", 1])
def test_one_word_of_a_text(word):
    model, processor = samples.llava()
    options = {"target": "red blue yes", "word": word, "context": True}
    explained = explain.explain(model, processor, photo(), QUESTION, **options)
    ids = processor.tokenizer("red blue yes", add_special_tokens=False)["input_ids"]
    assert len(ids) == 3
    traced = trace_hugging_face(model, templated(processor), targets.answer(ids, span=(1, 2)))
    row = explainers.Weighted()(traced.trace, traced.rows)[0]
    assert explained.image.ravel() == pytest.approx(traced.scores(row[None], "image")[0].numpy(), rel=1e-4)
    assert [word for word, _ in explained.words[6:]] == ["red"]
    stop = traced.trace.span("text").stop
    assert explained.words[6][1] == pytest.approx(float(row[stop - 3]))
    assert explained.explained.text == "blue"
    inputs = dict(templated(processor))
    inputs |= {
        name: torch.cat([inputs[name], torch.tensor([[value]])], 1)
        for name, value in (("input_ids", ids[0]), ("attention_mask", 1))
    }
    share = model(**inputs).logits[0, -1].softmax(-1)[ids[1]]
    assert explained.explained.probability == pytest.approx(float(share), rel=1e-3)
    assert explained.answer.text != "blue"


def test_a_word_that_the_text_does_not_have():
    model, processor = samples.llava()
    for word in ("green", 3, -1):
        with pytest.raises(ValueError, match=rf"^word={word!r} is not a word of the text: red blue yes$"):
            explain.explain(model, processor, photo(), QUESTION, target="red blue yes", word=word)
    with pytest.raises(ValueError, match=r"^word='red': target is a pair"):
        explain.explain(model, processor, photo(), QUESTION, target=("red", "blue"), word="red")


def test_words_are_those_of_the_user_as_written(tmp_path):
    photo().save(tmp_path / "photo.png")
    model, processor = samples.llava()
    words = explain.explain(model, processor, tmp_path / "photo.png", "  Is <image the red? ").words
    assert [word for word, _ in words] == ["Is", "<", "image", "the", "red", "?"]
    grey = Image.open(tmp_path / "photo.png").convert("L")
    assert explain.explain(model, processor, grey, QUESTION).image.shape == (3, 3)
