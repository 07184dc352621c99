"""Traces of ``transformers`` models with explicit attention, whatever the family."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from explain.adapters.blocks import Seen, Watch, changed_stream, watch_block
from explain.adapters.hugging_face import places
from explain.adapters.hugging_face.explicit import explicit_attention
from explain.adapters.hugging_face.families import plan_of
from explain.adapters.hugging_face.plan import Plan, Stack, check_no_answer
from explain.adapters.hugging_face.refusals import check_inputs, check_model
from explain.adapters.lxmert import trace_lxmert
from explain.adapters.vilt import trace_vilt
from explain.adapters.watching import Layers, chosen_blocks, recorded_blocks
from explain.capture.needs import EVERYTHING, Needs
from explain.capture.passes import capture
from explain.capture.recording import Recorder
from explain.targets import Answer, Target, predicted
from explain.trace import JOINT, AttentionTrace, TraceError
from explain.traced import Traced

# Models whose tokens are known only while they run, or whose blocks run side by side.
OWN_ADAPTERS: Mapping[str, Callable[..., Traced]] = {"vilt": trace_vilt, "lxmert": trace_lxmert}
# The largest difference between the logits of the traced and of the untouched model, relative to the largest logit.
TOLERANCES = {torch.float64: 1e-5, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 1e-1}


def trace_hugging_face(
    model: nn.Module,
    inputs: Mapping[str, Any],
    target: Target | Answer | None = None,
    layers: Layers = None,
    *,
    needs: Needs = EVERYTHING,
    merge: Literal["uniform", "importance"] = "uniform",
    tolerance: float | None = None,
    tokenizer: Any = None,
) -> Traced:
    """Run a model of ``transformers``, frozen or not, on a batch and return the trace.

    The model is not changed: it computes its attention explicitly and is watched while it runs, and its logits are
    compared with those of the untouched model. The joint order is the image tokens, then further modalities, then the
    text, each without the padding between the tokens of a sample. If images become tokens of a language model, token
    maps lead from the vision tower's tokens to its image tokens, so the image tokens that are scored are the tower's.

    ViLT and LXMERT are passed to :func:`~explain.adapters.trace_vilt` and :func:`~explain.adapters.trace_lxmert`. There
    the text comes first in the joint order, and ``merge`` and ``tolerance`` do not apply.

    y depends on the kind of model: the logit of a class; the cosine of an image and its text (CLIP, SigLIP); or a logit
    of the next token. With :func:`explain.targets.answer`, it is the log-probability of a given answer, which is added
    to the text and takes one forward pass.

    Args:
        model: The model, in evaluation mode.
        inputs: The model's keyword arguments, as its processor returns them.
        target: y [B] as a function of the logits [B, C], which are those of the next token for a language model; or an
            :class:`~explain.targets.Answer`. None is the model's own prediction.
        layers: Indices of the layers to record in every stack, or ``{"image": …, "text": …}``; None records all. The
            gradient graph starts at the lowest recorded layer, where R starts as the identity.
        needs: Fields of the trace; by default all except LRP relevance.
        merge: How merged tokens share their relevance: ``uniform`` or ``importance`` (docs/method.md, Token maps).
        tolerance: Largest difference to the untouched model's logits, relative to the largest of them. None depends on
            the data type; infinity skips the comparison and its forward pass.
        tokenizer: The text's tokenizer, needed only to group tokens into ``words``.

    Raises:
        TraceError: The model's family is not supported, its mode or inputs cannot be traced, its traced logits differ
            from the untouched ones, or a layer in ``layers`` does not exist. The model is as before.
        ValueError: ``merge`` is unknown.
    """
    if merge not in ("uniform", "importance"):
        raise ValueError(f"merge={merge!r}: choose one of uniform, importance")
    own = OWN_ADAPTERS.get(getattr(getattr(model, "config", None), "model_type", ""))
    if own is not None:
        check_no_answer(model, target if isinstance(target, Answer) else None)
        y = predicted if target is None else target
        return own(model, inputs, y, needs=needs, layers=layers, tokenizer=tokenizer)
    check_model(model)
    check_inputs(inputs)
    plan = plan_of(model, inputs, target if isinstance(target, Answer) else None, tokenizer)
    chosen = chosen_blocks(layers, {stack.name: len(stack.blocks) for stack in plan.stacks})
    chosen = {s.name: [number for number in chosen[s.name] if number not in s.skipped] for s in plan.stacks}
    if not any(chosen.values()):
        raise TraceError("layers: only layers with linear attention are chosen, which has no attention maps")
    if merge == "importance" and not needs.gradients:
        needs = needs | Needs(last=frozenset({"attention_grad"}))
    plain = _plain_logits(plan, tolerance)

    def run(recorder: Recorder) -> Tensor:
        with ExitStack() as hooks:
            watch = Watch()
            hooks.enter_context(explicit_attention(model))
            _watch_stacks(hooks, watch, recorder, plan, chosen, merge)
            if plan.hook is not None:
                plan.hook(hooks, recorder, chosen)
            hooks.enter_context(watch)
            return plan.run()

    answer = target if isinstance(target, Answer) else None
    wanted = None if answer is None else answer.wanted(len(plan.valid), plan.valid.device)
    y = predicted if target is None else target
    pictures = None if wanted is None else range(len(plan.valid))
    layout = (plan.sizes, plan.valid, plan.grid)
    trace, logits = capture(model, run, y, needs, lambda: layout, picture_ids=pictures, wanted=wanted)
    _check_logits(logits, plain, tolerance)
    items = None if wanted is None else wanted.nonzero()[:, 0]
    return _traced(plan, trace, logits if wanted is None else logits[wanted], items)


def _watch_stacks(
    hooks: ExitStack,
    watch: Watch,
    recorder: Recorder,
    plan: Plan,
    chosen: Mapping[str, list[int]],
    merge: str,
) -> None:
    needs, started = recorder.needs, False
    for number, stack in enumerate(plan.stacks):
        recorded, first = _recorded(stack, chosen[stack.name], needs)
        replaced = any(chosen[later.name] for later in plan.stacks[number + 1 :] if later.query == JOINT)
        if replaced and stack.cross is None and not needs.all_steps:  # a later joint attention is the last of all
            recorded = []
        if replaced and stack.cross is None and not needs.gradients_of_all_steps:
            first = None
        if started and stack.query == JOINT:
            first = None  # its graph comes from the image
        constant = started and stack.cross is not None  # its first block already reads what the graph depends on
        if constant:
            first = None
        if merge == "importance" and any(each.module is not None for each in stack.merges):
            first = None  # the graph starts at the latest where the tokens are merged
        started = started or first is not None
        _watch_entry(hooks, recorder, stack, merge, constant)
        for place in recorded:
            name, block = stack.blocks[place]
            start = partial(recorder.start, stack.name) if place == first else None
            watch_block(hooks, watch, name, block, partial(_record, recorder, stack, place), start)


def _recorded(stack: Stack, chosen: Sequence[int], needs: Needs) -> tuple[Sequence[int], int | None]:
    """Return the blocks of a stack that are recorded, and the first one to be differentiated or None."""
    if stack.cross is None:
        return recorded_blocks(chosen, needs)
    crossed = [number for number in chosen if number in stack.cross.blocks]
    last = sorted([*crossed[-1:], *[number for number in chosen if number not in crossed][-1:]])
    recorded = chosen if needs.all_steps else last
    differentiated = recorded if needs.gradients_of_all_steps else last
    return recorded, min(differentiated, default=None)


def _record(recorder: Recorder, stack: Stack, number: int, seen: Seen) -> None:
    assert seen.output is not None
    key, own, keys = stack.query, stack.places, stack.places
    if stack.cross is not None and number in stack.cross.blocks:
        key, own, keys = stack.cross.key, stack.cross.places, stack.cross.keys
    recorder.step(
        query=stack.query,
        key=key,
        attention=places.attention(seen.attention, own, keys),
        residual=places.stream(seen.residual, own),
        output=places.stream(seen.output, own),
    )


def _watch_entry(hooks: ExitStack, recorder: Recorder, stack: Stack, merge: str, constant: bool) -> None:
    """Record the token maps before a stack, and the input tokens that enter its first block.

    ``constant``: its tokens begin as constants, and the gradient graph starts at them.
    """
    merged: dict[int, Tensor] = {}

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        for place, each in enumerate(stack.merges):
            if place in merged and each.places is not None:
                recorder.token_map(each.step, places.stream(merged[place], each.places, each.tokens))
            else:
                recorder.token_map(each.step)
        args, kwargs, _ = changed_stream(args, kwargs, partial(_with_inputs, recorder, stack))
        if constant:
            args, kwargs, _ = changed_stream(args, kwargs, partial(recorder.start, stack.name))
        return args, kwargs

    def see(place: int, _module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        merged[place] = recorder.watch(args[0])
        return (merged[place], *args[1:])

    if merge == "importance":
        for place, each in enumerate(stack.merges):
            if each.module is not None:
                hooks.enter_context(each.module.register_forward_pre_hook(partial(see, place)))
    hooks.enter_context(stack.blocks[0][1].register_forward_pre_hook(enter, with_kwargs=True))


def _with_inputs(recorder: Recorder, stack: Stack, tokens: Tensor) -> Tensor:
    """Return the first block's input after recording the input tokens in it; they can be replaced."""
    for modality, at in stack.inputs.items():
        own = places.take(tokens, at)
        leaf = recorder.inputs(modality, own, start=False)
        if leaf is not own or leaf.requires_grad:  # y must depend on the recorded tensor itself
            tokens = places.put(tokens, at, leaf)
    return tokens


