"""The encoder as a CLIP of ``transformers``: the same tokens, embeddings, traces and relevance, in a folder."""

from __future__ import annotations

import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from explain_table import EXPLAINERS
from models import LAYOUTS, TEXTS, picture, random_clip, register
from PIL import Image
from small_disk import small_disk
from torch import Tensor
from torch.nn.functional import normalize

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.hugging_face import as_hugging_face, write_folder, write_hugging_face
from clipmapper.encoder.load import FrozenClip, load_encoder
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, EMBEDDED_WEIGHTS, restore_token_table
from clipmapper.errors import UserError
from clipmapper.tasks.vqa.tracing import trace_vqa
from explain import Needs, record
from explain.adapters import trace_hugging_face, trace_open_clip

transformers = pytest.importorskip("transformers")

PRECISIONS = [(torch.float32, 1e-5), (torch.float64, 1e-9)]
PROJECT = Path(__file__).parents[4]
WORDS = ["a red circle left of a blue square", "what's the Colour of it's star?  HELLO 123", "", *TEXTS]
LEVEL = 1 / 255 / 0.26130258  # one grey level, normalised by the smallest of CLIP's standard deviations


@pytest.fixture(scope="module")
def encoder() -> FrozenClip:
    return load_encoder(EncoderConfig(EMBEDDED_MODEL, "embedded", "float32", 8))


