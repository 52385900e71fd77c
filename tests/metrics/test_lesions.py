import numpy as np
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.volumes import count_lesions


def line(text):
    return np.array([[[character == "x" for character in text]]])


def test_found_missed_and_false_by_hand():
    label = line("xxxx.xx...x...")
    pred = line("...x.....x...x")
    assert count_lesions(pred, label, found_share=0.25) == (3, 1, 2)
    assert count_lesions(pred, label, found_share=0.26) == (3, 0, 2)


def test_a_tenth_of_the_voxels_is_enough_by_default():
    label = line("x" * 30)
    assert count_lesions(line("xxx" + "." * 27), label).found == 1
    assert count_lesions(line("xx" + "." * 28), label).found == 0


def test_corners_connect():
    label = np.zeros((2, 2, 2), bool)
    label[0, 0, 0] = label[1, 1, 1] = True
    assert count_lesions(np.zeros_like(label), label) == (1, 0, 0)


def test_one_predicted_part_may_find_several_lesions():
    assert count_lesions(line("xxxxxxx"), line("xx...xx")) == (2, 2, 0)


def test_several_predicted_parts_find_a_lesion_together():
    assert count_lesions(line("x.x.x....."), line("xxxxxxxxxx"), found_share=0.3) == (1, 1, 0)


def test_nothing_is_no_lesion():
    empty = line("....")
    assert count_lesions(empty, empty) == (0, 0, 0)
    assert count_lesions(line("x..x"), empty) == (0, 0, 2)


def test_wrong_share_or_shape():
    with pytest.raises(ConfigError, match="found_share is 0"):
        count_lesions(line("x"), line("x"), found_share=0)
    with pytest.raises(ConfigError, match="found_share is 10"):
        count_lesions(line("x"), line("x"), found_share=10)
    with pytest.raises(DataError, match="differ in shape"):
        count_lesions(line("x"), line("xx"))
