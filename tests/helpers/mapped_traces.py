"""Random traces with token maps: tokens are dropped, merged, permuted, tiled, and read by queries."""

import dataclasses

import torch

from explain import AttentionStep, AttentionTrace, TokenMap

SIZES = {"image": 5, "text": 4}
QUERIES = {"image": 4, "query": 3, "text": 2}
# A step is (query, key, stage); a map is (modality, number of new tokens, source).
SHAPES = {
    "joint": [
        ("image", "image", 0),
        ("image", 3),
        ("text", "text", 1),
        ("text", 4),
        ("joint", "joint", 2),
        ("image", 6),
        ("joint", "joint", 3),
        ("joint", "joint", 4),
    ],
    "cross": [
        ("image", "image", 0),
        ("text", "text", 1),
        ("image", 2),
        ("image", "text", 2),
        ("text", "image", 2),
        ("text", 3),
        ("image", "image", 3),
        ("text", "text", 3),
        ("text", "image", 4),
        ("text", 2),
    ],
    "queries": [
        ("image", "image", 0),
        ("query", "query", 1),
        ("query", "image", 2),
        ("query", "query", 3),
        ("query", "image", 4),
        ("image", 3, "query"),
        ("query", 0),
        ("joint", "joint", 5),
        ("joint", "joint", 6),
    ],
    "kept_queries": [
        ("query", "image", 0),
        ("image", 2, "query"),
        ("text", "image", 1),
        ("query", "query", 1),
        ("query", "image", 2),
        ("joint", "joint", 3),
    ],
    "queries_twice": [  # the queries hand on first what they read of the image, then what they read of the text
        ("query", "image", 0),
        ("image", 2, "query"),
        ("query", "text", 1),
        ("text", 3, "query"),
        ("joint", "joint", 2),
    ],
}


def make_mapped_trace(shape, seed=0, batch=2, padded=False):
    """Return a seeded trace; with padding, the last token of each modality of sample 0 is padding where it can be."""
    draw = torch.Generator().manual_seed(seed)
    now = dict(QUERIES if "queries" in shape else SIZES)
    sizes = dict(now)
    valid = {m: padding(batch, n, padded and m != "query") for m, n in now.items()}
    first = torch.cat(list(valid.values()), 1)
    steps = []
    for each in SHAPES[shape]:
        if isinstance(each[1], int):
            step = random_map(draw, each, now, valid, batch, padded)
            now[each[0]], valid[each[0]] = each[1], step.valid
        else:
            n_s, n_q = (sum(now.values()) if m == "joint" else now[m] for m in each[:2])
            step = random_step(draw, batch, n_s, n_q, *each)
        steps.append(step)
    inputs = {m: torch.randn(batch, n, 3, generator=draw, dtype=torch.float64) for m, n in sizes.items()}
    grads = {m: torch.randn(batch, n, 3, generator=draw, dtype=torch.float64) for m, n in sizes.items()}
    valid = first if padded else None
    return AttentionTrace(sizes, steps, valid, inputs, grads, scalar=scalar, grid=(1, 3))


def scalar(inputs):
    return sum(x.tanh().sum((1, 2)) for x in inputs.values())


def padding(batch, count, padded):
    valid = torch.ones(batch, count, dtype=torch.bool)
    if padded and count > 1:
        valid[0, -1] = False
    return valid


def random_map(draw, each, now, valid, batch, padded):
    source = each[2] if len(each) > 2 else None
    old = valid[source or each[0]]
    new = padding(batch, each[1], padded and each[1] > 1)
    weights = torch.rand(batch, each[1], old.shape[1], generator=draw, dtype=torch.float64)
    weights *= torch.rand(weights.shape, generator=draw) < 0.6  # some old tokens are dropped
    weights[:, :, 0] += 0.1
    weights *= old[:, None, :]
    weights = weights / weights.sum(-1, keepdim=True)
    return TokenMap(modality=each[0], source=source, weights=weights, valid=new)


def random_step(draw, batch, n_s, n_q, query, key, stage):
    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    maps, stream = (batch, 2, n_s, n_q), (batch, n_s, 3)
    return AttentionStep(
        query=query,
        key=key,
        stage=stage,
        attention=(2 * normal(*maps)).softmax(-1),
        attention_grad=normal(*maps),
        attention_relevance=normal(*maps),
        residual=normal(*stream),
        residual_grad=normal(*stream),
        output=normal(*stream),
        output_grad=normal(*stream),
    )


def sample_of(trace, sample):
    """Return the trace of one sample without its padding, and which of its input tokens and final tokens are kept."""
    now = {m: _kept(trace.valid_tokens(m), sample, n) for m, n in trace.sizes.items()}
    columns, steps = _joint(now, trace.sizes), []
    sizes = {m: len(kept) for m, kept in now.items()}
    held = dict(trace.sizes)
    for step in trace.steps:
        if isinstance(step, TokenMap):
            new = _kept(step.valid, sample, step.weights.shape[1])
            weights = step.weights[sample : sample + 1][:, new][:, :, now[step.key]]
            steps.append(TokenMap(modality=step.modality, source=step.source, weights=weights))
            now[step.modality], held[step.modality] = new, step.weights.shape[1]
            continue
        s, q = (_joint(now, held) if m == "joint" else now[m] for m in (step.query, step.key))
        cut = {
            name: value[sample : sample + 1][:, :, s][:, :, :, q] if value.ndim == 4 else value[sample : sample + 1, s]
            for name, value in step.tensors()
        }
        steps.append(dataclasses.replace(step, **cut))
    return AttentionTrace(sizes, steps), columns, _joint(now, held)


def _kept(valid, sample, count):
    return torch.arange(count) if valid is None else valid[sample].nonzero()[:, 0]


def _joint(now, held):
    parts, start = [], 0
    for modality, size in held.items():
        parts.append(now[modality] + start)
        start += size
    return torch.cat(parts)
