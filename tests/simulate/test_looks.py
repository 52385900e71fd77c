"""What one sees of the simulated cells: where they point, what blurs them, what spoils them."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.measure import label, regionprops

from metaseg_monai.simulate.cells import picture as picture_module
from metaseg_monai.simulate.cells.acquisition import Acquisition, expose
from metaseg_monai.simulate.cells.culture import LINES, Culture, draw_culture
from metaseg_monai.simulate.cells.picture import draw_picture
from metaseg_monai.simulate.cells.plan import ANOMALIES, NUCLEI, Plan

PLAIN = Acquisition(magnification=20)
BOTH = (NUCLEI, ANOMALIES)


def random(seed):
    return np.random.default_rng(seed)


def few_cells(line, pixel_um=0.3):
    return draw_culture(random(0), line, (600, 600), pixel_um, 400.0)


def whole_nuclei(culture):
    height, width = culture.objects.shape
    return [
        one
        for one in regionprops(culture.objects)
        if min(one.bbox[:2]) > 0 and one.bbox[2] < height and one.bbox[3] < width
    ]


def test_nuclei_point_where_their_cells_do():
    culture = few_cells(LINES["HT1080"])
    cells = label(culture.relief > 0.05)
    angles = []
    for cell in regionprops(cells):
        inside = culture.objects[cells == cell.label]
        numbers = set(np.unique(inside)) - {0}
        nuclei = [one for one in whole_nuclei(culture) if {one.label} == numbers]
        at_border = min(cell.bbox[:2]) == 0 or max(cell.bbox[2:]) == 600
        if nuclei and not at_border:
            turned = abs(nuclei[0].orientation - cell.orientation)
            angles.append(min(turned, np.pi - turned))
    assert len(angles) >= 4
    assert np.median(angles) < np.radians(12)


def turned_overlap(line):
    """The mean share of a nucleus's box that its turn by 180 degrees leaves as it was."""
    shapes = [one.image for one in whole_nuclei(few_cells(line, 0.15))]
    return np.mean([np.mean(shape == shape[::-1, ::-1]) for shape in shapes])


def test_a_flattened_side_makes_nuclei_lopsided():
    flattened = LINES["MCF7"]
    oval = replace(flattened, nucleus=replace(flattened.nucleus, flattened=0.0))
    assert turned_overlap(flattened) < turned_overlap(oval) - 0.02


def steepest(**taken):
    """The steepest slope of glowing nuclei, as a share of their brightness."""
    culture = few_cells(LINES["HeLa"])
    glow = replace(PLAIN, modality="fluorescence", exposure_ms=40, **taken)
    image = expose(random(1), culture, glow).astype(float)
    return np.percentile(np.hypot(*np.gradient(image)), 99.9) / image.max()


def test_water_and_larger_objectives_are_sharper_and_defocus_blurs():
    assert replace(PLAIN, medium="water").sharpness_um < PLAIN.sharpness_um
    assert replace(PLAIN, magnification=40).sharpness_um < PLAIN.sharpness_um
    assert steepest(focus_um=14.0) < 0.8 * steepest(focus_um=2.0)


def test_anomalies_take_the_light_away():
    shadow = np.ones((64, 64), np.float32)
    shadow[:, 32:] = 0.5
    empty = Culture(*(np.zeros((64, 64), np.float32),) * 2, np.zeros((64, 64), np.uint16))
    image = expose(random(0), empty, PLAIN, shadow).astype(float)
    assert image[:, 32:].mean() == pytest.approx(0.5 * image[:, :32].mean(), rel=0.02)


def test_annotated_anomalies_are_in_the_image():
    found = 0
    for seed in range(12):
        made = draw_picture(random(seed), Plan("train", "MDCK", tasks=BOTH), PLAIN, 128, "image")
        mask = made.labels[ANOMALIES] > 0
        away = np.abs(made.image.astype(float) / np.median(made.image) - 1)
        found += mask.any()
        assert not mask.any() or away[mask].mean() > 1.5 * away[~mask].mean()
    assert found >= 11


def test_some_images_are_spoilt_though_nobody_says_so(monkeypatch):
    numbers = []
    draw = picture_module.draw_anomalies

    def recorded(chance, size, pixel_um, number):
        numbers.append(number)
        return draw(chance, size, pixel_um, number)

    monkeypatch.setattr(picture_module, "draw_anomalies", recorded)
    for seed in range(60):
        draw_picture(random(seed), Plan("train", "MDCK"), PLAIN, 32, "image")
    assert 4 <= sum(number > 0 for number in numbers) <= 22  # one in five


def test_tolerances_of_styles_grow_with_the_magnification(monkeypatch):
    asked = []
    monkeypatch.setattr(
        picture_module, "polygonise", lambda labels, tolerance: asked.append(tolerance) or labels
    )
    for magnification in (10.0, 20.0, 40.0):
        taken = replace(PLAIN, magnification=magnification)
        draw_picture(random(0), Plan("train", "HeLa", style="coarse"), taken, 64, "image")
    assert asked == [1.75, 3.5, 7.0]
