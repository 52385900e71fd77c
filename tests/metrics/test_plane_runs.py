import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.surfaces import cut_runs


def mask(*planes):
    """Planes of 4 x 5 with one voxel at row 2, column 3 where told."""
    array = np.zeros((len(planes), 4, 5), bool)
    array[:, 2, 3] = planes
    return array


def ends(runs):
    return [(run.corner[0], len(run.pred), run.open_before, run.open_after) for run in runs]


def test_runs_end_at_gaps_and_are_open_where_a_mask_reaches_one():
    full = mask(1, 1, 1, 1, 1)
    assert ends(cut_runs(full, full, at=[0, 1, 4, 5, 9], count=10)) == [
        (0, 2, False, True),
        (4, 2, True, True),
        (9, 1, True, False),
    ]


def test_a_volume_that_is_complete_is_one_run_without_open_ends():
    assert ends(cut_runs(mask(1, 1, 1), mask(1, 1, 1))) == [(0, 3, False, False)]


def test_an_empty_plane_closes_the_end_and_runs_without_masks_are_left_out():
    pred, label = mask(0, 1, 0, 0, 0), mask(0, 0, 1, 0, 0)
    assert ends(cut_runs(pred, label, at=[2, 3, 4, 5, 8], count=12)) == [(3, 2, False, False)]
    assert cut_runs(mask(0, 0), mask(0, 0), at=[1, 5], count=9) == []


def test_a_run_is_cut_to_the_box_of_both_masks():
    pred, label = mask(0, 1, 0), mask(0, 0, 0)
    label[1, 0, 1] = True
    (run,) = cut_runs(pred, label)
    assert run.corner == (1, 0, 1)
    assert run.pred.shape == (1, 3, 3)
    assert run.pred.tolist() == [[[0, 0, 0], [0, 0, 0], [0, 0, 1]]]
    assert run.label.tolist() == [[[1, 0, 0], [0, 0, 0], [0, 0, 0]]]


def test_planes_that_do_not_fit_are_refused():
    full = mask(1, 1)
    with pytest.raises(DataError, match=r"prediction \(2, 4, 5\) and label \(1, 4, 5\)"):
        cut_runs(full, full[:1])
    with pytest.raises(DataError, match=r"2 planes at .*3, 3.* ascending"):
        cut_runs(full, full, at=[3, 3], count=9)
    with pytest.raises(DataError, match=r"2 planes at .*3.* ascending"):
        cut_runs(full, full, at=[3], count=9)
    with pytest.raises(DataError, match="planes 3 to 9 of a volume that has 9"):
        cut_runs(full, full, at=[3, 9], count=9)
    with pytest.raises(DataError, match="planes -1 to 0"):
        cut_runs(full, full, at=[-1, 0])
