"""The attributes of explainers: number of passes, smallest batch and seeds, compared with what really happens."""

import inspect
from collections import Counter

import pytest
import torch
from adapter_checks import counted_backward
from explain_table import EXPLAINERS
from explain_traces import make_trace, select
from tiny_attention import SIZES, TinyModel, embeddings

from explain import Needs, TraceError, explainers
from explain.capture.passes import capture
from explain.targets import predicted


@pytest.mark.parametrize("name", [*EXPLAINERS, "more_steps"])
def test_the_number_of_passes_is_correct(name):
    explainer = EXPLAINERS.get(name, explainers.IntegratedGradients(steps=5))
    model, forward = TinyModel(), Counter()

    def run(_):
        forward["passes"] += 1
        return model(*embeddings())

    with counted_backward() as backward:
        trace, _ = capture(model, run, predicted, Needs.of([explainer]), lambda: (SIZES, None, (1, 2)))
        explainer(trace)
    assert explainer.passes == (forward["passes"], len(backward))


CONTROLS = (
    "random",
    "input_x_gradient",
    "uniform",
    "constant",
    "shuffled",
    "depth_matched",
    "first_to_last",
    "last_to_first",
    "centre_first",
)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_tokens_of_other_modalities_score_0(name):
    explainer, trace = EXPLAINERS[name], make_trace("b")
    found = explainer(trace, torch.zeros(3, dtype=torch.long))
    assert [m for m in trace.sizes if found[:, trace.span(m)].any()] == list(explainer.modalities)
    assert explainer.control == (name.removesuffix("_branch") in CONTROLS)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_batch_of_one_image_is_refused_by_explainers_with_partners_only(name):
    explainer, trace = EXPLAINERS[name], make_trace("b", picture_ids=[7, 7, 8])
    assert explainer.partners == {"shuffled": 1, "depth_matched": 64}.get(name.removesuffix("_branch"), 0)
    assert explainer(select(trace, [0, 2])).matrix.isfinite().all()
    for same in ([0], [0, 1]):
        if explainer.partners:
            with pytest.raises(
                TraceError, match="the batch of sample s0 has none: trace samples of two or more images"
            ):
                explainer(select(trace, same))
        else:
            assert explainer(select(trace, same)).matrix.isfinite().all()


@pytest.mark.parametrize("name", EXPLAINERS)
def test_the_seed_changes_only_the_scores_of_seeded_explainers(name):
    explainer, trace = EXPLAINERS[name], make_trace("b")
    rows = torch.zeros(3, dtype=torch.long)
    scores, other = explainer(trace, rows), explainer.with_seed(5)(trace, rows)
    assert torch.equal(scores, other) != explainer.seeded
    assert torch.equal(explainer(trace, rows), scores)
    if explainer.seeded:
        assert explainer.with_seed(5).seed == 5
        assert explainer.seed == 1
        assert torch.equal(other, type(explainer)(seed=5)(trace, rows))


def test_every_explainer_can_be_created_without_options():
    for name in explainers.__all__:
        assert inspect.isclass(getattr(explainers, name))
        assert isinstance(getattr(explainers, name)().passes.forward, int)
