"""Merged tokens and layers without attention maps."""

from contextlib import ExitStack

import pytest
import torch
from hugging_face_models import MODELS

from explain import Needs, TokenMap, TraceError, explainers, targets
from explain.adapters import trace_hugging_face
from explain.adapters.blocks import Watch, watch_block
from explain.adapters.hugging_face.places import attention, in_sequence, put, take

pytest.importorskip("transformers")


def merged_input(name, model, inputs, target):
    """Return X ⊙ ∇X of the tower's tokens before they are merged, [tokens, D], in the order of the tower."""
    tower = {"qwen2_vl": "visual", "smolvlm": "vision_model", "internvl": "vision_tower"}[name]
    module = {"qwen2_vl": "visual.merger", "smolvlm": "connector"}.get(name)
    part = model.model.get_submodule(tower if module is None else module)
    seen = []

    def before(_, args):
        seen.append(args[0].detach().requires_grad_())
        return (seen[0], *args[1:])

    def after(_, __, output):  # InternVL joins the patches in a method, not in a module
        seen.append(output.last_hidden_state.detach().requires_grad_())
        output.last_hidden_state = seen[0]
        return output

    hook = part.register_forward_hook(after) if module is None else part.register_forward_pre_hook(before)
    with hook:
        logits = model(**inputs).logits
    last = inputs["attention_mask"].sum(1) - 1
    y = target(logits[torch.arange(2), last])
    (gradient,) = torch.autograd.grad(y.sum(), seen[0])
    product = (seen[0] * gradient).clamp(min=0).sum(-1).detach()
    return product[:, 1:] if name == "internvl" else product  # without the class token


@pytest.mark.parametrize("name", ["qwen2_vl", "smolvlm", "internvl"])
def test_importance_decides_the_shares_of_merged_tokens(name):
    model, inputs = MODELS[name](torch.float64)
    target = targets.given(3)
    importance = merged_input(name, model, inputs, target).flatten()
    trace = trace_hugging_face(model, inputs, target, merge="importance").trace
    uniform = trace_hugging_face(model, inputs, target).trace
    merge, plain = (next(s for s in each.steps if isinstance(s, TokenMap)) for each in (trace, uniform))
    first = 0
    for sample, count in enumerate({"qwen2_vl": (16, 24), "smolvlm": (16, 32), "internvl": (16, 32)}[name]):
        own = importance[first : first + count]
        first += count
        # Qwen merges neighbours in the tower, the others 2 × 2 patches of a grid of 4 × 4.
        squares = own.view(-1, 2, 2, 2, 2).transpose(2, 3).reshape(-1, 4) if name != "qwen2_vl" else own
        groups = squares.view(-1, 4)
        expected = groups / groups.sum(-1, keepdim=True)
        for slot, shares in enumerate(expected):
            found = merge.weights[sample, slot]
            where = plain.weights[sample, slot] > 0
            torch.testing.assert_close(found[where].double(), shares.double(), rtol=1e-4, atol=1e-6)
            assert found[~where].abs().sum() == 0
            torch.testing.assert_close(plain.weights[sample, slot][where], torch.full((4,), 0.25))
    changed = explainers.Weighted()(trace).matrix - explainers.Weighted()(uniform).matrix
    assert changed.abs().max() > 1e-4


def test_the_shares_do_not_depend_on_the_explainer():
    model, inputs = MODELS["qwen2_vl"](torch.float64)
    needs = Needs.of([explainers.Rollout()])
    part = trace_hugging_face(model, inputs, needs=needs, merge="importance")
    whole = trace_hugging_face(model, inputs, merge="importance")
    found, expected = part.explain(explainers.Rollout()), whole.explain(explainers.Rollout())
    torch.testing.assert_close(found["image"], expected["image"], rtol=1e-4, atol=1e-7)


