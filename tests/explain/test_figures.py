import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from metaseg_monai.explain import figures
from metaseg_monai.explain.activations import Activations

FIRST, SECOND = "fixed:tumour_size_mm=10", "fixed:tumour_size_mm=160"
LONG = ("fixed:" + "one name of many words " * 3, "fixed:" + "another name of words " * 3)


def activations(first, second):
    rows = pd.DataFrame({"mode": [first, second], "domain": "all", "cases": 3})
    scale = {f"gate{n}": np.linspace(0, 1, 16 * 2).reshape(2, 16) for n in range(5)}
    return Activations(rows, scale, {})


def box(figure, text):
    return text.get_window_extent(figure.canvas.get_renderer())


@pytest.mark.parametrize(("first", "second"), [(FIRST, SECOND), LONG])
@pytest.mark.parametrize("single", [True, False])
def test_titles_are_within_the_picture_and_apart(monkeypatch, first, second, single):
    monkeypatch.setattr(figures, "png", lambda figure: figure)
    gates = activations(first, second)
    figure = (
        figures.single_gate(gates, "gate1", first, second)
        if single
        else figures.gate_differences(gates, first, second)
    )
    FigureCanvasAgg(figure).draw()
    lefts = [axes.title if single else axes._left_title for axes in figure.axes]
    written = [figure._suptitle, *[title for title in lefts if title.get_text()]]
    found = [box(figure, text) for text in written]
    if single:
        found.append(figure.legends[0].get_window_extent(figure.canvas.get_renderer()))
    for place, one in enumerate(found):
        assert one.x0 >= 0
        assert one.x1 <= figure.bbox.width
        assert not any(one.overlaps(other) for other in found[place + 1 :])


def test_a_field_is_named_once(monkeypatch):
    monkeypatch.setattr(figures, "png", lambda figure: figure)
    figure = figures.gate_differences(activations(FIRST, SECOND), FIRST, SECOND)
    told = "All gates: scale under tumour_size_mm=10 and 160, same images"
    assert figure._suptitle.get_text() == told
