"""The formulas again, slowly: one unpadded sample, plain Python numbers, a loop over every token and head."""

from explain import AttentionTrace


def zeros(n, m):
    return [[0.0] * m for _ in range(n)]


def identity(n):
    return [[float(i == j) for j in range(n)] for i in range(n)]


class Step:
    """One sample's step as nested lists, with the joint positions of its queries and keys."""

    def __init__(self, trace, step):
        starts, start = {"joint": 0}, 0
        for modality, size in trace.sizes.items():
            starts[modality] = start
            start += size
        sizes = {**trace.sizes, "joint": start}
        self.s = [starts[step.query] + i for i in range(sizes[step.query])]
        self.q = [starts[step.key] + j for j in range(sizes[step.key])]
        self.query, self.key, self.stage, self.cross = step.query, step.key, step.stage, step.query != step.key
        self.A, self.gA = step.attention[0].tolist(), step.attention_grad[0].tolist()
        self.relA = step.attention_relevance[0].tolist()
        self.X, self.gX = step.residual[0].tolist(), step.residual_grad[0].tolist()
        self.Y, self.gY = step.output[0].tolist(), step.output_grad[0].tolist()
        self.heads = range(len(self.A))

    def over_heads(self, value):
        """E_h of value(h, i, j)."""
        return [
            [sum(value(h, i, j) for h in self.heads) / len(self.heads) for j in range(len(self.q))]
            for i in range(len(self.s))
        ]

    def mean_attention(self):
        return self.over_heads(lambda h, i, j: self.A[h][i][j])

    def evidence(self):
        return self.over_heads(lambda h, i, j: max(self.gA[h][i][j] * self.A[h][i][j], 0.0))

    def lrp_evidence(self):
        return self.over_heads(lambda h, i, j: max(self.gA[h][i][j] * self.relA[h][i][j], 0.0))

    def gradcam(self):
        means = [sum(map(sum, self.gA[h])) / (len(self.s) * len(self.q)) for h in self.heads]
        mean = self.over_heads(lambda h, i, j: means[h] * self.A[h][i][j])
        return [[max(v, 0.0) for v in row] for row in mean]


def stages(trace: AttentionTrace):
    """Neighbouring steps of one stage number, together."""
    groups = []
    for step in (Step(trace, s) for s in trace.steps):
        if groups and groups[-1][0].stage == step.stage:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def weights(step, residual_gradient, importance):
    """Eq. 5-7: (w_X, w_Y) of each query token."""
    gX = step.gX if residual_gradient == "total" else step.gY
    n, d = len(step.s), len(step.X[0])
    s_x = [sum(max(step.X[i][c] * gX[i][c], 0.0) for c in range(d)) / d for i in range(n)]
    s_y = [sum(max(step.Y[i][c] * step.gY[i][c], 0.0) for c in range(d)) / d for i in range(n)]
    if importance == "matrix":
        s_x, s_y = [sum(s_x) / n] * n, [sum(s_y) / n] * n
    return [(x / (x + y), y / (x + y)) if x + y > 0 else (0.5, 0.5) for x, y in zip(s_x, s_y, strict=True)]


def weighted(trace, weigh):
    """Eq. 1-11; ``weigh(step)`` gives (w_X, w_Y) of each query token. Also: R before each stage, with its steps."""
    n = sum(trace.sizes.values())
    R, history = identity(n), []
    for stage in stages(trace):
        old = [row[:] for row in R]
        history.append((stage, old))
        for step in stage:
            evidence, w = step.evidence(), weigh(step)
            for i, row in enumerate(step.s):
                total = sum(evidence[i])
                for column in range(n):
                    if total > 0:
                        after = sum(evidence[i][j] / total * old[token][column] for j, token in enumerate(step.q))
                    else:
                        after = old[row][column]
                    R[row][column] = w[i][0] * old[row][column] + w[i][1] * after
    return R, history


def own_columns(trace, step):
    """What a self-attention changes in rollout and TransAtt: R_ss where the trace has cross-attentions, else R[s]."""
    return step.s if any(s.query != s.key for s in trace.steps) else range(sum(trace.sizes.values()))


