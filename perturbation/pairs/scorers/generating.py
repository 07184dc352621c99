"""Language models that read images: the probability of an answer, and the answer that they generate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explain.adapters.hugging_face.families import plan_of
from explain.adapters.hugging_face.text import is_special, special_ids, words_of
from explain.sample.generated import Prompt, rendered
from explain.sample.inputs import processed
from explain.sample.traced import MOST_TOKENS
from explain.targets import answer
from explain.traced import Word
from perturbation.arrays import Array
from perturbation.pairs.samples import Pair
from perturbation.pairs.scorers.base import Images, Scored, Texts, tokens_of

FLAT = ("blip-2", "instructblip")  # their processors take one list of images, others one list per text


@dataclass(frozen=True, eq=False)
class AskedAnswer:
    """The prompt of a complete pair, and the tokens of the model's answer to it, with the token that ends it."""

    prompt: Prompt
    tokens: Sequence[int]


class GeneratingScorer:
    """A language model of ``transformers`` that reads images.

    Its value is the probability of the answer that it generates greedily for the complete pair: the product over the
    answer's tokens, including the one that ends it if the answer ends, from one forward pass.

    Args:
        model: The model.
        processor: Its processor.
        max_new_tokens: Most tokens of an answer.
    """

    value = "probability"
    answers = True
    drops = False

    def __init__(self, model: Any, processor: Any, max_new_tokens: int = MOST_TOKENS) -> None:
        self.model, self.processor, self.max_new_tokens = model, processor, max_new_tokens
        self.tokens = tokens_of(processor.tokenizer)
        ends = special_ids(model.config, model.config.get_text_config(), model.generation_config)
        self._special = ends | set(processor.tokenizer.all_special_ids)

    def ask(self, pairs: Sequence[Pair]) -> list[AskedAnswer]:
        """Return the model's answer to each pair."""
        prompts = [rendered(self.model, self.processor, int(pair.image is not None), pair.text or "") for pair in pairs]
        tokens = self._generated([pair.image for pair in pairs], [prompt.text for prompt in prompts], prompts[0])
        return [AskedAnswer(*each) for each in zip(prompts, tokens, strict=True)]

    def text(self, asked: AskedAnswer) -> str:
        """Return the text of an answer."""
        return self._text(asked.tokens)

    def keep(self, pairs: Sequence[Pair]) -> None:
        """Keep nothing: images and texts are read together."""

    @torch.inference_mode()
    def score(self, images: Images, texts: Texts, asked: Sequence[AskedAnswer], say: bool) -> Scored:
        """Return the probabilities of the answers asked about, and the generated answers."""
        prompts = [_with_text(each.prompt, text or "") for each, text in zip(asked, texts, strict=True)]
        target = answer([list(each.tokens) for each in asked])
        inputs = self._processed(images, prompts, asked[0].prompt)
        plan = plan_of(self.model, inputs, target, None)
        value = target(plan.run()).exp().double().cpu().numpy()
        said = [""] * len(asked)
        if say:
            said = [self._text(tokens) for tokens in self._generated(images, prompts, asked[0].prompt)]
        return Scored(said, value)

    def words(self, asked: AskedAnswer) -> list[Word]:
        """Return the words of an answer, with the places of their tokens in it."""
        ids = torch.tensor([list(asked.tokens)])
        return words_of(ids, ~is_special(ids, self._special), 0, self.processor.tokenizer)[0]

    @torch.inference_mode()
    def token_probabilities(self, images: Images, asked: AskedAnswer) -> Array:
        """Return the probability of each token of an answer after the tokens before it, with each image, [n, T]."""
        target = answer(list(asked.tokens), each=True)
        inputs = self._processed(images, [asked.prompt.text] * len(images), asked.prompt)
        plan = plan_of(self.model, inputs, target, None)
        found: Array = target(plan.run()).exp().double().cpu().numpy()
        return found

    @torch.inference_mode()
    def _generated(self, images: Images, prompts: Sequence[str], like: Prompt) -> list[list[int]]:
        """Return the greedy answers' tokens, up to the one that ends an answer."""
        inputs = self._processed(images, prompts, like)
        options = {"do_sample": False, "num_beams": 1, "max_new_tokens": self.max_new_tokens}
        made = self.model.generate(**inputs, **options, return_dict_in_generate=True, output_logits=True)
        return [self._up_to_end(row) for row in made.sequences[:, -len(made.logits) :]]

    def _up_to_end(self, tokens: Tensor) -> list[int]:
        special = is_special(tokens, self._special).tolist()
        count = special.index(True) + 1 if True in special else len(tokens)
        found: list[int] = tokens[:count].tolist()
        return found

    def _text(self, tokens: Sequence[int]) -> str:
        return str(self.processor.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _processed(self, images: Images, prompts: Sequence[str], like: Prompt) -> dict[str, Any]:
        flat = self.model.config.model_type in FLAT
        shown = [image if flat else [image] for image in images if image is not None]
        options = {"padding": True, "padding_side": "left", **like.options}
        return processed(self.model, self.processor, shown, list(prompts), **options)


def _with_text(prompt: Prompt, text: str) -> str:
    """Return a prompt with another question in the place of its own."""
    start, stop = prompt.span
    return prompt.text[:start] + text + prompt.text[stop:]
