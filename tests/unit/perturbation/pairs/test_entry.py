"""``perturbation.test`` on functions whose evidence is known, and its errors."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from no_figures import without_figures
from PIL import Image

import perturbation
from clipmapper.api import load_pretrained
from clipmapper.errors import UserError
from perturbation.pairs.explaining import choose, explained_pairs
from perturbation.pairs.reader import PairReader
from perturbation.pairs.samples import Pair, pairs_of
from perturbation.pairs.scorers.function import FunctionScorer
from perturbation.pairs.units import Units, cells, without_words, words_of
from perturbation.removal.reader import Subsets

GRID, TEXT = (3, 4), "is the red cat here"
EVIDENCE, WORD = (1, 2), "cat"
STEPS = (0.0, 0.5, 1.0)


def picture(seed: int = 0) -> Image.Image:
    """Return noise with a white evidence cell."""
    pixels = np.random.default_rng(seed).integers(0, 200, (48, 64, 3), dtype=np.uint8)
    pixels[16:32, 32:48] = 255
    return Image.fromarray(pixels)


def sees_evidence(image: Image.Image) -> bool:
    return bool(np.asarray(image)[16:32, 32:48].min() == 255)


def model(images: Sequence[Any], texts: Sequence[Any]) -> list[float]:
    """Return 1 if the white cell is there and the text says "cat"."""
    return [float(sees_evidence(i) and WORD in t) for i, t in zip(images, texts, strict=True)]


def oracle(image: Any, text: str) -> tuple[np.ndarray, np.ndarray]:
    scores = np.zeros(GRID)
    scores[EVIDENCE] = 1
    return scores, np.array([word == WORD for word in text.split()], float)


def samples(count: int = 4) -> list[tuple[Any, str]]:
    return [(picture(seed), TEXT) for seed in range(count)]


def run(*arguments: Any, **options: Any) -> Any:
    whole: dict[str, Any] = {"explainers": {"oracle": oracle}, "steps": STEPS, "random_seeds": 1} | options
    with without_figures():
        return perturbation.test(*arguments, **whole)


def test_the_known_evidence_has_the_best_curves() -> None:
    """Highest first, the value is 1, 0, 0 at the steps; lowest first 1, 1, 0: areas 25 and 75."""
    table = run(model, None, samples()).table
    for modality in ("image", "text"):
        assert table.loc["oracle", (modality, "positive")] == 25
        assert table.loc["oracle", (modality, "negative")] == 75
        assert table.loc["oracle", (modality, "gap")] == 50


def test_random_orders_are_at_chance() -> None:
    """Half of 12 cells are removed at the step 0.5, so the evidence is still there with probability one half."""
    rows = run(model, None, samples(120), controls=["random"]).content["rows"]
    middle = {(row["modality"], row["direction"]): row["score"][1] for row in rows if row["explainer"] == "random"}
    for direction in ("positive", "negative"):
        assert middle["image", direction] == pytest.approx(0.5, abs=0.15)
        assert middle["text", direction] == pytest.approx(2 / 5, abs=0.15)  # 3 of 5 words are removed


def test_controls_that_know_only_positions() -> None:
    """Cell (1, 2) is one of the two in the middle; "cat" is the fourth of five words."""
    table = run(model, None, samples(), controls=["first_to_last", "last_to_first", "centre_first"]).table
    assert table.loc["centre_first", ("image", "gap")] == 50
    assert table.loc["first_to_last", ("text", "gap")] == -50  # 3 words are removed at 0.5
    assert table.loc["last_to_first", ("text", "gap")] == 50
    assert np.isnan(table.loc["centre_first", ("text", "gap")])


@pytest.mark.parametrize("how", ["zero", "blur", "noise", "noisy_linear"])
def test_every_way_to_remove_cells(how: str) -> None:
    assert run(model, None, samples(), image_removal=how).table.loc["oracle", ("image", "gap")] == 50


def test_scores_as_arrays_are_those_of_a_function() -> None:
    given = [oracle(*sample) for sample in samples()]
    one, two = run(model, None, samples()), run(model, None, samples(), explainers={"oracle": given})
    assert one.content["rows"] == two.content["rows"]


def test_batches_change_nothing() -> None:
    found = [
        run(model, None, samples(5), measures=["areas", "faithfulness", "eraser"], **sizes).content
        for sizes in ({}, {"batch_size": 3, "batch_samples": 2}, {"batch_size": 1, "batch_samples": 5})
    ]
    assert found[0] == found[1] == found[2]


def test_every_subset_is_read_once() -> None:
    seen: list[tuple[bytes, str]] = []

    def counted(images: Sequence[Any], texts: Sequence[Any]) -> list[float]:
        seen.extend((image.tobytes(), text) for image, text in zip(images, texts, strict=True))
        return model(images, texts)

    same = {"oracle": oracle, "twin": oracle}
    run(counted, None, samples(3), explainers=same, measures=["areas", "eraser"], controls=[])
    # The complete pair is read twice more for the first batch, to see whether the model is deterministic.
    complete = [(image.tobytes(), text) for image, text in samples(3)]
    others = [each for each in seen if each not in complete]
    assert len(others) == len(set(others)) > 0
    assert all(seen.count(each) == 3 for each in complete)


def test_samples_without_an_image_or_without_a_text() -> None:
    words = run(lambda _, texts: [float(WORD in t) for t in texts], None, [(None, TEXT)] * 2)
    assert [*dict.fromkeys(words.table.columns.get_level_values(0))] == ["text"]
    assert words.table.loc["oracle", ("text", "gap")] == 50

    def of_image(image: Any, text: Any) -> tuple[np.ndarray, None]:
        return oracle(image, TEXT)[0], None

    images = [(picture(), None)] * 2
    cells = run(lambda i, _: [float(sees_evidence(x)) for x in i], None, images, explainers={"oracle": of_image})
    assert cells.table.loc["oracle", ("image", "gap")] == 50
    assert [*dict.fromkeys(cells.table.columns.get_level_values(0))] == ["image"]


def test_comparisons_are_differences_of_the_gaps_in_the_table() -> None:
    result = run(model, None, samples(4), explainers={"oracle": oracle, "twin": oracle})
    assert {(row.first, row.second) for row in result.comparisons.itertuples()} == {
        *(("oracle", "twin"), ("oracle", "random"), ("twin", "random")),
    }
    for row in result.comparisons.itertuples():
        gaps = [result.table.loc[name, (row.modality, "gap")] for name in (row.first, row.second)]
        assert row.difference == pytest.approx(gaps[0] - gaps[1])
        assert row.low <= row.difference + 1e-9
        assert row.difference <= row.high + 1e-9
        assert 0 < row.p <= 1
        if {row.first, row.second} == {"oracle", "twin"}:
            assert (row.difference, row.p) == (0, 1)
    assert len(result.comparisons) == 2 * 3


def test_one_explainer_has_no_comparisons() -> None:
    result = run(model, None, samples(2), explainers={"oracle": oracle}, controls=[])
    assert list(result.comparisons.columns)[:4] == ["modality", "first", "second", "difference"]
    assert result.comparisons.empty


def test_the_result_is_shown_drawn_and_saved(tmp_path: Path) -> None:
    result = perturbation.test(model, None, samples(), explainers={"oracle": oracle}, steps=STEPS, random_seeds=1)
    assert "oracle" in repr(result)
    assert (
        "NaN"
        not in perturbation.test(
            model, samples=samples(), explainers={"oracle": oracle}, controls=["centre_first"], steps=STEPS
        )._repr_html_()
    )
    shown = result._repr_html_()
    assert "<table" in shown
    [curves] = re.findall(r'<img src="data:image/png;base64,([^"]+)"', shown)
    with Image.open(BytesIO(base64.b64decode(curves))) as image:
        assert len(image.convert("RGB").getcolors(1 << 24)) > 30
    assert len(result.plot().axes) == 4
    folder = result.save(tmp_path / "new" / "folder")
    content = json.loads((folder / "perturbation.json").read_text())
    assert content["rows"] == result.content["rows"]
    assert content["image_removal"] == "mean"
    assert pq.read_table(folder / "samples.parquet") == result.records["samples"]
    assert (folder / "curves_score.png").read_bytes().startswith(b"\x89PNG")


def test_negative_values_are_drawn() -> None:
    below = run(lambda i, t: [value - 0.5 for value in model(i, t)], None, samples(2)).plot()
    assert all(panel.get_ylim()[0] <= -0.5 for panel in below.axes)
    assert all(panel.get_ylim()[0] == 0 for panel in run(model, None, samples(2)).plot().axes)


def fails(images: Sequence[Any], texts: Sequence[Any]) -> list[float]:
    if any(not sees_evidence(image) for image in images):
        raise RuntimeError("no white cell\nsecond line")
    return model(images, texts)


BAD: list[tuple[dict[str, Any], Callable[..., Any], str]] = [
    ({}, lambda i, t: [float("nan")] * len(i), r"^sample 0: the model's score is NaN or infinite$"),
    ({}, lambda i, t: [1.0], r"^the function returns scores of shape \[1\] for 2 pairs$"),
    ({"batch_samples": 1}, fails, r"^samples \[0\]: the model failed: RuntimeError: no white cell$"),
    ({"text_removal": "mask"}, model, r"^removal of words: the tokenizer has no mask token; choose drop$"),
    ({"text_removal": "cut"}, model, r"^removal of words: cut is not one of: drop, mask, pad$"),
    ({"image_removal": "grey"}, model, r"^removal of cells: grey is not one of: "),
    ({"controls": ["chance"]}, model, r"^controls: chance is not one of: random, "),
    ({"explainers": ["weighted"]}, model, r"^explainer weighted reads a trace, which a function has not: "),
    ({"explainers": {}}, model, r"^explainers: name at least one, such as weighted$"),
    ({"explainers": {"random": oracle}}, model, r"^explainers: two have the same name, among random, random$"),
    ({"explainers": {"x": lambda i, t: 3}}, model, r"^explainer x: give a pair \(scores of cells"),
    (
        {"explainers": {"x": lambda i, t: (np.zeros(GRID), np.zeros(2))}},
        model,
        r"^explainer x, sample 0: text scores have the shape \[2\], but the parts that are removed \[5\]$",
    ),
    ({"measures": ["speed"]}, model, r"^measure.names: speed is not one of: "),
]


@pytest.mark.parametrize(("options", "function", "said"), BAD, ids=[str(k) for k in range(len(BAD))])
def test_bad_input_is_one_line(options: dict[str, Any], function: Callable[..., Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        run(function, None, samples(2), **options)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "samples: there is none"),
        (["text"], "sample 0 is no tuple"),
        ([(None, None)], "sample 0 has neither an image nor a text"),
        ([(None, " ")], "sample 0: its text is ' '"),
        ([(None, "a"), (picture(), "b")], "sample 0 has no image, but others have one"),
        ([("missing.png", "a")], "sample 0: missing.png: no such image"),
        ([(3, "a")], "sample 0: image is a int: give a file or a PIL image"),
        ([(None, "a", [])], r"sample 0: its answers are \[\]"),
        ([(None, "a", [3])], r"sample 0: its answers are \[3\]"),
    ],
)
def test_bad_samples_are_one_line(given: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=f"^{said}"):
        pairs_of(given)


@pytest.mark.parametrize("words", ["mask", "pad"])
def test_a_token_of_the_tokenizer_stands_for_a_removed_word(words: Any) -> None:
    seen: list[str] = []
    scorer = FunctionScorer(lambda _, texts: (seen.extend(texts), [0.0] * len(texts))[1])
    scorer.tokens = {"mask": "[MASK]", "pad": "[PAD]"}
    reader = PairReader(scorer, "mean", words, 8, correct=False)
    pair = Pair(0, None, "a red cat")
    units = Units((0, 0), cells((0, 0), (0, 0, 0, 0)), words_of("a red cat"), "a red cat")
    subsets = Subsets(text=np.array([[[True, False, True], [True, True, True]]]))
    reader.read(reader.samples([pair], [units], 0), subsets, [None])
    assert seen == [f"a [{words.upper()}] cat", "a red cat"]


def test_a_model_that_changes_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    run(lambda images, _: draw.random(len(images)), None, samples(2))
    told = "warning: the model is not deterministic: its score of the same sample differs by 0."
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith(told)]


def test_smaller_batches_after_too_little_memory(capsys: pytest.CaptureFixture[str]) -> None:
    def small(images: Sequence[Any], texts: Sequence[Any]) -> list[float]:
        if len(images) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return model(images, texts)

    result = run(small, None, samples(), batch_size=8)
    assert result.content["rows"] == run(model, None, samples()).content["rows"]
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == [f"out of memory: from here on, {size} pairs are read together" for size in (4, 2)]

    def never(images: Sequence[Any], texts: Sequence[Any]) -> list[float]:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(UserError, match="does not fit into memory, even with one pair at a time"):
        run(never, None, samples())


def test_the_accuracy_of_answers() -> None:
    ten = ["red"] * 3 + ["dark red"] * 2 + ["blue"] * 5
    pair = Pair(0, None, "what color is it?", ten)
    # The official accuracy, by hand: of ten annotators, the mean of min(1, other annotators who agree / 3).
    assert pair.accuracy("red") == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert pair.accuracy("dark red") == pytest.approx((2 * 1 / 3 + 8 * 2 / 3) / 10)
    assert pair.accuracy("green") == 0
    few = Pair(0, None, "what color is it?", ["A red.", "crimson"])
    assert [few.accuracy(answer) for answer in ("red", "crimson", "blue")] == [1, 1, 0]


@pytest.mark.parametrize("question", ["Is the CIRCLE red?", "Is &lt;b&gt; a ﬁne circle’s? 🔥", "what color is it?"])
def test_questions_of_clipmapper_that_its_tokenizer_changes(question: str) -> None:
    clipmapper = load_pretrained()
    pair = Pair(0, picture(), question)
    chosen = choose("weighted", (), 1, function=False)
    _, [units] = explained_pairs(clipmapper, None, [pair], chosen, 0, 0)
    assert units.text is not None
    code = clipmapper.encoder.tokenizer.encode
    whole = without_words(units.text, units.words, np.ones(len(units.words), np.bool_), None)
    assert code(whole) == code(question)
    assert "" not in {units.text[start:stop].strip() for start, stop in units.words}
