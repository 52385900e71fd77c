import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.training.collate import VolumeBatches


def test_no_batch_crosses_volumes_and_the_order_is_kept():
    items = [{"volume": name} for name in "aaaaabbc"]
    assert list(VolumeBatches(items, 2)) == [[0, 1], [2, 3], [4], [5, 6], [7]]
    assert len(VolumeBatches(items, 2)) == 5


def test_images_without_a_volume_go_alone():
    assert list(VolumeBatches([{"case": "a"}, {"volume": "v"}, {"case": "b"}] * 2, 4)) == [
        [place] for place in range(6)
    ]


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ConfigError, match="batch_size"):
        VolumeBatches([], size)
