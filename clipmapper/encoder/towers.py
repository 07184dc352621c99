"""The two transformers of an open_clip model, run token by token through our own attention.

open_clip's blocks don't return attention, so their weights are run here. Supported are the plain CLIP towers (a vision
transformer with a class token, a causal text transformer); anything else is refused by name rather than run wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clipmapper.errors import UserError
from clipmapper.nn import KeyValues, Tokens, TokenSubset, attend, take
from explain.capture.recording import active_recorder


class VisionTower(nn.Module):
    """The image side: pixels [B, 3, H, W] → class token and patches after the final norm, [B, 1 + P, D]."""

    visual: Any

    def __init__(self, visual: Any):
        super().__init__()
        plain = hasattr(visual, "class_embedding") and getattr(visual, "attn_pool", None) is None
        if not plain or visual.pool_type != "tok" or getattr(visual, "final_ln_after_pool", False):
            raise UserError(
                f"image encoder {type(visual).__name__} is not a vision transformer with a class token: "
                "choose one like ViT-B-32, ViT-B-16 or ViT-L-14"
            )
        self.visual = visual
        self.blocks = _checked_blocks(visual.transformer)

    @property
    def token_count(self) -> int:
        """Class token and patches."""
        return int(self.visual.positional_embedding.shape[0])

    @property
    def width(self) -> int:
        return int(self.visual.positional_embedding.shape[1])

    def embed(self, pixels: Tensor) -> Tensor:
        """Embedded tokens with their positions, [B, 1 + P, D], before any token is left out."""
        patches = self.visual.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([first, patches], 1) + self.visual.positional_embedding.to(patches.dtype)

    def forward(self, pixels: Tensor, subset: TokenSubset | None = None) -> Tokens:
        return self.encode(self.embed(pixels), subset)

    def encode(self, x: Tensor, subset: TokenSubset | None = None) -> Tokens:
        """Embedded tokens [B, 1 + P, D] through the transformer, all or some of them."""
        if subset is None:
            subset = TokenSubset.all_of(x.new_ones(x.shape[:2], dtype=torch.bool))
        else:
            x = take(x, subset.index)
        mask = None if bool(subset.valid.all()) else subset.valid[:, None, None, :]
        x = self.visual.ln_pre(_watched("image", x))
        x = run_blocks(self.blocks, x, mask, "image")
        return Tokens(self.visual.ln_post(x), subset.valid, subset.index)

    @property
    def shared_projection(self) -> Tensor:
        """From token width into the space images and texts share, [D, E]."""
        return self.visual.proj

    def pooled(self, tokens: Tokens) -> Tensor:
        """The image's embedding in CLIP's shared space, [B, E], not normalised."""
        return tokens.features[:, 0] @ self.visual.proj


class TextTower(nn.Module):
    """The text side: token ids [B, N] → every token after the final norm, [B, N, D]; causal, true lengths."""

    text: Any

    def __init__(self, text: Any):
        super().__init__()
        plain = hasattr(text, "token_embedding") and hasattr(text, "positional_embedding")
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
        causal = getattr(text, "attn_mask", None) is not None
        if not plain or not causal or pool != "argmax" or getattr(text, "cls_emb", None) is not None:
            raise UserError(
                f"text encoder {type(text).__name__} is not a causal CLIP text transformer read at its end token: "
                "choose a plain CLIP model"
            )
        self.text = text
        self.blocks = _checked_blocks(text.transformer)

    @property
    def context_length(self) -> int:
        return int(self.text.positional_embedding.shape[0])

    @property
    def width(self) -> int:
        return int(self.text.positional_embedding.shape[1])

    def embed(self, ids: Tensor) -> Tensor:
        """Embedded tokens with their positions, [B, N, D], before any token is left out."""
        x = self.text.token_embedding(ids)
        return x + self.text.positional_embedding[: ids.shape[1]].to(x.dtype)

    def forward(self, ids: Tensor, valid: Tensor, subset: TokenSubset | None = None) -> Tokens:
        return self.encode(self.embed(ids), TokenSubset.all_of(valid) if subset is None else subset)

    def encode(self, x: Tensor, subset: TokenSubset) -> Tokens:
        """Embedded tokens [B, N, D] through the transformer: those of the subset."""
        x = take(x, subset.index)
        n = x.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool, device=x.device).tril()
        if not bool(subset.valid.all()):
            mask = mask & subset.valid[:, None, None, :]
        x = run_blocks(self.blocks, _watched("text", x), mask, "text")
        return Tokens(self.text.ln_final(x), subset.valid, subset.index)

    def next(self, ids: Tensor, place: int, caches: Sequence[KeyValues]) -> Tensor:
        """One further token of each text, ids [B] at ``place``, after those in the caches (one a block): [B, 1, D]."""
        x = self.text.token_embedding(ids[:, None])
        x = x + self.text.positional_embedding[place].to(x.dtype)
        return self.text.ln_final(run_blocks(self.blocks, x, None, "text", caches))

    @property
    def shared_projection(self) -> Tensor:
        """From token width into the space images and texts share, [D, E]; the identity where the model has none."""
        projection: Any = self.text.text_projection
        if projection is None:
            return torch.eye(self.width, device=self.text.positional_embedding.device)
        return projection.weight.T if isinstance(projection, nn.Linear) else projection

    def pooled(self, tokens: Tokens) -> Tensor:
        """The text's embedding in CLIP's shared space, [B, E], not normalised."""
        end = take(tokens.features, tokens.last[:, None])[:, 0]
        projection = self.text.text_projection
        return projection(end) if isinstance(projection, nn.Module) else end @ self.shared_projection


def run_blocks(
    blocks: Iterable[Any], x: Tensor, mask: Tensor | None, modality: str, caches: Sequence[KeyValues] | None = None
) -> Tensor:
    """The residual stream [B, N, D] through every block; ``mask`` as in :func:`clipmapper.nn.attention`.

    With ``caches``, one a block, the tokens also attend to those that are kept there, and are added to them.
    """
    for number, block in enumerate(blocks):
        attn, h = block.attn, block.ln_1(x)
        q, k, v = nn.functional.linear(h, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        if caches is not None:
            k, v = caches[number].extend(k, v)
        added, probabilities = attend(q, k, v, attn.num_heads, attn.out_proj, mask)
        added = block.ls_1(added)
        if (recorder := active_recorder()) is not None and probabilities is not None:
            recorder.step(query=modality, key=modality, attention=probabilities, residual=x, output=added)
        x = x + added
        x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return x


def _watched(modality: str, embeddings: Tensor) -> Tensor:
    """Frozen encoders build no graph by themselves; under a recording their input starts one."""
    recorder = active_recorder()
    return embeddings if recorder is None else recorder.inputs(modality, embeddings)


def _checked_blocks(transformer: Any) -> Any:
    blocks = getattr(transformer, "resblocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise UserError(
            f"{type(transformer).__name__} has no resblocks: only open_clip's own transformers are supported"
        )
    for number, block in enumerate(blocks):
        attn = getattr(block, "attn", None)
        unusual = [name for name in ("ln_q", "ln_inner", "head_scale", "logit_scale", "bias_k") if _in_use(attn, name)]
        unusual += ["ln_attn"] if _in_use(block, "ln_attn") else []
        if getattr(attn, "in_proj_weight", None) is None or unusual:
            raise UserError(
                f"block {number} of the encoder has attention {type(attn).__name__}"
                f"{' with ' + ', '.join(unusual) if unusual else ''}: only plain multi-head attention is supported"
            )
    return blocks


def _in_use(module: nn.Module | None, name: str) -> bool:
    part = getattr(module, name, None)
    return part is not None and not isinstance(part, nn.Identity)
