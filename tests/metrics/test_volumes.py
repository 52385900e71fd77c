import math
import os
from pathlib import Path

import numpy as np
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images import read_image
from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.metrics.volumes import KITS_REGIONS, count_lesions, make_regions, score_volume

REAL = Path(os.environ.get("METASEG_DATA", "../shared/data"))
NAMES = {1: "kidney", 2: "tumour", 3: "cyst"}
REGIONS = make_regions(KITS_REGIONS, NAMES)
SPACING = (4.0, 0.5, 0.5)  # a voxel is 1 mm3


def volume(planes=6):
    """Kidney of 8 x 8 x 4 with a tumour of 4 x 4 x 2 and a cyst of one voxel."""
    label = np.zeros((planes, 16, 16), np.uint8)
    label[1:5, 2:10, 2:10] = 1
    label[2:4, 4:8, 4:8] = 2
    label[4, 9, 9] = 3
    return label


def by_region(scores):
    return {score.region: score for score in scores}


def test_the_largest_class_is_what_a_byte_holds():
    label = np.where(volume() == 2, 255, 0).astype(np.uint8)
    brightest = make_regions({"a": {"classes": [255], "tolerance_mm": 1}})
    assert score_volume(label, label, SPACING, brightest)[0].true_mm3 == 32


def test_regions_contain_each_other_and_volumes_are_in_mm3():
    made = by_region(score_volume(volume(), volume(), SPACING, REGIONS))
    assert {name: score.true_mm3 for name, score in made.items()} == {
        "kidney_and_masses": 256, "masses": 33, "tumour": 32,
    }  # fmt: skip
    assert {name: score.lesions for name, score in made.items()} == {
        "kidney_and_masses": 1, "masses": 2, "tumour": 1,
    }  # fmt: skip
    for score in made.values():
        assert (score.dice, score.surface_dice, score.hd95_mm) == (1, 1, 0)
        assert score.pred_mm3 == score.true_mm3
        assert (score.complete, score.planes, score.false_mm3, score.lesions_false) == (1, 6, 0, 0)
        assert score.lesions_found == score.lesions


def test_a_tumour_called_kidney_or_cyst_is_wrong_only_where_they_differ():
    pred = volume()
    pred[2][pred[2] == 2] = 1
    pred[3][pred[3] == 2] = 3
    made = by_region(score_volume(pred, volume(), SPACING, REGIONS))
    assert made["kidney_and_masses"].dice == 1
    assert made["masses"].dice == pytest.approx(2 * 17 / (17 + 33))
    assert made["tumour"].dice == 0
    assert made["tumour"].surface_dice == 0
    assert math.isnan(made["tumour"].hd95_mm)


def test_false_volume_is_that_on_planes_without_the_region():
    pred = volume()
    pred[2, 0, 0:3] = 2  # beside the tumour, on a plane that has it
    pred[5, 0, 0:5] = 2
    made = by_region(score_volume(pred, volume(), SPACING, REGIONS))
    assert made["tumour"].false_mm3 == 5
    assert made["tumour"].pred_mm3 == 40
    assert made["tumour"].lesions_false == 2
    assert made["masses"].false_mm3 == 5
    assert made["kidney_and_masses"].false_mm3 == 5


def test_a_volume_without_a_tumour():
    label = np.minimum(volume(), 1)
    made = by_region(score_volume(label, label, SPACING, REGIONS))["tumour"]
    assert (made.dice, made.surface_dice, made.true_mm3, made.lesions) == (1, 1, 0, 0)
    assert math.isnan(made.hd95_mm)
    invented = by_region(score_volume(volume(), label, SPACING, REGIONS))["tumour"]
    assert (invented.dice, invented.surface_dice, invented.false_mm3) == (0, 0, 32)
    assert (invented.lesions, invented.lesions_false) == (0, 1)


def test_planes_that_were_not_evaluated_count_for_nothing():
    label = volume(planes=12)
    label[8:10, 4:8, 4:8] = 2
    at = [2, 3, 8, 9]
    made = by_region(score_volume(label[at], label[at], SPACING, REGIONS, at, count=12))
    tumour, kidney = made["tumour"], made["kidney_and_masses"]
    assert (tumour.complete, tumour.planes, tumour.dice, tumour.surface_dice) == (0, 4, 1, 1)
    assert tumour.true_mm3 == 64
    assert tumour.lesions == 2
    assert kidney.true_mm3 == 2 * 64 + 2 * 16
    whole = by_region(score_volume(label, label, SPACING, REGIONS))
    assert whole["tumour"].lesions == 2


def test_a_gap_parts_a_lesion():
    label = np.full((2, 3, 3), 2, np.uint8)
    made = score_volume(label, label, SPACING, REGIONS, at=[3, 5], count=9)
    assert [score.lesions for score in made] == [2, 2, 2]
    beside = score_volume(label, label, SPACING, REGIONS, at=[3, 4], count=9)
    assert [score.lesions for score in beside] == [1, 1, 1]


