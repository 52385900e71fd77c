import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.surfaces import cut_runs, surface_scores
from metaseg_monai.metrics.volumes import KITS_REGIONS

SPACING = (5.0, 0.8, 0.5)
monai_warns = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")


def scores(pred, label, tolerance_mm=1.0, spacing=SPACING, at=None, count=None):
    return surface_scores(cut_runs(pred, label, at, count), spacing, tolerance_mm)


def slab(axis, start, stop, shape=(20, 20, 20)):
    """A slab through the whole array, across one axis."""
    array = np.zeros(shape, bool)
    np.moveaxis(array, axis, 0)[start:stop] = True
    return array


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slabs_that_are_one_voxel_apart_are_right_from_that_distance_on(axis):
    step = SPACING[axis]
    label, pred = slab(axis, 5, 9), slab(axis, 6, 10)
    assert scores(pred, label, step).surface_dice == pytest.approx(1)
    assert scores(pred, label, step * 0.99).surface_dice < 0.9
    assert scores(pred, label, step).hd95_mm == pytest.approx(step)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_one_side_of_a_slab_moved_by_hand(axis):
    """20 x 20 x 4 voxels, and 3 more on one side; on the corners' grid 19 x 19 within a side.

    An element is 1 on a wall, half a diagonal on an edge, and a triangle on a corner.
    """
    label, pred = slab(axis, 5, 9), slab(axis, 5, 12)
    edge, corner = math.sqrt(2) / 2, math.sqrt(3) / 8
    side = 19 * 19 + 4 * 19 * edge + 4 * corner
    ring = 4 * 19 + 4 * edge  # of walls, between two sides
    label_area, pred_area = 2 * side + 3 * ring, 2 * side + 6 * ring
    wrong = 19 * 19 + side + 2 * ring  # the label's side lies inside; its edges on the walls
    made = scores(pred, label, 0.01, spacing=(1.0, 1.0, 1.0))
    assert made.surface_dice == pytest.approx(1 - wrong / (label_area + pred_area))
    assert made.hd95_mm == pytest.approx(3)


def test_the_larger_of_both_directions_is_the_distance():
    label = np.zeros((4, 40, 40), bool)
    label[:, 2:6, 2:6] = True
    pred = label.copy()
    pred[:, 2:6, 30:34] = True  # from the label to the prediction there is no way at all
    far = scores(pred, label, spacing=(1.0, 1.0, 1.0))
    assert far.hd95_mm > 20
    assert scores(label, pred, spacing=(1.0, 1.0, 1.0)) == pytest.approx(far)


def test_a_cube_moved_along_the_thick_axis_by_hand():
    """10 voxels a side, so 9 x 9 whole elements on each of its sides; two sides are 5 mm off."""
    label = np.zeros((14, 14, 14), bool)
    label[2:12, 2:12, 2:12] = True
    z, y, x = 0.8 * 0.5, 5 * 0.5, 5 * 0.8  # walls across these axes, mm2
    corner = math.hypot(z, y, x) / 8
    total = 2 * 81 * (z + y + x) + 8 * corner
    total += 4 * 9 / 2 * (math.hypot(z, y) + math.hypot(z, x) + math.hypot(y, x))
    wrong = 81 * z + 2 * 9 / 2 * (math.hypot(z, y) + math.hypot(z, x)) + 4 * corner
    made = scores(np.roll(label, 1, 0), label, tolerance_mm=4.9)
    assert made.surface_dice == pytest.approx(1 - wrong / total)
    assert made.hd95_mm == pytest.approx(5)


def test_equal_masks_are_perfect_at_tolerance_zero():
    label = slab(1, 3, 6)
    assert scores(label, label, 0.0) == (1.0, 0.0)


def test_rounding_of_positions_does_not_exceed_the_tolerance():
    spacing = (0.1, 0.1, 0.1)  # 0.1 * 3 - 0.1 * 2 > 0.1
    label, pred = slab(0, 2, 5), slab(0, 3, 6)
    assert scores(pred, label, 0.1, spacing).surface_dice == 1


