"""Where a number lies among the few that a network was trained with."""

import math
from collections.abc import Sequence

import numpy as np


def nearest_level(value: float, levels: Sequence[float]) -> float:
    """The level with the smallest ratio to a value; of two the higher.

    >>> nearest_level(15, [10, 20, 40]), nearest_level(64, [10, 20, 40]), nearest_level(2, [1, 4])
    (20, 40, 4)
    """
    return min(levels, key=lambda level: (round(abs(math.log2(value / level)), 9), -level))


def level_codes(value: float, levels: Sequence[float]) -> tuple[list[float], list[float]]:
    """Codes of a value between the levels that a one-hot or thermometer code was trained with.

    Shares are those of its two neighbours, by the distance of logarithms: one-hot on a level.
    Steps are the thermometer of these: 1 up to the level below, a fraction of the next. Beyond the
    levels both stay at the last, because such codes have nothing further to say.

    Args:
        value: above 0.
        levels: ascending, above 0.

    >>> [[round(share, 3) for share in code] for code in level_codes(15, [10, 20, 40])]
    [[0.415, 0.585, 0.0], [1.0, 0.585, 0.0]]
    >>> level_codes(64, [10, 20, 40])
    ([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    """
    place = np.interp(math.log2(value), np.log2(levels), np.arange(len(levels)))
    shares = np.clip(1 - np.abs(place - np.arange(len(levels))), 0, 1)
    return shares.tolist(), np.clip(1 + place - np.arange(len(levels)), 0, 1).tolist()