def test_the_share_of_a_lesion_that_finds_it():
    pred = np.where(volume() == 2, 1, volume())
    pred[2, 4, 4:8] = 2  # 4 of 32 voxels
    found = [
        by_region(score_volume(pred, volume(), SPACING, REGIONS, found_share=share))["tumour"]
        for share in (0.1, 0.125, 0.13)
    ]
    assert [score.lesions_found for score in found] == [1, 1, 0]


def test_distances_follow_the_spacing():
    pred = np.roll(volume(), 1, axis=0)
    thick = by_region(score_volume(pred, volume(), SPACING, REGIONS))["kidney_and_masses"]
    thin = by_region(score_volume(pred, volume(), (1.0, 2.0, 2.0), REGIONS))["kidney_and_masses"]
    assert (thick.hd95_mm, thin.hd95_mm) == (4, 1)
    assert thick.surface_dice < 0.9 < thin.surface_dice == 1  # 1 mm is within 1.0331 mm


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, float("nan"), 1.0)])
def test_wrong_spacing_is_refused(spacing):
    with pytest.raises(DataError, match="expected three positive numbers"):
        score_volume(volume(), volume(), spacing, REGIONS)


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ({}, "regions is empty"),
        ({"a": [1]}, "region 'a'.*expected"),
        ({"a": {"classes": [1]}}, "region 'a'.*tolerance_mm"),
        ({"a": {"classes": [1], "tolerance_mm": 1, "color": 2}}, "region 'a'"),
        ({"a": {"classes": [0, 1], "tolerance_mm": 1}}, "0 is the background"),
        ({"a": {"classes": [], "tolerance_mm": 1}}, "classes"),
        ({"a": {"classes": [2, 2], "tolerance_mm": 1}}, "each once"),
        ({"a": {"classes": 2, "tolerance_mm": 1}}, "classes"),
        ({"a": {"classes": [1.5], "tolerance_mm": 1}}, "classes"),
        ({"a": {"classes": [256], "tolerance_mm": 1}}, "to 255, each once"),
        ({"a": {"classes": [1], "tolerance_mm": -1}}, "tolerance_mm -1"),
        ({"a": {"classes": [1], "tolerance_mm": "1"}}, "tolerance_mm '1'"),
    ],
)
def test_wrong_regions_are_refused(regions, message):
    with pytest.raises(ConfigError, match=message):
        make_regions(regions)


def line(text):
    return np.array([[[character == "x" for character in text]]])


@pytest.mark.parametrize(
    ("pred", "label", "share", "counted"),
    [
        ("...x.....x...x", "xxxx.xx...x...", 0.25, (3, 1, 2)),
        ("...x.....x...x", "xxxx.xx...x...", 0.26, (3, 0, 2)),
        ("xxxxxxx", "xx...xx", 0.1, (2, 2, 0)),  # one predicted part may find several
        ("x.x.x.....", "xxxxxxxxxx", 0.3, (1, 1, 0)),  # and several parts one together
        ("xxx" + "." * 27, "x" * 30, 0.1, (1, 1, 0)),
        ("xx." + "." * 27, "x" * 30, 0.1, (1, 0, 0)),
        ("....", "....", 0.1, (0, 0, 0)),
        ("x..x", "....", 0.1, (0, 0, 2)),
    ],
)
def test_found_missed_and_false_by_hand(pred, label, share, counted):
    assert count_lesions(line(pred), line(label), share) == counted


def test_corners_connect():
    label = np.zeros((2, 2, 2), bool)
    label[0, 0, 0] = label[1, 1, 1] = True
    assert count_lesions(np.zeros_like(label), label) == (1, 0, 0)


@pytest.mark.parametrize("share", [0, 10])
def test_wrong_shares_are_refused(share):
    with pytest.raises(ConfigError, match=f"found_share is {share}"):
        score_volume(volume(), volume(), SPACING, REGIONS, found_share=share)


@pytest.mark.real_data
def test_a_real_label_against_itself_and_shifted():
    if not (REAL / "kits_seg3d").is_dir():
        pytest.skip(f"no real data in {REAL} (set METASEG_DATA)")
    file = min((REAL / "kits_seg3d").glob("case_*/segmentation.nii.gz"))
    label = axial_volume(read_image(file, spatial_dims=3))
    same = score_volume(label.planes, label.planes, label.spacing_mm, REGIONS)
    for score in same:
        assert (score.dice, score.surface_dice) == (1, 1)
        assert score.lesions_found == score.lesions
    ml = same[0].true_mm3 / 1000
    assert 100 < ml < 2000  # both kidneys, with what grows in them
    shifted = np.roll(label.planes, 1, axis=2)
    moved = score_volume(shifted, label.planes, label.spacing_mm, REGIONS)
    # one pixel, less than 1.0331 mm; lower only for what was at the edge of the image
    assert moved[0].surface_dice > 0.99
    assert moved[0].hd95_mm == pytest.approx(label.spacing_mm[2], abs=1e-3)
