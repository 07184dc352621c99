"""Benchmark of captions: decoding with cached keys and values, and explaining all words from one forward pass."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from clipmapper.benchmarks.random_models import device_of, mapper_config, random_model
from clipmapper.benchmarks.timing import side_by_side
from clipmapper.encoder.load import TextBatch
from clipmapper.nn import Tokens
from clipmapper.tasks.caption.decoding import greedy
from clipmapper.tasks.caption.model import CLIPMapperCaption, build_caption
from clipmapper.tasks.caption.tracing import trace_captions
from clipmapper.tasks.caption.vocabulary import CaptionVocabulary
from explain import explainers
from explain.capture.recording import record

BATCH, LENGTH, ROUNDS = 32, 20, 2
WORDS, EXPLAINED = 16, (1, 4)  # tokens of an explained caption, and numbers of captions explained at a time
CLASSES = 10_000  # about the number of different tokens in COCO's training captions


def captioning(size: str, mapper: str, device: torch.device | str = "cpu") -> dict[str, float]:
    """Return the time ratios of decoding and of explaining, by name."""
    model = random_caption_model(size, mapper).to(device)
    figures = _decoding(model, f"{size}, mapper {mapper}:")
    for count in EXPLAINED:
        figures |= _explaining(model, f"{size}, mapper {mapper}:", count)
    return figures


def _decoding(model: CLIPMapperCaption, label: str) -> dict[str, float]:
    """Measure the decoding of 32 captions of 20 tokens, without encoding the images."""
    vision = model.encoder.vision
    draw = torch.Generator().manual_seed(0)
    features = torch.randn(BATCH, vision.token_count, vision.width, generator=draw).to(device_of(model))
    index = torch.arange(vision.token_count, device=device_of(model)).expand(BATCH, -1)
    image = Tokens(features, torch.ones_like(index, dtype=torch.bool), index)
    ways = {
        "cached": lambda: greedy(model, image, LENGTH),
        "uncached": lambda: greedy_without_caches(model, image, LENGTH),
    }
    seconds = side_by_side(ways, ROUNDS)
    name = f"{label} {BATCH} captions of {LENGTH} tokens, without caches, times decoding with them"
    return {name: seconds["uncached"] / seconds["cached"]}


def _explaining(model: CLIPMapperCaption, label: str, count: int) -> dict[str, float]:
    """Measure the weighted explanation of all 16 words of each of ``count`` captions."""
    pixels, captions = random_captions(model, count, WORDS)
    ways = {"together": words_together, "apart": words_apart}
    seconds = side_by_side({name: partial(run, model, pixels, captions) for name, run in ways.items()}, ROUNDS)
    name = f"{label} {count} x {WORDS} words, a pass for each word, times one for all"
    return {name: seconds["apart"] / seconds["together"]}


def random_caption_model(size: str, mapper: str) -> CLIPMapperCaption:
    """Build a captioning model with random weights at a size of :func:`random_model`, which never ends a caption."""
    encoder = random_model(size, mapper).encoder
    vocabulary = CaptionVocabulary(range(CLASSES), encoder.tokenizer)
    caption = build_caption(mapper_config(size, mapper), encoder, len(vocabulary))
    model = CLIPMapperCaption(encoder, caption, vocabulary).eval().requires_grad_(False)
    head: torch.nn.Linear = caption.head[1]  # type: ignore[assignment]
    head.bias[vocabulary.ids.index(vocabulary.end)] = -1e9
    return model


@torch.inference_mode()
def greedy_without_caches(model: CLIPMapperCaption, image: Tokens, max_length: int) -> list[list[int]]:
    """Generate the captions of ``greedy``, computing everything again at every token."""
    of_class = torch.tensor(model.vocabulary.ids, device=device_of(model))
    ids = of_class.new_full((len(image.features), 1), model.vocabulary.start)
    for _ in range(max_length):
        text = model.encoder.text(ids, torch.ones_like(ids, dtype=torch.bool))
        best = of_class[model.trained(image, text)[:, -1].argmax(1)]
        ids = torch.cat([ids, best[:, None]], 1)
    return ids[:, 1:].tolist()


def random_captions(model: CLIPMapperCaption, count: int, words: int) -> tuple[Tensor, list[list[int]]]:
    """Return noise as images, [count, 3, H, W], and random tokens of the vocabulary as captions."""
    draw = torch.Generator().manual_seed(0)
    size = model.encoder.vision.visual.image_size[0]
    classes = torch.randint(len(model.vocabulary) - 1, (count, words), generator=draw)
    captions = [[model.vocabulary.ids[k] for k in row] for row in classes.tolist()]
    return torch.randn(count, 3, size, size, generator=draw).to(device_of(model)), captions


def words_together(model: CLIPMapperCaption, pixels: Tensor, captions: list[list[int]]) -> Tensor:
    """Explain all words from one forward pass: rows [B·T, N], caption after caption."""
    traced = trace_captions(model, pixels, captions)
    return explainers.Weighted()(traced.trace, rows=traced.rows)


def words_apart(model: CLIPMapperCaption, pixels: Tensor, captions: list[list[int]]) -> list[Tensor]:
    """Explain each word by a separate forward and backward pass over the words before it.

    Args:
        model: The model.
        pixels: B images, [B, 3, H, W].
        captions: B captions of equal length T.

    Returns:
        For each of the T positions, rows [B, N] over the N tokens up to that position.
    """
    vocabulary, words = model.vocabulary, torch.tensor(captions, device=device_of(model))
    classes = words.new_tensor([[vocabulary.ids.index(i) for i in row] for row in captions])
    words = torch.cat([torch.full_like(words[:, :1], vocabulary.start), words], 1)
    image_tokens = model.encoder.vision.token_count
    found = []
    for place in range(classes.shape[1]):
        before = words[:, : place + 1]
        text = TextBatch(before, torch.ones_like(before, dtype=torch.bool), 0)
        with record() as recorder:
            y = model(pixels, text)[:, -1].gather(1, classes[:, place, None])[:, 0]
            trace = recorder.trace(y, {"image": image_tokens, "text": place + 1})
        rows = words.new_full((len(words),), image_tokens + place)
        found.append(explainers.Weighted()(trace, rows=rows))
    return found