def test_empty_masks_by_the_rules_of_kits():
    empty, full = slab(0, 0, 0), slab(0, 3, 5)
    both = scores(empty, empty)
    assert both.surface_dice == 1
    assert math.isnan(both.hd95_mm)
    for pair in ((empty, full), (full, empty)):
        assert scores(*pair).surface_dice == 0
        assert math.isnan(scores(*pair).hd95_mm)


def blobs(seed, shape=(21, 26, 24)):
    rng = np.random.default_rng(seed)
    label = ndimage.gaussian_filter(rng.normal(size=shape), 2) > 0.03
    return label ^ (rng.random(shape) < 0.05), label


def one_hot(mask):
    return torch.from_numpy(np.stack([~mask, mask]))[None]


def wandering():
    """A body in planes so thin that its nearest surface lies in another one, or another slab."""
    z, y, x = np.mgrid[:30, :60, :60]
    label = (np.abs(y - z - 10) < 4) & (np.abs(x - 2 * z + 3) < 5)
    return np.roll(label, 1, 0), label


@monai_warns
@pytest.mark.parametrize(
    ("pair", "spacing", "tolerance_mm"),
    [
        *((blobs(seed), np.random.default_rng(seed).uniform(0.4, 5, 3), 1.1) for seed in range(4)),
        (wandering(), (0.4, 3.0, 2.0), 0.5),
    ],
)
def test_a_complete_volume_has_monais_scores(pair, spacing, tolerance_mm):
    """Blobs touch every face of the volume and reach over several slabs of planes."""
    made = scores(*pair, tolerance_mm, spacing)
    hot, spacing = [one_hot(mask) for mask in pair], [float(side) for side in spacing]
    dice = compute_surface_dice(*hot, [tolerance_mm], spacing=spacing, use_subvoxels=True)
    distance = compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)
    assert made.surface_dice == pytest.approx(dice.item(), abs=1e-5)
    assert made.hd95_mm == pytest.approx(distance.item(), abs=1e-4)


def cylinder(radius, planes):
    y, x = np.mgrid[:40, :40]
    return np.repeat((np.hypot(y - 19.5, x - 19.5) < radius)[None], planes, axis=0)


def test_the_end_of_what_was_evaluated_is_no_surface():
    """Planes 4-7 of a rod whose label is thicker in planes that nobody evaluated."""
    label, pred = cylinder(10, 4), cylinder(12, 4)
    unit = (1.0, 1.0, 1.0)
    inside = scores(pred, label, 0.5, unit, at=[4, 5, 6, 7], count=12)
    # were there caps, the inner discs (pi 10^2 of each) would be right
    assert inside.surface_dice < 0.01
    whole = scores(pred, label, 0.5, unit)
    assert whole.surface_dice > 0.3
    assert inside.hd95_mm == pytest.approx(2, abs=0.5)
    assert scores(label, label, 0.0, unit, at=[4, 5, 6, 7], count=12) == (1, 0)


def test_a_run_weighs_by_its_planes():
    """One run is right, one wrong: three planes against one, as long as the walls are alike."""
    label = cylinder(10, 4)
    pred = label.copy()
    pred[3] = cylinder(14, 1)[0]
    made = scores(pred, label, 0.5, (3.0, 1.0, 1.0), at=[1, 2, 3, 7], count=12)
    # areas of the walls: 3 right of both, 1 wrong of the label, 1.4 wrong of the prediction
    assert made.surface_dice == pytest.approx(6 / (6 + 1 + 1.4), abs=0.01)


@pytest.mark.parametrize("planes", [6, 7, 8, 15])
def test_both_open_ends_of_a_run_weigh_alike_wherever_a_slab_ends(planes):
    """Slabs are of eight layers, as many as seven planes have."""
    label = cylinder(10, planes)
    pred = label.copy()
    pred[-1] = cylinder(14, 1)[0]
    at = list(range(2, 2 + planes))
    one, other = (
        scores(p, label, 0.5, (3.0, 1.0, 1.0), at=at, count=planes + 4) for p in (pred, pred[::-1])
    )
    assert one.surface_dice == pytest.approx(other.surface_dice)
    assert one.surface_dice < 1


