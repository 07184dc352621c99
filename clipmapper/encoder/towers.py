"""The two transformers of an open_clip model, computed with this project's attention functions.

open_clip's blocks do not return attention probabilities, so their weights are used here instead. Supported are vision
transformers with a class token (those of timm: :mod:`clipmapper.encoder.timm_tower`), causal text transformers that are
read at their end token, and text transformers that are read at their last position, as in SigLIP. Other towers raise an
error, since their results would be wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from clipmapper.errors import UserError
from clipmapper.nn import KeyValues, Tokens, TokenSubset, attend, take
from explain.capture.recording import active_recorder


class VisionTower(nn.Module):
    """Image encoder: pixels [B, 3, H, W] → tokens after the final layer norm, [B, F + P, D].

    First are the F tokens that are no patches, here the class token, then P patches row by row. If the model has its
    final norm after the pooling, the tokens are those before the norm.
    """

    visual: Any
    first = 1  #: number F of tokens before the patches
    products: torch.dtype | None = None  #: precision of the matrix products; None for that of the weights

    def __init__(self, visual: Any):
        super().__init__()
        plain = hasattr(visual, "class_embedding") and getattr(visual, "attn_pool", None) is None
        if not plain or visual.pool_type not in ("tok", "avg"):
            raise unsupported_image_encoder(type(visual).__name__)
        self.visual = visual
        self.blocks = _checked_blocks(visual.transformer)
        self._norm_after_pooling = bool(getattr(visual, "final_ln_after_pool", False))

    @property
    def token_count(self) -> int:
        """Number of tokens of an image, F + P."""
        return int(self.visual.positional_embedding.shape[0])

    @property
    def patches(self) -> int:
        """Number P of patches of an image."""
        return self.token_count - self.first

    @property
    def width(self) -> int:
        """Number of channels D of a token."""
        return int(self.visual.positional_embedding.shape[1])

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        rows, cols = self.visual.grid_size
        return int(rows), int(cols)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = self.visual.patch_size
        return int(height), int(width)

    @property
    def inputs(self) -> list[nn.Module | nn.Parameter]:
        """The parts that embed the pixels, before the blocks."""
        return [self.visual.class_embedding, self.visual.positional_embedding, self.visual.conv1, self.visual.ln_pre]

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the blocks."""
        return self.visual.ln_post

    def embed(self, pixels: Tensor) -> Tensor:
        """Return all embedded tokens with their position embeddings, [B, F + P, D]."""
        with products_in(self.products, pixels.device):
            embedded = self.embedded(pixels)
        return embedded if self.products is None else embedded.float()

    def embedded(self, pixels: Tensor) -> Tensor:
        """Return what :meth:`embed` does, in any precision."""
        patches = self.visual.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.visual.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        return torch.cat([first, patches], 1) + self.visual.positional_embedding.to(patches.dtype)

    def forward(self, pixels: Tensor, subset: TokenSubset | None = None) -> Tokens:
        """Encode images; with ``subset``, only its tokens enter the transformer."""
        return self.encode(self.embed(pixels), subset)

    def encode(self, x: Tensor, subset: TokenSubset | None = None) -> Tokens:
        """Encode embedded tokens [B, F + P, D] with the transformer, all of them or only those of ``subset``."""
        if subset is None:
            subset = TokenSubset.all_of(x.new_ones(x.shape[:2], dtype=torch.bool))
        else:
            x = take(x, subset.index)
        mask = None if bool(subset.valid.all()) else subset.valid[:, None, None, :]
        if x.shape[1]:  # without a class token, an image may lose all its tokens
            with products_in(self.products, x.device):
                x = self.run(x, mask, subset.index)
        if self.products is not None:
            x = x.float()
        return Tokens(x, subset.valid, subset.index)

    def run(self, x: Tensor, mask: Tensor | None, index: Tensor) -> Tensor:
        """Run the transformer on embedded tokens [B, K, D], whose places in the image are ``index`` [B, K]."""
        # Recorded after ln_pre: a norm ignores the length of its input E, so Σ_c E · ∂y/∂E would be 0 before it.
        x = recorded_inputs("image", self.visual.ln_pre(x))
        x = run_blocks(self.blocks, x, mask, "image")
        return x if self._norm_after_pooling else self.visual.ln_post(x)

    @property
    def shared_projection(self) -> Tensor:
        """Projection from the token width to the embedding space of images and texts, [D, E]."""
        return self.visual.proj

    def pooled(self, tokens: Tokens) -> Tensor:
        """Return the images' embeddings in the shared space of images and texts, [B, E], not normalised."""
        if self.visual.pool_type == "tok":
            found = tokens.features[:, 0]
        else:
            kept = tokens.valid[:, self.first :, None]
            found = (tokens.features[:, self.first :] * kept).sum(1) / kept.sum(1)
        if self._norm_after_pooling:
            found = self.visual.ln_post(found)
        return found.to(self.visual.proj.dtype) @ self.visual.proj


def unsupported_image_encoder(what: str) -> UserError:
    """Return the error for an image encoder that has no tokens, or none that can be traced."""
    return UserError(
        f"image encoder {what} has no tokens that can be traced: choose a vision transformer such as ViT-B-32, "
        "ViT-L-14 or ViT-B-16-SigLIP"
    )


