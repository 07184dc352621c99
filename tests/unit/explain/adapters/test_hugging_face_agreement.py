"""Comparison with the same weights in another library, and with planted patches that must get the relevance."""

import sys
from contextlib import ExitStack, contextmanager

import pytest
import torch
from adapter_models import TEXTS, images, tiny_clip
from explain_table import EXPLAINERS
from hugging_face_models import IMAGE, MODELS, pixels, qwen
from torch.overrides import TorchFunctionMode

from explain import Needs, explainers, targets
from explain.adapters import trace_hugging_face, trace_open_clip

transformers = pytest.importorskip("transformers")
pytest.importorskip("open_clip")


def same_clip(dtype):
    """Return a random open_clip model, and the CLIP of transformers with the same weights."""
    source = tiny_clip(dtype, vision={"ls_init_value": None})
    vision = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {"hidden_size": 12, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 24, "patch_size": 8, "hidden_act": "gelu"}
    text |= {"vocab_size": 30, "max_position_embeddings": 8, "hidden_act": "gelu"}
    text |= {"bos_token_id": 28, "eos_token_id": 29, "pad_token_id": 0}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=10)
    model = transformers.CLIPModel(config).to(dtype).eval().requires_grad_(False)
    found, weights = dict(model.state_dict()), source.state_dict()

    def copy(name, value):
        assert found[name].shape == value.shape
        found[name].copy_(value)
        filled.add(name)

    filled = set()
    visual = "visual."
    copy("vision_model.embeddings.class_embedding", weights[visual + "class_embedding"])
    copy("vision_model.embeddings.patch_embedding.weight", weights[visual + "conv1.weight"])
    copy("vision_model.embeddings.position_embedding.weight", weights[visual + "positional_embedding"])
    copy("visual_projection.weight", weights[visual + "proj"].T)
    copy("text_model.embeddings.token_embedding.weight", weights["token_embedding.weight"])
    copy("text_model.embeddings.position_embedding.weight", weights["positional_embedding"])
    copy("text_projection.weight", weights["text_projection"].T)
    copy("logit_scale", weights["logit_scale"])
    for kind in ("weight", "bias"):
        copy(f"vision_model.pre_layrnorm.{kind}", weights[f"visual.ln_pre.{kind}"])
        copy(f"vision_model.post_layernorm.{kind}", weights[f"visual.ln_post.{kind}"])
        copy(f"text_model.final_layer_norm.{kind}", weights[f"ln_final.{kind}"])
        for tower, start in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
            for layer in range(2):
                to, block = f"{tower}.encoder.layers.{layer}", f"{start}.resblocks.{layer}"
                for own, other in {
                    "layer_norm1": "ln_1",
                    "layer_norm2": "ln_2",
                    "mlp.fc1": "mlp.c_fc",
                    "mlp.fc2": "mlp.c_proj",
                    "self_attn.out_proj": "attn.out_proj",
                }.items():
                    copy(f"{to}.{own}.{kind}", weights[f"{block}.{other}.{kind}"])
                for part, value in zip("qkv", weights[f"{block}.attn.in_proj_{kind}"].chunk(3), strict=True):
                    copy(f"{to}.self_attn.{part}_proj.{kind}", value)
    assert filled == {name for name, _ in model.named_parameters()}
    return source, model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_open_clip_and_transformers_give_the_same_trace_and_relevance(dtype, tolerance):
    source, model = same_clip(dtype)
    needs = Needs.everything(lrp=True)
    first = trace_open_clip(source, images(dtype), TEXTS, needs=needs)
    second = trace_hugging_face(model, {"pixel_values": images(dtype), "input_ids": TEXTS}, needs=needs)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(second.logits, first.logits, **close)
    assert second.trace.sizes == first.trace.sizes
    assert torch.equal(second.trace.valid, first.trace.valid)
    assert torch.equal(second.removable, first.removable)
    assert torch.equal(second.boxes, first.boxes)
    assert second.grid == first.grid
    for modality, rows in first.readout.items():
        assert torch.equal(second.readout[modality], rows)
    for a, b in zip(first.trace.steps, second.trace.steps, strict=True):
        assert (a.query, a.key) == (b.query, b.key)
        for name, tensor in a.tensors():
            if name != "attention_relevance" or dtype == torch.float64:  # LRP divides, which single precision blurs
                torch.testing.assert_close(b.tensor(name), tensor, **close, msg=name)
    for modality, tensor in first.trace.inputs.items():
        torch.testing.assert_close(second.trace.inputs[modality], tensor, **close)
    for name, explainer in EXPLAINERS.items():
        found, expected = second.explain(explainer), first.explain(explainer)
        for modality, scores in expected.items():
            torch.testing.assert_close(found[modality], scores, **close, msg=name)