def test_runs_lie_at_their_true_distance():
    """Label in one run, prediction in another: as far apart as the planes are."""
    label, pred = cylinder(3, 2), cylinder(3, 2)
    label[1], pred[0] = False, False
    made = scores(pred, label, 1.0, (2.5, 1.0, 1.0), at=[2, 8], count=12)
    assert made.hd95_mm == pytest.approx(15)
    assert made.surface_dice == 0
    near = scores(pred, label, 15.1, (2.5, 1.0, 1.0), at=[2, 8], count=12)
    assert near.surface_dice == 1


def mask(*planes):
    """Planes of 4 x 5 with one voxel at row 2, column 3 where told."""
    array = np.zeros((len(planes), 4, 5), bool)
    array[:, 2, 3] = planes
    return array


@pytest.mark.parametrize(
    ("pred", "label", "at", "count", "ends"),  # first plane, planes, open before, open after
    [
        ("11111", "11111", [0, 1, 4, 5, 9], 10, [(0, 2, 0, 1), (4, 2, 1, 1), (9, 1, 1, 0)]),
        ("111", "111", None, None, [(0, 3, 0, 0)]),
        ("01000", "00100", [2, 3, 4, 5, 8], 12, [(3, 2, 0, 0)]),  # an empty plane closes the end
        ("00", "00", [1, 5], 9, []),
    ],
)
def test_runs_end_at_gaps_and_are_open_where_a_mask_reaches_one(pred, label, at, count, ends):
    runs = cut_runs(mask(*map(int, pred)), mask(*map(int, label)), at, count)
    assert [(r.corner[0], len(r.pred), r.open_before, r.open_after) for r in runs] == ends


def test_a_run_is_cut_to_the_box_of_both_masks():
    pred, label = mask(0, 1, 0), mask(0, 0, 0)
    label[1, 0, 1] = True
    (run,) = cut_runs(pred, label)
    assert run.corner == (1, 0, 1)
    assert run.pred.shape == (1, 3, 3)
    assert run.pred.tolist() == [[[0, 0, 0], [0, 0, 0], [0, 0, 1]]]
    assert run.label.tolist() == [[[1, 0, 0], [0, 0, 0], [0, 0, 0]]]


@pytest.mark.parametrize(
    ("planes", "at", "count", "message"),
    [
        (1, None, None, r"prediction \(2, 4, 5\) and label \(1, 4, 5\)"),
        (2, [3, 3], 9, r"2 planes at .*3, 3.* ascending"),
        (2, [3], 9, r"2 planes at .*3.* ascending"),
        (2, [3, 9], 9, "planes 3 to 9 of a volume that has 9"),
        (2, [-1, 0], None, "planes -1 to 0"),
    ],
)
def test_planes_that_do_not_fit_are_refused(planes, at, count, message):
    with pytest.raises(DataError, match=message):
        cut_runs(mask(1, 1), mask(1, 1)[:planes], at, count)


@pytest.mark.parametrize(
    ("spacing_mm", "right"), [(1.13288, False), (1.1328796488598762, True), (1.13287964, True)]
)
def test_a_tolerance_is_not_widened_beyond_rounding(spacing_mm, right):
    """A shift by one plane: KiTS' tolerance of the masses ends within 4e-7 mm of 1.13288."""
    label = np.zeros((9, 9, 9), bool)
    label[2:6, 2:7, 2:7] = True
    tolerance = KITS_REGIONS["masses"]["tolerance_mm"]
    found = scores(np.roll(label, 1, 0), label, tolerance, (spacing_mm, 1.0, 1.0)).surface_dice
    assert found == 1 if right else found < 0.8


@pytest.mark.parametrize("step", [0.1, 0.3, 0.7, 0.78125, 1.1, 2.9])
@pytest.mark.parametrize("place", [1, 40, 300])
def test_a_shift_by_the_tolerance_itself_is_right_at_every_place(step, place):
    label = np.zeros((place + 9, 5, 5), bool)
    label[place : place + 4, 1:4, 1:4] = True
    assert scores(np.roll(label, 1, 0), label, step, (step, 1.0, 1.0)).surface_dice == 1
