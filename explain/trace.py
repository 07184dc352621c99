"""What a model hands over to be explained: its attention steps, in the order in which it ran them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from explain import validation
from explain.spans import JOINT, TraceError, span

__all__ = ["JOINT", "AttentionStep", "AttentionTrace", "Scalar", "TraceError"]

Scalar = Callable[[Mapping[str, Tensor]], Tensor]  #: y [B] as a function of all ``AttentionTrace.inputs``


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionStep:
    """One attention block of a transformer layer: queries of modality s, keys and values of modality q.

    Only the attention is needed by every explainer; the other tensors may be left out where none that is asked for
    needs them (``Explainer.needs`` lists what one needs).
    """

    query: str  #: modality s; "joint" for all tokens
    key: str  #: modality q; equal to ``query`` for self-attention
    attention: Tensor  #: A [B, H, n_s, n_q], probabilities after the softmax
    attention_grad: Tensor | None = None  #: ∂y/∂A [B, H, n_s, n_q]
    residual: Tensor | None = None  #: X [B, n_s, D], the residual stream that enters the block
    residual_grad: Tensor | None = None  #: ∂y/∂X [B, n_s, D], through the skip connection and the attention branch
    output: Tensor | None = None  #: Y [B, n_s, D], what the block adds: X' = X + Y
    output_grad: Tensor | None = None  #: ∂y/∂Y = ∂y/∂X' [B, n_s, D]
    stage: int | None = None  #: consecutive steps of one stage run side by side; None: a stage of its own
    attention_relevance: Tensor | None = None  #: LRP relevance of A [B, H, n_s, n_q]

    @property
    def is_cross(self) -> bool:
        """Whether one modality attends to another."""
        return self.query != self.key

    def tensor(self, name: str) -> Tensor:
        """One of the step's tensors by its name; raises :class:`TraceError` where it was left out."""
        tensor: Tensor | None = getattr(self, name)
        if tensor is None:
            raise TraceError(f"a step in which {self.query} attends to {self.key} lacks {name}")
        return tensor


@dataclass(frozen=True, eq=False)
class AttentionTrace:
    """The steps of one forward pass, with the gradients of one scalar y per sample.

    Raises:
        TraceError: a shape, a modality or a mask does not fit, or a tensor holds NaN or Inf; the message names the
            step's index and the tensor.
    """

    sizes: Mapping[str, int]  #: tokens of each modality, in joint order: {"image": n_v, "text": n_t}
    steps: Sequence[AttentionStep]
    valid: Tensor | None = None  #: bool [B, N] in joint order, False for padding; None: no padding
    inputs: Mapping[str, Tensor] | None = None  #: input token embeddings [B, n, D] of each modality
    inputs_grad: Mapping[str, Tensor] | None = None  #: their gradients, same shapes
    sample_ids: Sequence[int | str] | None = None  #: B names of the samples, for what is drawn at random
    scalar: Scalar | None = None  #: for explainers that ask the model again

    def __post_init__(self) -> None:
        validation.check_sizes(self)
        validation.check_stages(self)
        validation.check_finite(self)

    @property
    def batch(self) -> int:
        """B."""
        return self.steps[0].attention.shape[0]

    @property
    def tokens(self) -> int:
        """N, the tokens of all modalities."""
        return sum(self.sizes.values())

    @property
    def dtype(self) -> torch.dtype:
        """The precision of relevance: the attention's, but at least float32."""
        return torch.promote_types(self.steps[0].attention.dtype, torch.float32)

    @property
    def device(self) -> torch.device:
        """Where the attention lies."""
        return self.steps[0].attention.device

    @property
    def has_cross_attention(self) -> bool:
        """Whether any step is a cross-attention."""
        return any(step.is_cross for step in self.steps)

    def stages(self) -> list[list[AttentionStep]]:
        """The steps in order, those that ran side by side together (neighbours with one stage number)."""
        stages: list[list[AttentionStep]] = []
        for step in self.steps:
            if stages and step.stage is not None and stages[-1][0].stage == step.stage:
                stages[-1].append(step)
            else:
                stages.append([step])
        return stages

    def span(self, modality: str) -> slice:
        """The joint positions of a modality's tokens; raises :class:`TraceError` if there is no such modality."""
        return span(self.sizes, modality)

    def valid_tokens(self, modality: str) -> Tensor | None:
        """bool [B, n] of one modality, or None where nothing is padded."""
        return None if self.valid is None else self.valid[:, self.span(modality)]

    def identity(self) -> Tensor:
        """R before the first step, [B, N, N] (Eq. 8)."""
        return torch.eye(self.tokens, dtype=self.dtype, device=self.device).repeat(self.batch, 1, 1)

    def require(self, *fields: str, by: str) -> None:
        """Raise :class:`TraceError` if an optional field of the trace or of one of its steps is missing."""
        validation.check_fields(self, fields, by)