ACCUMULATING = [
    explainers.Weighted(),
    explainers.Weighted("branch", "token"),
    explainers.Uniform(),
    explainers.Constant(),
    explainers.Rollout(),
    explainers.GenAtt(),
    explainers.Shuffled(),
    explainers.DepthMatched(),
]
TOWERS = {"clip": "vision_model", "chinese_clip": "vision_model", "vit": "vit", "dinov2": "dinov2"}
TOWERS |= dict.fromkeys(["idefics3", "smolvlm"], "model.vision_model")
TOWERS |= dict.fromkeys(["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"], "model.visual")
QUERIES = ("blip2", "instructblip")
ENCODERS = ("clip", "chinese_clip", "siglip", "siglip2", "vit", "dinov2", "dinov2_with_registers", "bert")
READERS = ("blip_matching", "blip_vqa", "blip_caption", "flava", "visual_bert")
DECODERS = [name for name in MODELS if name not in (*ENCODERS, *QUERIES, *READERS, "mllama")]


@contextmanager
def planted(model, tower, see, crossed=None):
    """Change attention masks: in the tower, a patch sees only itself; ``see(mask, of_tower)`` returns the mask."""
    files = {sys.modules[type(m).__module__] for m in model.modules()}
    inside = set(tower.modules())
    with ExitStack() as patches:
        for file in files:
            if hasattr(file, "eager_attention_forward"):
                patches.enter_context(_changed(file, inside, see, crossed))
        yield


@contextmanager
def _changed(file, inside, see, crossed):
    eager = file.eager_attention_forward

    def attend(module, query, key, value, attention_mask, **options):
        blocked = see(query.shape[2], module in inside)
        if key.shape[2] != query.shape[2]:
            blocked = crossed(query.shape[2], key.shape[2])[None, None]
        mask = torch.zeros(blocked.shape, dtype=query.dtype).masked_fill(blocked, torch.finfo(query.dtype).min)
        mask = mask if attention_mask is None else torch.minimum(mask, attention_mask)
        return eager(module, query, key, value, mask, **options)

    file.eager_attention_forward = attend
    try:
        yield
    finally:
        file.eager_attention_forward = eager


def assert_planted(traced, boxes, accumulating=ACCUMULATING):
    """Check that 99 % of the image's relevance is in the given boxes of each sample."""
    for explainer in accumulating:
        scores = traced.explain(explainer)["image"]
        inside = torch.stack([scores[b, boxes[b]].sum() for b in range(len(scores))])
        assert bool((scores.sum(-1) > 1e-6).all()), type(explainer).__name__
        assert bool((inside / scores.sum(-1) > 0.99).all()), type(explainer).__name__


