"""Bad input is one clear line."""

import pytest
import sample_models as samples
import torch
from hugging_face_models import MODELS
from sample_models import QUESTION, photo

import explain
from explain import TraceError
from explain.explainers import Shuffled, Weighted

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def llava():
    return samples.llava()


def refused(match, *given, error=ValueError, **options):
    with pytest.raises(error, match=match) as caught:
        explain.explain(*given, **options)
    assert "\n" not in str(caught.value)


def test_images(llava, tmp_path):
    refused("no image: LlavaForConditionalGeneration needs one", *llava, None, QUESTION)
    refused(r"missing\.png: no such image", *llava, tmp_path / "missing.png", QUESTION)
    (tmp_path / "text.png").write_text("no image")
    refused(r"text\.png: cannot be read as an image", *llava, tmp_path / "text.png", QUESTION)
    refused("image is a int: give a file or a PIL image", *llava, [3], QUESTION)
    for name in ("clip", "vilt", "llava_next"):
        refused("2 images: .* takes one", *getattr(samples, name)(), [photo(), photo()], QUESTION)
    refused("2 images: .* needs one", torch.nn.Linear(1, 1), (str, str), [photo(), photo()], QUESTION)


def test_texts(llava):
    refused("no text: LlavaForConditionalGeneration needs a question", *llava, photo())
    refused("no text", *llava, photo(), "  ")
    refused("reads images alone", *samples.vit(), photo(), QUESTION)
    refused("the text has 2 placeholders <image> for 1 images", *llava, photo(), "<image> <image> what?")


def test_processors(llava):
    model, processor = llava
    clip, _ = samples.clip()
    refused("processor is None: give that of the model", model, None, photo(), QUESTION)
    refused("processor .*Tokenizer.* does not fit a CLIPModel", clip, processor.tokenizer, photo(), QUESTION)
    refused("without a tokenizer: give the model's processor", model, processor.image_processor, photo(), QUESTION)
    refused(r"is the pair \(preprocess, tokenizer\)", torch.nn.Linear(1, 1), (1, 2), photo(), QUESTION)
    refused("is no model of transformers", torch.nn.Linear(1, 1), processor, photo(), QUESTION)
    large, _ = samples.clip()
    large.config.text_config.vocab_size = 10
    refused("token 28 of 10 tokens", large, samples.clip()[1], photo(), QUESTION)


def test_models_that_are_only_traced(llava):
    for name in ("visual_bert", "blip_vqa", "blip_caption"):
        model, _ = MODELS[name]()
        refused("is not explained here: use explain.adapters.trace_hugging_face", model, llava[1], photo(), QUESTION)


def test_a_number_of_image_tokens_that_does_not_match():
    model, processor = samples.llava()
    processor.num_additional_image_tokens = 3
    refused("refuses what the processor gave: .*[Ii]mage", model, processor, photo(), QUESTION, target="red")


def test_a_name_without_a_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("cannot load 'some/model': it is no folder", "some/model", None, photo(), QUESTION)


def test_explainers(llava):
    refused("explainer='wieghted' is unknown: choose one of", *llava, photo(), QUESTION, explainer="wieghted")
    refused("Shuffled|shuffled needs samples of other images", *llava, photo(), QUESTION, explainer=Shuffled())
    refused("name at least one", *llava, photo(), QUESTION, explainer=[])
    refused("explainers: int is a int; give names or", *llava, photo(), QUESTION, explainer=5)
    refused("explainers: mine is a list; give names or", *llava, photo(), QUESTION, explainer={"mine": [0.5]})
    refused("two have the name weighted", *llava, photo(), QUESTION, explainer=[Weighted(), "weighted"])


def test_an_explainer_that_needs_an_lrp_rule_names_the_operation(llava, monkeypatch):
    from explain.lrp import mode

    monkeypatch.setattr(mode, "HANDLERS", {name: rule for name, rule in mode.HANDLERS.items() if name != "softmax"})
    match = r"trans_att cannot explain a Llava.*: LRP has no rule for .*softmax.*; explainers such as weighted"
    refused(match, *llava, photo(), QUESTION, explainer=["weighted", "trans_att"], error=TraceError)


@pytest.mark.parametrize("target", ["LABEL_9", 9, -1, ("LABEL_1", "LABEL_9")])
def test_classes(target):
    refused(r"target=.* is not one of the model's 4 classes", *samples.vit(), photo(), target=target)


def test_targets(llava):
    refused("the only output of a dual encoder is the similarity", *samples.clip(), photo(), QUESTION, target="red")
    refused("begin with the same token", *llava, photo(), QUESTION, target=("red", "red blue"))
    refused("target='' has no tokens", *llava, photo(), QUESTION, target="")
    refused("target=999 is not one of", *llava, photo(), QUESTION, target=999)


def test_options_of_other_models():
    refused("word=0: CLIPModel generates no text", *samples.clip(), photo(), QUESTION, word=0)
    refused("context: CLIPModel generates no text", *samples.clip(), photo(), QUESTION, context=True)
    refused("context: ViTForImageClassification generates no text", *samples.vit(), photo(), context=True)
    refused("context: Linear generates no text", torch.nn.Linear(1, 1), (str, str), photo(), QUESTION, context=True)
