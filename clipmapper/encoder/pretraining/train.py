"""Pre-training of the embedded encoder with open_clip's contrastive loss and with losses on single patches.

The losses on patches predict the attributes and relations of the object in a patch. Muon trains the matrices of the
blocks and AdamW the other parameters: in the same number of steps, the patches learn shapes about twice as well as with
AdamW alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipmapper.encoder.pretraining.config import PretrainConfig
from clipmapper.encoder.pretraining.pool import CAPTION_KINDS, Batch, Pool, sample_batch
from clipmapper.encoder.pretraining.targets import (
    ATTRIBUTES,
    RELATED,
    PatchTargets,
    attribute_prompts,
    patch_targets,
    relation_prompts,
)
from clipmapper.encoder.shapes_tiny import EMBEDDED_MODEL, register_embedded, seeded_token_table
from clipmapper.errors import UserError
from clipmapper.training.module import Muon, split_matrices

_ATTRIBUTE_WEIGHTS = {"color": 1.0, "shape": 2.0, "size": 0.5, "place": 0.2}
Report = Callable[[int, dict[str, float], "Pretraining"], None]
_RELATED_WEIGHT = 5.0  # large, since the loss is a mean over 88 mostly false statements


class Words:
    """A tokenizer for the few tokens of CLIP's BPE that occur in pre-training.

    A token is a row of a small token table; ``used`` contains the token id of each row.
    """

    def __init__(self) -> None:
        self._tokenizer = open_clip.get_tokenizer(EMBEDDED_MODEL)
        self._ids: dict[str, list[int]] = {}
        self.used: list[int] = []  #: Token id of each row of the small table.
        self._rows: dict[int, int] = {}

    def rows(self, text: str) -> list[int]:
        """Return the rows of a text's tokens, with start and end tokens; unknown tokens get new rows."""
        if text not in self._ids:
            t = self._tokenizer
            ids = [t.sot_token_id, *t.encode(text), t.eot_token_id]
            for i in ids:
                if i not in self._rows:
                    self._rows[i] = len(self.used)
                    self.used.append(i)
            self._ids[text] = [self._rows[i] for i in ids]
        return self._ids[text]


