"""A language model that reads images, on one sample: its prompt, its answer, and the target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explain.adapters.hugging_face import trace_hugging_face
from explain.adapters.hugging_face.text import is_special, special_ids, words_of
from explain.sample.inputs import processed
from explain.sample.tiles import seen_box, views_of
from explain.sample.traced import Answer, Asked, Goal, TracedSample
from explain.sample.words import question_span, question_words
from explain.targets import Answer as Given
from explain.targets import Target, answer, contrast
from explain.traced import Traced, Word

OWN_PLACEHOLDERS = ("blip-2", "instructblip", "paligemma")  # their processors put the image's tokens before any text


@dataclass(frozen=True)
class Prompt:
    """A rendered prompt."""

    text: str
    span: tuple[int, int]  #: the question's characters
    options: Mapping[str, bool]  #: of the tokenizer


def trace_generated(model: Any, processor: Any, asked: Asked) -> TracedSample:
    """Trace the answer that a model generates greedily, or another one, in one forward pass (teacher forcing).

    Raises:
        ValueError: The processor, the text or the target do not fit.
        TraceError: The model cannot be traced.
    """
    tokenizer = getattr(processor, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(f"processor is a {type(processor).__name__} without a tokenizer: give the model's processor")
    text, photos = asked.question(model), asked.photos
    prompt = rendered(model, processor, len(photos), text)
    inputs = processed(model, processor, photos, prompt.text, **prompt.options)
    own, tokens, second = _generated(model, inputs, tokenizer, asked.max_new_tokens)
    goal, named = _goal(asked.target, tokens, tokenizer, prompt)
    end = -1  # the earlier words of the text end before its last token
    if asked.word is not None:
        goal, named, end = _word(asked.word, goal, tokenizer)
    traced = trace_hugging_face(model, inputs, goal, asked.layers, needs=asked.needs)
    added = goal.rows(1)[0] if isinstance(goal, Given) else []
    words = _words(model, processor, prompt, inputs["input_ids"][0], traced, len(added))
    explained, *over = (Answer(each, _share(traced, goal)) for each in named)
    return TracedSample(
        traced=traced,
        photos=photos,
        seen=[seen_box(model, processor, photo.size) for photo in photos],
        views=views_of(model, processor, inputs, photos, traced),
        words=words + (_context(model, traced, added, tokenizer, end) if asked.context and added[:end] else []),
        question=text,
        answer=own,
        explained=own if asked.target is None and asked.word is None else explained,
        over=over[0] if over else None,
        runner_up=second,
    )


def rendered(model: Any, processor: Any, images: int, text: str) -> Prompt:
    """Return the prompt of a question: in the chat template, or else after the placeholders of the images.

    A text that has placeholders already is the whole prompt.

    Raises:
        ValueError: The number of placeholders is not that of the images.
    """
    placeholder = getattr(processor, "image_token", None)
    placeholder = placeholder if isinstance(placeholder, str) else getattr(placeholder, "content", None)
    if placeholder and placeholder in text:
        if text.count(placeholder) != images:
            raise ValueError(f"the text has {text.count(placeholder)} placeholders {placeholder} for {images} images")
        return Prompt(text, (0, len(text)), {})
    if getattr(processor, "chat_template", None) is None:
        before = "" if model.config.model_type in OWN_PLACEHOLDERS or not placeholder else placeholder * images + "\n"
        return Prompt(before + text, (len(before), len(before) + len(text)), {})

    def render(question: str) -> str:
        content = [*({"type": "image"} for _ in range(images)), {"type": "text", "text": question}]
        turns = [{"role": "user", "content": content}]
        return str(processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))

    prompt, span = question_span(render, text)
    begins = getattr(processor.tokenizer, "bos_token", None)
    return Prompt(prompt, span, {"add_special_tokens": False} if begins and prompt.startswith(begins) else {})


def _placeholders(model: Any, processor: Any) -> set[int]:
    """Return the ids of the tokens that stand for images in a prompt or in the model's input."""
    found = {int(model.config.image_token_id)}
    for name in ("image_token", "boi_token"):
        token = getattr(processor, name, None)
        token = token if isinstance(token, str) else getattr(token, "content", None)
        if token:
            found.add(int(processor.tokenizer.convert_tokens_to_ids(token)))
    return found


@torch.no_grad()
def _generated(model: Any, inputs: Mapping[str, Any], tokenizer: Any, most: int) -> tuple[Answer, list[int], Answer]:
    """Return the model's greedy answer with its probability, and its tokens without those that end a text.

    The third value is the second most probable first token.

    Raises:
        ValueError: The model refuses the inputs, such as a number of image tokens that does not match.
    """
    options = {"do_sample": False, "num_beams": 1, "max_new_tokens": most}
    try:
        made = model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
    except ValueError as error:
        line = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} refuses what the processor gave: {line}") from error
    tokens = made.sequences[0, -len(made.logits) :]
    ends = special_ids(model.config, model.config.get_text_config(), model.generation_config, tokenizer=tokenizer)
    special = is_special(tokens, ends).tolist()
    count = special.index(True) if True in special else len(tokens)
    count = max(count, 1)  # an answer that ends at once is explained as such
    logs = torch.stack([logits[0].float().log_softmax(-1) for logits in made.logits[:count]])
    kept: list[int] = tokens[:count].tolist()
    share = float(logs.gather(1, tokens[:count, None]).sum().exp())
    second = int(logs[0].topk(2).indices[1])
    other = Answer(str(tokenizer.decode([second])).strip(), float(logs[0, second].exp()))
    return Answer(str(tokenizer.decode(kept)).strip(), share), kept, other


