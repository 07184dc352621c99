"""The Lightning module: what it predicts, trains and returns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import llava_parts as parts
import pytest
import torch

from clipmapper.data.shapes.render import draw_scene
from clipmapper.llava.conversations import IGNORED, Conversations, SingleQuestions
from clipmapper.llava.evaluate import generate
from clipmapper.llava.model import Standard
from clipmapper.llava.training import LlavaTraining

pytest.importorskip("transformers")


def module(**changes: Any) -> LlavaTraining:
    torch.manual_seed(0)
    patches = parts.pictures().patches.float().flatten(0, 1)
    return LlavaTraining(parts.model(), Standard.of(patches), parts.config(**changes))


def test_the_logits_are_those_of_the_finished_model_for_each_conversation_alone() -> None:
    """The finished model reads the image and the token ids of one conversation, without the mask of a batch."""
    made = module()
    batch = Conversations(parts.pictures(), parts.words(), 6, 0)[[1, 4]]
    logits, tokens = made(batch)
    learned = batch.labels[:, 1:] != IGNORED
    assert torch.equal(tokens, batch.labels[:, 1:][learned])
    found = torch.zeros(*learned.shape, logits.shape[1])
    found[learned] = logits.detach()
    model = made.finished()
    for k, row in enumerate((1, 4)):
        drawn = draw_scene(parts.pictures().items[row].scene, 128)
        pixels = parts.clip()[2](drawn, return_tensors="pt")["pixel_values"]
        for number in range(1, 8):
            own = ((batch.turns[k] == 0) | (batch.turns[k] == number)).nonzero()[:, 0]
            with torch.no_grad():
                alone = model(input_ids=batch.ids[k : k + 1, own], pixel_values=pixels).logits[0, :-1]
            asked = batch.labels[k, own[1:]] != IGNORED
            torch.testing.assert_close(found[k, own[1:] - 1][asked], alone[asked], atol=0.03, rtol=0.03)  # bfloat16


def test_all_but_the_vision_tower_is_trained() -> None:
    made = module()
    optimizer = made.configure_optimizers()["optimizer"]
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    expected = {name for name, _ in made.model.named_parameters() if "vision_tower" not in name}
    assert {name for name, weight in made.model.named_parameters() if id(weight) in trained} == expected
    assert not any(weight.requires_grad for weight in made.model.model.vision_tower.parameters())


def test_the_learning_rate_rises_stays_and_falls_to_zero() -> None:
    made = module(steps=100, warmup_steps=10)
    factor = made.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [round(factor(step), 3) for step in (0, 9, 30, 50, 75, 100)] == [0.1, 1, 1, 1, 0.5, 0]


def test_validation_counts_what_greedy_generation_gets_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is biased to the answer "yes", so that some answers are right and others wrong."""
    made, vocab = module(), parts.words()
    pictures = parts.pictures("val")
    questions = [(item, q) for item in pictures.items for q in item.questions]
    scripted(made.model, vocab)
    seen: list[float] = []
    monkeypatch.setattr(made, "log", lambda name, value, **_: seen.append(float(value)))
    made.validation_step(SingleQuestions(pictures, vocab)[[*range(len(questions))]], 0)
    asked = [(draw_scene(item.scene, 128), q.text) for item, q in questions]
    said = generate(made.finished(), parts.processor(), asked, 3)
    assert set(said) == {"yes"}
    assert 0 < seen[0] < 1
    assert seen == [pytest.approx(sum(a == q.answer for a, (_, q) in zip(said, questions, strict=True)) / len(said))]


def scripted(model: Any, vocab: dict[str, int]) -> None:
    """Make the model say "yes" after ``<assistant>`` and ``<end>`` after any other token."""
    with torch.no_grad():
        for layer in model.model.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        table, head = model.get_input_embeddings().weight, model.lm_head.weight
        table.zero_()
        table[:, 0] = 1
        table[vocab["<assistant>"], 1] = 1
        head.zero_()
        head[vocab["<end>"], 0] = 1
        head[vocab["yes"], 1] = 2


def test_a_blind_model_sees_no_image() -> None:
    batch = Conversations(parts.pictures(), parts.words(), 6, 0)[[1, 4]]
    blind, seeing = module(blind=True), module()
    turned = replace(batch, patches=batch.patches.flip(0))
    assert torch.equal(blind(batch)[0], blind(turned)[0])
    assert not torch.equal(seeing(batch)[0], seeing(turned)[0])
