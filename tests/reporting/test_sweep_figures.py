"""What is marked as beyond the training values, and in which order cases are shown."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from metaseg_monai.evaluation.samples import Sample
from metaseg_monai.reporting.figures import predictions as montage_figures
from metaseg_monai.reporting.figures import values as sweep_figures
from metaseg_monai.reporting.figures.values import BEYOND, Response, response_curves
from metaseg_monai.reporting.page import figures_of
from metaseg_monai.reporting.response import response_section

CURVE = pd.DataFrame({"value": [10.0, 40.0, 160.0], "mean": [1.0, 2.0, 3.0]}).assign(low=0, high=4)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures stay figures, whose parts can be asked."""
    for module in (sweep_figures, montage_figures):
        monkeypatch.setattr(module, "png", lambda figure: figure)


def drawn(trained):
    figure = response_curves({"one": Response({"sme": CURVE}, {}, 2.0)}, "size", "mm2", trained)
    (axes,) = figure.axes
    shaded = [
        (patch.get_x(), patch.get_x() + patch.get_width())
        for patch in axes.patches
        if to_hex(patch.get_facecolor()) == BEYOND
    ]
    fills = {
        float(value): to_hex(line.get_markerfacecolor())
        for line in axes.lines
        if line.get_linestyle() == "None"
        for value in line.get_xdata()
    }
    return shaded, fills


def test_values_beyond_training_are_shaded_and_hollow_on_both_sides(undrawn):
    shaded, fills = drawn((20, 80))
    assert shaded == [(10, 20), (80, 160)]
    assert fills[10] == fills[160] == "#ffffff"
    assert fills[40] != "#ffffff"
    assert drawn((10, 160)) == ([], {10: fills[40], 40: fills[40], 160: fills[40]})
    assert drawn(None)[0] == []


def test_a_montage_marks_the_columns_beyond_training(undrawn):
    blank = np.zeros((30, 30))
    one = Sample("a", "all", blank, blank.astype(np.uint8), {"m": blank, "n": blank})
    modes = {"10 mm": "m", "40 mm": "n"}
    figure = montage_figures.montage([one], modes, ["a"], beyond=["10 mm"])
    heads = [axes.title.get_text() for axes in figure.axes]
    assert heads == [f"{montage_figures.HOLLOW} 10 mm", "40 mm"]
    key = [text.get_text() for text in figure.legends[0].get_texts()]
    assert key[-1] == "beyond training values"
    plain = montage_figures.montage([one], modes, ["a"])
    assert [axes.title.get_text() for axes in plain.axes] == ["10 mm", "40 mm"]
    assert "beyond" not in "".join(text.get_text() for text in plain.legends[0].get_texts())


def shown(monkeypatch, volumes, run):
    """What the montage of a run is asked to draw, and its caption."""
    asked = {}
    real = montage_figures.montage

    def watched(samples, modes, titles, classes, beyond):
        asked.update(cases=[one.case for one in samples], titles=titles, beyond=beyond)
        return real(samples, modes, titles, classes, beyond)

    monkeypatch.setattr("metaseg_monai.reporting.response.montage", watched)
    section = response_section(volumes.results(sme=[run]))
    return asked, figures_of([section])["montage_size_sme"].caption


def test_a_runs_montage_is_in_the_order_of_its_own_values(monkeypatch, volumes):
    run = volumes.run("sme", follows=1)
    volumes.samples(run)
    asked, caption = shown(monkeypatch, volumes, run)
    assert asked["cases"] == ["p0_0", "p3_0"]
    assert asked["beyond"] == ["10 mm", "160 mm"]
    assert "beyond the training values, 15 to 80 mm" in caption
    cases = pd.read_csv(run.folder / "cases.csv")
    cases.loc[cases["case"] == "p0_0", "size"] = 99.0
    cases.loc[cases["case"] == "t0", "size"] = 10.0
    cases.loc[cases["case"] == "t1", "size"] = 160.0
    cases.to_csv(run.folder / "cases.csv", index=False)
    asked, caption = shown(monkeypatch, volumes, run)
    assert asked["cases"] == ["p3_0", "p0_0"]
    assert asked["titles"][1] == "p0_0\nown: 99 mm"
    assert asked["beyond"] == []
    assert "beyond" not in caption
