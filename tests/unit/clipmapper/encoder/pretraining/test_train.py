"""Pre-training: its losses, its switches, and the weights that it saves."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from schemas import values
from torch.nn import functional as F

from clipmapper.config.schema import EncoderConfig
from clipmapper.encoder.load import load_encoder
from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.encoder.pretraining.pool import Pool, draw_pool
from clipmapper.encoder.pretraining.run import PIXELS
from clipmapper.encoder.pretraining.saving import save
from clipmapper.encoder.pretraining.train import Pretraining, Words, optimizers, pretrain
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded, restore_token_table, seeded_token_table
from clipmapper.errors import UserError

SWITCHES: list[dict[str, Any]] = [
    {"caption_weight": 0.0},
    {"patch_weight": 0.0},
    {"prompt_weight": 0.0},
    {"twins": False},
    {"caption_kinds": False},
]


@cache
def pool() -> Pool:
    return draw_pool(64, PIXELS, 0, 1)


def settings(**changes: Any) -> PretrainConfig:
    return PretrainConfig(**{**values("pretrain_clip"), "steps": 2, "batch_size": 16, "warmup_steps": 2, **changes})


def train(**changes: Any) -> tuple[Pretraining, list[dict[str, float]]]:
    parts: list[dict[str, float]] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.enable_grad():  # also if the first test that asks for it needs no gradients
            return pretrain(settings(**changes), pool(), lambda step, part, model: parts.append(part)), parts
    finally:
        torch.set_num_threads(threads)


@cache
def trained() -> tuple[Pretraining, list[dict[str, float]]]:
    return train(steps=14, lr=3e-3)


def test_words_have_the_tokens_of_clips_own_tokenizer() -> None:
    words, tokenizer = Words(), open_clip.get_tokenizer(EMBEDDED_MODEL)
    texts = ["a small red circle", "two crosses and a red moon", "what color is the thing?", "a small red circle"]
    for text in texts:
        ids = [words.used[row] for row in words.rows(text)]
        whole = tokenizer([text])[0].tolist()
        assert ids == whole[: len(ids)]
        assert not any(whole[len(ids) :])
    assert len(set(words.used)) == len(words.used)


@pytest.mark.slow
def test_muon_trains_the_matrices_of_the_blocks_and_adam_the_rest() -> None:
    model = trained()[0]
    muon, adam = ({id(p) for group in one.param_groups for p in group["params"]} for one in optimizers(model, 1e-3))
    named = dict(model.named_parameters())
    assert {name for name, p in named.items() if id(p) in muon} == {
        f"clip.{tower}transformer.resblocks.{layer}.{part}"
        for tower, layers in (("visual.", model.clip.visual.transformer.layers), ("", model.clip.transformer.layers))
        for layer in range(layers)
        for part in ("attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
    }
    assert muon | adam == {id(p) for p in named.values()}
    assert not muon & adam


@pytest.mark.slow
def test_the_losses_decrease_in_a_few_steps() -> None:
    _, parts = trained()
    losses = [name for name in parts[0] if not name.startswith("acc/")]
    assert len(losses) == 5
    for name in losses:
        first, last = (float(np.mean([part[name] for part in some])) for some in (parts[:3], parts[-3:]))
        assert last < first, name
    total = [sum(part[name] for name in losses) for part in parts]
    assert np.mean(total[-3:]) < 0.9 * np.mean(total[:3])


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    (a, _), (b, _), (c, _) = (train(steps=1, batch_size=8, seed=seed) for seed in (0, 0, 1))
    for name, tensor in a.weights().items():
        assert torch.equal(tensor, b.weights()[name]), name
    assert not torch.equal(a.clip.visual.proj, c.clip.visual.proj)


@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: next(iter(switch)))
def test_every_switch_works_and_removes_its_part_of_the_loss(switch: dict[str, Any]) -> None:
    name = next(iter(switch)).removesuffix("_weight")
    _, parts = train(steps=1, batch_size=8, **switch)
    left = {part.split()[0] for part in parts[0] if not part.startswith("acc/")}
    gone = {"caption": "captions", "patch": "patches", "prompt": "prompts"}.get(name)
    assert left == {"captions", "patches", "prompts"} - {gone}
    assert all(np.isfinite(list(parts[0].values())))


def whole_model(weights: dict[str, torch.Tensor]) -> Any:
    register_embedded()
    model = open_clip.create_model(EMBEDDED_MODEL)
    model.load_state_dict(weights)
    return model.eval()


@torch.no_grad()
def test_tokens_and_embeddings_equal_open_clips_own() -> None:
    model = trained()[0].eval()
    whole = whole_model(model.weights())
    texts = ["a small red circle", "the object left of the blue thing", "moon"]
    expected = whole.encode_text(open_clip.get_tokenizer(EMBEDDED_MODEL)(texts), normalize=True)
    torch.testing.assert_close(model.text_embeddings(texts), expected, atol=1e-5, rtol=0)
    images = torch.from_numpy(pool().images[:5])
    mean, std = (torch.tensor(whole.visual.preprocess_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    pixels = (images.permute(0, 3, 1, 2) / 255 - mean) / std
    tokens = model.image_tokens(images)
    torch.testing.assert_close(tokens[:, 0] @ whole.visual.proj, whole.encode_image(pixels), atol=1e-5, rtol=0)
    patches = whole.visual.forward_intermediates(
        pixels, indices=1, intermediates_only=True, normalize_intermediates=True, output_fmt="NLC"
    )["image_intermediates"][-1]
    torch.testing.assert_close(tokens[:, 1:], patches, atol=1e-5, rtol=0)


def test_only_the_rows_of_used_words_differ_from_the_seeded_table() -> None:
    model = trained()[0]
    table = model.weights()["token_embedding.weight"]
    changed = (table != seeded_token_table(*table.shape)).any(1).nonzero()[:, 0].tolist()
    assert set(changed) <= set(model.words.used)
    assert len(changed) > 40


@torch.no_grad()
def test_saved_weights_load_as_the_frozen_encoder(tmp_path: Path) -> None:
    model = trained()[0]
    save(model, tmp_path)
    path = tmp_path / f"{EMBEDDED_MODEL}.safetensors"
    assert path.stat().st_size < 4_000_000
    encoder = load_encoder(EncoderConfig(model=EMBEDDED_MODEL, weights=str(path)))
    for name, tensor in whole_model(model.weights()).state_dict().items():
        loaded = encoder.text.text.state_dict()[name]
        torch.testing.assert_close(loaded, tensor, atol=1e-3, rtol=1e-3)
    texts = ["a small red circle", "an unseen zebra"]
    batch = encoder.tokenize(texts)
    own = F.normalize(encoder.text.pooled(encoder.text(batch.ids, batch.valid)), dim=-1)
    expected = whole_model(model.weights()).encode_text(open_clip.get_tokenizer(EMBEDDED_MODEL)(texts), normalize=True)
    torch.testing.assert_close(own, expected, atol=5e-3, rtol=0)


def test_a_complete_token_table_stays_unchanged() -> None:
    weights = trained()[0].weights()
    assert restore_token_table(weights) is weights


def test_a_training_that_diverges_ends_at_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, steps = Pretraining.losses, []

    def spoiled(model: Pretraining, *given: Any) -> dict[str, torch.Tensor]:
        steps.append(1)
        parts = usual(model, *given)
        return {name: part * float("nan") if len(steps) == 2 else part for name, part in parts.items()}

    monkeypatch.setattr(Pretraining, "losses", spoiled)
    with pytest.raises(
        UserError, match=r"^the training diverged: the loss of step 2 is NaN or infinite; lower lr=0.5, "
    ):
        train(steps=4, lr=0.5)
    assert len(steps) == 2
