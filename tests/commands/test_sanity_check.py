"""Model randomisation: which weights are drawn anew, the rank correlation, and the curves of models with known ends."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import Tiny
from torch import Tensor, nn
from vqa_models import QUESTIONS, random_vqa, samples

from clipmapper.data.records import Question
from clipmapper.errors import UserError
from clipmapper.files import read_json
from clipmapper.tasks.vqa.model import CLIPMapperVQA
from clipmapper.tasks.vqa.tracing import trace_vqa
from clipmapper.tasks.vqa.trained import QuestionBatch, question_batch
from explain import AttentionTrace, TraceError, explainers
from explain.targets import given
from explain.token_scores import TokenScores
from perturbation.randomise.figure import draw_curves
from perturbation.randomise.layers import layers_from_the_top, rank_correlation, redraw
from perturbation.randomise.run import correlations, curve_rows

Command = Callable[..., tuple[int, str, list[str]]]
NAMES = ("a", "b")


class Position(TokenScores):
    """An explanation that looks at nothing but the token's place."""

    def token_scores(self, trace: AttentionTrace) -> Tensor:
        return torch.arange(float(trace.tokens)).expand(trace.batch, -1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def parameters_of(parts: list[nn.Module | nn.Parameter]) -> list[nn.Parameter]:
    nested = [[part] if isinstance(part, nn.Parameter) else list(part.parameters()) for part in parts]
    return [parameter for each in nested for parameter in each]


def asked(model: CLIPMapperVQA, count: int = 6) -> QuestionBatch:
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 255, (24, 24, 3), np.uint8)) for _ in range(count)]
    words = [text for text in QUESTIONS if len(text) > 8]
    questions = [Question(k, k, words[k % len(words)]) for k in range(count)]
    return question_batch(model, questions, pictures)


@pytest.mark.parametrize(("name", "readout"), [("a", "cls"), ("a", "token"), ("b", "eot"), ("b", "token")])
def test_every_weight_that_bears_on_the_answer_is_in_one_layer(name: str, readout: str) -> None:
    model = random_vqa(name, readout, positions="learnt").requires_grad_(True)
    pixels, questions = samples(4)
    model(pixels, questions).sum().backward()
    layers = layers_from_the_top(model)
    listed = [parameter for parts in layers.values() for parameter in parameters_of(parts)]
    assert len({id(p) for p in listed}) == len(listed)
    missing = {n for n, p in model.named_parameters() if p.grad is not None} - {
        n for n, p in model.named_parameters() if any(p is other for other in listed)
    }
    assert not missing


@pytest.mark.parametrize(("name", "depth"), [("a", 3), ("b", 2)])
def test_layers_go_from_the_head_down(name: str, depth: int) -> None:
    model = random_vqa(name)
    layers = layers_from_the_top(model)
    mapper = [f"mapper {k}" for k in range(depth, 0, -1)]
    assert list(layers) == ["head", *mapper, "projections", "encoder 2", "encoder 1", "embeddings"]
    vision, text = model.encoder.vision, model.encoder.text
    assert layers["encoder 1"] == [vision.blocks[0], text.blocks[0]]
    assert layers["encoder 2"] == [vision.blocks[1], text.blocks[1], vision.visual.ln_post, text.text.ln_final]


def test_the_last_blocks_go_together_where_depths_differ() -> None:
    model = random_vqa("b")
    model.encoder.text.blocks = model.encoder.text.blocks[1:]
    layers = layers_from_the_top(model)
    assert layers["encoder 2"][:2] == [model.encoder.vision.blocks[1], model.encoder.text.blocks[0]]
    assert layers["encoder 1"] == [model.encoder.vision.blocks[0]]


def test_redrawn_weights_keep_their_spread_and_nothing_else() -> None:
    parts: list[nn.Module | nn.Parameter] = [nn.Sequential(nn.LayerNorm(300), nn.Linear(300, 400))]
    norm, linear = parts[0].children()  # type: ignore[union-attr]
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias):
            parameter.normal_()
        linear.weight.mul_(7).add_(5)
        linear.bias.fill_(3)
    spread, before = float(linear.weight.detach().std()), linear.weight.detach().clone()
    redraw(parts, torch.Generator().manual_seed(0))
    assert float(linear.weight.std()) == pytest.approx(spread, rel=0.02)
    assert abs(float(linear.weight.mean())) < 5 * spread / 120000**0.5
    assert abs(float(np.corrcoef(before.flatten(), linear.weight.detach().flatten())[0, 1])) < 0.02
    assert (norm.weight == 1).all()
    assert not norm.bias.any()
    assert not linear.bias.any()  # all were equal: no spread
    again = deepcopy(parts)
    redraw(again, torch.Generator().manual_seed(1))
    assert not torch.equal(list(again[0].parameters())[2], linear.weight)


