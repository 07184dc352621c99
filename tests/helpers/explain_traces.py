"""Random traces of several shapes.

``a`` has unimodal steps, then joint ones; ``b`` has stages of self- and cross-attentions; ``mixed`` has all kinds. In
``chain``, an answer attends to the text, which has attended to the image.
"""

import dataclasses

import torch

from explain import AttentionStep, AttentionTrace

SIZES = {"image": 5, "text": 4}
WIDTHS = {"image": 3, "text": 2, "answer": 2, "joint": 4}
UNIMODAL = [("image", "image", 0), ("image", "image", 1), ("text", "text", 0), ("text", "text", 1)]
SHAPES = {
    "a": [*UNIMODAL, ("joint", "joint", 2), ("joint", "joint", 3), ("joint", "joint", 4)],
    "b": [
        *UNIMODAL,
        *[
            (query, key, stage + 2 * layer)
            for layer in range(2)
            for query, key, stage in [
                ("image", "image", 2),
                ("text", "text", 2),
                ("image", "text", 3),
                ("text", "image", 3),
            ]
        ],
    ],
    "chain": [
        *UNIMODAL,
        *[("text", key, 2 + stage) for stage, key in enumerate(["text", "image"] * 2)],
        *[("answer", key, 6 + stage) for stage, key in enumerate(["answer", "text"] * 2)],
    ],
    "joint_first": [("joint", "joint", 0), ("image", "image", 1), ("text", "text", 1)],
    "mixed": [
        *UNIMODAL,
        ("joint", "joint", 2),
        ("image", "image", 3),
        ("text", "text", 3),
        ("image", "text", 4),
        ("text", "image", 4),
        ("joint", "joint", 5),
        ("text", "image", 6),
        ("image", "image", 6),
        ("text", "text", 7),
    ],
}
CASES = ("plain", "no_evidence", "no_importance", "zero_gradients")


def make_trace(
    shape="a", seed=0, batch=3, padded=False, case="plain", dtype=torch.float64, sizes=None, picture_ids=None
):
    """Return a seeded trace; entries at padding are arbitrary finite numbers, which no explainer may read."""
    if sizes is None:
        sizes = {"image": 3, "text": 4, "answer": 2} if shape == "chain" else SIZES
    elif shape == "chain":
        sizes = {**sizes, "answer": 2}
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    steps = [_step(normal, batch, sizes, case, index, *step) for index, step in enumerate(SHAPES[shape])]
    valid = _valid(batch, sum(sizes.values()), generator) if padded else None
    inputs = {m: normal(batch, n, 3) for m, n in sizes.items()}
    grads = {m: normal(batch, n, 3) for m, n in sizes.items()}
    names, grid = [f"s{b}" for b in range(batch)], (1, max(1, sizes["image"] - 1))
    return AttentionTrace(dict(sizes), steps, valid, inputs, grads, names, scalar, picture_ids, grid)


def scalar(inputs):
    """Return y [B] of a trace: a sum over tokens and channels, so that the contribution of each is known."""
    return sum(x.tanh().sum((1, 2)) for x in inputs.values())


def select(trace, samples):
    """Return the trace of some samples of the batch, in the given order."""
    index = torch.as_tensor(samples)

    def pick(value):
        return value[index] if isinstance(value, torch.Tensor) else value

    steps = [_map_fields(step, pick) for step in trace.steps]
    return AttentionTrace(
        trace.sizes,
        steps,
        pick(trace.valid),
        {m: pick(x) for m, x in trace.inputs.items()},
        {m: pick(x) for m, x in trace.inputs_grad.items()},
        trace.sample_ids and [trace.sample_ids[i] for i in index.tolist()],
        trace.scalar,
        trace.picture_ids and [trace.picture_ids[i] for i in index.tolist()],
        trace.grid,
    )


def unpadded_sample(trace, sample):
    """Return one sample without its padded tokens, and the joint positions of the tokens that are kept."""
    valid = torch.ones(trace.batch, trace.tokens, dtype=torch.bool) if trace.valid is None else trace.valid
    one = select(trace, [sample])
    keep = {m: valid[sample, trace.span(m)].nonzero()[:, 0] for m in (*trace.sizes, "joint")}
    steps = [_cut(step, keep[step.query], keep[step.key]) for step in one.steps]
    sizes = {m: len(keep[m]) for m in trace.sizes}
    inputs = {m: x[:, keep[m]] for m, x in one.inputs.items()}
    grads = {m: x[:, keep[m]] for m, x in one.inputs_grad.items()}
    return AttentionTrace(sizes, steps, None, inputs, grads, one.sample_ids, one.scalar), keep["joint"]


def _step(normal, batch, sizes, case, index, query, key, stage):
    n_s, n_q = (sum(sizes.values()) if m == "joint" else sizes[m] for m in (query, key))
    maps, stream = (batch, 2, n_s, n_q), (batch, n_s, WIDTHS[query])
    attention_grad, residual_grad, output_grad = normal(*maps), normal(*stream), normal(*stream)
    if case == "no_evidence":
        attention_grad[:, :, index % n_s] = -attention_grad[:, :, index % n_s].abs()
        attention_grad[0, :, 0] = 0
    if case == "no_importance":
        residual_grad[: index % 2 + 1], output_grad[: index % 2 + 1] = 0, 0
    if case == "zero_gradients":
        attention_grad, residual_grad, output_grad = 0 * attention_grad, 0 * residual_grad, 0 * output_grad
    return AttentionStep(
        query=query,
        key=key,
        attention=(2 * normal(*maps)).softmax(-1),
        attention_grad=attention_grad,
        residual=normal(*stream),
        residual_grad=residual_grad,
        output=normal(*stream),
        output_grad=output_grad,
        stage=stage,
        attention_relevance=normal(*maps),
    )


def _valid(batch, tokens, generator):
    valid = torch.rand(batch, tokens, generator=generator) < 0.7
    valid[:, 0] = True  # keep the class token
    valid[:, -1] = True
    return valid


def _map_fields(step, change):
    values = {field.name: getattr(step, field.name) for field in dataclasses.fields(step)}
    return AttentionStep(**{name: change(value) for name, value in values.items()})


def _cut(step, queries, keys):
    def cut(value):
        if not isinstance(value, torch.Tensor):
            return value
        return value[:, :, queries][:, :, :, keys] if value.ndim == 4 else value[:, queries]

    return _map_fields(step, cut)
