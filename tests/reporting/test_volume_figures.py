import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.samples import Sample
from metaseg_monai.explain.figure_style import CONDITIONS
from metaseg_monai.metrics.agreement import Limits, bland_altman
from metaseg_monai.reporting.figures.predictions import CLASSES, montage
from metaseg_monai.reporting.figures.ranking import Panel, agreement
from metaseg_monai.reporting.figures.values import BEYOND, Response, response_curves, ticks_apart


def places(png, colour):
    """Rows and columns of the pixels of one colour."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(float)
    wanted = np.round(np.array(to_rgb(colour)) * 255)
    return np.nonzero((np.abs(pixels - wanted) <= 1).all(axis=-1))


def curve(areas, values=(10, 40, 160)):
    table = pd.DataFrame({"value": values, "mean": areas, "class": 2})
    return table.assign(low=table["mean"] - 1, high=table["mean"] + 1)


def sample(shape=(40, 48), radius=8, modes=("a", "b")):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - 4, columns - 20)  # cut by the upper edge
    label = (distance < radius).astype(np.uint8)
    preds = {mode: (distance < radius + 2 * n).astype(np.uint8) for n, mode in enumerate(modes)}
    return Sample("case", "all", np.full(shape, 0.3), label, preds)


def test_response_shades_what_training_did_not_hold():
    response = Response({"sme": curve([10, 20, 30])}, {"se": 15.0}, 18.0)
    beyond = response_curves({"tumour": response}, "size (mm)", "mm²", (20, 80), log=True)
    within = response_curves({"tumour": response}, "size (mm)", "mm²", (5, 200), log=True)
    assert len(places(beyond, BEYOND)[0]) > 1000
    assert not len(places(within, BEYOND)[0])
    # hollow markers leave less of the colour
    colour = CONDITIONS["sme"]
    assert len(places(beyond, colour)[0]) < len(places(within, colour)[0])
    assert len(places(within, CONDITIONS["se"])[0])


def test_response_draws_a_panel_a_class():
    rising, flat = (Response({"sme": curve(a)}, {}, np.nan) for a in ([0, 50, 100], [50] * 3))
    png = response_curves({"one": rising, "two": flat}, "size", "pixels", None)
    columns = places(png, CONDITIONS["sme"])[1]
    assert columns.min() < 500 < 700 < columns.max()


def test_there_must_be_a_response_a_sample_and_a_volume():
    with pytest.raises(DataError, match="no response to draw"):
        response_curves({"one": Response({}, {"se": 3.0}, 1.0)}, "size", "pixels", None)
    with pytest.raises(DataError, match="no stored prediction"):
        montage([], {"10 mm": "a"}, [])
    with pytest.raises(DataError, match="no volume to draw"):
        agreement({})


def test_montage_shows_a_contour_in_each_column_and_says_none_where_a_mode_is_absent():
    both = montage([sample()], {"10 mm": "a", "20 mm": "b"}, ["case"])
    one = montage([sample()], {"10 mm": "a", "20 mm": "absent"}, ["case"])
    middle = Image.open(io.BytesIO(both)).width / 2
    columns = places(both, CLASSES[0])[1]
    assert columns.min() < middle / 2
    assert len(places(one, CLASSES[0])[0]) < len(places(both, CLASSES[0])[0])
    assert montage([sample(radius=0, modes=())], {"10 mm": "a"}, ["empty"])


def test_the_contours_are_named_where_names_are_known():
    named = montage([sample()], {"10 mm": "a"}, ["case"], {1: "tumour and more"})
    assert named != montage([sample()], {"10 mm": "a"}, ["case"])


def test_labels_of_ticks_stand_apart():
    sizes = [10, 14, 20, 28, 40, 57, 80, 113, 160]
    assert ticks_apart(sizes, True, 6.0) == sizes
    assert ticks_apart(sizes, True, 2.0) == [10, 20, 40, 80, 160]
    assert ticks_apart([1, 2, 3, 4, 5, 100], False, 2.0) == [1, 100]


def test_agreement_draws_each_condition_about_its_bias():
    true, unknown = np.array([10.0, 20, 30, 40]), Limits(4, 4, *[np.nan] * 12)
    less, more = Panel(true, true - 5, unknown), Panel(true, true + 5, unknown)
    png = agreement({"se": less, "sme": more})  # dots alone
    se, sme = (places(png, CONDITIONS[name])[0] for name in ("se", "sme"))
    assert se.min() > sme.max()  # further down: predicted too small
    lines = bland_altman(true.tolist(), (true - 5).tolist(), "abcd")
    drawn = agreement({"se": less._replace(limits=lines), "sme": more})
    assert len(places(drawn, CONDITIONS["se"])[0]) > len(se)
    alone = Panel(true[:1], true[:1], bland_altman([10.0], [10.0], "a"))
    assert agreement({"se": alone})