def test_rank_correlation_equals_a_slow_one() -> None:
    random = np.random.default_rng(0)
    eligible = random.random((50, 9)) < 0.8
    eligible[:, :3] = True
    first, second = random.normal(size=(50, 9)), random.integers(0, 4, (50, 9)).astype(float)
    first[:, 0], first[:, 1], second[:, 0], second[:, 1] = -9, 9, 0, 3
    first[::3] = first[::3].round()
    found = rank_correlation(first, np.where(eligible, second, np.nan), eligible)
    for b in range(50):
        ranks = [slow_ranks(scores[b][eligible[b]].tolist()) for scores in (first, second)]
        assert found[b] == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert len(set(found.round(6))) > 40


def slow_ranks(values: list[float]) -> list[float]:
    """A value's rank is the mean of the places its equals take in sorted order."""
    ordered = sorted(values)
    return [float(np.mean([k for k, other in enumerate(ordered) if other == value])) for value in values]


def test_rank_correlation_of_known_orders() -> None:
    eligible = np.array([[True, True, True, False]] * 4)
    first = np.array([[1.0, 2, 3, 9], [1, 2, 3, 9], [1, 2, 3, 9], [5, 5, 5, 9]])
    second = np.array([[10.0, 20, 21, -9], [3, 2, 1, 0], [0, 0, 0, 1], [1, 2, 3, 4]])
    found = rank_correlation(first, second, eligible)
    assert found[:3].tolist() == pytest.approx([1, -1, 0], abs=1e-12)
    assert np.isnan(found[3])


@pytest.mark.parametrize("name", NAMES)
def test_curves_of_explanations_with_known_ends(name: str) -> None:
    model = random_vqa(name)
    batches = [asked(model), asked(model, 3)]
    before = deepcopy(model.state_dict())
    every = {"position": Position(), "random": explainers.Random(), "weighted": explainers.Weighted()}
    found = correlations(model, batches, every, seed=0)
    layers = ["none", *layers_from_the_top(model)]
    for (modality, explainer), curve in found.items():
        assert list(curve) == layers
        assert all(values.shape == (9,) for values in curve.values())
        np.testing.assert_allclose(curve["none"], 1)
        if explainer == "position":  # it never looked at the model, and is caught
            np.testing.assert_allclose(np.stack(list(curve.values())), 1)
        if explainer == "weighted" and modality == "image":
            assert curve["embeddings"].mean() < 0.95
    control = np.stack([curve for layer, curve in found["image", "random"].items() if layer != "none"])
    assert abs(control.mean()) < 4 / (8 * control.size) ** 0.5  # 9 patches: variance 1 / 8
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    again = correlations(model, batches, every, seed=0)
    for key, curve in found.items():
        for layer, values in curve.items():
            np.testing.assert_array_equal(values, again[key][layer])
    other = correlations(model, batches, every, seed=1)
    assert not np.array_equal(other["image", "weighted"]["embeddings"], found["image", "weighted"]["embeddings"])


@pytest.mark.parametrize("name", NAMES)
def test_layers_stay_random_and_the_class_stays_the_same(name: str) -> None:
    model = random_vqa(name)
    batch = asked(model)
    explainer = explainers.InputXGradient()
    found = correlations(model, [batch], {"ixg": explainer}, seed=3)
    answers = model(batch.pixels, batch.text).argmax(1)
    whole = trace_vqa(model, batch.pixels, batch.text, given(answers))
    first = whole.scores(explainer(whole.trace, whole.rows), "image").numpy()
    copy, generator, changed = deepcopy(model), torch.Generator().manual_seed(3), 0
    for layer, parts in layers_from_the_top(copy).items():
        redraw(parts, generator)
        changed += int((copy(batch.pixels, batch.text).argmax(1) != answers).sum())
        traced = trace_vqa(copy, batch.pixels, batch.text, given(answers))
        second = traced.scores(explainer(traced.trace, traced.rows), "image").numpy()
        wanted = rank_correlation(first, second, np.ones(first.shape, bool))
        np.testing.assert_allclose(found["image", "ixg"][layer], wanted, atol=1e-6)
    assert changed  # or the class explained would not matter


