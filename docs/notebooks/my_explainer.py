# %% [markdown]
# # My own explainer against the paper's
#
# An explainer is a class with one method. Is a simple idea better than the explainers of Huang et al. (2023)? Write
# it, look at it, and test it beside theirs, on the same questions and with the same controls.
#
# ## Write it
#
# `matrix` gets the trace of a batch: every attention block has its attention A and, if `needs` names it, the gradient
# ∇A of the explained answer. It returns a relevance map, `[B, N, N]`. This one takes |∇A| of the last attention of
# each kind, averaged over the heads.

# %%
from torch import Tensor

import clipmapper
from explain import AttentionTrace, Explainer


class LastAttentionGradient(Explainer):
    needs = ("attention_grad",)
    last_only = True

    def matrix(self, trace: AttentionTrace) -> Tensor:
        relevance = trace.identity()
        for step in trace.last_steps():
            assert step.attention_grad is not None
            relevance[:, trace.span(step.query), trace.span(step.key)] = step.attention_grad.abs().mean(1)
        return relevance


# %% [markdown]
# ## Look at it

# %%
model = clipmapper.load("vqa-b")
chosen: dict[str, str | Explainer] = {name: name for name in ("weighted", "rollout", "genatt")}
chosen = {"mine": LastAttentionGradient(), **chosen}
model.explain("../pictures/scene.png", "what color is the circle?", explainer=chosen)

# %% [markdown]
# ## Test it
#
# Patches and words are removed in the order of the scores. `gap` is the area with the lowest scores removed first,
# minus that with the highest removed first: larger is better.

# %%
result = model.test(200, explainers=chosen, controls=["random", "centre_first", "first_to_last"])
result

# %% [markdown]
# ## Is the difference more than chance?
#
# The explainers are tested on the same questions, so their gaps are compared question by question. `difference` is the
# gap of `first` minus that of `second`, with its 95 % interval (`low` to `high`); `p` is that of a permutation test,
# with Holm's correction.

# %%
table = result.comparisons
table[table["first"] == "mine"].round(3)

# %% [markdown]
# So this idea is no good explanation of this model: on images it is better than chance, but not than removing the
# centre first, and the explainers of the paper are ahead of it; on text it is not better than chance. The map alone did
# not show that.
#
# ## Go on
#
# - Save the class in a module with a config file, and all commands run it, without a change of this project: [an
#   explainer of your own](../how-to/own-explainer.md).
# - Other measures, such as `measures=["areas", "saco"]`, and maps against known evidence:
#   [measures](../how-to/own-measure.md), `python scripts/evaluate_explanations.py`.
# - [All explainers](../gallery.md) with what each needs and costs.
