"""How much of the answer metadata gives away: its association with a size read off the labels.

A tumour's size that a radiologist measured on the very image is partly the answer. Here the size
of each volume's label (that of the slice with the largest area) is set beside the metadata value;
images without a volume count as one volume of their group. Only intervals know of groups.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from metaseg_monai.errors import DataError
from metaseg_monai.metadata.quantities import read_number

NAN = float("nan")
UNIT = ["group", "volume"]
FEWEST = 4  # groups; an interval of fewer would be that of their accidents


class Association(NamedTuple):
    """How closely two values of each group go together.

    Attributes:
        groups: with both values.
        volumes: with both values; each has the same weight.
        r_squared: share of the variance that a straight line explains.
        r_squared_low: lower end of its 95 % percentile bootstrap interval, which draws groups; NaN
            below 4 groups. As all shares it is above 0 by chance alone, and so is this end.
        r_squared_high: upper end of the same.
        spearman: rank correlation.
        low: lower end of its interval.
        high: upper end of the same.
    """

    groups: int
    volumes: int
    r_squared: float
    r_squared_low: float
    r_squared_high: float
    spearman: float
    low: float
    high: float


def r_squared(first: ArrayLike, second: ArrayLike, log: bool = False) -> float:
    """Share of the variance of one value that a straight line over the other explains.

    Args:
        first: values (n,).
        second: values (n,).
        log: take the logarithm of both, as a field of scale log is encoded.

    Returns:
        0 to 1; NaN below 3 pairs, or where one of the two does not vary.

    Raises:
        DataError: lengths differ, a value is no finite number, or it is not above 0 with `log`.

    >>> r_squared([1, 2, 3], [2, 4, 6]), r_squared([1, 10, 100], [1, 100, 10000], log=True)
    (1.0, 1.0)
    """
    return round(float(_correlations(*_pairs(first, second, log))[0] ** 2), 12)


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation; equal values share their mean rank.

    Returns:
        -1 to 1; NaN below 3 pairs, or where one of the two does not vary.

    Raises:
        DataError: lengths differ, or a value is no finite number.

    >>> spearman([1, 2, 3, 4], [1, 4, 9, 16]), spearman([1, 2, 3], [3, 2, 1])
    (1.0, -1.0)
    """
    one, two = _pairs(first, second, False)
    return round(float(_correlations(_ranks(one), _ranks(two))[0]), 12)


def label_diameters(
    counts: pd.DataFrame, pixel_mm2: pd.Series | None = None, volumes: pd.Series | None = None
) -> pd.DataFrame:
    """Diameter of the disc as large as the largest label area of each volume, 2 sqrt(A / pi).

    Args:
        counts: counts of one model in one test mode; the label is counted by tp + fn.
        pixel_mm2: area of a pixel by case; None measures in pixels.
        volumes: volume by case; None where all images of a group are one.

    Returns:
        Index: group, volume (empty without volumes), columns: foreground classes; in mm or pixels,
        NaN where a volume has no such class.

    Raises:
        DataError: a case has no pixel area.
    """
    scale = 1.0 if pixel_mm2 is None else counts["case"].map(pixel_mm2)
    area = (counts["tp"] + counts["fn"]) * scale
    if area.isna().any():
        case = counts["case"][area.isna()].iloc[0]
        raise DataError(f"case {case} has no pixel spacing in cases.csv; evaluate again.")
    volume = "" if volumes is None else counts["case"].map(volumes)
    told = counts.assign(area=area, volume=volume)
    largest = told.groupby([*UNIT, "class"])["area"].max().unstack("class")
    return (largest.where(largest > 0) / np.pi) ** 0.5 * 2


def volume_values(cases: pd.DataFrame, field: str) -> pd.Series:
    """Mean of the plain numbers that the cases of each volume have in a field.

    Args:
        cases: columns ``group``, ``volume`` and the field's, as text; what is no number is left
            out.
        field: name of a column.

    Returns:
        Values by group and volume: the tumours of a patient's two scans need not be as large.
    """
    numbers = pd.to_numeric(cases[field].map(read_number))
    return numbers.groupby([cases[name] for name in UNIT]).mean().dropna()


def associate(
    values: pd.Series, sizes: pd.Series, log: bool = False, draws: int = 2000, seed: int = 0
) -> Association:
    """Associate two values of the volumes that have both, see `Association`.

    Args:
        values: metadata by group and volume, as of `volume_values`; or by group.
        sizes: size of the label by the same.
        log: R2 of the logarithms; volumes with a value of 0 or below are left out.
        draws: bootstrap samples; one in which a value does not vary is dropped.
        seed: of the bootstrap.
    """
    both = pd.concat([values, sizes], axis=1, join="inner", keys=["value", "size"]).dropna()
    if log:
        both = both[(both > 0).all(axis=1)]
    one, two = both["value"].to_numpy(float), both["size"].to_numpy(float)
    share, rank = r_squared(one, two, log), spearman(one, two)
    of_share = of_rank = (NAN, NAN)
    members = [np.asarray(rows) for rows in both.groupby(level=0).indices.values()]
    if len(members) >= FEWEST and not np.isnan(rank):
        scaled = (np.log(one), np.log(two)) if log else (one, two)
        shares, ranks = [], []
        for drawn in _drawn(members, draws, seed):
            shares.append(_correlations(scaled[0][drawn], scaled[1][drawn]) ** 2)
            ranks.append(_correlations(_ranks(one[drawn]), _ranks(two[drawn])))
        of_share, of_rank = (_percentiles(np.concatenate(found)) for found in (shares, ranks))
    return Association(len(members), len(both), share, *of_share, rank, *of_rank)


def _drawn(members: list[np.ndarray], draws: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap samples of whole groups, as rows of places; those of equal length together."""
    groups = np.random.default_rng(seed).integers(len(members), size=(draws, len(members)))
    if all(len(rows) == 1 for rows in members):
        yield np.concatenate(members)[groups]
        return
    for sample in groups:
        yield np.concatenate([members[group] for group in sample])[None]


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    return float(np.nanquantile(values, 0.025)), float(np.nanquantile(values, 0.975))


def _pairs(first: ArrayLike, second: ArrayLike, log: bool) -> tuple[np.ndarray, np.ndarray]:
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.shape != two.shape or one.ndim != 1:
        raise DataError(
            f"An association needs two values of each group; got {one.shape} and {two.shape}."
        )
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise DataError("An association needs finite numbers; leave out groups without a value.")
    if log and (min(one.min(initial=1), two.min(initial=1)) <= 0):
        raise DataError("The logarithm needs values above 0; leave out the groups without a size.")
    return (np.log(one), np.log(two)) if log else (one, two)


def _ranks(values: np.ndarray) -> np.ndarray:
    return stats.rankdata(values, axis=-1)


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis, of each row; NaN where one does not vary."""
    one, two = np.atleast_2d(first), np.atleast_2d(second)
    if one.shape[-1] < 3:
        return np.full(len(one), NAN)
    flat = (np.ptp(one, axis=-1) == 0) | (np.ptp(two, axis=-1) == 0)
    one = one - one.mean(axis=-1, keepdims=True)
    two = two - two.mean(axis=-1, keepdims=True)
    norm = np.sqrt((one**2).sum(axis=-1) * (two**2).sum(axis=-1))
    product = (one * two).sum(axis=-1)
    return np.where(flat, NAN, np.clip(product / np.where(flat, 1, norm), -1, 1))