@pytest.mark.parametrize("slot", [pytest.param(0, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", DECODERS)
def test_the_relevance_of_a_word_reaches_the_patch_behind_the_only_visible_slot(name, slot):
    model, inputs = MODELS[name]()
    assert_reached(model, inputs, name, slot, [boxes_of(name, b, slot) for b in range(2)])


def assert_reached(model, inputs, name, slot, boxes):
    served = name != "qwen3_5"  # by TransAtt: LRP has no rules for linear attention
    accumulating = [*ACCUMULATING, *([explainers.TransAtt()] if served else [])]
    model.set_attn_implementation("eager")
    tower = model.get_submodule(TOWERS.get(name, "model.vision_tower"))
    ids = inputs["input_ids"]
    hidden = ids == IMAGE
    for b in range(2):
        hidden[b, hidden[b].nonzero()[slot]] = False

    def see(count, of_tower):
        return ~torch.eye(count, dtype=torch.bool)[None, None] if of_tower else hidden[:, None, None, :]

    # The words for which the visible slot gets evidence; without any, there is nothing to carry.
    needs = Needs.everything(lrp=served)
    with planted(model, tower, see):
        traced = [trace_hugging_face(model, inputs, targets.given(word), needs=needs) for word in range(4)]
    found = 0
    for each in traced:
        totals = [each.explain(explainer)["image"].sum(-1) for explainer in (explainers.Weighted(), accumulating[-1])]
        if bool((totals[0] > 1e-3).all() and (totals[1] > 1e-6).all()):
            assert_planted(each, boxes, accumulating)
            found += 1
    assert found


@pytest.mark.parametrize("slot", [0, 1, 2])
@pytest.mark.parametrize("name", QUERIES)
def test_the_relevance_of_a_word_reaches_the_patch_that_the_only_visible_query_reads(name, slot):
    model, inputs = MODELS[name]()
    model.set_attn_implementation("eager")
    inside = {id(m) for part in (model.vision_model, model.qformer) for m in part.modules()}
    tower = [m for m in model.modules() if id(m) in inside]
    hidden = torch.arange(inputs["input_ids"].shape[1])[None] != slot
    hidden = hidden & (inputs["input_ids"] == IMAGE)

    def see(count, of_tower):
        return ~torch.eye(count, dtype=torch.bool)[None, None] if of_tower else hidden[:, None, None, :]

    def crossed(queries, keys):  # query i reads only patch i + 2, which follows the class token
        return torch.arange(keys) != torch.arange(queries)[:, None] + 3

    with planted(model, torch.nn.ModuleList(tower), see, crossed):
        traced = [trace_hugging_face(model, inputs, targets.given(word)) for word in range(6)]
    found = [t for t in traced if bool((t.explain(explainers.Weighted())["image"].sum(-1) > 1e-3).all())]
    assert found
    for each in found:
        assert_planted(each, [[slot + 2]] * 2)
        last = each.explain(explainers.RawAttention())["image"]
        torch.testing.assert_close(last[:, slot + 2], last.sum(-1))
        assert bool((last.sum(-1) > 0).all())


@pytest.mark.parametrize(("key", "patch"), [(1, 0), (5, 4), (9, 8)])
def test_the_relevance_of_a_word_reaches_the_only_patch_that_mllama_attends_to(key, patch):
    """A tile has a class token and nine patches."""
    model, inputs = MODELS["mllama"]()
    model.set_attn_implementation("eager")

    def see(count, of_tower):
        return ~torch.eye(count, dtype=torch.bool)[None, None] if of_tower else torch.zeros(1, 1, 1, 1).bool()

    with planted(model, model.model.vision_model, see, lambda _, keys: (torch.arange(keys) != key)[None]):
        traced = [trace_hugging_face(model, inputs, targets.given(word)) for word in range(6)]
    found = [t for t in traced if bool((t.explain(explainers.Weighted())["image"].sum(-1) > 1e-3).all())]
    assert found
    for each in found:
        assert_planted(each, [[patch]] * 2)


@pytest.mark.parametrize(("slot", "patches"), [(9, (9, 10)), (13, (19, 16)), (17, (13, 22))])
def test_the_relevance_of_a_word_reaches_the_patch_of_a_tile(slot, patches):
    """Image 0 has rows of 6 patches over two tiles, image 1 only the middle column of its two tiles."""
    model, inputs = MODELS["llava_next"]()
    assert_reached(model, inputs, "llava_next", slot, [[patch] for patch in patches])


def boxes_of(name, sample, slot):
    """Return the patches of a slot, by hand: one each, or 2 × 2 of a grid of 4 rows and 4 or 6 columns."""
    if name.startswith(("llava", "paligemma")):
        return [slot]
    width = (4, 6)[sample] if name.startswith("qwen") else 4
    row, col = divmod(slot, width // 2)
    return [(2 * row + r) * width + 2 * col + c for r in (0, 1) for c in (0, 1)]


@pytest.mark.parametrize("patch", [0, 4, 7])
@pytest.mark.parametrize("name", ["clip", "chinese_clip", "vit"])
def test_the_only_patch_that_the_class_token_sees_gets_the_relevance(name, patch):
    assert_planted(with_a_seen_patch(name, patch), [[patch], [patch]], [*ACCUMULATING, explainers.TransAtt()])


def with_a_seen_patch(name, patch):
    """Return a trace in which patches see only themselves, and the class token sees itself and one patch."""
    model, inputs = MODELS[name]()
    model.set_attn_implementation("eager")

    def see(count, of_tower):
        if not of_tower:
            return torch.zeros(1, 1, 1, 1, dtype=torch.bool)
        blocked = ~torch.eye(count, dtype=torch.bool)
        blocked[0, 1 + patch] = False
        return blocked[None, None]

    with planted(model, model.get_submodule(TOWERS[name]), see):
        return trace_hugging_face(model, inputs, needs=Needs.everything(lrp=True))


@pytest.mark.parametrize("patch", [0, 4, 7])
def test_dinov2_is_explained_by_the_patch_that_its_class_token_sees_and_by_the_mean_of_all_patches(patch):
    traced = with_a_seen_patch("dinov2", patch)
    first = torch.zeros(2, dtype=torch.long)
    for explainer in (*ACCUMULATING, explainers.TransAtt()):
        of_class = explainer(traced.trace, first)[:, 1:]
        assert bool((of_class[:, patch] > 1e-6).all())
        torch.testing.assert_close(of_class[:, patch], of_class.sum(1))
        if not isinstance(explainer, explainers.GenAtt | explainers.TransAtt):  # whose rows do not sum to 1
            expected = of_class / 2 + torch.full((2, 9), 1 / 18)
            torch.testing.assert_close(traced.explain(explainer)["image"], expected)


class Blocked(TorchFunctionMode):
    """A mode in which an attention leaves out keys: ``see(queries, keys)`` returns those, or None."""

    def __init__(self, see):
        super().__init__()
        self.see = see

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "softmax" and args[0].ndim == 4:
            blocked = self.see(*args[0].shape[2:])
            if blocked is not None:
                args = (args[0].masked_fill(blocked, torch.finfo(args[0].dtype).min), *args[1:])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("patch", [0, 4, 8])
@pytest.mark.parametrize("name", ["blip_matching", "blip_vqa", "blip_caption", "flava"])
def test_the_relevance_reaches_the_only_patch_that_the_text_sees(name, patch):
    """Each image token sees only itself. BLIP's text reads one of the ten, and FLAVA's multimodal encoder sees one."""
    model, inputs = MODELS[name]()

    def see(queries, keys):
        if (queries, keys) == (10, 10):
            return ~torch.eye(10, dtype=torch.bool)
        if keys == 10:
            return torch.arange(10) != 1 + patch
        if (queries, keys) == (16, 16):  # FLAVA's class token comes first, then the image's
            place = torch.arange(16)
            return (place >= 1) & (place <= 10) & (place != 2 + patch)
        return None

    with Blocked(see):
        traced = [trace_hugging_face(model, inputs, targets.given(word)) for word in range(2)]
    found = [t for t in traced if bool((t.explain(explainers.Weighted())["image"].sum(-1) > 1e-3).all())]
    assert found
    for each in found:
        assert_planted(each, [[patch]] * 2)


@pytest.mark.parametrize("region", [0, 3])
def test_the_relevance_reaches_the_only_region_that_visual_bert_sees(region):
    model, inputs = MODELS["visual_bert"]()
    with Blocked(lambda _, __: (torch.arange(10) >= 5) & (torch.arange(10) != 5 + region)):
        traced = trace_hugging_face(model, inputs)
    assert_planted(traced, [[region]] * 2)


class OnlyOneKey(TorchFunctionMode):
    """A mode in which a probe, a single query, attends to one key only."""

    def __init__(self, key):
        super().__init__()
        self.key = key

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") == "softmax" and args[0].ndim == 4 and args[0].shape[2] == 1:
            blocked = torch.arange(args[0].shape[-1]) != self.key
            args = (args[0].masked_fill(blocked, torch.finfo(args[0].dtype).min), *args[1:])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("patch", [0, 4, 5])
@pytest.mark.parametrize("name", ["siglip", "siglip2"])
def test_the_only_patch_that_siglips_probe_sees_gets_the_relevance(name, patch):
    """The second image of SigLIP 2 has only six patches."""
    model, inputs = MODELS[name]()
    model.set_attn_implementation("eager")

    def see(count, of_tower):
        return ~torch.eye(count, dtype=torch.bool)[None, None] if of_tower else torch.zeros(1, 1, 1, 1).bool()

    with planted(model, model.vision_model, see), OnlyOneKey(patch):
        traced = trace_hugging_face(model, inputs, tolerance=float("inf"))
    assert_planted(traced, [[patch], [patch]])


BOXED = [name for name in MODELS if name not in ("bert", "siglip2", "visual_bert") and not name.startswith("qwen")]


@pytest.mark.parametrize("name", BOXED)
def test_a_box_contains_the_pixels_of_its_token(name):
    """A change inside a box changes the embedding of its token before the first block, and no other."""
    model, inputs = MODELS[name]()
    traced = trace_hugging_face(model, inputs)
    before = traced.trace.inputs["image"]
    boxes = traced.boxes if traced.boxes.ndim == 3 else traced.boxes.expand(2, -1, -1)
    first = before.shape[1] - traced.patches
    images = torch.zeros(2, traced.patches) if traced.images is None else traced.images.expand(2, -1)
    for number in range(0, traced.patches, 1 if traced.patches < 10 else 5):
        changed = inputs["pixel_values"].clone()
        for b in range(2):
            left, top, right, bottom = boxes[b, number].tolist()
            frame_of(name, changed, b, int(images[b, number]))[:, top:bottom, left:right] += 1
        after = trace_hugging_face(model, {**inputs, "pixel_values": changed}).trace.inputs["image"]
        moved = (after - before).abs().amax(-1) > 1e-6
        own = [[b, first + number] for b in range(2) if traced.removable[b, first + number]]
        assert own
        assert moved.nonzero().tolist() == own


def frame_of(name, pixel_values, sample, image):
    """Return the pixels of an image or tile of a sample, or of nothing if the sample has fewer."""
    if name == "internvl":
        return pixel_values[sample + image] if sample or not image else torch.zeros(3, 16, 16)
    if name == "mllama":
        return pixel_values[sample, 0, image] if sample or not image else torch.zeros(3, 12, 12)
    if name in ("idefics3", "smolvlm"):
        return pixel_values[sample, image] if sample or not image else torch.zeros(3, 16, 16)
    return pixel_values[sample, image] if pixel_values.ndim == 5 else pixel_values[sample]


def test_boxes_of_patches_that_are_given_row_by_row_with_padding():
    """SigLIP 2 reads patches of 4 × 4 pixels: 3 × 3 of the first image and 2 × 3 of the second."""
    model, inputs = MODELS["siglip2"]()
    traced = trace_hugging_face(model, inputs)
    assert traced.grid is None
    assert traced.boxes[0].tolist() == [[4 * c, 4 * r, 4 * c + 4, 4 * r + 4] for r in range(3) for c in range(3)]
    assert traced.boxes[1, 5].tolist() == [8, 4, 12, 8]
    assert traced.boxes[1, 6:].abs().sum() == 0
    assert traced.removable[1, :9].tolist() == [True] * 6 + [False] * 3
    changed = {**inputs, "pixel_values": inputs["pixel_values"].clone()}
    changed["pixel_values"][1, 5] += 1
    moved = trace_hugging_face(model, changed).trace.inputs["image"] - traced.trace.inputs["image"]
    assert (moved.abs().amax(-1) > 1e-6).nonzero().tolist() == [[1, 5]]


@pytest.mark.parametrize("version", [2, 2.5, 3, 3.5])
def test_a_box_contains_the_pixels_of_its_packed_patch(version):
    """The patches of Qwen-VL are packed by the library's own image processor."""
    model, inputs = qwen(version)
    process = transformers.Qwen2VLImageProcessor(
        do_resize=False, do_rescale=False, do_normalize=False, do_convert_rgb=False, patch_size=2, merge_size=2
    )
    pictures = [pixels(1, seed=3)[0, :, :8, :8], torch.cat([pixels(1, seed=4)[0, :, :8]], 0)]

    def packed(pictures):
        done = process(images=pictures, return_tensors="pt", input_data_format="channels_first")
        return {**inputs, "pixel_values": done["pixel_values"], "image_grid_thw": done["image_grid_thw"]}

    traced = trace_hugging_face(model, packed(pictures))
    assert packed(pictures)["image_grid_thw"].tolist() == [[1, 4, 4], [1, 4, 6]]
    before = traced.trace.inputs["image"]
    for sample, count in enumerate((16, 24)):
        for number in range(0, count, 3):
            left, top, right, bottom = traced.boxes[sample, number].tolist()
            changed = [picture.clone() for picture in pictures]
            changed[sample][:, top:bottom, left:right] += 1
            after = trace_hugging_face(model, packed(changed)).trace.inputs["image"]
            assert ((after - before).abs().amax(-1) > 1e-6).nonzero().tolist() == [[sample, number]]
