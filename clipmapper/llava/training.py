"""Training of the projector and the decoder on cached patch tokens."""

from __future__ import annotations

import copy
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipmapper.llava.config import TrainLlavaConfig
from clipmapper.llava.conversations import IGNORED, Batch
from clipmapper.llava.model import Standard, fold
from clipmapper.training.module import MuonAdam, split_matrices


class LlavaTraining(pl.LightningModule):
    """Lightning module that trains all of a LLaVA but its vision tower.

    Its projector reads standardised patch tokens; :meth:`finished` returns the model that reads them as they are.

    Args:
        model: A ``LlavaForConditionalGeneration``.
        standard: How the patch tokens are standardised.
        config: The command's config.
    """

    def __init__(self, model: Any, standard: Standard, config: TrainLlavaConfig):
        super().__init__()
        self.model, self.config = model, config
        self.step_values: dict[str, Tensor] = {}  #: values of the last step, which StepLog logs
        self.register_buffer("mean", standard.mean)
        self.register_buffer("std", standard.std)

    @property
    def standard(self) -> Standard:
        """How the patch tokens are standardised."""
        return Standard(self.get_buffer("mean"), self.get_buffer("std"))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits at all positions before a learned token, [R, V], and these tokens, [R]."""
        standardised = self.standard.apply(batch.patches)
        if self.config.blind:
            standardised = torch.zeros_like(standardised)
        image = self.model.model.multi_modal_projector(standardised)
        words = self.model.get_input_embeddings()(batch.ids)
        embeddings = torch.cat([words[:, :1], image, words[:, 1 + image.shape[1] :]], 1)
        states = self._decode(embeddings, batch)
        learned = batch.labels[:, 1:] != IGNORED
        return self.model.lm_head(states[:, :-1][learned]), batch.labels[:, 1:][learned]

    def _decode(self, embeddings: Tensor, batch: Batch) -> Tensor:
        """Run the decoder, with its weights rounded to bfloat16: in two thirds of the time of float32 on a CPU."""
        decoder = self.model.model.language_model
        rounded = {name: weight.bfloat16() for name, weight in decoder.named_parameters()}
        seen = {"attention_mask": batch.mask, "position_ids": batch.positions}
        given = {"inputs_embeds": embeddings.bfloat16(), "use_cache": False, **seen}
        with sdpa_kernel(SDPBackend.MATH):  # on a CPU, its backward pass is faster than the fused kernel's
            return functional_call(decoder, rounded, (), given).last_hidden_state.float()

    def training_step(self, batch: Batch, _: int) -> Tensor:
        """Return the cross-entropy of the learned tokens."""
        logits, tokens = self(batch)
        loss = F.cross_entropy(logits, tokens)
        self.step_values = {"loss": loss.detach()}
        return loss

    def validation_step(self, batch: Batch, _: int) -> None:
        """Log the share of answers that greedy generation would give word by word, with their end."""
        logits, tokens = self(batch)
        right = batch.labels[:, 1:] == IGNORED
        right[~right] = logits.argmax(-1) == tokens
        self.log("val/accuracy", right.all(1).float().mean(), batch_size=len(right), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return Muon for the matrices of the projector and the blocks, and Adam for all other parameters.

        The learning rate rises linearly for ``warmup_steps``, stays constant, and falls linearly to 0 in the second
        half.
        """
        c = self.config
        trained = torch.nn.ModuleList([self.model.model.multi_modal_projector, self.model.model.language_model])
        matrices, rest = split_matrices(trained, ("embed_tokens",))
        optimizer = MuonAdam(matrices, [*rest, self.model.lm_head.weight], c.lr, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / c.warmup_steps, 2 * (1 - step / c.steps))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, _: int) -> Batch:
        """Move a batch by its own ``to`` method."""
        return batch.to(device)

    def finished(self) -> Any:
        """Return a copy of the model whose projector reads the vision tower's own tokens, in evaluation mode."""
        model = copy.deepcopy(self.model).eval()
        fold(model.model.multi_modal_projector.linear_1, self.standard)
        return model