def _plain_logits(plan: Plan, tolerance: float | None) -> Tensor | None:
    if tolerance == float("inf"):
        return None
    with torch.no_grad():
        return plan.run()


def _check_logits(logits: Tensor, plain: Tensor | None, tolerance: float | None) -> None:
    """Raise :class:`TraceError` if the traced logits differ from the untouched model's."""
    if plain is None:
        return
    limit = TOLERANCES.get(plain.dtype, 1e-3) if tolerance is None else tolerance
    difference = float((logits.double() - plain.double()).abs().max())
    size = max(float(plain.double().abs().max()), 1e-12)
    if not difference <= limit * size:
        raise TraceError(
            f"the traced logits differ from the untouched model's by {difference:.2g} (largest logit {size:.2g}, "
            f"tolerance {limit:g}): load it with attn_implementation='eager', or raise tolerance"
        )


def _traced(plan: Plan, trace: AttentionTrace, logits: Tensor, items: Tensor | None) -> Traced:
    """Return the trace with the meaning of its tokens; ``items`` [M] are the samples of an answer's tokens."""

    def of_items(tensor: Tensor) -> Tensor:
        return tensor if items is None else tensor[items]

    boxes = plan.boxes
    return Traced(
        trace=trace,
        logits=logits,
        removable=of_items(plan.removable),
        readout=plan.readout,
        grid=plan.grid,
        boxes=boxes if boxes is None or boxes.ndim == 2 else of_items(boxes),
        images=plan.images if plan.images is None or plan.images.ndim == 1 else of_items(plan.images),
        words=plan.words if plan.words is None or items is None else [plan.words[k] for k in items.tolist()],
        picture_ids=trace.picture_ids,
    )