def rollout(trace):
    """Eq. 24-26."""
    n = sum(trace.sizes.values())
    R = identity(n)
    for stage in stages(trace):
        old = [row[:] for row in R]
        for step in stage:
            A = step.mean_attention()
            if step.cross:
                _set_cross(R, old, step, A)
                continue
            for i, row in enumerate(step.s):
                total = sum(A[i]) + 1
                for column in own_columns(trace, step):
                    attended = sum(A[i][j] * old[token][column] for j, token in enumerate(step.q))
                    R[row][column] = (attended + old[row][column]) / total
    return R


def _set_cross(R, old, step, A):
    for column_s in step.s:
        for column_q in step.q:
            R[column_s][column_q] = sum(
                old[step.s[i]][column_s] * A[i][j] * old[step.q[j]][column_q]
                for i in range(len(step.s))
                for j in range(len(step.q))
            )


def norm(R, tokens):
    """I + rownorm(R − I) of one modality, as a dict by token positions."""
    result = {}
    for i in tokens:
        hat = {j: R[i][j] - float(i == j) for j in tokens}
        total = sum(hat.values())
        for j in tokens:
            result[i, j] = float(i == j) + (hat[j] / total if total != 0 else 0.0)
    return result


def genatt(trace):
    """Eq. 27-34."""
    n = sum(trace.sizes.values())
    R = identity(n)
    for stage in stages(trace):
        old = [row[:] for row in R]
        for step in stage:
            A = step.evidence()
            if not step.cross:
                for i, row in enumerate(step.s):
                    for column in range(n):
                        R[row][column] += sum(A[i][j] * old[token][column] for j, token in enumerate(step.q))
                continue
            norm_s, norm_q = norm(old, step.s), norm(old, step.q)
            for a in step.s:
                for b in step.q:
                    R[a][b] += sum(
                        norm_s[row, a] * A[i][j] * norm_q[token, b]
                        for i, row in enumerate(step.s)
                        for j, token in enumerate(step.q)
                    )
            for i, row in enumerate(step.s):
                for column in step.s:
                    R[row][column] += sum(A[i][j] * old[token][column] for j, token in enumerate(step.q))
    return R


def trans_att(trace):
    """R_ss ← R_ss + E_h[(∇A ⊙ Rel_A)⁺]·R_ss; R_sq of the last cross-attention."""
    n = sum(trace.sizes.values())
    R = identity(n)
    for stage in stages(trace):
        old = [row[:] for row in R]
        for step in stage:
            A = step.lrp_evidence()
            for i, row in enumerate(step.s):
                if step.cross:
                    for j, token in enumerate(step.q):
                        R[row][token] = A[i][j]
                    continue
                for column in own_columns(trace, step):
                    R[row][column] += sum(A[i][j] * old[token][column] for j, token in enumerate(step.q))
    return R


def last(trace, attention_map):
    """Blocks set by the last attention of each kind: later steps overwrite earlier ones."""
    R = identity(sum(trace.sizes.values()))
    for stage in stages(trace):
        for step in stage:
            A = attention_map(step)
            for i, row in enumerate(step.s):
                for j, token in enumerate(step.q):
                    R[row][token] = A[i][j]
    return R


def input_x_gradient(trace):
    """Σ_channels E ⊙ ∇E in every row."""
    scores = []
    for modality in trace.sizes:
        embeddings, grads = trace.inputs[modality][0].tolist(), trace.inputs_grad[modality][0].tolist()
        scores += [sum(e * g for e, g in zip(*pair, strict=True)) for pair in zip(embeddings, grads, strict=True)]
    return [scores for _ in scores]


def interaction(trace, query, key, weigh):
    """Eq. 16-18 with R of the weighted method."""
    spans = {}
    start = 0
    for modality, size in trace.sizes.items():
        spans[modality] = range(start, start + size)
        start += size
    M = zeros(len(spans[query]), len(spans[key]))
    for stage, R in weighted(trace, weigh)[1]:
        for step in stage:
            if (step.query, step.key) not in {(query, key), ("joint", "joint")}:
                continue
            A = step.evidence()
            for a, token_a in enumerate(spans[query]):
                for b, token_b in enumerate(spans[key]):
                    M[a][b] += sum(
                        R[i][token_a] * A[step.s.index(i)][step.q.index(j)] * R[j][token_b]
                        for i in spans[query]
                        for j in spans[key]
                    )
    return M
