"""The words, the form of a conversation, and the processor of the small LLaVA.

A conversation is ``<user> <image>… question <assistant> answer <end> <user> question <assistant> …``. A token is a
word or a punctuation mark.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

PAD, UNKNOWN, IMAGE, USER, ASSISTANT, END = "<pad>", "<unk>", "<image>", "<user>", "<assistant>", "<end>"
SPECIAL = (PAD, UNKNOWN, IMAGE, USER, ASSISTANT, END)
_WORD = r"\w+|[^\w\s]"
_TEMPLATE = (
    "{% for message in messages %}{{ '<user>' if message['role'] == 'user' else '<assistant>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}{% endif %}"
    "{{ '' if message['role'] == 'user' else '<end>' }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def split_words(text: str) -> list[str]:
    """Return the words and punctuation marks of a text in lower case."""
    return re.findall(_WORD, text.lower())


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Return the token id of every special token, then of every word of the texts in alphabetical order."""
    words = sorted({word for text in texts for word in split_words(text)})
    return {word: number for number, word in enumerate((*SPECIAL, *words))}


def build_tokenizer(vocab: dict[str, int], longest: int) -> Any:
    """Return the tokenizer of a vocabulary for texts of at most ``longest`` tokens; unknown words are ``<unk>``."""
    import tokenizers
    import transformers

    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token=UNKNOWN))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_WORD), "removed", invert=True)
    inner.decoder = tokenizers.decoders.WordPiece(cleanup=True)  # puts spaces between words, none before a comma
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        model_max_length=longest,
        padding_side="left",
    )


def build_processor(image_processor: Any, tokenizer: Any, patch_size: int) -> Any:
    """Return the ``LlavaProcessor`` of CLIP's image processor and a tokenizer."""
    import transformers

    return transformers.LlavaProcessor(
        image_processor,
        tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=_TEMPLATE,
    )
