"""Explainers that share one trace have the scores that they have alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import sample_models
from sample_models import photo

from explain.sample.entry import explain

TOGETHER = (
    ["partial_lrp", "rollout"],  # relevance of the last step, attention of all
    ["partial_lrp", "weighted"],  # and gradients of all
    ["trans_att", "attention_gradcam"],  # relevance of all steps, gradients of the last
    ["partial_lrp", "trans_att", "raw_attention", "input_x_gradient"],
)


@pytest.mark.parametrize("name", ["vilt", "open_clip", "clip", "vit", "dinov2", "bert"])
def test_scores_do_not_depend_on_the_other_explainers(name: str) -> None:
    model, processor = getattr(sample_models, name)()
    inputs: dict[str, Any] = {} if name == "bert" else {"image": photo()}
    if name not in ("vit", "dinov2"):
        inputs["text"] = "a red cat"
    alone = {each: explain(model, processor, **inputs, explainer=each) for names in TOGETHER for each in names}
    for names in TOGETHER:
        together = explain(model, processor, **inputs, explainer=names)
        for each in names:
            one, other = together.scores[each], alone[each].scores[each]
            np.testing.assert_allclose(one.words, other.words, rtol=1e-4, atol=1e-8)
            for first, second in zip(one.images, other.images, strict=True):
                np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-8)
