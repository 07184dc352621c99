"""The figure of the localisation metrics."""

import numpy as np

from perturbation.localise.figure import draw_localisation
from perturbation.localise.tables import CHANCE, localisation_rows


def test_each_metric_of_each_explainer_is_a_point_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    values = {"image": {name: rng.random((20, 3)) for name in ("genatt", "weighted", CHANCE)}}
    values["text"] = {name: rng.random((20, 3)) for name in ("weighted", CHANCE)}
    rows = localisation_rows(values, ["color"] * 20, {}, seed=0)["rows"]
    figure = draw_localisation(rows)
    assert len(figure.axes) == 6
    first = figure.axes[0]
    assert [label.get_text() for label in first.get_yticklabels()] == ["weighted", "genatt"]
    points = [line for line in first.lines if line.get_marker() not in ("None", None, "")]
    means = [values["image"][name][:, 0].mean() for name in ("weighted", "genatt")]
    np.testing.assert_allclose([line.get_xdata()[0] for line in points], means)
    [chance] = [line for line in first.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(chance.get_xdata()[0], values["image"][CHANCE][:, 0].mean())
    bars = {
        row["explainer"]: row["ci95"] for row in rows if (row["modality"], row["metric"]) == ("image", "mass_accuracy")
    }
    drawn = [each.get_segments()[0][:, 0].tolist() for each in first.collections]
    np.testing.assert_allclose(drawn, [bars["weighted"], bars["genatt"]])
    assert figure.axes[3].get_ylabel() == "text, n = 20"
