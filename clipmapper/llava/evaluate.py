"""Evaluation of a LLaVA on scenes: answers and captions that it generates, each in a conversation of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from PIL import Image

from clipmapper.console import progress
from clipmapper.data.records import Question
from clipmapper.data.shapes.caption_truth import check_caption, scene_from_side_file
from clipmapper.data.shapes.questions import ShapesQuestion
from clipmapper.data.shapes.render import draw_scene
from clipmapper.llava.conversations import DESCRIBE, Picture
from clipmapper.metrics.vqa import score_predictions, summary

_BATCH = 100  # questions answered together
_LONGEST_ANSWER, _LONGEST_CAPTION = 5, 40  # tokens


def evaluate(model: Any, processor: Any, pictures: Sequence[Picture], pixels: int) -> dict[str, Any]:
    """Let a model answer the questions of pictures and describe the pictures, and judge what it says.

    Args:
        model: A ``LlavaForConditionalGeneration``.
        processor: Its processor.
        pictures: The pictures.
        pixels: Width and height of their images.

    Returns:
        ``vqa``: the official accuracy in percent, in parts; ``exact``: the percentage of answers that are the most
        common one of the annotators; ``true_captions``: the percentage of captions that are true of their image;
        ``answers`` and ``captions``: what the model says.
    """
    images = [draw_scene(item.scene, pixels) for item in pictures]
    asked = [(images[k], q) for k, item in enumerate(pictures) for q in item.questions]
    with progress(len(asked) + len(images), "generating", "texts") as advance:
        answers = generate(model, processor, [(image, q.text) for image, q in asked], _LONGEST_ANSWER, advance)
        captions = generate(model, processor, [(image, DESCRIBE) for image in images], _LONGEST_CAPTION, advance)
    scenes = [scene_from_side_file(asdict(item.scene)) for item in pictures]
    questions = [_question(number, q) for number, (_, q) in enumerate(asked)]
    return {
        "vqa": summary(score_predictions(dict(enumerate(answers)), questions)),
        "exact": _percent(said == q.answer for said, (_, q) in zip(answers, asked, strict=True)),
        "true_captions": _percent(
            check_caption(said, scene).true for said, scene in zip(captions, scenes, strict=True)
        ),
        "answers": answers,
        "captions": captions,
    }


def _question(number: int, asked: ShapesQuestion) -> Question:
    answers = tuple({"answer": answer, "answer_id": k} for k, answer in enumerate(asked.answers, 1))
    return Question(number, 0, asked.text, answers, asked.answer, asked.answer_type, asked.kind)


def _percent(true: Iterable[bool]) -> float:
    found = list(true)
    return round(100 * sum(found) / len(found), 2)


@torch.no_grad()
def generate(
    model: Any,
    processor: Any,
    asked: Sequence[tuple[Image.Image, str]],
    longest: int,
    advance: Callable[[int], None] = lambda count: None,
) -> list[str]:
    """Return the greedy answer to each question about an image, as the first turn of a conversation.

    Args:
        model: A ``LlavaForConditionalGeneration``.
        processor: Its processor, with a chat template.
        asked: The images with their questions.
        longest: Most tokens of an answer.
        advance: Function that is told the number of answers of each batch.
    """
    prompts = [prompt_of(processor, text) for _, text in asked]
    by_length: dict[int, list[int]] = defaultdict(list)  # without padding, an answer does not depend on its batch
    for k, prompt in enumerate(prompts):
        by_length[len(processor.tokenizer.tokenize(prompt))].append(k)
    answers = [""] * len(asked)
    for same in by_length.values():
        for rows in (same[start : start + _BATCH] for start in range(0, len(same), _BATCH)):
            inputs = processor(
                images=[asked[k][0] for k in rows], text=[prompts[k] for k in rows], return_tensors="pt"
            ).to(model.device)
            made = model.generate(**inputs, do_sample=False, max_new_tokens=longest)
            texts = processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for k, text in zip(rows, texts, strict=True):
                answers[k] = text.strip()
            advance(len(rows))
    return answers


def prompt_of(processor: Any, question: str) -> str:
    """Return a question about an image in the chat template."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