@pytest.fixture(scope="module")
def folder(encoder: FrozenClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "clip"
    assert write_hugging_face(encoder, path) < 1e-6
    return path


@pytest.fixture(scope="module")
def source() -> Any:
    """The untouched open_clip model with the embedded weights."""
    model = open_clip.create_model(EMBEDDED_MODEL)
    model.load_state_dict(restore_token_table(open_clip.factory.load_state_dict(str(EMBEDDED_WEIGHTS))))
    return model.eval().requires_grad_(False)


def model_of(folder: Path, dtype: torch.dtype) -> Any:
    return transformers.CLIPModel.from_pretrained(folder, dtype=dtype).eval()


def samples(encoder: FrozenClip, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the README's scene and noise, and two texts padded to the encoder's context."""
    scene = Image.open(PROJECT / "docs" / "pictures" / "scene.png").convert("RGB")
    texts = ["a red circle", "a blue square left of the green star"]
    return encoder.pixels([scene, picture(60, 60)]).to(dtype), encoder.tokenizer(texts)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_tokens_and_embeddings_are_those_of_open_clip(
    encoder: FrozenClip, source: Any, folder: Path, dtype: torch.dtype, tolerance: float
) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    own, other, model = deepcopy(encoder).to(dtype), deepcopy(source).to(dtype), model_of(folder, dtype)
    pixels, ids = samples(encoder, dtype)
    with torch.no_grad():
        image, text = model.get_image_features(pixels), model.get_text_features(ids)
        tokens = model.vision_model.post_layernorm(image.last_hidden_state)
        torch.testing.assert_close(tokens, own.vision(pixels).features, **close)
        valid = torch.arange(ids.shape[1]) <= ids.argmax(1)[:, None]
        torch.testing.assert_close(text.last_hidden_state[valid], own.text(ids, valid).features[valid], **close)
        torch.testing.assert_close(image.pooler_output, other.encode_image(pixels), **close)
        torch.testing.assert_close(text.pooler_output, other.encode_text(ids), **close)
    assert float(model.logit_scale.detach()) == pytest.approx(float(other.logit_scale))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_trace_and_all_explainers_are_those_of_the_open_clip_adapter(
    encoder: FrozenClip, source: Any, folder: Path, dtype: torch.dtype, tolerance: float
) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    pixels, ids = samples(encoder, dtype)
    needs = Needs.everything(lrp=True)
    first = trace_open_clip(deepcopy(source).to(dtype), pixels, ids, needs=needs)
    second = trace_hugging_face(model_of(folder, dtype), {"pixel_values": pixels, "input_ids": ids}, needs=needs)
    torch.testing.assert_close(second.logits, first.logits, **close)
    for a, b in zip(first.trace.attention_steps, second.trace.attention_steps, strict=True):
        for name, tensor in a.tensors():
            torch.testing.assert_close(b.tensor(name), tensor, **close, msg=name)
    for name, explainer in EXPLAINERS.items():
        found, expected = second.explain(explainer), first.explain(explainer)
        for modality, scores in expected.items():
            torch.testing.assert_close(found[modality], scores, **close, msg=name)


def test_clipmapper_traces_its_encoder_as_the_generic_adapter_does(encoder: FrozenClip, folder: Path) -> None:
    """CLIPmapper computes the towers itself; with the cosine as y, even the gradients are the same."""
    own, model = deepcopy(encoder).double(), model_of(folder, torch.float64)
    pixels, _ = samples(encoder, torch.float64)
    text = encoder.tokenize(["a blue square left of the green star"] * 2)
    generic = trace_hugging_face(model, {"pixel_values": pixels, "input_ids": text.ids}).trace
    with record() as recorder:
        image, words = own.vision.pooled(own.vision(pixels)), own.text.pooled(own.text(text.ids, text.valid))
        y = (normalize(image, dim=-1) * normalize(words, dim=-1)).sum(1)
        trace = recorder.trace(y, generic.sizes)
    for a, b in zip(generic.attention_steps, trace.attention_steps, strict=True):
        assert (a.query, a.key) == (b.query, b.key)
        for name, tensor in a.tensors():
            torch.testing.assert_close(b.tensor(name), tensor, rtol=1e-9, atol=1e-9, msg=name)


def test_the_whole_clipmapper_has_the_same_encoder_steps(encoder: FrozenClip, folder: Path) -> None:
    """Their gradients differ, since its y is the logit of an answer."""
    from clipmapper.api import load_pretrained

    mapped = load_pretrained("vqa", "b").double()
    pixels, _ = samples(encoder, torch.float64)
    text = encoder.tokenize(["what color is the circle?"] * 2)
    inputs = {"pixel_values": pixels, "input_ids": text.ids}
    generic = trace_hugging_face(model_of(folder, torch.float64), inputs).trace.attention_steps
    steps = trace_vqa(mapped, pixels, text).trace.attention_steps
    assert len(steps) > len(generic) == 5
    for a, b in zip(generic, steps, strict=False):
        assert (a.query, a.key) == (b.query, b.key)
        for name in ("attention", "residual", "output"):
            own = b.tensor(name)[..., -a.residual.shape[1] :, :]  # without the read-out token that the mapper prepends
            own = own[..., -a.residual.shape[1] :] if name == "attention" else own
            torch.testing.assert_close(own, a.tensor(name), rtol=1e-9, atol=1e-9, msg=name)


def test_the_folder_holds_no_pickles_and_the_tokenizer(encoder: FrozenClip, folder: Path) -> None:
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors"}
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert processor.tokenizer.model_max_length == 40
    same = [
        text for text in WORDS if processor.tokenizer(text)["input_ids"] == encoder.tokenize([text]).ids[0].tolist()
    ]
    assert same == WORDS


def test_the_processor_differs_by_at_most_a_grey_level(encoder: FrozenClip, folder: Path) -> None:
    """But one of Pillow's does not differ at all; an odd margin is cut one pixel apart."""
    scene = Image.open(PROJECT / "docs" / "pictures" / "scene.png").convert("RGB")
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    images = [scene, Image.fromarray(noise), scene.resize((150, 100)), picture(60, 60)]
    fast = transformers.AutoProcessor.from_pretrained(folder).image_processor
    slow = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    for image in images:
        expected = encoder.pixels([image])
        torch.testing.assert_close(
            fast(image, return_tensors="pt")["pixel_values"], expected, rtol=0, atol=1.001 * LEVEL
        )
        torch.testing.assert_close(slow(image, return_tensors="pt")["pixel_values"], expected, rtol=0, atol=1e-6)
    fast_pixels = fast(picture(100, 80), return_tensors="pt")["pixel_values"]  # 75 × 60, whose margin is 15
    assert float((fast_pixels - encoder.pixels([picture(100, 80)])).abs().max()) > 10 * LEVEL


@pytest.mark.parametrize("layout", ["plain", "quick-gelu", "own-attention"])
def test_other_plain_clips_are_written(layout: str, tmp_path: Path) -> None:
    vision, text, settings = LAYOUTS[layout]
    name = register(tmp_path, f"written-{layout}", vision, text, **settings)
    assert write_hugging_face(FrozenClip.of(random_clip(name), name), tmp_path / "clip") < 1e-5


@pytest.mark.parametrize("layout", ["layer-scale", "custom-text", "no-projection", "own-attention-custom-text"])
def test_other_encoders_are_refused(layout: str, tmp_path: Path) -> None:
    vision, text, settings = LAYOUTS[layout]
    name = register(tmp_path, f"refused-{layout}", vision, text, **settings)
    with pytest.raises(UserError, match=rf"encoder\.model={name}.*choose a plain CLIP") as caught:
        write_hugging_face(FrozenClip.of(random_clip(name), name), tmp_path / "clip")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "clip").exists()


def test_a_part_that_changes_the_embeddings_is_refused(encoder: FrozenClip, tmp_path: Path) -> None:
    changed = deepcopy(encoder)
    changed.vision.visual.transformer.resblocks[1].ls_1 = torch.nn.Hardtanh(-0.1, 0.1)
    with pytest.raises(UserError, match=r"its embeddings differ by [0-9.e-]+ from those of transformers' CLIPModel"):
        write_hugging_face(changed, tmp_path / "clip")


def test_a_folder_of_other_files_is_refused_and_a_models_is_replaced(encoder: FrozenClip, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not a model's folder"):
        write_hugging_face(encoder, tmp_path)
    with pytest.raises(UserError, match="exists and is not a model's folder"):
        write_hugging_face(encoder, tmp_path / "notes.txt")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    write_hugging_face(encoder, tmp_path / "model")
    assert model_of(tmp_path / "model", torch.float32).config.projection_dim == 128
    write_hugging_face(encoder, tmp_path / "model")
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "model"}


def test_a_model_of_another_program_is_not_overwritten(encoder: FrozenClip, tmp_path: Path) -> None:
    transformers.CLIPConfig().save_pretrained(tmp_path / "theirs")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    for name in ("theirs", "broken"):
        with pytest.raises(UserError, match=rf"{name}: contains a model of another program; give output=FOLDER"):
            write_hugging_face(encoder, tmp_path / name)
        assert len(list((tmp_path / name).iterdir())) == 1


def test_a_full_disk_is_one_line_and_an_earlier_folder_is_kept(encoder: FrozenClip, tmp_path: Path) -> None:
    write_hugging_face(encoder, tmp_path / "model")
    before = {file: file.read_bytes() for file in (tmp_path / "model").iterdir()}
    said = r"^\S*model: the model cannot be written \([^\n]*\); give a writable folder on a disk with space$"
    with small_disk(2**16), pytest.raises(UserError, match=said):
        write_hugging_face(encoder, tmp_path / "model")
    assert {file: file.read_bytes() for file in (tmp_path / "model").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_weights_that_float16_cannot_hold_are_refused(encoder: FrozenClip, tmp_path: Path) -> None:
    model, processor = as_hugging_face(encoder)
    model.text_projection.weight[0, 0] = 1e6
    with pytest.raises(UserError, match=r"model: text_projection\.weight has values up to 1e\+06, and float16 holds"):
        write_folder(model, processor, tmp_path / "model", half=True)
    assert list(tmp_path.iterdir()) == []


def test_transformers_is_needed(encoder: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="transformers is not installed: pip install"):
        as_hugging_face(encoder)
