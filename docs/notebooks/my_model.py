# %% [markdown]
# # My own model, explained and tested
#
# Any model of the [covered families](../reference/model-families.md) of `transformers` works as it is: no code of it
# is changed. Here a small LLaVA stands for yours. It answers questions about scenes of shapes, is part of the package,
# and is a plain folder of `transformers`.

# %%
from transformers import AutoProcessor, LlavaForConditionalGeneration

import clipmapper
import explain

folder = clipmapper.load("shapes-llava").path  # in your case: the folder of your model
mine = LlavaForConditionalGeneration.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder)

# %% [markdown]
# ## Explain it
#
# `explain.explain` takes the model and its processor, or only the name of its folder.

# %%
scene, question = "../pictures/scene.png", "what color is the circle?"
explain.explain(mine, processor, scene, question)

# %% [markdown]
# `clipmapper.load` returns one object for the folder, which also tests explanations:

# %%
model = clipmapper.load(folder)
print(model.task, f"{sum(each.numel() for each in model.model.parameters()):,} parameters")
e = model.explain(scene, "describe the image.", explainer=["weighted", "genatt", "random"])
e

# %% [markdown]
# The whole answer is explained: the probability is that of all its words. `target` names another answer.

# %%
print(e.answer)
print(f"{e.explained}: {e.explained.probability:.3f}")

# %% [markdown]
# ## Test it on samples of your own
#
# A sample is an image, a text and, if they are known, the answers of people. Without answers, the probability of the
# model's own answer is read. Cells of the image get its mean colour and words are left out, in the order of their
# scores.

# %%
questions = {"what color is the circle?": "teal", "how many rings are there?": "2", "is there a star?": "no"}
samples = [(scene, text, answer) for text, answer in questions.items()]
print(model.test(samples, explainers=["weighted", "genatt"]))

# %% [markdown]
# Three samples show that it works, and not more: look at the intervals. For a statement, take hundreds. The scenes
# that the small LLaVA was made for can be drawn, so this model has test data:

# %%
explainers = ["weighted", "genatt", "rollout"]
result = model.test(40, explainers=explainers, controls=["random", "centre_first"], steps="chefer")
result

# %% [markdown]
# ## Go on
#
# - With a run folder, several devices and a report: `python scripts/perturb.py model=huggingface model.path=FOLDER
#   data=table data.file=FILE.csv` ([any model](../reference/commands.md#any-model)).
# - [Models of open_clip](../how-to/open-clip.md), [a transformer of your own](../how-to/own-transformer.md), and [a
#   plain function](../how-to/test-explanations.md).
# - [What is not covered, and why](../how-to/limits.md).
