"""Explainers on traces with token maps, written slowly: one sample, plain numbers, and a row of R for every token held.

R is a dict: modality → a list of rows, one for each token that the model holds; a row has one number per input token.
``made`` is the same for the identity that only token maps change: of which input tokens a token is made.
"""

from explain import TokenMap


class State:
    def __init__(self, trace):
        self.sizes = dict(trace.sizes)
        self.columns, start = {}, 0
        for modality, size in self.sizes.items():
            self.columns[modality] = list(range(start, start + size))
            start += size
        self.columns["joint"] = list(range(start))
        self.R = {m: [[float(c == j) for j in range(start)] for c in self.columns[m]] for m in self.sizes}
        self.made = {m: [row[:] for row in rows] for m, rows in self.R.items()}

    def tokens(self, modality, of="R"):
        rows = getattr(self, of)
        return [row for m in self.sizes for row in rows[m]] if modality == "joint" else rows[modality]

    def write(self, modality, rows):
        if modality != "joint":
            self.R[modality] = rows
            return
        rows = iter(rows)
        for m in self.sizes:
            self.R[m] = [next(rows) for _ in self.R[m]]

    def matrix(self):
        return self.tokens("joint")


def add(rows, weights):
    """Return Σ_j weights[j] · rows[j]."""
    columns = range(len(rows[0])) if rows else ()
    return [sum(w * row[c] for w, row in zip(weights, rows, strict=True)) for c in columns]


def run(trace, update, handing=False):
    """Return R after all steps: ``update(state, step)`` returns the modality and the rows that a step writes.

    ``handing``: a map from another modality makes its tokens of what that modality attends to.
    """
    state, groups = State(trace), []
    for step in trace.steps:
        same = groups and not isinstance(step, TokenMap) and not isinstance(groups[-1][0], TokenMap)
        if same and step.stage is not None and step.stage == groups[-1][0].stage:
            groups[-1].append(step)
        else:
            groups.append([step])
    for group in groups:
        if isinstance(group[0], TokenMap):
            apply(state, group[0], handing)
            continue
        writes = [update(state, step) for step in group]
        for modality, rows in writes:
            state.write(modality, rows)
    return state.matrix()


def apply(state, step, handing=False):
    weights = step.weights[0].tolist()
    source = step.source or step.modality
    if handing and source != step.modality:
        columns = state.columns[step.modality]
        state.made[source] = [[row[c] if c in columns else 0 for c in range(len(row))] for row in state.R[source]]
    for of in ("R", "made"):
        rows = getattr(state, of)
        rows[step.modality] = [add(rows[source], row) for row in weights]


def heads(step, value):
    n_heads, n_s, n_q = step.attention.shape[1:]
    return [[sum(value(h, i, j) for h in range(n_heads)) / n_heads for j in range(n_q)] for i in range(n_s)]


def mean_attention(step):
    return heads(step, lambda h, i, j: float(step.attention[0, h, i, j]))


def evidence(step, field="attention"):
    return heads(
        step, lambda h, i, j: max(float(step.attention_grad[0, h, i, j]) * float(getattr(step, field)[0, h, i, j]), 0)
    )


def importance(value, grad):
    n, width = value.shape[1:]
    return sum(max(float(value[0, i, c] * grad[0, i, c]), 0) for i in range(n) for c in range(width)) / (n * width)


def weighted(trace):
    def update(state, step):
        s_x, s_y = importance(step.residual, step.residual_grad), importance(step.output, step.output_grad)
        w = s_x / (s_x + s_y)
        rows = []
        for own, attended in zip(state.tokens(step.query), evidence(step), strict=True):
            total = sum(attended)
            after = add(state.tokens(step.key), [a / total for a in attended]) if total > 0 else own
            rows.append([w * x + (1 - w) * y for x, y in zip(own, after, strict=True)])
        return step.query, rows

    return run(trace, update)


