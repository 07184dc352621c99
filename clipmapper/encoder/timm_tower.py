"""Vision transformers of timm inside open_clip models, such as those of SigLIP, MobileCLIP-B, EVA-02 and PE.

SigLIP has no class token: an image has its patches alone, and its embedding is what a learnt query reads from them.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import PatchEmbed, apply_rot_embed_cat
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from clipmapper.encoder.towers import VisionTower, recorded_inputs, unsupported_image_encoder
from clipmapper.nn import Tokens, attend, merge_heads, split_heads
from explain.capture.recording import active_recorder

# EVA has rotary position embeddings, and PE, which is an Eva of timm too, has another attention class for the same.
_BLOCKS = {VisionTransformer: (Block, ("Attention",)), Eva: (EvaBlock, ("EvaAttention", "AttentionRope"))}


def vision_tower(visual: Any) -> VisionTower:
    """Return the tower of an open_clip model's image encoder.

    Raises:
        UserError: The image encoder has no tokens, or none that can be traced.
    """
    return TimmTower(visual) if hasattr(visual, "trunk") else VisionTower(visual)


class TimmTower(VisionTower):
    """Image encoder of timm: pixels [B, 3, H, W] → tokens after the final layer norm, [B, F + P, D].

    First are the F class and register tokens that the encoder has, in SigLIP none.
    """

    def __init__(self, visual: Any):
        nn.Module.__init__(self)
        trunk = visual.trunk
        kind, attentions = _BLOCKS.get(type(trunk), (None, ()))
        parts = (*getattr(trunk, "blocks", ()), getattr(trunk, "patch_embed", None))
        odd = next((part for part in parts if not _plain(part, kind, attentions)), None)
        if kind is None or odd is not None or getattr(trunk, "rope_mixed", False) or trunk.dynamic_img_size:
            where = "" if kind is None or odd is None else f" with {type(odd).__name__}"
            raise unsupported_image_encoder(f"{type(trunk).__name__} of timm{where}")
        self.visual = visual
        self.blocks = trunk.blocks
        self.first = int(trunk.num_prefix_tokens)

    @property
    def token_count(self) -> int:
        """Number of tokens of an image, F + P."""
        rows, cols = self.grid_size
        return self.first + rows * cols

    @property
    def width(self) -> int:
        """Number of channels D of a token."""
        return int(self.visual.trunk.embed_dim)

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of the patches."""
        rows, cols = self.visual.trunk.patch_embed.grid_size
        return int(rows), int(cols)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = self.visual.trunk.patch_embed.patch_size
        return int(height), int(width)

    @property
    def inputs(self) -> list[nn.Module | nn.Parameter]:
        """The parts that embed the pixels, before the blocks."""
        trunk = self.visual.trunk
        learnt = [getattr(trunk, name, None) for name in ("cls_token", "reg_token", "pos_embed")]
        return [*(each for each in learnt if each is not None), trunk.patch_embed, trunk.norm_pre]

    @property
    def final_norm(self) -> nn.Module:
        """The norm after the blocks."""
        return self.visual.trunk.norm

    def embedded(self, pixels: Tensor) -> Tensor:
        """Return all embedded tokens with their position embeddings, [B, F + P, D]."""
        trunk = self.visual.trunk
        found = trunk._pos_embed(trunk.patch_embed(pixels))  # timm has no public function for it
        embedded: Tensor = found[0] if isinstance(found, tuple) else found  # EVA also returns its rotations
        return embedded

    def run(self, x: Tensor, mask: Tensor | None, index: Tensor) -> Tensor:
        """Run the transformer on embedded tokens [B, K, D], whose places in the image are ``index`` [B, K]."""
        trunk = self.visual.trunk
        x = recorded_inputs("image", trunk.norm_pre(x))
        turns: Tensor | None = None  # rotary position embeddings of the kept patches, [B, 1, patches, 2 d]
        if getattr(trunk, "rope", None) is not None:
            shape = {} if hasattr(trunk.rope, "feat_shape") else {"shape": self.grid_size}
            turns = trunk.rope.get_embed(**shape)[index[:, self.first :] - self.first][:, None]
        for block in self.blocks:
            x = self._block(block, x, mask, turns)
        return trunk.norm(x)

    def _block(self, block: Any, x: Tensor, mask: Tensor | None, turns: Tensor | None) -> Tensor:
        attn = block.attn
        q, k, v = _projected(attn, block.norm1(x))
        q, k = attn.q_norm(split_heads(q, attn.num_heads)), attn.k_norm(split_heads(k, attn.num_heads))
        if turns is not None:
            q, k = (self._turned(each, turns, attn) for each in (q, k))
        out = nn.Sequential(attn.norm, attn.proj)
        added, probabilities = attend(merge_heads(q), merge_heads(k), v, attn.num_heads, out, mask)
        added = _scaled(block, 1, added)
        if (recorder := active_recorder()) is not None and probabilities is not None:
            recorder.step(query="image", key="image", attention=probabilities, residual=x, output=added)
        x = x + added
        return x + _scaled(block, 2, block.mlp(block.norm2(x)))

    def _turned(self, x: Tensor, turns: Tensor, attn: Any) -> Tensor:
        """Rotate the queries or keys of the patches, [B, H, K, d], by their positions."""
        options = {"half": True} if getattr(attn, "rotate_half", False) else {}
        turned = apply_rot_embed_cat(x[:, :, self.first :], turns, **options)
        return torch.cat([x[:, :, : self.first], turned], 2)

    @property
    def shared_projection(self) -> Tensor:
        """Projection from the token width to the space of images and texts, [D, E]; the identity if there is none."""
        weights = [part.weight for part in (self.visual.trunk.head, *self.visual.head) if isinstance(part, nn.Linear)]
        if len(weights) != 1:
            return torch.eye(self.width, device=next(self.parameters()).device)
        return weights[0].T

    def pooled(self, tokens: Tokens) -> Tensor:
        """Return the images' embeddings in the shared space of images and texts, [B, E], not normalised.

        Raises:
            ValueError: Some images have fewer tokens than others.
        """
        if not bool(tokens.valid.all()):
            raise ValueError("images with different numbers of tokens cannot be pooled together")
        found: Tensor = self.visual.head(self.visual.trunk.forward_head(tokens.features))
        return found


def _plain(part: Any, kind: Any, attentions: tuple[str, ...]) -> bool:
    """Return whether a part embeds each patch by itself, or is a block that :meth:`TimmTower._block` computes."""
    if isinstance(part, PatchEmbed):
        return True
    attn = getattr(part, "attn", None)
    odd = getattr(attn, "gate", None) is not None or getattr(attn, "num_kv_groups", 1) != 1
    return type(part) is kind and type(attn).__name__ in attentions and not odd


def _projected(attn: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values of tokens [B, K, D], each [B, K, H·d]."""
    if attn.qkv is None:
        return attn.q_proj(x), attn.k_proj(x), attn.v_proj(x)
    if getattr(attn, "q_bias", None) is None:
        joint = attn.qkv(x)
    else:
        joint = nn.functional.linear(x, attn.qkv.weight, torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]))
    q, k, v = joint.chunk(3, -1)
    return q, k, v


def _scaled(block: Any, number: int, added: Tensor) -> Tensor:
    """Multiply what the attention (1) or the feed-forward part (2) of a block adds by its learnt scale, if any."""
    if (module := getattr(block, f"ls{number}", None)) is not None:
        return module(added)
    scale = getattr(block, f"gamma_{number}", None)
    return added if scale is None else scale * added
