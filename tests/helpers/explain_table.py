"""All explainers with their slow references; a new explainer gets all cross-checks with one line per table."""

import explain_reference as reference

from explain import explainers

EXPLAINERS = {
    "weighted": explainers.Weighted(),
    "weighted_branch": explainers.Weighted(residual_gradient="branch"),
    "weighted_token": explainers.Weighted(importance="token"),
    "weighted_branch_token": explainers.Weighted(residual_gradient="branch", importance="token"),
    "uniform": explainers.Uniform(),
    "constant": explainers.Constant(weight=0.8),
    "raw_attention": explainers.RawAttention(),
    "rollout": explainers.Rollout(),
    "genatt": explainers.GenAtt(),
    "attention_gradcam": explainers.AttentionGradCAM(),
    "trans_att": explainers.TransAtt(),
    "partial_lrp": explainers.PartialLRP(),
    "shuffled": explainers.Shuffled(),
    "shuffled_branch": explainers.Shuffled(residual_gradient="branch"),
    "depth_matched": explainers.DepthMatched(),
    "depth_matched_branch": explainers.DepthMatched(residual_gradient="branch"),
    "random": explainers.Random(seed=1),
    "first_to_last": explainers.FirstToLast(),
    "last_to_first": explainers.LastToFirst(),
    "centre_first": explainers.CentreFirst(),
    "input_x_gradient": explainers.InputXGradient(),
    "integrated_gradients": explainers.IntegratedGradients(steps=16),
}


def _weighted(residual_gradient, importance):
    return lambda trace: reference.weighted(trace, lambda s: reference.weights(s, residual_gradient, importance))[0]


def _constant(w):
    return lambda trace: reference.weighted(trace, lambda step: [(w, 1 - w)] * len(step.s))[0]


REFERENCES = {
    "weighted": _weighted("total", "matrix"),
    "weighted_branch": _weighted("branch", "matrix"),
    "weighted_token": _weighted("total", "token"),
    "weighted_branch_token": _weighted("branch", "token"),
    "uniform": _constant(0.5),
    "constant": _constant(0.8),
    "raw_attention": lambda trace: reference.last(trace, reference.Step.mean_attention),
    "rollout": reference.rollout,
    "genatt": reference.genatt,
    "attention_gradcam": lambda trace: reference.last(trace, reference.Step.gradcam),
    "trans_att": reference.trans_att,
    "partial_lrp": lambda trace: reference.last(trace, lambda s: s.over_heads(lambda h, i, j: s.relA[h][i][j])),
}


def _borrowed(residual_gradient):
    return lambda trace, others: reference.borrowed(trace, others, residual_gradient)


# References that also take the samples whose weights are used.
BORROWED = {
    "shuffled": _borrowed("total"),
    "shuffled_branch": _borrowed("branch"),
    "depth_matched": _borrowed("total"),
    "depth_matched_branch": _borrowed("branch"),
}
