"""Conversations as token ids and labels, against the processor's chat template."""

from __future__ import annotations

from typing import Any

import llava_parts as parts
import pytest
import torch

from clipmapper.data.shapes.render import draw_scene
from clipmapper.llava.conversations import DESCRIBE, IGNORED, Conversations, SingleQuestions, draw_picture, turn

pytest.importorskip("transformers")


def test_each_turn_is_what_the_chat_template_writes() -> None:
    """Its ids, with the shared tokens, are those of the processor; the answer is learned."""
    pictures, processor = parts.pictures(), parts.processor()
    batch = Conversations(pictures, parts.words(), 6, 0)[[3]]
    item = pictures.items[3]
    known = [(q.text, q.answer) for q in item.questions] + [(DESCRIBE, caption) for caption in item.captions]
    drawn, found = draw_scene(item.scene, 128), []
    for number in range(1, 8):
        own = (batch.turns[0] == 0) | (batch.turns[0] == number)
        ids, labels = batch.ids[0, own], batch.labels[0, own]
        assert batch.positions[0, own].tolist() == [*range(len(ids))]
        answer = processor.tokenizer.decode(labels[labels != IGNORED], skip_special_tokens=True)
        assert torch.equal(labels[labels != IGNORED], ids[labels != IGNORED])
        same = [each for each in known if each[1] == answer and ids_of(processor, drawn, *each) == ids.tolist()]
        assert len(same) == 1
        found += same
    assert sorted(q for q, _ in found) == sorted([DESCRIBE, *(q.text for q in item.questions)])


def ids_of(processor: Any, image: Any, question: str, answer: str) -> list[int]:
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    prompt = processor.apply_chat_template(messages, tokenize=False)
    found: list[int] = processor(images=image, text=prompt, return_tensors="pt")["input_ids"][0].tolist()
    return found


def test_the_patches_are_those_of_the_models_own_image() -> None:
    pictures = parts.pictures()
    drawn = draw_scene(pictures.items[3].scene, 128)
    pixels = parts.clip()[2](drawn, return_tensors="pt")["pixel_values"]
    model = parts.model()
    read: list[torch.Tensor] = []
    model.model.multi_modal_projector.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    model.get_image_features(pixels)
    batch = Conversations(pictures, parts.words(), 6, 0)[[3]]
    torch.testing.assert_close(read[0], batch.patches, atol=0.05, rtol=2e-3)  # stored as float16


def test_batches_depend_on_seed_and_rows_alone() -> None:
    first, again, other = (Conversations(parts.pictures(), parts.words(), 6, seed) for seed in (0, 0, 1))
    assert torch.equal(first[[5, 2]].ids, again[[5, 2]].ids)
    assert not torch.equal(first[[5, 2]].ids, other[[5, 2]].ids)


def test_single_questions_are_rows_of_their_own() -> None:
    pictures, vocab = parts.pictures("val"), parts.words()
    questions = [(k, q) for k, item in enumerate(pictures.items) for q in item.questions]
    rows = SingleQuestions(pictures, vocab)
    assert len(rows) == len(questions)
    batch = rows[[0, 7, 20]]
    for row, number in enumerate((0, 7, 20)):
        k, q = questions[number]
        asked, said = turn(q.text, q.answer, vocab)
        ids = batch.ids[row, batch.turns[row] >= 0].tolist()
        assert ids == [vocab["<user>"], *[vocab["<image>"]] * 36, *asked, *said]
        assert torch.equal(batch.patches[row], pictures.patches[k].float())


def test_test_scenes_are_those_of_the_dataset() -> None:
    from clipmapper.data.shapes.write import draw_sample

    scene, questions, captions = draw_sample(parts.shapes(train_scenes=7), "test", 2)
    assert draw_picture(parts.shapes(), "test", 2) == draw_picture(parts.shapes(extra_questions={"same": 3}), "test", 2)
    item = draw_picture(parts.shapes(), "test", 2)
    assert (item.scene, item.questions, item.captions) == (scene, questions, captions)