def test_tokens_without_importance_are_merged_equally():
    """If y does not depend on the image, all importances are zero."""
    model, inputs = MODELS["qwen2_vl"]()
    with torch.no_grad():
        for parameter in model.model.visual.merger.parameters():
            parameter.zero_()
    trace = trace_hugging_face(model, inputs, merge="importance").trace
    merge = next(step for step in trace.steps if isinstance(step, TokenMap))
    assert set(merge.weights.unique().tolist()) == {0, 0.25}


def test_layers_with_linear_attention_are_left_out_by_name(caplog):
    model, inputs = MODELS["qwen3_5"]()
    with caplog.at_level("WARNING"):
        trace = trace_hugging_face(model, inputs).trace
    assert [step.query for step in trace.attention_steps] == ["image"] * 3 + ["joint"] * 2
    assert "linear attention have no attention map and are left out: model.language_model.layers.1" in caplog.text
    with pytest.raises(TraceError, match="only layers with linear attention are chosen"):
        trace_hugging_face(model, inputs, layers={"text": [1]})


class InPlace(torch.nn.Module):
    """A block that adds its input to the output of its attention in place, after other sums."""

    def __init__(self, add):
        super().__init__()
        self.add = add

    def forward(self, hidden_states):
        biased = hidden_states + 1  # a sum with X before the attention
        biased = torch.eye(2).mul(1e4).softmax(-1).to(biased.dtype) @ biased
        added = 2 * biased
        return self.add(added, hidden_states)


@pytest.mark.parametrize(
    "add",
    [
        lambda y, x: y.__iadd__(x),
        lambda y, x: y.add_(x),
        lambda y, x: x + y,
        lambda y, x: torch.add(y, x),
    ],
)
def test_the_summand_is_found_in_every_kind_of_sum(add):
    watch, seen, x = Watch(), [], torch.rand(1, 2, 3)
    block = InPlace(add)
    with ExitStack() as hooks, watch:
        watch_block(hooks, watch, "block", block, seen.append)
        total = block(hidden_states=x)
    torch.testing.assert_close(seen[0].output, 2 * (x + 1))
    torch.testing.assert_close(total, 3 * x + 2)
    assert seen[0].residual is x


def test_a_block_that_adds_nothing_is_refused_by_name():
    watch = Watch()
    block = InPlace(lambda y, _: y)
    with ExitStack() as hooks, watch:
        watch_block(hooks, watch, "layers.3", block, print)
        with pytest.raises(TraceError, match=r"layers\.3 \(InPlace\) added nothing to its input after its attention"):
            block(torch.rand(1, 2, 3))


def test_places_of_pieces_and_padding():
    """Two images of 2 and 3 tokens in one sequence; the second sample also has the tokens in reverse order."""
    places = torch.tensor([[0, 1, -1], [4, 3, 2]])
    tokens = torch.arange(10.0).view(5, 2)
    taken = take(tokens, places)
    assert taken.tolist() == [[[0, 1], [2, 3], [0, 0]], [[8, 9], [6, 7], [4, 5]]]
    assert torch.equal(put(torch.zeros(5, 2), places, taken), tokens)
    pieces = [torch.arange(4.0).view(1, 1, 2, 2), torch.arange(9.0).view(1, 1, 3, 3)]
    whole = attention(pieces, places, places).whole()
    assert whole[0, 0].tolist() == [[0, 1, 0], [2, 3, 0], [0, 0, 0]]
    assert whole[1, 0].tolist() == [[8, 7, 6], [5, 4, 3], [2, 1, 0]]
    joined = torch.zeros(1, 1, 5, 5)
    joined[0, 0, :2, :2], joined[0, 0, 2:, 2:] = pieces[0], pieces[1]
    joined[0, 0, :2, 2:] = 100  # attention between samples, which a trace cannot have
    assert torch.equal(attention([joined], places, places).whole(), whole)
    mask = torch.tensor([[False, True, True], [True, False, False]])
    assert in_sequence(mask).tolist() == [[1, 2], [3, -1]]
