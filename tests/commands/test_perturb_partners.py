"""Perturbation runs of the explainers that use the weights of other samples: of answers and of captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_runs import Captioner, make_quick
from killed_runs import killed_after
from perturb_runs import Trained, records, results
from watching import watched

from clipmapper.data.datasets import load_data
from clipmapper.errors import UserError
from clipmapper.files import read_json, write_json
from perturbation.measures.base import ExplainedBatch, ScoredBy
from perturbation.perturb import caption, vqa

BORROWING = "explainer.names=[weighted,shuffled,depth_matched]"
LITTLE = ("steps=[0,0.5,1]", "eraser=[]", "faithfulness=false", "controls=[uniform]", "direction=[positive]")
NAMES = {"shuffled", "depth_matched"}

Scores = dict[tuple[int, str, ScoredBy], list[float]]


class Seen:
    """The scores of a run, and the partners of its samples, in whatever batches it has."""

    def __init__(self) -> None:
        self.scores: Scores = {}
        self.partners: dict[tuple[int, ScoredBy], int] = {}
        self.batches = 0

    def see(self, _measures: Any, batch: ExplainedBatch, *_: Any) -> None:
        self.batches += 1
        for modality, tokens in batch.tokens.items():
            for name, scores in tokens.scores.items():
                for sample, keep, row in zip(batch.ids, tokens.removable, scores, strict=True):
                    self.scores[sample, modality, name] = row[keep].tolist()
        for name, of_samples in batch.partners.items():
            self.partners |= {(sample, name): partner for sample, partner in of_samples.items()}


def assert_same(one: Seen, other: Seen) -> None:
    """Check that the batches differ, and neither the partners nor the scores do, beyond rounding."""
    assert one.batches != other.batches
    assert one.partners == other.partners
    assert one.scores.keys() == other.scores.keys()
    for key, scores in one.scores.items():
        np.testing.assert_allclose(scores, other.scores[key], rtol=1e-4, atol=1e-6, err_msg=str(key))


def test_answers_have_the_same_partners_and_scores_in_every_batch_size(trained: Trained, tmp_path: Path) -> None:
    found = []
    for size in (8, 32):
        seen = Seen()
        with watched(vqa, "record_batch", seen.see):
            trained.perturb(
                tmp_path / str(size), *LITTLE, BORROWING, "samples=33", f"batch_samples={size}", explainer="paper"
            )
        found.append(seen)
    assert_same(*found)
    images = {each.question_id: each.image_id for each in load_data(trained.config().data).part("test").questions}
    rows = records(tmp_path / "8")
    for row in rows:
        if row["explainer"] == "shuffled":
            assert images[row["partner_id"]] != images[row["question_id"]]
            assert row["partner_id"] == found[0].partners[row["question_id"], ScoredBy("shuffled", control=True)]
        else:
            assert row["partner_id"] is None
    assert {row["partner_id"] for row in rows} - {None} <= {row["question_id"] for row in rows}  # of the same run
    differ = [key for key in found[0].scores if key[2].name in NAMES]
    assert all(found[0].scores[key] != found[0].scores[*key[:2], ScoredBy("weighted")] for key in differ)


@pytest.mark.slow
def test_captions_have_the_same_partners_and_scores_in_every_batch_size(captioner: Captioner, tmp_path: Path) -> None:
    found = []
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        for size in (3, 8):
            seen = Seen()
            with watched(caption, "record_batch", seen.see):
                captioner.perturb(
                    tmp_path / str(size), *LITTLE, BORROWING, "samples=8", f"batch_samples={size}", explainer="paper"
                )
            found.append(seen)
    assert_same(*found)
    rows = records(tmp_path / "3")
    partners = {row["explainer"]: row["partner_id"] for row in rows if row["image_id"] == rows[0]["image_id"]}
    assert partners.pop("shuffled equal") == partners.pop("shuffled cider") != rows[0]["image_id"]
    assert set(partners.values()) == {None}
    assert {row["partner_id"] for row in rows} - {None} <= {row["image_id"] for row in rows}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["predicted", "margin"])
def test_a_killed_and_resumed_run_has_the_same_bytes(trained: Trained, tmp_path: Path, target: str) -> None:
    run = (*LITTLE, BORROWING, f"target={target}", "samples=6", "batch_samples=2")
    trained.perturb(tmp_path / "whole", *run, explainer="paper")
    with killed_after(1):
        trained.perturb(tmp_path / "stopped", *run, explainer="paper")
    trained.perturb(tmp_path / "stopped", *run, explainer="paper")
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


def test_a_run_with_older_records_is_not_resumed(trained: Trained, tmp_path: Path) -> None:
    with killed_after(1):
        trained.perturb(tmp_path, *LITTLE)
    identity = read_json(tmp_path / "identity.json")
    write_json(tmp_path / "identity.json", {key: value for key, value in identity.items() if key != "records"})
    with pytest.raises(UserError, match="contains a run with records=None, but this run has records=3"):
        trained.perturb(tmp_path, *LITTLE)


def test_a_run_of_one_image_is_refused_in_one_line(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="explainer=shuffled: it uses the weights of a sample of another image, and"):
        trained.perturb(tmp_path, *LITTLE, "samples=1", explainer="shuffled")