class Pretraining(nn.Module):
    """A tiny open_clip model with a token table for ``words`` only, and the heads that only pre-training needs."""

    mean: Tensor
    std: Tensor
    clip: Any

    def __init__(self, config: PretrainConfig, words: Words):
        super().__init__()
        register_embedded()
        self.config, self.words = config, words
        self.clip = open_clip.create_model(EMBEDDED_MODEL)
        self.table = seeded_token_table(*self.clip.token_embedding.weight.shape)
        self.clip.token_embedding = nn.Embedding.from_pretrained(self.table[torch.tensor(words.used)], freeze=False)
        visual = self.clip.visual
        self.grid = int(visual.grid_size[0])
        width = visual.positional_embedding.shape[1]
        visual.positional_embedding.data.copy_(place_embedding(self.grid, width))
        self.attribute_head = nn.Linear(width, sum(len(values) for values in ATTRIBUTES.values()))
        self.related_head = nn.Linear(width, len(RELATED))
        self.related_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.related_bias = nn.Parameter(torch.tensor(-2.0))
        self.register_buffer("mean", torch.tensor(visual.preprocess_cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(visual.preprocess_cfg["std"]).view(1, 3, 1, 1), persistent=False)

    def image_tokens(self, images: Tensor) -> Tensor:
        """Encode images, uint8 [B, P, P, 3] → tokens after the final layer norm, [B, 1 + patches, D]."""
        visual = self.clip.visual
        pixels = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([visual.class_embedding.expand(len(patches), 1, -1), patches], 1)
        return visual.ln_post(visual.transformer(visual.ln_pre(tokens + visual.positional_embedding)))

    def text_embeddings(self, texts: list[str]) -> Tensor:
        """Return the normalised embeddings of texts in the shared space, [B, E]."""
        rows = [self.words.rows(text) for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([r + [0] * (longest - len(r)) for r in rows])
        end = torch.tensor([len(r) - 1 for r in rows])
        x = self.clip.token_embedding(ids) + self.clip.positional_embedding[:longest]
        x = self.clip.ln_final(self.clip.transformer(x, attn_mask=self.clip.attn_mask[:longest, :longest]))
        return F.normalize(x[torch.arange(len(texts)), end] @ self.clip.text_projection, dim=-1)

    def losses(self, batch: Batch, rng: Random) -> dict[str, Tensor]:
        """Return the weighted parts of the loss by name, and accuracies under names that begin with ``acc/``."""
        config, scale = self.config, self.clip.logit_scale.exp().clamp(max=100)
        tokens = self.image_tokens(torch.from_numpy(batch.images))
        parts: dict[str, Tensor] = {}
        if config.caption_weight:
            image = F.normalize(tokens[:, 0] @ self.clip.visual.proj, dim=-1)
            loss = open_clip.ClipLoss()(image, self.text_embeddings(batch.captions), scale)
            parts["captions"] = config.caption_weight * loss
        if config.patch_weight or config.prompt_weight:
            targets = patch_targets(batch.seen, batch.maps, self.grid, rng)
            patches = tokens[targets.image, 1 + targets.patch]
        if config.patch_weight:
            parts |= named_losses(
                "patches", self.attribute_head(patches), self.related_head(patches), targets, config.patch_weight
            )
        if config.prompt_weight:
            prompts = self.text_embeddings(attribute_prompts(rng) + relation_prompts(rng))
            similar = F.normalize(patches @ self.clip.visual.proj, dim=-1) @ prompts.T
            attributes, related = similar.split([len(prompts) - len(RELATED), len(RELATED)], 1)
            related = related * self.related_scale.exp() + self.related_bias
            parts |= named_losses("prompts", attributes * scale, related, targets, config.prompt_weight)
        return parts

    def weights(self) -> dict[str, Tensor]:
        """Return the state dict of the open_clip model with its complete token table."""
        table = self.table.clone()
        table[torch.tensor(self.words.used)] = self.clip.token_embedding.weight.detach()
        return {**self.clip.state_dict(), "token_embedding.weight": table}


def named_losses(
    name: str, attributes: Tensor, related: Tensor, targets: PatchTargets, weight: float
) -> dict[str, Tensor]:
    """Return the losses and accuracies of one kind of prediction by name.

    The loss is the cross-entropy for attributes and the binary cross-entropy for relations.

    Args:
        name: Name of the kind of prediction, which begins the names of its parts.
        attributes: Logits of all values of all attributes, [R, 29].
        related: Logits of the relations, [R, 88].
        targets: Targets of the R patches.
        weight: Weight of the losses.
    """
    sizes = [len(values) for values in ATTRIBUTES.values()]
    total = attributes.new_zeros(())
    parts: dict[str, Tensor] = {}
    for k, (attribute, logits) in enumerate(zip(ATTRIBUTES, attributes.split(sizes, 1), strict=True)):
        target = targets.attributes[:, k]
        total = total + _ATTRIBUTE_WEIGHTS[attribute] * F.cross_entropy(logits, target)
        known = targets.is_object
        parts[f"acc/{name} {attribute}"] = (logits[known].argmax(1) == target[known]).float().mean().detach()
    is_object = targets.is_object
    parts[f"{name} attributes"] = weight * total
    parts[f"{name} relations"] = (
        weight * _RELATED_WEIGHT * F.binary_cross_entropy_with_logits(related[is_object], targets.related[is_object])
    )
    said, true = related[is_object] > 0, targets.related[is_object] > 0
    parts[f"acc/{name} relations F1"] = 2 * (said & true).sum() / (said.sum() + true.sum()).clamp(min=1)
    return parts


def place_embedding(grid: int, width: int) -> Tensor:
    """Return initial position embeddings, [1 + grid², width], which are smooth and as large as the patch embeddings.

    With open_clip's small random embeddings, the model needs hundreds of steps to learn positions, and it needs
    positions to learn shapes.
    """
    along = torch.arange(grid) / grid * 2 * math.pi
    waves = along[:, None] * torch.arange(1, 9) / 2
    line = torch.cat([waves.sin(), waves.cos()], 1)
    both = torch.cat([line.repeat(grid, 1), line.repeat_interleave(grid, 0)], 1)  # x varies fastest
    mixed = both @ torch.randn(both.shape[1], width) / math.sqrt(both.shape[1])
    return torch.cat([torch.zeros(1, width), mixed])


def optimizers(model: Pretraining, lr: float) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices of the blocks, and AdamW for embeddings, norms, heads and biases."""
    matrices, rest = split_matrices(model, ("embedding", "visual.proj", "text_projection", "head"))
    return [
        Muon(matrices, lr=lr, weight_decay=0.05),
        torch.optim.AdamW(rest, lr=lr * 0.4, weight_decay=0.05, betas=(0.9, 0.98)),
    ]


def pretrain(config: PretrainConfig, pool: Pool, report: Report) -> Pretraining:
    """Train a new model for ``config.steps`` steps.

    Args:
        config: Config of the pre-training.
        pool: The pool of scenes.
        report: Function ``report(step, parts, model)`` that is called after each step with the parts of the loss.

    Raises:
        UserError: The loss of a step is NaN or infinite.
    """
    torch.manual_seed(config.seed)
    rng = Random(config.seed)
    words = _collect_words(config, pool)
    model = Pretraining(config, words)
    steppers = optimizers(model, config.lr)
    base = [[group["lr"] for group in o.param_groups] for o in steppers]
    for step in range(config.steps):
        factor = min(1.0, (step + 1) / config.warmup_steps) * _cosine(step / config.steps)
        for optimizer, rates in zip(steppers, base, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            optimizer.zero_grad()
        kinds = CAPTION_KINDS if config.caption_kinds else 1
        batch = sample_batch(pool, config.batch_size, config.twins, kinds, rng)
        with sdpa_kernel(
            SDPBackend.MATH
        ):  # on a CPU, its backward pass is several times faster than the fused kernel's
            parts = model.losses(batch, rng)
            loss = sum((part for name, part in parts.items() if not name.startswith("acc/")), torch.zeros(()))
            if not torch.isfinite(loss):
                raise UserError(
                    f"the training diverged: the loss of step {step + 1} is NaN or infinite; lower lr={config.lr}, or "
                    "make warmup_steps longer; weights that were saved before stay in the run folder"
                )
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in steppers:
            optimizer.step()
        report(step, {name: part.item() for name, part in parts.items()}, model)
    return model


def _cosine(done: float) -> float:
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))


def _collect_words(config: PretrainConfig, pool: Pool) -> Words:
    """Return all words that the generator uses, by sampling until 20 batches in a row have no new word."""
    words, rng, quiet = Words(), Random(0), 0
    while quiet < 20:
        known = len(words.used)
        batch = sample_batch(pool, min(256, len(pool.scenes) // 2), True, CAPTION_KINDS, rng)
        for text in (*batch.captions, *attribute_prompts(rng), *relation_prompts(rng)):
            words.rows(text)
        quiet = quiet + 1 if len(words.used) == known else 0
    return words
