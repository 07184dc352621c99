"""Any model in the randomisation test: unreadable images, samples that do not fit, and random scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sample_models
from any_model_runs import QUESTIONS, of_table, write_table
from sample_models import QUESTION, photo
from tiny_runs import composed

from clipmapper.any_model.load import LoadedModel
from clipmapper.any_model.samples import Sample
from clipmapper.cli import typed
from clipmapper.errors import UserError
from explain import Explainer, explainers
from perturbation.arrays import Array
from perturbation.config import SanityModelConfig
from perturbation.measures.base import ScoredBy
from perturbation.pairs.samples import Pair
from perturbation.randomise import any_model
from perturbation.randomise import run as running

pytest.importorskip("transformers")


def tiny(name: str) -> LoadedModel:
    return LoadedModel(*getattr(sample_models, name)(), "tiny", dual=name == "clip")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "table.csv", answers=False)


@pytest.fixture
def _clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loaded model is a tiny CLIP, and no figure is drawn."""
    loaded = tiny("clip")
    monkeypatch.setattr(any_model, "load_model", lambda config: loaded)
    monkeypatch.setattr(running, "draw_curves", lambda rows: None)
    monkeypatch.setattr(running, "save", lambda *_: None)


def run(table: Path, *overrides: str, by: Explainer) -> pd.DataFrame:
    """Run the test on a table and return the correlations of every sample."""
    folder = table.parent / "run"
    folder.mkdir(exist_ok=True)
    data = of_table(Path("tiny"), table, *overrides)
    config: SanityModelConfig = typed(composed("sanity_check", *data), SanityModelConfig)
    running.run_sanity(config, {"it": by, "random": explainers.Random()}, folder)
    return pd.read_parquet(folder / "sanity.parquet")


def drawn(samples: int, seed: int = 0) -> list[int]:
    """Return the samples that a run draws, in their order."""
    return [int(row) for row in np.random.default_rng(seed).permutation(len(QUESTIONS))[:samples]]


@pytest.mark.usefixtures("_clip")
def test_an_unreadable_first_image_is_left_out_and_told(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its batch has no other image; the curves of the others do not depend on it, nor on the batches."""
    sizes, weighted = ("samples=3", "batch_size=1"), explainers.Weighted()
    whole = run(table, "samples=3", "batch_size=2", by=weighted)
    first, *others = drawn(3)
    bad = table.parent / f"{first}.png"
    bad.write_bytes(b"")
    capsys.readouterr()
    found = run(table, *sizes, "data.on_bad_image=skip", by=weighted)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skipped: ")]
    assert [line.split("; ")[0] for line in told] == [f"skipped: {bad}: the file is empty"]
    assert whole["id"].drop_duplicates().tolist() == [first, *others]
    assert found["id"].drop_duplicates().tolist() == others
    left = whole[whole["id"] != first].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, left, rtol=1e-6, atol=1e-6)
    with pytest.raises(UserError, match=f"^{bad}: the file is empty; replace it with an intact copy"):
        run(table, *sizes, by=weighted)


@pytest.mark.usefixtures("_clip")
def test_images_that_were_not_drawn_are_not_read(table: Path) -> None:
    seed = next(seed for seed in range(1, 9) if 0 not in drawn(2, seed) and drawn(2, seed) != drawn(2))
    (table.parent / "0.png").write_bytes(b"")
    found = run(table, "samples=2", f"seed={seed}", by=explainers.TransAtt())  # whose rules are tried on one sample
    assert found["id"].drop_duplicates().tolist() == drawn(2, seed)


@pytest.mark.usefixtures("_clip")
def test_another_seed_draws_other_weights(table: Path) -> None:
    same = next(seed for seed in range(1, 99) if set(drawn(2, seed)) == set(drawn(2)))
    one, other = (run(table, "samples=2", f"seed={seed}", by=explainers.Weighted()) for seed in (0, same))
    both = one.merge(other, on=["id", "modality", "explainer", "layer"], validate="1:1", suffixes=("", "_other"))
    first = both["layer"] == "none"
    assert (both["correlation"] == both["correlation_other"])[first].all()
    assert (both["correlation"] != both["correlation_other"])[~first & (both["explainer"] == "it")].mean() > 0.5


def test_a_sample_that_does_not_fit_the_model_is_named() -> None:
    trained = any_model.ModelSamples(tiny("vilt"), [Sample(7, None, QUESTION)], "fail")
    with pytest.raises(UserError, match=r"^sample 7: no image: ViltForQuestionAnswering needs one"):
        any_model.fixed(trained, [0])


def test_random_scores_depend_on_the_layer_and_the_sample_alone() -> None:
    """They do not depend on the batch; two samples of the same pair have other scores."""
    loaded = tiny("clip")
    pairs = [Pair(number, photo(), QUESTION) for number in (3, 5)]

    def scores(layer: str, *places: int, seed: int = 0) -> Array:
        batch = any_model.FixedPairs(loaded, [pairs[k] for k in places], [None] * len(places))
        names = [f"{number}{layer}" for number in batch.ids]
        found = any_model.explained(loaded.model, batch, {"random": explainers.Random(seed)}, names)
        return found["image"].scores[ScoredBy("random")]

    both = scores(" head", 0, 1)
    np.testing.assert_array_equal(both[1:], scores(" head", 1))
    assert not np.array_equal(both[0], both[1])
    for other in (scores("", 0, 1), scores(" layer 1", 0, 1), scores(" head", 0, 1, seed=1)):
        assert not np.array_equal(both, other)