def test_rows_leave_out_samples_without_an_order() -> None:
    nan = float("nan")
    curve = {"none": np.array([1.0, nan, 1.0]), "head": np.array([0.5, nan, 0.1])}
    lost = {"none": np.array([nan] * 3), "head": np.array([nan] * 3)}
    rows = curve_rows({("image", "x"): curve, ("text", "x"): lost}, "a", seed=0)
    assert [row["correlation"] for row in rows] == pytest.approx([1, 0.3, None, None])
    assert [row["samples"] for row in rows] == [2, 2, 0, 0]
    assert [(row["layers"], row["layer"]) for row in rows] == [(0, "none"), (1, "head")] * 2
    assert rows[0]["ci95"] == [1, 1]
    assert rows[2]["ci95"] is None
    figure = draw_curves(rows)
    assert [axes.get_title() for axes in figure.axes] == ["image", "text"]
    drawn = next(line for line in figure.axes[0].lines if line.get_label() == "x")
    assert np.asarray(drawn.get_ydata()).tolist() == pytest.approx([1, 0.3])
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["none", "head"]


@pytest.fixture(scope="module")
def trained(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("randomised") / "run"
    tiny.train(run)
    return run


def test_the_command_writes_curves_and_a_figure(tiny: Tiny, trained: Path, command: Command, tmp_path: Path) -> None:
    few = ("explainer.names=[weighted,random]", "samples=7", "batch_size=4", f"checkpoint={trained}")
    found = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        status, out, errors = command("sanity_check", *tiny.overrides, *few, f"hydra.run.dir={folder}")
        assert (status, errors) == (0, [])
        assert "weighted" in out
        found.append(read_json(folder / "sanity.json"))
        assert (folder / "sanity.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "sanity.pdf").read_bytes().startswith(b"%PDF")
    rows = found[0]["rows"]
    assert rows == found[1]["rows"]
    assert found[0]["config"]["samples"] == 7
    assert len(rows) == 2 * 2 * (1 + len(layers_from_the_top(random_vqa("b"))))  # one mapper layer less, a block more
    assert {row["samples"] for row in rows} == {7}
    with (tmp_path / "one" / "sanity.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [float(line["correlation"]) for line in written] == [row["correlation"] for row in rows]
    assert [line["layer"] for line in written] == [row["layer"] for row in rows]
    assert [float(line["ci95_high"]) for line in written] == [row["ci95"][1] for row in rows]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("samples=61", "samples=61: split=test has 60 questions; give samples=60 or fewer"),
        ("samples=1", "samples=1 must be 2 or more"),
        ("split=dev", "split=dev: this data has train, val, test"),
    ],
)
def test_bad_input_is_one_line(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path, override: str, message: str
) -> None:
    place = (f"checkpoint={trained}", f"hydra.run.dir={tmp_path / 'run'}")
    status, _, errors = command("sanity_check", *tiny.overrides, *place, override)
    assert status == 1
    assert errors == [f"error: {message}"]


def test_a_trace_that_an_explainer_refuses_is_one_line(
    tiny: Tiny, trained: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TraceError("step 2 holds NaN")

    monkeypatch.setattr(explainers.Weighted, "__call__", refuse)
    place = (f"checkpoint={trained}", f"hydra.run.dir={tmp_path / 'run'}", "samples=4", "explainer=weighted")
    status, _, errors = command("sanity_check", *tiny.overrides, *place)
    assert (status, len(errors)) == (1, 1)
    assert re.fullmatch(r"error: questions \d+ to \d+ can't be explained: step 2 holds NaN", errors[0])


def test_scores_that_cannot_be_ranked_are_refused() -> None:
    with pytest.raises(UserError, match="token 0 of sample 0 is nan"):
        rank_correlation(np.array([[np.nan]]), np.array([[1.0]]), np.array([[True]]))
