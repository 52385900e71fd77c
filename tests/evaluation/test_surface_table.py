"""The surface Dice of images and volumes: by hand, its units, what is left out and refused."""

import math

import numpy as np
import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.evaluation import SurfaceDice, read_surfaces

SQUARE = np.zeros((12, 12), np.uint8)
SQUARE[3:9, 3:9] = 1


def case(pred, label, mode="normal", classes=2, **more):
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(pred).long(), classes)
    return {
        **{"case": "a", "group": "g", "split": "test", "mode": mode, "domain": "all"},
        "pred": one_hot.movedim(-1, 0).float(),
        "label": torch.from_numpy(label)[None],
        **more,
    }


def nsd(pred, label, tolerance, **more):
    return [row["nsd"] for row in SurfaceDice(tolerance)(case(pred, label, **more))]


def test_a_shifted_square_by_hand():
    shifted = np.roll(SQUARE, 2, axis=1)
    assert nsd(SQUARE, SQUARE, {"px": 0}) == [1.0]
    assert nsd(shifted, SQUARE, {"px": 2}) == [1.0]
    # both lie side by side along 4 of 6 pixels at top and bottom; one pixel more is near its corner
    (share,) = nsd(shifted, SQUARE, {"px": 0})
    assert 0.25 < share < 0.5
    assert share < nsd(shifted, SQUARE, {"px": 1})[0] < 1


def test_millimetres_follow_the_pixel_size():
    shifted = np.roll(SQUARE, 2, axis=1)
    spacing = torch.tensor([math.nan, 1.0, 0.5])
    assert nsd(shifted, SQUARE, {"mm": 1.0}, spacing_mm=spacing) == [1.0]
    assert nsd(shifted, SQUARE, {"mm": 0.9}, spacing_mm=spacing)[0] < 1
    with pytest.raises(ConfigError, match=r"a: its pixel size is not known.*give it in pixels"):
        nsd(shifted, SQUARE, {"mm": 1.0})


def test_a_volume_has_top_and_bottom_and_needs_millimetres():
    cube = np.zeros((8, 8, 8), np.uint8)
    cube[2:6, 2:6, 2:6] = 1
    lower = np.roll(cube, 1, axis=2)  # the last axis is the planes
    spacing = torch.tensor([3.0, 1.0, 1.0])
    assert nsd(cube, cube, {"mm": 0}, spacing_mm=spacing) == [1.0]
    assert nsd(lower, cube, {"mm": 2.9}, spacing_mm=spacing)[0] < 1
    assert nsd(lower, cube, {"mm": 3}, spacing_mm=spacing) == [1.0]
    with pytest.raises(ConfigError, match=r"a: a volume has no tolerance in pixels.*in mm"):
        nsd(cube, cube, {"px": 1})


def test_empty_classes_slices_and_other_modes():
    nothing = np.zeros_like(SQUARE)
    assert math.isnan(nsd(nothing, nothing, {"px": 1})[0])
    assert nsd(nothing, SQUARE, {"px": 1}) == [0.0] == nsd(SQUARE, nothing, {"px": 1})
    two = SQUARE.copy()
    two[3:9, 6:9] = 2
    assert nsd(two, two, {"px": 1}, classes=4)[:2] == [1.0, 1.0]
    assert nsd(SQUARE, SQUARE, {"px": 1}, mode="shuffle") == []
    assert nsd(SQUARE, SQUARE, {"px": 1}, volume="v", plane=2) == []
    assert nsd(SQUARE, SQUARE, None) == []


def test_the_table_is_read_as_it_was_written(tmp_path):
    measure, file = SurfaceDice({"px": 2}), tmp_path / "surfaces.csv"
    found = [*measure(case(SQUARE, SQUARE, classes=3))]
    assert measure.write(file, found) == [file]
    rows = read_surfaces(file)
    assert rows["nsd"].tolist()[0] == 1
    assert math.isnan(rows["nsd"][1])
    assert rows[["tolerance", "unit"]].to_numpy().tolist() == [[2, "px"]] * 2
    assert SurfaceDice(None).write(file, []) == []
    assert not file.exists()


@pytest.mark.parametrize("wrong", [{"cm": 1}, {"px": -1}, {"px": "2"}, {"px": 1, "mm": 1}, 2])
def test_another_tolerance_is_refused(wrong):
    with pytest.raises(ConfigError, match=r'expected \{"px": 2\} or \{"mm": 1.5\}'):
        SurfaceDice(wrong)