def _goal(target: Goal, own: list[int], tokenizer: Any, prompt: Prompt) -> tuple[Target | Given, list[str]]:
    """Return the target, and the texts of the answer that is explained and of the one it is preferred to.

    Raises:
        ValueError: An answer has no tokens, or both answers of a contrast begin with the same token.
    """
    if not isinstance(target, tuple):
        tokens = own if target is None else _tokens(target, tokenizer, prompt)
        return answer(tokens), [target if isinstance(target, str) else str(tokenizer.decode(tokens)).strip()]
    first, second = (_tokens(each, tokenizer, prompt)[0] for each in target)
    if first == second:
        raise ValueError(f"target={target!r}: both answers begin with the same token, so nothing is left to explain")
    return contrast([first], [second]), [str(tokenizer.decode([token])).strip() for token in (first, second)]


def _word(word: str | int, goal: Target | Given, tokenizer: Any) -> tuple[Given, list[str], int]:
    """Return the target that explains one word of a text, the word, and the place of its first token.

    Raises:
        ValueError: The target is a pair, or the text has no such word.
    """
    if not isinstance(goal, Given):
        raise ValueError(f"word={word!r}: target is a pair, which has no words to choose; leave one of them out")
    tokens = goal.rows(1)[0]
    ids = torch.tensor([tokens])
    words = words_of(ids, ~is_special(ids, special_ids(tokenizer=tokenizer)), 0, tokenizer)[0]
    texts = [text for text, _ in words]
    if isinstance(word, str) and word in texts:
        word = texts.index(word)
    if not isinstance(word, int) or not 0 <= word < len(words):
        raise ValueError(f"word={word!r} is not a word of the text: {' '.join(texts) or 'it has none'}")
    text, places = words[word]
    return answer(tokens, span=(places[0], places[-1] + 1)), [text], places[0]


def _tokens(goal: str | int, tokenizer: Any, prompt: Prompt) -> list[int]:
    """Return the tokens of an answer after the prompt; a number is a token.

    A space comes before an answer unless the prompt ends by one, or by a mark such as ``[/INST]``.
    """
    if isinstance(goal, int):
        if not 0 <= goal < len(tokenizer):
            raise ValueError(f"target={goal} is not one of the tokenizer's {len(tokenizer)} tokens")
        return [goal]
    spaced = goal if goal[:1].isspace() or prompt.text[-1].isspace() or prompt.text[-1] in ">]" else f" {goal}"
    before: list[int] = tokenizer(prompt.text, add_special_tokens=False)["input_ids"]
    whole: list[int] = tokenizer(prompt.text + spaced, add_special_tokens=False)["input_ids"]
    own: list[int] = tokenizer(goal, add_special_tokens=False)["input_ids"]
    found = whole[len(before) :] if whole[: len(before)] == before else own
    if not found:
        raise ValueError(f"target={goal!r} has no tokens")
    return found


def _share(traced: Traced, goal: Target | Given) -> float | None:
    """Return the probability of an answer; that of the first tokens of a contrast is not read."""
    return float(goal(traced.logits)[0].exp()) if isinstance(goal, Given) else None


def _words(model: Any, processor: Any, prompt: Prompt, ids: Tensor, traced: Traced, added: int) -> list[Word]:
    """Return the words of the question with their joint positions, in a trace with ``added`` tokens of an answer."""
    placeholders = _placeholders(model, processor)
    words = question_words(ids.tolist(), prompt.text, prompt.span, processor.tokenizer, prompt.options, placeholders)
    joint = _joint(traced, ids, model.config.image_token_id, added)
    return [(word, [joint[place] for place in places]) for word, places in words]


def _joint(traced: Traced, ids: Tensor, image_token: int, added: int) -> list[int]:
    """Return the joint position of each token of the prompt; that of an image token has no meaning."""
    text = traced.trace.span("text")
    if text.stop - text.start == len(ids) + added:  # the image's tokens are part of the text, or there are none
        return list(range(text.start, text.start + len(ids)))
    own = (ids != image_token).long().cumsum(0) - 1
    return (own + text.start).tolist()


def _context(model: Any, traced: Traced, added: Sequence[int], tokenizer: Any, end: int) -> list[Word]:
    """Return the words of an answer before a place, with their joint positions."""
    earlier = torch.tensor([added[:end]])
    first = traced.trace.span("text").stop - len(added)
    special = special_ids(model.config.get_text_config(), tokenizer=tokenizer)
    return words_of(earlier, ~is_special(earlier, special), first, tokenizer)[0]
