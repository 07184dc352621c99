# %% [markdown]
# # A first picture
#
# Ask a model about an image, see which patches and words it used for the answer, and test whether the picture is true.
# It takes some minutes on two CPU cores, and downloads nothing: the package contains the model, and draws the test
# scenes itself.

# %%
import clipmapper

model = clipmapper.load("vqa-b")
model

# %% [markdown]
# The accuracy is that on the test questions. `model.task`, `model.classes` and `model.config` say more.
#
# ## One answer
#
# Darker patches and words have more relevance. In a running notebook, the pointer on a word shows the patches that it
# interacts with.

# %%
scene, question = "../pictures/scene.png", "what color is the circle?"
e = model.explain(scene, question)
e

# %% [markdown]
# The numbers behind the picture:

# %%
print(f"{e.answer}: {e.answer.probability:.4f}")
print(e.image.shape)
print([(word, round(score, 3)) for word, score in e.words])

# %% [markdown]
# ## Why this answer and not another?
#
# A pair of answers explains why the model prefers the first to the second.

# %%
model.explain(scene, question, target=("teal", "black"))

# %% [markdown]
# ## Several explainers
#
# They read the same trace, so a second one costs little. `random` is a control: if a map does not look better than it,
# do not believe the map. The [gallery](../gallery.md) shows all explainers.

# %%
model.explain(scene, question, explainer=["weighted", "rollout", "random"])

# %% [markdown]
# ## Is it true?
#
# A map can look right and be wrong. So remove the patches and words with the highest scores first, and see how soon
# the answers become wrong; then those with the lowest scores first. `positive` and `negative` are the areas under the
# two curves, and `gap` is their difference: larger is better, and it should be above that of the controls.

# %%
result = model.test(100, explainers=["weighted", "rollout"], controls=["random", "centre_first", "first_to_last"])
result

# %% [markdown]
# These are 100 of the 6,000 test questions, so the intervals (`gap_low` to `gap_high`, 95 %) are wide. [Traps that
# give wrong numbers](../faq.md) says how to read them, and [perturbation tests](../results/perturbation.md) has 2,000
# questions and three training seeds. The command `python scripts/perturb.py` gives the same numbers, with a folder of
# results.
#
# Next: [your own model](my_model.ipynb), [your own explainer](my_explainer.ipynb).
