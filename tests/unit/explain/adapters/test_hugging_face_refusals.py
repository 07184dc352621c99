"""Models and inputs that cannot be traced: one clear line each, and nothing is left on the model."""

import pytest
import torch
from adapter_checks import breaking, state
from hugging_face_models import IMAGE, MODELS, llava, pixels, qwen, texts, visual_bert, vit

from explain import TraceError, active_recorder, explainers, targets
from explain.adapters import trace_hugging_face

transformers = pytest.importorskip("transformers")


def refused(model, inputs, message, error=TraceError, **options):
    """Check the error's line, and that the model and the library are as before."""
    from transformers import AttentionInterface, AttentionMaskInterface

    kinds = (AttentionInterface, AttentionMaskInterface)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()

    def everything():
        return (
            state(model),
            [config._attn_implementation_internal for config in configs],
            [dict(kind._global_mapping) for kind in kinds],
        )

    before = everything()
    with pytest.raises(error, match=message) as raised:
        trace_hugging_face(model, inputs, **options)
    assert "\n" not in str(raised.value)
    assert everything() == before
    assert active_recorder() is None


def training(model):
    model.train()


def flash(model):
    model.config.text_config._attn_implementation_internal = "flash_attention_2"


def quantised(model):
    model.hf_quantizer = object()


def also_quantised(model):
    model.is_quantized = True


def sharded(model):
    model.hf_device_map = {"model.vision_tower": 0, "model.language_model": 1}


def compiled(model):
    model.compile()


def checkpointed(model):
    model.gradient_checkpointing_enable()
    model.eval()


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (training, r"LlavaForConditionalGeneration is in training mode: call eval\(\)"),
        (flash, "LlavaForConditionalGeneration uses flash attention: load it with attn_implementation='sdpa'"),
        (quantised, "LlavaForConditionalGeneration is quantised.*load it without quantization_config"),
        (also_quantised, "LlavaForConditionalGeneration is quantised"),
        (sharded, "LlavaForConditionalGeneration is sharded over several devices: load it on one"),
        (compiled, "LlavaForConditionalGeneration is compiled: trace the model from before torch.compile"),
        (checkpointed, r"checkpoints its gradients: call gradient_checkpointing_disable\(\)"),
    ],
)
def test_models_in_other_modes_are_refused(mark, message):
    model, inputs = llava()
    mark(model)
    refused(model, inputs, message)


def test_a_compiled_wrapper_is_refused():
    model, inputs = llava()
    with pytest.raises(TraceError, match="is compiled: trace the model from before"):
        trace_hugging_face(torch.compile(model), inputs)


def test_one_device_is_not_sharded():
    model, inputs = llava()
    model.hf_device_map = {"": "cpu"}
    trace_hugging_face(model, inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"past_key_values": object()}, r"inputs have a cache \(past_key_values\).*: leave it out"),
        ({"pixel_values": None}, "inputs have no pixel_values: the text has image tokens, so the model needs an image"),
        (
            {"pixel_values": None, **texts([1, 5, 6], [1, 7, 8, 9])},
            "inputs have no pixel_values and no image tokens: a text alone is not explained here",
        ),
        ({"input_ids": None}, "inputs have no input_ids: the model needs a text with an image token for each image"),
        (texts([1, 5, 6], [1, *[IMAGE] * 9, 8]), "the text of sample 0 has no image token: apply the processor's chat"),
        (texts([1, *[IMAGE] * 8, 6], [1, *[IMAGE] * 9, 8]), r"\[8, 9\] image tokens, but 2 images need 9 each"),
        ({"pixel_values": pixels(3)}, r"\[9, 9\] image tokens, but 3 images need 9 each"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(changes, message):
    model, inputs = llava()
    refused(model, {**inputs, **changes}, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixel_values_videos": torch.zeros(1)}, "inputs have a video .*: only images can be traced"),
        ({"image_grid_thw": None}, "inputs have no image_grid_thw: the processor returns it with each image"),
        ({"image_grid_thw": torch.tensor([[1, 4, 4]])}, r"\[4, 6\] image tokens, but the images need \[4\]"),
        (texts([1, *[IMAGE] * 5, 6], [1, *[IMAGE] * 6, 8]), r"\[5, 6\] image tokens, but the images need \[4, 6\]"),
    ],
)
def test_packed_inputs_that_do_not_fit_are_refused(changes, message):
    model, inputs = qwen(2)
    refused(model, {**inputs, **changes}, message)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("clip", {"pixel_values": None}, "inputs have no pixel_values: the model needs an image"),
        ("clip", {"input_ids": None}, "inputs have no input_ids: the model needs a text"),
        ("clip", {"pixel_values": pixels(3)}, "3 images and 2 texts: each image needs its text"),
        ("vit", {"pixel_values": None}, "inputs have no pixel_values: the model needs an image"),
        ("bert", {"input_ids": None}, "inputs have no input_ids: the model needs a text"),
    ],
)
def test_missing_inputs_of_encoders_are_refused(name, changes, message):
    model, inputs = MODELS[name]()
    refused(model, {**inputs, **changes}, message)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("blip_matching", {"pixel_values": None}, "inputs have no pixel_values: the model needs an image"),
        ("blip_vqa", {"input_ids": None}, "inputs have no input_ids: the model needs a text"),
        ("blip_caption", {"pixel_values": pixels(3)}, "3 images and 2 texts: each image needs its text"),
        (
            "blip_matching",
            {"use_itm_head": False},
            "use_itm_head=False compares each image with each text: leave it out",
        ),
        ("flava", {"pixel_values": None}, "inputs have no pixel_values: the model needs an image"),
        (
            "flava",
            {"bool_masked_pos": torch.zeros(2, 9)},
            "inputs have bool_masked_pos, which is of pretraining: leave it",
        ),
        ("flava", {"pixel_values": pixels(3)}, "3 images and 2 texts: each image needs its text"),
        (
            "visual_bert",
            {"visual_embeds": None},
            "inputs have no visual_embeds: the model reads features of an image's",
        ),
        ("visual_bert", {"visual_embeds": torch.zeros(3, 5, 6)}, "3 images and 2 texts: each image needs its text"),
        (
            "visual_bert",
            {"boxes": torch.zeros(2, 4, 4)},
            r"boxes: expected one for each region, \[2, 5, 4\], got \[2, 4, 4",
        ),
    ],
)
def test_inputs_of_models_off_the_interface_that_do_not_fit_are_refused(name, changes, message):
    model, inputs = MODELS[name]()
    refused(model, {**inputs, **changes}, message)