class TextTower(nn.Module):
    """Text encoder: token ids [B, N] → all tokens after the final layer norm, [B, N, D].

    Causal texts have any length and are read at their end token. Others are always as long as the context
    (:attr:`fills_context`): what follows the end token is part of the text, every token attends to it, and the last one
    is read.
    """

    text: Any
    products: torch.dtype | None = None  #: precision of the matrix products; None for that of the weights

    def __init__(self, text: Any):
        super().__init__()
        plain = hasattr(text, "token_embedding") and hasattr(text, "positional_embedding")
        pool = getattr(text, "text_pool_type", getattr(text, "pool_type", None))
        self.causal = getattr(text, "attn_mask", None) is not None
        self.fills_context = pool == "last"
        at_end = self.causal and pool in ("argmax", "eos")
        of_class = getattr(text, "cls_emb", None) is not None
        if not plain or of_class or not (at_end or self.fills_context):
            raise UserError(
                f"text encoder {type(text).__name__} is neither a causal transformer read at its end token nor one "
                "read at its last position: choose a plain CLIP or SigLIP model"
            )
        self.text = text
        self.blocks = _checked_blocks(text.transformer)

    @property
    def context_length(self) -> int:
        """Largest number of tokens of a text."""
        return int(self.text.positional_embedding.shape[0])

    @property
    def width(self) -> int:
        """Number of channels D of a token."""
        return int(self.text.positional_embedding.shape[1])

    def embed(self, ids: Tensor) -> Tensor:
        """Return all embedded tokens with their position embeddings, [B, N, D]."""
        x = self.text.token_embedding(ids)
        return x + self.text.positional_embedding[: ids.shape[1]].to(x.dtype)

    def forward(self, ids: Tensor, valid: Tensor, subset: TokenSubset | None = None) -> Tokens:
        """Encode texts; with ``subset``, only its tokens enter the transformer."""
        return self.encode(self.embed(ids), TokenSubset.all_of(valid) if subset is None else subset)

    def encode(self, x: Tensor, subset: TokenSubset) -> Tokens:
        """Encode the tokens of ``subset`` from embedded tokens [B, N, D] with the transformer."""
        x = take(x, subset.index)
        n = x.shape[1]
        mask = torch.ones(n, n, dtype=torch.bool, device=x.device).tril() if self.causal else None
        if not bool(subset.valid.all()):
            present = subset.valid[:, None, None, :]
            mask = present if mask is None else mask & present
        with products_in(self.products, x.device):
            x = self.text.ln_final(run_blocks(self.blocks, recorded_inputs("text", x), mask, "text"))
        return Tokens(x if self.products is None else x.float(), subset.valid, subset.index)

    def next(self, ids: Tensor, place: int, caches: Sequence[KeyValues]) -> Tensor:
        """Encode the next token of each text.

        Args:
            ids: Token ids, [B].
            place: Position of the token in the texts.
            caches: Key-value caches of the earlier tokens, one for each block.

        Returns:
            The token after the final layer norm, [B, 1, D].
        """
        x = self.text.token_embedding(ids[:, None])
        x = x + self.text.positional_embedding[place].to(x.dtype)
        with products_in(self.products, x.device):
            x = self.text.ln_final(run_blocks(self.blocks, x, None, "text", caches))
        return x if self.products is None else x.float()

    @property
    def shared_projection(self) -> Tensor:
        """Projection from the token width to the space of images and texts, [D, E]; the identity if there is none."""
        projection: Any = self.text.text_projection
        if projection is None:
            return torch.eye(self.width, device=self.text.positional_embedding.device)
        return projection.weight.T if isinstance(projection, nn.Linear) else projection

    def pooled(self, tokens: Tokens) -> Tensor:
        """Return the texts' embeddings in the shared space of images and texts, [B, E], not normalised."""
        end = take(tokens.features, tokens.last[:, None])[:, 0]
        projection = self.text.text_projection
        return projection(end) if isinstance(projection, nn.Module) else end @ self.shared_projection


def products_in(precision: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrix products have a precision, as torch.autocast says; None changes nothing."""
    return nullcontext() if precision is None else torch.autocast(device.type, precision)


def run_blocks(
    blocks: Iterable[Any], x: Tensor, mask: Tensor | None, modality: str, caches: Sequence[KeyValues] | None = None
) -> Tensor:
    """Run the residual stream through all blocks and record their attention steps if a recorder is active.

    Args:
        blocks: open_clip's residual attention blocks.
        x: Residual stream, [B, N, D].
        mask: Mask of :func:`clipmapper.nn.attention`.
        modality: Modality of the tokens, for the recorder.
        caches: Key-value caches, one for each block. The tokens also attend to the cached tokens and are added to them.

    Returns:
        The residual stream after the last block, [B, N, D].
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


def recorded_inputs(modality: str, embeddings: Tensor) -> Tensor:
    """Pass the embeddings to the active recorder, if any, which makes them require gradients.

    Without it, a frozen encoder would not build a graph.
    """
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
