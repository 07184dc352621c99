"""The small LLaVA before training: the embedded encoder's vision tower, a projector and a Llama decoder.

At the start, words attend to the patches that resemble them: the embedding of a word is that of CLIP's text encoder,
the projector's output is near the embedding of a patch in the same space, and the queries of each layer are its keys.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clipmapper.encoder.load import FrozenClip
from clipmapper.llava.config import DecoderConfig
from clipmapper.llava.words import END, IMAGE, PAD, SPECIAL

_LIFT = 2.5  # mean input of the projector's GELU at the start: most inputs are positive, where it is almost linear


def build_model(clip: Any, vocab: dict[str, int], config: DecoderConfig, longest: int) -> Any:
    """Return a ``LlavaForConditionalGeneration`` with the frozen vision tower of a ``CLIPModel`` and random weights.

    Args:
        clip: The CLIP model, whose shared space has the width of the decoder.
        vocab: Token id of every word.
        config: The decoder.
        longest: Most tokens of a conversation.
    """
    import transformers

    width, end, pad = clip.config.projection_dim, vocab[END], vocab[PAD]
    text = transformers.LlamaConfig(
        vocab_size=len(vocab),
        hidden_size=width,
        intermediate_size=config.mlp_width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=longest,
        # Slow rotations: words are matched with patches at any distance.
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )
    model = transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=clip.config.vision_config,
            text_config=text,
            image_token_index=vocab[IMAGE],
            image_seq_length=clip.vision_model.embeddings.num_patches,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=False,
        )
    )
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = end, pad
    model.model.vision_tower.load_state_dict(clip.vision_model.state_dict())
    model.model.vision_tower.requires_grad_(False).eval()
    return model


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of every channel of the vision tower's patch tokens, [D] each."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, patches: Tensor) -> Standard:
        """Return those of patch tokens, [R, D]."""
        return cls(patches.mean(0), patches.std(0))

    def apply(self, patches: Tensor) -> Tensor:
        """Return patch tokens with mean 0 and standard deviation 1 in every channel."""
        return (patches - self.mean) / self.std


@torch.no_grad()
def fold(linear: nn.Linear, standard: Standard) -> None:
    """Change a layer that reads standardised tokens into the same function of the tokens themselves."""
    linear.weight.div_(standard.std)
    linear.bias.sub_(linear.weight @ standard.mean)


@torch.no_grad()
def start_from_clip(
    model: Any, encoder: FrozenClip, vocab: dict[str, int], patches: Tensor, standard: Standard
) -> None:
    """Set the word embeddings, the projector and the queries so that words attend to the patches that resemble them.

    Args:
        model: The model, whose decoder has the width E of CLIP's shared space.
        encoder: The encoder.
        vocab: Token id of every word.
        patches: Some patch tokens of the vision tower, [R, D].
        standard: How the projector's input is standardised.
    """
    words = [word for word in vocab if word not in SPECIAL]
    table = model.get_input_embeddings().weight
    table.normal_(std=1 / math.sqrt(table.shape[1]))  # as long as the embeddings of words
    table[[vocab[word] for word in words]] = word_embeddings(encoder, words)
    projector = model.model.multi_modal_projector
    nn.init.eye_(projector.linear_1.weight)
    projector.linear_1.bias.fill_(_LIFT)
    hidden = projector.act(projector.linear_1(standard.apply(patches)))
    fit = torch.linalg.lstsq(nn.functional.pad(hidden, (0, 1), value=1.0), patch_embeddings(encoder, patches)).solution
    projector.linear_2.weight.copy_(fit[:-1].T)
    projector.linear_2.bias.copy_(fit[-1])
    for layer in model.model.language_model.layers:
        nn.init.orthogonal_(layer.self_attn.q_proj.weight)
        layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)


def word_embeddings(encoder: FrozenClip, words: Sequence[str]) -> Tensor:
    """Return the normalised embeddings of single words in CLIP's shared space, [W, E]."""
    batch = encoder.tokenize(list(words))
    return nn.functional.normalize(encoder.text.pooled(encoder.text(batch.ids, batch.valid)), dim=-1)


def patch_embeddings(encoder: FrozenClip, patches: Tensor) -> Tensor:
    """Return the normalised embeddings of patch tokens in CLIP's shared space, [R, D] → [R, E]."""
    visual = encoder.vision.visual
    return nn.functional.normalize(visual.ln_post(patches) @ visual.proj, dim=-1)