def test_models_without_such_logits_are_refused():
    model, inputs = MODELS["flava"]()
    refused(model.flava, inputs, "FlavaModel has no logits to explain: load FlavaForPreTraining")
    model, inputs = MODELS["blip_matching"]()
    refused(
        transformers.BlipModel(model.config).eval(), inputs, "BlipModel has no logits to explain: load BlipForImageText"
    )
    model, inputs = visual_bert(kind="VisualBertForPreTraining")
    refused(
        model, inputs, "VisualBertForPreTraining has no logits of answers: load VisualBertForQuestionAnswering or Vis"
    )
    model, inputs = visual_bert()
    model.config.bypass_transformer = True
    refused(model, inputs, r"regions bypass its encoder \(bypass_transformer\): such a model has no trace")
    for name in ("blip_matching", "flava", "visual_bert", "chinese_clip"):
        refused(*MODELS[name](), "generates no text: an answer needs a language model", target=targets.answer([3]))


def test_unknown_families_and_models_without_classes_are_refused():
    config = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    refused(transformers.ViTModel(config).eval(), {"pixel_values": pixels()}, "ViTModel has no logits of classes")
    config = transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=9)
    model = transformers.GPT2LMHeadModel(config).eval()
    refused(model, {}, "GPT2LMHeadModel: no adapter for model_type 'gpt2'; choose bert, ")
    with pytest.raises(TraceError, match="Linear: no adapter for model_type None"):
        trace_hugging_face(torch.nn.Linear(2, 2).eval(), {})


def test_wrong_options_are_refused():
    model, inputs = vit()
    refused(model, inputs, "merge='mean': choose one of uniform, importance", ValueError, merge="mean")
    refused(model, inputs, r"layers: image has no block 7; choose from 0 to 2", layers=[7])
    refused(model, inputs, r"layers: unknown stack 'sound'", layers={"sound": [1]})


def test_feature_layers_that_are_joined_are_refused():
    model, inputs = llava()
    model.config.vision_feature_layer = [-2, -1]
    refused(model, inputs, r"vision_feature_layer=\[-2, -1\]: hidden states of several layers cannot be traced")


def test_layers_above_the_feature_layer_are_not_recorded():
    """They cannot affect the answer, so no explainer may read them."""
    for layer, count in ((-1, 3), (-2, 2), (1, 1), (-3, 1)):
        model, inputs = llava(vision_feature_layer=layer)
        trace = trace_hugging_face(model, inputs).trace
        steps = [step for step in trace.attention_steps if step.query == "image"]
        assert len(steps) == count
        assert bool(steps[-1].attention_grad.any())


def test_logits_that_differ_from_the_untouched_model_are_refused(monkeypatch):
    from transformers.models.vit import modeling_vit

    model, inputs = vit()  # uses PyTorch's fused attention, which this change does not reach
    eager = modeling_vit.eager_attention_forward

    def wrong(*args, **options):
        output, attention = eager(*args, **options)
        return 1.5 * output, attention

    monkeypatch.setattr(modeling_vit, "eager_attention_forward", wrong)
    refused(model, inputs, r"traced logits differ from the untouched model's by .* tolerance 0\.001\).*raise tolerance")
    trace_hugging_face(model, inputs, tolerance=10)


def test_a_block_without_attention_maps_is_refused_by_name(monkeypatch):
    from transformers.models.vit import modeling_vit

    model, inputs = vit()
    monkeypatch.setattr(
        modeling_vit.ViTAttention, "forward", lambda self, hidden_states, *_, **__: (0.5 * hidden_states, None)
    )
    refused(model, inputs, r"vit\.layers\.0 \(ViTLayer\) ran without showing its attention: only eager")


def test_nothing_is_left_if_the_model_breaks():
    model, inputs = llava()
    trace_hugging_face(model, inputs)
    before = state(model)
    with breaking(model.model.multi_modal_projector), pytest.raises(RuntimeError, match="broken"):
        trace_hugging_face(model, inputs, tolerance=float("inf"))
    assert state(model) == before
    assert explainers.Weighted()(trace_hugging_face(model, inputs).trace).matrix.isfinite().all()
