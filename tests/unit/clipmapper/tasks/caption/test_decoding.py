"""Tests of greedy decoding with cached keys and values against running the whole model for every token."""

from __future__ import annotations

import pytest
import torch
from models import CAPTIONS, LAYERS, image_tokens, pictures, random_caption, slow_greedy

from clipmapper.errors import UserError
from clipmapper.mapper.blocks import AttentionSublayer
from clipmapper.mapper.incremental import start_decoding
from clipmapper.nn import KeyValues, Tokens
from clipmapper.tasks.caption.data import check_length
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption

MAPPERS = pytest.mark.parametrize("name", ["a", "b"])


@MAPPERS
@pytest.mark.parametrize("positions", ["none", "learnt"])
@pytest.mark.parametrize("readout", ["cls", "token"])
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_cached_decoding_generates_the_tokens_of_the_whole_model(
    name: str, positions: str, readout: str, seed: int
) -> None:
    model = random_caption(name, positions, readout, seed)
    found = greedy(model, image_tokens(model, 6, seed), 10)
    pixels = pictures(6, seed=seed).double()
    assert found == [slow_greedy(model, pixels[k : k + 1], 10) for k in range(6)]


def test_the_captions_of_that_test_differ_in_length_and_words() -> None:
    """The test above would prove little with equal captions."""
    found = [
        tuple(ids)
        for name in "ab"
        for seed in (1, 2, 3)
        for model in [random_caption(name, "learnt", seed=seed)]
        for ids in greedy(model, image_tokens(model, 6, seed), 10)
    ]
    assert len({len(ids) for ids in found}) > 2
    assert len(set(found)) > 6


@MAPPERS
def test_a_caption_does_not_depend_on_its_batch(name: str) -> None:
    model = random_caption(name, seed=2)
    together = image_tokens(model, 5)
    alone = [
        Tokens(together.features[k : k + 1], together.valid[k : k + 1], together.index[k : k + 1]) for k in range(5)
    ]
    assert greedy(model, together, 10) == [greedy(model, one, 10)[0] for one in alone]


@MAPPERS
@pytest.mark.parametrize("positions", ["none", "learnt"])
def test_the_mapper_word_by_word_equals_the_mapper_on_the_whole_caption(name: str, positions: str) -> None:
    """3 of the second image's 10 tokens are masked."""
    model = random_caption(name, positions)
    image = image_tokens(model, 2)
    valid = torch.ones(2, 10, dtype=torch.bool)
    valid[1, 4:7] = False
    image = Tokens(image.features, valid, image.index)
    texts = model.encoder.tokenize(CAPTIONS[:1] * 2)
    text = model.encoder.text(texts.ids, texts.valid)
    whole = model.trained.mapper(image, text, causal=True)[1]
    decoder = start_decoding(model.trained.mapper, image, text.features.shape[1])
    for place in range(text.features.shape[1]):
        word = Tokens(*(x[:, place : place + 1] for x in (text.features, text.valid, text.index)))
        torch.testing.assert_close(decoder.next(word), whole[:, place], rtol=0, atol=1e-12)


def test_the_text_encoder_word_by_word_equals_the_text_encoder_on_the_whole_text() -> None:
    text = random_caption("b").encoder.text
    ids = torch.randint(300, 4000, (3, text.context_length), generator=torch.Generator().manual_seed(0))
    whole = text(ids, torch.ones_like(ids, dtype=torch.bool)).features
    caches = [KeyValues(text.context_length) for _ in text.blocks]
    for place in range(text.context_length):
        torch.testing.assert_close(text.next(ids[:, place], place, caches)[:, 0], whole[:, place], rtol=0, atol=1e-12)


def without_end(model: CLIPMapperCaption) -> CLIPMapperCaption:
    model.trained.head[1].bias[model.vocabulary.ids.index(model.vocabulary.end)] = -1e9
    return model


@MAPPERS
@pytest.mark.parametrize("max_length", [1, 4, 10])
def test_decoding_without_an_end_token_stops_at_the_greatest_length(name: str, max_length: int) -> None:
    model = without_end(random_caption(name))
    assert [len(ids) for ids in greedy(model, image_tokens(model, 3), max_length)] == [max_length] * 3


def test_an_immediate_end_token_gives_an_empty_caption() -> None:
    model = random_caption("b")
    model.trained.head[1].bias[model.vocabulary.ids.index(model.vocabulary.end)] = 1e9
    found = greedy(model, image_tokens(model, 2), 10)
    assert found == [[], []]
    assert model.vocabulary.text(found[0]) == ""


@MAPPERS
def test_only_the_vocabulary_is_generated(name: str) -> None:
    allowed = set(random_caption(name).vocabulary.ids)
    generated: set[int] = set()
    for seed in range(4):
        model = without_end(random_caption(name, seed=seed))
        generated |= {i for ids in greedy(model, image_tokens(model, 4, seed), 10) for i in ids}
    assert generated <= allowed - {model.vocabulary.end, model.vocabulary.start}
    assert len(generated) > 3


@MAPPERS
def test_the_image_runs_through_the_mapper_once(name: str) -> None:
    model = without_end(random_caption(name))
    sizes: list[int] = []
    for layer in model.modules():
        if isinstance(layer, AttentionSublayer):
            layer.key_value.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
    greedy(model, image_tokens(model, 2), 8)
    passes = {"a": LAYERS["a"], "b": 3 * LAYERS["b"]}[
        name
    ]  # in mapper B, the image's two attentions, and the text's cross-attention
    assert [size for size in sizes if size > 1] == [10] * passes
    assert len([size for size in sizes if size == 1]) == 8 * LAYERS[name]


def test_a_length_beyond_the_context_is_refused() -> None:
    encoder = random_caption("b").encoder
    check_length(encoder, 10)
    with pytest.raises(UserError, match=r"task\.max_length=11: the encoder's context holds 10 sub-words"):
        check_length(encoder, 11)


def test_a_cache_returns_all_keys_and_values_and_refuses_more_than_its_room() -> None:
    cache = KeyValues(2)
    parts = [torch.randn(2, n, 3) for n in (4, 1, 1)]
    first = cache.extend(parts[0], -parts[0])
    torch.testing.assert_close(first[0], parts[0])
    cache.extend(parts[1], -parts[1])
    keys, values = cache.extend(parts[2], -parts[2])
    torch.testing.assert_close(keys, torch.cat(parts, 1))
    torch.testing.assert_close(values, -torch.cat(parts, 1))
    torch.testing.assert_close(first[0], parts[0])
    with pytest.raises(ValueError, match="room for 6 tokens, not for 7"):
        cache.extend(parts[1], parts[1])
