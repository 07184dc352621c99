"""The explainers' formulas written slowly: one unpadded sample, plain numbers, a loop over every token and head."""

from explain import AttentionTrace


def zeros(n, m):
    return [[0.0] * m for _ in range(n)]


def identity(n):
    return [[float(i == j) for j in range(n)] for i in range(n)]


class Step:
    """One sample's attention step as nested lists, with the joint positions of its queries and keys."""

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
        """Return E_h of value(h, i, j)."""
        return [
            [sum(value(h, i, j) for h in self.heads) / len(self.heads) for j in range(len(self.q))]
            for i in range(len(self.s))
        ]

    def mean_attention(self):
        """Return E_h[A]."""
        return self.over_heads(lambda h, i, j: self.A[h][i][j])

    def evidence(self):
        """Return A* = E_h[(∇A ⊙ A)⁺] (Huang et al. 2023, Eq. 18)."""
        return self.over_heads(lambda h, i, j: max(self.gA[h][i][j] * self.A[h][i][j], 0.0))

    def lrp_evidence(self):
        """Return E_h[(∇A ⊙ Rel_A)⁺]."""
        return self.over_heads(lambda h, i, j: max(self.gA[h][i][j] * self.relA[h][i][j], 0.0))

    def gradcam(self):
        """Return (E_h[g_h · A_h])⁺, where g_h is the mean of ∇A_h."""
        means = [sum(map(sum, self.gA[h])) / (len(self.s) * len(self.q)) for h in self.heads]
        mean = self.over_heads(lambda h, i, j: means[h] * self.A[h][i][j])
        return [[max(v, 0.0) for v in row] for row in mean]


def stages(trace: AttentionTrace):
    """Group neighbouring steps that have the same stage number."""
    groups = []
    for step in (Step(trace, s) for s in trace.steps):
        if groups and groups[-1][0].stage == step.stage:
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def weights(step, residual_gradient, importance):
    """Return (w_X, w_Y) of each query token (Huang et al. 2023, Eq. 5-7)."""
    gX = step.gX if residual_gradient == "total" else step.gY
    n, d = len(step.s), len(step.X[0])
    s_x = [sum(max(step.X[i][c] * gX[i][c], 0.0) for c in range(d)) / d for i in range(n)]
    s_y = [sum(max(step.Y[i][c] * step.gY[i][c], 0.0) for c in range(d)) / d for i in range(n)]
    if importance == "matrix":
        s_x, s_y = [sum(s_x) / n] * n, [sum(s_y) / n] * n
    return [(x / (x + y), y / (x + y)) if x + y > 0 else (0.5, 0.5) for x, y in zip(s_x, s_y, strict=True)]


def weighted(trace, weigh):
    """Return R (Huang et al. 2023, Eq. 1-11), and the steps of each stage with R before the stage.

    ``weigh(step)`` returns (w_X, w_Y) of each query token.
    """
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


def borrowed(trace, others, residual_gradient):
    """Return R with the mean w_X of other samples in each step."""
    each = [
        [weights(s, residual_gradient, "matrix")[0][0] for stage in stages(other) for s in stage] for other in others
    ]
    means = iter([sum(w) / len(w) for w in zip(*each, strict=True)])

    def weigh(step):
        w = next(means)
        return [(w, 1 - w)] * len(step.s)

    return weighted(trace, weigh)[0]


def changed_columns(trace, step):
    """Return the columns of R[s] that a self-attention changes in rollout and TransAtt.

    These are the columns of s if the trace has cross-attentions, otherwise all columns.
    """
    return step.s if any(s.query != s.key for s in trace.steps) else range(sum(trace.sizes.values()))


def rollout(trace):
    """Return R of rollout (Abnar and Zuidema 2020), as written in Huang et al. 2023, appendix A, Eq. 24-26."""
    n = sum(trace.sizes.values())
    R = identity(n)
    for stage in stages(trace):
        old = [row[:] for row in R]
        for step in stage:
            A = step.mean_attention()
            if step.cross:
                _set_cross(R, old, step, A, read_through(trace, step, old))
                continue
            for i, row in enumerate(step.s):
                total = sum(A[i]) + 1
                for column in changed_columns(trace, step):
                    attended = sum(A[i][j] * old[token][column] for j, token in enumerate(step.q))
                    R[row][column] = (attended + old[row][column]) / total
    return R


def read_through(trace, step, R):
    """Return the columns of the modalities that s reads only through q."""
    if not step.cross:
        return []
    direct = {i for stage in stages(trace) for each in stage if each.s == step.s for i in each.q}
    others = [column for column in range(len(R)) if column not in {*step.s, *step.q, *direct}]
    return [column for column in others if any(R[token][column] != 0 for token in step.q)]


def _set_cross(R, old, step, A, further):
    for column_s in step.s:
        for column_q in [*step.q, *further]:
            R[column_s][column_q] = sum(
                old[step.s[i]][column_s] * A[i][j] * old[step.q[j]][column_q]
                for i in range(len(step.s))
                for j in range(len(step.q))
            )


def norm(R, tokens):
    """Return I + rownorm(R − I) of one modality, as a dict from pairs of positions to values."""
    result = {}
    for i in tokens:
        hat = {j: R[i][j] - float(i == j) for j in tokens}
        total = sum(hat.values())
        for j in tokens:
            result[i, j] = float(i == j) + (hat[j] / total if total != 0 else 0.0)
    return result


def genatt(trace):
    """Return R of GenAtt (Chefer et al. 2021), as written in Huang et al. 2023, appendix A, Eq. 27-34."""
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
                for c in read_through(trace, step, old):
                    R[a][c] += sum(
                        norm_s[row, a] * A[i][j] * old[token][c]
                        for i, row in enumerate(step.s)
                        for j, token in enumerate(step.q)
                    )
            for i, row in enumerate(step.s):
                for column in step.s:
                    R[row][column] += sum(A[i][j] * old[token][column] for j, token in enumerate(step.q))
    return R


def trans_att(trace):
    """Return R of TransAtt: R_ss ← R_ss + E_h[(∇A ⊙ Rel_A)⁺] · R_ss, and R_sq of the last cross-attention."""
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
                    for c in read_through(trace, step, old):
                        R[row][c] = sum(A[i][j] * old[token][c] for j, token in enumerate(step.q))
                    continue
                for column in changed_columns(trace, step):
                    R[row][column] += sum(A[i][j] * old[token][column] for j, token in enumerate(step.q))
    return R


def last(trace, attention_map):
    """Return R with blocks from the last attention of each kind, because later steps overwrite earlier ones."""
    R = identity(sum(trace.sizes.values()))
    for stage in stages(trace):
        for step in stage:
            A = attention_map(step)
            for i, row in enumerate(step.s):
                for c in read_through(trace, step, R):
                    R[row][c] = sum(A[i][j] * R[token][c] for j, token in enumerate(step.q))
                for j, token in enumerate(step.q):
                    R[row][token] = A[i][j]
    return R


def input_x_gradient(trace):
    """Return Σ_channels E ⊙ ∇E in every row."""
    scores = []
    for modality in trace.sizes:
        embeddings, grads = trace.inputs[modality][0].tolist(), trace.inputs_grad[modality][0].tolist()
        scores += [sum(e * g for e, g in zip(*pair, strict=True)) for pair in zip(embeddings, grads, strict=True)]
    return [scores for _ in scores]


def interaction(trace, query, key, weigh):
    """Return M_sq with the R of the weighted method (Huang et al. 2023, Eq. 16-18)."""
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
