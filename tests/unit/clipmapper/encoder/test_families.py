"""Encoders of open_clip's other families, and models that are folders, against open_clip's own code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from folder_models import FAMILIES, SIGLIP_TEXT, random_weights, write_family
from models import Pair, encoded, picture, pictures
from tiny_runs import Tiny

from clipmapper.any_model.load import load_named
from clipmapper.checkpoint import card, check_fits
from clipmapper.config.schema import EncoderConfig, OpenClipConfig, TrainConfig
from clipmapper.data.shapes.evidence import sub_word_spans
from clipmapper.encoder import released
from clipmapper.encoder.hugging_face import write_hugging_face
from clipmapper.encoder.load import FrozenClip, check_encoder, load_encoder
from clipmapper.encoder.timm_tower import TimmTower
from clipmapper.errors import UserError
from clipmapper.nn import TokenSubset
from explain.capture.recording import record

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
TEXTS = ["What is the color of the red circle?", "", "a big blue zebra", "how many " * 9]


def folder_config(folder: Path | str, **changes: Any) -> EncoderConfig:
    return EncoderConfig(model=str(folder), **{"weights": None, "feature_dtype": "float32", "batch_size": 2, **changes})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {family: write_family(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def encoders(folders: dict[str, Path]) -> dict[str, FrozenClip]:
    return {family: load_encoder(folder_config(folder)) for family, folder in folders.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_of_every_family_are_those_of_open_clip(
    family: str, folders: dict[str, Path], encoders: dict[str, FrozenClip]
) -> None:
    encoder, model, pixels = encoders[family], random_weights(folders[family]), pictures(3)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folders[family]}")
    image, text = encoder.vision(pixels), encoder.tokenize(TEXTS)
    tokens = encoder.text(text.ids, text.valid)
    assert image.features.shape == (3, encoder.vision.first + 9, 32)
    torch.testing.assert_close(encoder.vision.pooled(image), model.encode_image(pixels), **CLOSE)
    torch.testing.assert_close(encoder.text.pooled(tokens), model.encode_text(tokenizer(TEXTS)), **CLOSE)
    if isinstance(encoder.vision, TimmTower):
        torch.testing.assert_close(image.features, model.visual.trunk.forward_features(pixels), **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_subset_of_the_patches_is_what_attention_without_the_others_gives(
    family: str, encoders: dict[str, FrozenClip]
) -> None:
    """Masked attention over all tokens, and attention among the kept ones alone, are the same."""
    vision, pixels = encoders[family].vision, pictures(2)
    kept = torch.ones(2, vision.token_count, dtype=torch.bool)
    kept[0, vision.first + 2] = kept[0, vision.first + 5] = kept[1, vision.first] = False
    masked = TokenSubset(torch.arange(vision.token_count).expand(2, -1), kept)
    alone = vision(pixels, TokenSubset.from_mask(kept))
    whole = vision(pixels, masked)
    torch.testing.assert_close(alone.features[alone.valid], whole.features[kept], **CLOSE)
    assert not torch.allclose(whole.features[kept], vision(pixels).features[kept], atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_recorded_attention_explains_the_tokens(family: str, encoders: dict[str, FrozenClip]) -> None:
    vision, pixels = encoders[family].vision, pictures(2)
    with record() as recorder:
        tokens = vision(pixels)
    torch.testing.assert_close(tokens.features.detach(), vision(pixels).features, **CLOSE)
    trace = recorder.trace(tokens.features.sum((1, 2)), {"image": vision.token_count}, None)
    assert len(trace.steps) == 2
    for step in trace.steps:
        assert step.attention.shape == (2, 2, vision.token_count, vision.token_count)
        torch.testing.assert_close(step.attention.sum(-1), torch.ones(2, 2, vision.token_count))
        assert step.attention_grad is not None
        assert step.attention_grad.abs().sum() > 0
    after = trace.steps[0].residual + trace.steps[0].output
    block: Any = vision.blocks[0]
    norm = block.norm2 if isinstance(vision, TimmTower) else block.ln_2
    seen: list[torch.Tensor] = []
    norm.register_forward_hook(lambda _module, given, _out: seen.append(given[0]))
    vision(pixels)
    torch.testing.assert_close(after, seen[0], **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_freed_weights_and_buffers_are_restored(
    family: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, "_SMALL", 0)
    config = folder_config(folders[family], precision="bfloat16")
    encoder = load_encoder(config)
    before, name = encoder.vision(pictures(1)).features, encoder.fingerprint()
    released.release(encoder)
    assert encoder.released
    released.restore(encoder, config)
    assert torch.equal(encoder.vision(pictures(1)).features, before)
    assert encoder.fingerprint() == name


@pytest.mark.parametrize("family", FAMILIES)
def test_freed_blocks_of_the_image_encoder_are_restored(family: str, folders: dict[str, Path]) -> None:
    """Images are pooled and texts are encoded as before until then, wherever the encoder is moved."""
    config = folder_config(folders[family])
    encoder = load_encoder(config)
    tokens, text, name = encoder.vision(pictures(2)), encoder.tokenize(TEXTS), encoder.fingerprint()
    pooled, before = encoder.vision.pooled(tokens), encoder.text(text.ids, text.valid).features
    released.release_images(encoder)
    released.move(encoder, torch.device("cpu"))
    assert all(weight.is_meta for block in encoder.vision.blocks for weight in block.parameters())
    assert encoder.fingerprint() == name
    assert torch.equal(encoder.vision.pooled(tokens), pooled)
    assert torch.equal(encoder.text(text.ids, text.valid).features, before)
    released.restore(encoder, config)
    assert torch.equal(encoder.vision(pictures(2)).features, tokens.features)
    assert not encoder.released


def test_restored_weights_are_on_the_device_of_those_that_stayed(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = folder_config(folders[next(iter(FAMILIES))])
    encoder, again = load_encoder(config), load_encoder(config)
    released.release_images(encoder)
    asked: list[torch.device] = []
    monkeypatch.setattr(again, "to", lambda device: (asked.append(device), again)[1])
    monkeypatch.setattr(released, "load_encoder", lambda _: again)
    released.restore(encoder, config)
    assert asked == [encoder.text.shared_projection.device]
    assert encoder.vision is again.vision


def test_siglip_has_patches_alone_and_texts_that_fill_the_context(encoders: dict[str, FrozenClip]) -> None:
    encoder = encoders["siglip"]
    assert (encoder.vision.first, encoder.vision.patches, encoder.text.causal) == (0, 9, False)
    batch = encoder.tokenize(TEXTS)
    assert batch.ids.shape == (4, 10)
    assert batch.valid.all()
    assert batch.truncated == 1  # 18 words
    # "what is the col|or of the red circle" without "?", and "a big blue |z|e|b|r|a", whose space is a sub-word
    assert encoder.sub_words(batch).sum(1).tolist() == [9, 0, 9, 9]
    words = encoder.tokenizer.pieces(batch.ids[0].tolist())
    assert words[:6] == ["what</w>", "is</w>", "the</w>", "col", "or</w>", "of</w>"]
    assert words[-1] == "</s>"


def test_dropped_words_are_read_as_the_shorter_text(encoders: dict[str, FrozenClip]) -> None:
    encoder = encoders["siglip"]
    batch = encoder.tokenize(["what is the red circle", "is there a big square"])
    kept = torch.ones(2, 10, dtype=torch.bool)
    kept[0, 1:3] = kept[1, 3] = False
    subset = TokenSubset.from_mask(kept)
    left = encoder.closed_up(batch.ids.gather(1, subset.index), subset.valid)
    shorter = encoder.tokenize(["what red circle", "is there a square"])
    assert left.ids.tolist() == shorter.ids.tolist()
    assert left.valid.all()


def test_sub_words_are_found_in_a_text_whose_punctuation_the_tokenizer_leaves_out(
    encoders: dict[str, FrozenClip],
) -> None:
    text = "What's the  color of é, Red?"
    spans = sub_word_spans(text, encoders["siglip"].tokenizer)
    assert [text[start:end] for start, end in spans] == ["What", "s", "the", "col", "or", "of", "", "é", "Red"]


def test_a_folder_is_named_in_three_ways_and_may_move(folders: dict[str, Path], tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(folders["siglip"], moved)
    first = load_encoder(folder_config(folders["siglip"]))
    for name in (str(moved), f"local-dir:{moved}"):
        assert load_encoder(folder_config(name)).fingerprint() == first.fingerprint()
        assert load_encoder(folder_config(name)).name == first.name


def test_a_checkpoint_fits_a_folder_that_has_moved(
    folders: dict[str, Path], encoders: dict[str, FrozenClip], tiny: Tiny, tmp_path: Path
) -> None:
    def config(folder: Path) -> TrainConfig:
        return tiny.config(f"encoder.model={folder}", "encoder.weights=null")

    about = card(config(folders["siglip"]), encoders["siglip"])
    shutil.copytree(folders["siglip"], tmp_path / "moved")
    check_fits(about, config(tmp_path / "moved"), tmp_path)
    with pytest.raises(UserError, match=r"the config encoder\.model=shapes-tiny"):
        check_fits(about, tiny.config(), tmp_path)


@pytest.mark.parametrize("layout", ["plain", "quick-gelu"])
def test_a_clip_of_transformers_is_read(layout: str, pairs: dict[str, Pair], tmp_path: Path) -> None:
    """Embeddings are those of the encoder that was written as such a folder, with its activation and preprocessing."""
    encoder = pairs[layout][0]
    write_hugging_face(encoder, tmp_path / "folder")
    read = load_encoder(folder_config(tmp_path / "folder"))
    photo = picture(40, 30)
    assert torch.equal(read.pixels([photo]), encoder.pixels([photo]))
    a, b = (each.vision(each.pixels([photo])).features for each in (encoder, read))
    torch.testing.assert_close(a, b, **CLOSE)
    a, b = (each.text.pooled(encoded(each, ["a red circle", "yes"])) for each in (encoder, read))
    torch.testing.assert_close(a, b, **CLOSE)


def test_activation_and_preprocessing_are_those_of_the_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(folders["average"], folder)
    about = json.loads((folder / "open_clip_config.json").read_text())
    about["model_cfg"]["quick_gelu"] = True
    about["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    encoder = load_encoder(folder_config(folder))
    assert "mean=(0.1, 0.2, 0.3)" in str(encoder.preprocess)
    assert "QuickGELU" in repr(encoder.text.blocks[0])
    assert encoder.fingerprint() != load_encoder(folder_config(folders["average"])).fingerprint()


WRONG: dict[str, tuple[str, str]] = {
    "no-folder": (
        "local-dir:{tmp}/none",
        "local-dir:{tmp}/none: there is no such folder; give one with open_clip_config",
    ),
    "no-name": ("{tmp}/none", "open_clip has no model {tmp}/none, and there is no such folder"),
    "no-config": ("{tmp}/empty", "the folder has no open_clip_config.json; give a folder of an open_clip model"),
    "transformers": ("{tmp}/other", "must be a CLIP with CLIP's own BPE, not siglip; give a folder with"),
    "no-weights": ("{tmp}/no-weights", "the folder has no weights; put open_clip_model.safetensors there"),
    "no-tokenizer": ("{tmp}/no-tokenizer", "put tokenizer.json and tokenizer_config.json beside the weights"),
    "unknown-part": ("{tmp}/unknown", "open_clip cannot create what its open_clip_config.json describes"),
    "damaged": ("{tmp}/damaged", "open_clip_config.json: "),
    "not-a-hub-name": ("hf-hub:test/nothing", "neither in the hub's cache nor can be downloaded"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_folder_is_named_with_what_to_give(
    case: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "siglip"}')
    (tmp_path / "other" / "preprocessor_config.json").write_text("{}")
    shutil.copy(folders["siglip"] / "open_clip_model.safetensors", tmp_path / "other" / "model.safetensors")
    for name in ("no-weights", "no-tokenizer", "unknown", "damaged"):
        shutil.copytree(folders["siglip"], tmp_path / name)
    (tmp_path / "no-weights" / "open_clip_model.safetensors").unlink()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "no-tokenizer" / name).unlink()
    config = tmp_path / "unknown" / "open_clip_config.json"
    config.write_text(config.read_text().replace("tiny_siglip", "no_such_model"))
    (tmp_path / "damaged" / "open_clip_config.json").write_text('{"model_cfg": {')
    model, message = (text.replace("{tmp}", str(tmp_path)) for text in WRONG[case])
    with pytest.raises(UserError) as caught:
        load_encoder(folder_config(model))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_beside_a_folder_and_none_without_one_are_errors(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"has weights of its own; give encoder.weights=null \(encoder=folder does\)"):
        check_encoder(folder_config(folders["siglip"], weights="embedded"))
    with pytest.raises(UserError, match=r"encoder.weights=null: give a weights file or a tag"):
        check_encoder(folder_config("ViT-B-32"))


def test_captions_need_a_causal_text_encoder(folders: dict[str, Path]) -> None:
    check_encoder(folder_config(folders["eva"]), generates=True)
    with pytest.raises(UserError, match="captions need a causal text encoder"):
        check_encoder(folder_config(folders["siglip"]), generates=True)


def test_a_dual_encoder_to_explain_may_be_a_folder(
    folders: dict[str, Path], pairs: dict[str, Pair], tmp_path: Path
) -> None:
    def named(folder: Path) -> OpenClipConfig:
        return OpenClipConfig(name="open_clip", layers=None, architecture=str(folder), weights=None)

    write_hugging_face(pairs["plain"][0], tmp_path / "plain")
    found = load_named(named(tmp_path / "plain"))
    pixels = pictures(2)
    torch.testing.assert_close(found.model.encode_image(pixels), pairs["plain"][1].encode_image(pixels), **CLOSE)
    shutil.copytree(tmp_path / "plain", tmp_path / "elsewhere" / "plain")
    copied = load_named(named(tmp_path / "elsewhere" / "plain"))
    assert copied.fingerprint() == found.fingerprint()  # also in another process, where its objects are elsewhere
    copied.processor[0].transforms.pop()
    assert copied.fingerprint() != found.fingerprint()
    for family in ("siglip", "eva", "average"):
        with pytest.raises(UserError, match=r"explain a plain CLIP, or this model with model=huggingface"):
            load_named(named(folders[family]))


REFUSED = {
    "ViTamin-S": "VisionTransformer of timm with HybridEmbed",
    "swin_base_patch4_window7_224": "SwinTransformer of timm",
    "coca_ViT-B-32": "VisionTransformer",
    "RN50": "ModifiedResNet",
    "roberta-ViT-B-32": "roberta-base",
    "MobileCLIP2-S0": "FastVit",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_models_without_tokens_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"never read")
    with pytest.raises(UserError, match=REFUSED[name]):
        load_encoder(folder_config(name, weights=str(tmp_path / "weights.pt")))


def test_the_tiny_siglip_has_the_settings_of_open_clips() -> None:
    about = open_clip.get_model_config("ViT-B-16-SigLIP")
    ours = {**SIGLIP_TEXT, "hf_tokenizer_name": about["text_cfg"]["hf_tokenizer_name"]}
    sizes = ("context_length", "vocab_size", "width", "heads", "layers")
    assert {key: value for key, value in ours.items() if key not in sizes} == {
        key: value for key, value in about["text_cfg"].items() if key not in sizes
    }
    assert {k: about["vision_cfg"][k] for k in ("timm_pool", "timm_proj")} == {"timm_pool": "map", "timm_proj": "none"}
