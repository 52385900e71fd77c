"""Settings of prepare that would be without effect, or of another meaning than was meant."""

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare import (
    PrepareOptions,
    prepare_cells,
    prepare_cracks,
    prepare_dsb2018,
    prepare_names,
)

LABELLED = (r"(?P<name>im\d)\.tif", r"(?P<name>im\d)\.png")


def bowl(lab, root):
    for number, name in enumerate("abc"):
        lab.png(root / name / "images" / f"{name}.png", lab.image(number, dtype=np.uint8))
        lab.png(root / name / "masks" / "1.png", lab.mask(255))
    return root


def test_a_split_column_that_is_missing_is_refused_for_every_table(lab, tmp_path):
    root = bowl(lab, tmp_path / "s")
    lab.csv(tmp_path / "t.csv", [{"id": name, "fold": "train"} for name in "abc"])
    with pytest.raises(DataError, match=r"t\.csv: no column 'fould'; it has id, fold"):
        prepare_dsb2018(root, tmp_path / "out", metadata=tmp_path / "t.csv", split="fould")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("setting", [{"key": "id"}, {"split": "fold"}])
def test_columns_without_a_table_are_refused(lab, tmp_path, setting):
    (told,) = (f"{name}='{value}': there is no table" for name, value in setting.items())
    with pytest.raises(DataError, match=told):
        prepare_dsb2018(bowl(lab, tmp_path / "s"), tmp_path / "out", **setting)
    source, _ = lab.cells(tmp_path / "lab")
    (source / "lab.csv").unlink()
    with pytest.raises(DataError, match=told):
        prepare_cells(source, tmp_path / "out", options=PrepareOptions(ome=True), **setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"labels": "binary", "classes": 7}, "classes=7: labels=binary makes two classes"),
        ({"threshold": 3, "classes": 3}, "classes=3: threshold=3 makes two classes"),
        ({"labels": "nonsense", "threshold": 9}, "labels='nonsense': expected one of classes"),
        ({"labels": "instances", "threshold": 9}, "threshold=9: labels=instances are object"),
        ({"threshold": "abc"}, "threshold='abc': expected a number"),
        ({"threshold": float("nan")}, "threshold=nan: expected a number"),
        ({"threshold": True}, "threshold=True: expected a number"),
    ],
)
def test_settings_of_masks_that_contradict_each_other(lab, tmp_path, setting, message):
    source, _ = lab.cells(tmp_path / "lab")
    with pytest.raises(DataError, match=message):
        prepare_cells(source, tmp_path / "out", **setting)


@pytest.mark.parametrize("setting", [{"labels": "binary"}, {"classes": 3}, {"threshold": 5}])
def test_settings_of_masks_without_masks(lab, tmp_path, setting):
    source, _ = lab.cells(tmp_path / "lab")
    with pytest.raises(DataError, match="there are no masks to read; name them with --mask_patt"):
        prepare_names(source, tmp_path / "out", LABELLED[0], **setting)
    assert prepare_names(source, tmp_path / "out", LABELLED[0]).problems == []


def test_threshold_of_cracks_is_checked_as_elsewhere(lab, tmp_path):
    with pytest.raises(DataError, match="threshold='abc': expected a number"):
        prepare_cracks(tmp_path, tmp_path / "out", threshold="abc")


def test_a_threshold_that_empties_all_masks_is_refused(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    for n in range(6):
        lab.png(source / "masks" / f"im{n}.png", lab.mask(200 - n))
    with pytest.raises(
        DataError, match="threshold=200: all 6 masks become empty, as their largest value is 200"
    ):
        prepare_cells(source, tmp_path / "out", threshold=200)
    assert not (tmp_path / "out").exists()
    made = prepare_cells(source, tmp_path / "out", threshold=199)
    assert "masks without foreground: 5 cases" in made.summary  # one has, so it is meant


def test_masks_that_are_black_are_not_the_fault_of_a_threshold(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    for n in range(6):
        lab.png(source / "masks" / f"im{n}.png", lab.mask(0))
    made = prepare_cells(source, tmp_path / "out", threshold=127)
    assert "masks without foreground: 6 cases" in made.summary


def test_probabilities_under_a_threshold_for_grey_values(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    (source / "masks" / "im0.png").unlink()
    lab.tif(source / "masks" / "im0.tif", lab.mask().astype(np.float32) * np.float32(0.9))
    for n in range(1, 6):
        lab.png(source / "masks" / f"im{n}.png", lab.mask(255))
    made = prepare_cells(source, tmp_path / "out", threshold=127)
    assert len(made.problems) == 1
    assert "values up to 0.9, of which none is above 127; give threshold=0.5" in made.problems[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"axes": 3}, "axes=3: expected letters, such as CYX"),
        ({"group": "well"}, "group='well': expected names of columns"),
        ({"group": (3,)}, r"group=\(3,\): expected names of columns"),
        ({"grey": "no"}, "grey='no': expected True or False"),
    ],
)
def test_options_of_a_wrong_type(setting, message):
    with pytest.raises(DataError, match=message):
        PrepareOptions(**setting)