def has_cross(trace):
    return any(not isinstance(s, TokenMap) and s.query != s.key for s in trace.steps)


def plus(state, step, matrix, columns, normalised=False):
    """Return the rows of s with R + matrix · R[q], changed in the given columns only.

    ``normalised`` divides them by the sum of the row of I + matrix.
    """
    rows = []
    for own, attended in zip(state.tokens(step.query), matrix, strict=True):
        after, new = add(state.tokens(step.key), attended), own[:]
        total = 1 + sum(attended) if normalised else 1
        for c in columns:
            new[c] = (own[c] + after[c]) / total
        rows.append(new)
    return rows


def with_block(state, step, block):
    """Return the rows of s with new values in the columns of q."""
    rows = [row[:] for row in state.tokens(step.query)]
    for row, values in zip(rows, block, strict=True):
        for c, value in zip(state.columns[step.key], values, strict=True):
            row[c] = value
    return rows


def part(rows, columns):
    return [[row[c] for c in columns] for row in rows]


def product(*matrices):
    first, *others = matrices
    for other in others:
        first = [[sum(a * row[c] for a, row in zip(line, other, strict=True)) for c in range(len(other[0]))]
                 for line in first]  # fmt: skip
    return first


def transposed(matrix):
    return [list(column) for column in zip(*matrix, strict=True)]


def rollout(trace):
    def update(state, step):
        A, s, q = mean_attention(step), state.columns[step.query], state.columns[step.key]
        if step.query != step.key:
            R_ss, R_qq = part(state.tokens(step.query), s), part(state.tokens(step.key), q)
            made = part(state.tokens(step.query, "made"), s)
            return step.query, with_block(state, step, product(made, transposed(R_ss), A, R_qq))
        columns = s if has_cross(trace) else state.columns["joint"]
        return step.query, plus(state, step, A, columns, normalised=True)

    return run(trace, update)


def genatt(trace):
    def norm(state, modality):
        columns = state.columns[modality]
        made, own = part(state.tokens(modality, "made"), columns), part(state.tokens(modality), columns)
        result = []
        for start, row in zip(made, own, strict=True):
            rest = [x - y for x, y in zip(row, start, strict=True)]
            total = sum(rest)
            result.append([y + (x / total if total != 0 else 0) for x, y in zip(rest, start, strict=True)])
        return result

    def update(state, step):
        A, s, q = evidence(step), state.columns[step.query], state.columns[step.key]
        if step.query == step.key:
            return step.query, plus(state, step, A, state.columns["joint"])
        made = part(state.tokens(step.query, "made"), s)
        across = product(made, transposed(norm(state, step.query)), A, norm(state, step.key))
        back = product(A, part(state.tokens(step.key), s))
        rows = [row[:] for row in state.tokens(step.query)]
        for row, a, b in zip(rows, across, back, strict=True):
            for c, value in [*zip(q, a, strict=True), *zip(s, b, strict=True)]:
                row[c] += value
        return step.query, rows

    return run(trace, update)


def trans_att(trace):
    def update(state, step):
        A = evidence(step, "attention_relevance")
        if step.query != step.key:
            made = part(state.tokens(step.key, "made"), state.columns[step.key])
            return step.query, with_block(state, step, product(A, made))
        columns = state.columns[step.query] if has_cross(trace) else state.columns["joint"]
        return step.query, plus(state, step, A, columns)

    return run(trace, update)


def raw_attention(trace):
    def last(step):
        for later in trace.steps[trace.steps.index(step) + 1 :]:
            if isinstance(later, TokenMap):
                if later.source == step.query:
                    return True  # its rows are handed on
            elif later.query == "joint" or (later.query, later.key) == (step.query, step.key):
                return False
        return True

    def update(state, step):
        if not last(step):
            return step.query, state.tokens(step.query)
        made = part(state.tokens(step.key, "made"), state.columns[step.key])
        return step.query, with_block(state, step, product(mean_attention(step), made))

    return run(trace, update, handing=True)
