"""How much of the answer metadata gives away: its association with a size read off the labels.

A tumour's size that a radiologist measured on the very image is partly the answer. Here the size
of each volume's label (of slices that of the one with the largest area) is set beside the metadata
value; images without a volume count as one volume of their group. Only intervals know of groups.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.statistics import NAN, group_interval

UNIT = ["group", "volume"]


class Association(NamedTuple):
    """How closely two values of each group go together.

    ``...low`` and ``...high`` are the ends of 95 % intervals of `group_interval`; NaN below 5
    groups. As all shares R2 is above 0 by chance alone, and so is the lower end of its interval.

    Attributes:
        groups: with both values.
        volumes: with both values; each has the same weight.
        r_squared: share of the variance that a straight line explains, 0 to 1; NaN as `spearman`.
        spearman: rank correlation, see the function; its interval is `low` to `high`.
    """

    groups: int
    volumes: int
    r_squared: float
    r_squared_low: float
    r_squared_high: float
    spearman: float
    low: float
    high: float

    @property
    def closeness(self) -> float:
        """The rank correlation without its sign."""
        return abs(self.spearman)

    @property
    def told(self) -> str:
        """The closeness in words."""
        return f"Spearman {self.spearman:.2f}"


class Kinds(NamedTuple):
    """How closely a size goes with a category, by the ranks of the sizes.

    Attributes:
        groups: with both values.
        volumes: with both values; each has the same weight.
        values: of the category among them.
        share: of the variance of the ranks that lies between the values, less what as many values
            have by chance (epsilon squared), at most 1; NaN where the sizes do not vary, or
            there are as many values as volumes. `low` to `high` is its 95 % interval, see
            `group_interval`; NaN below 5 groups.
    """

    groups: int
    volumes: int
    values: int
    share: float
    low: float
    high: float

    @property
    def closeness(self) -> float:
        """The share as a correlation."""
        return float(np.sqrt(max(self.share, 0.0)))

    @property
    def told(self) -> str:
        """The closeness in words."""
        return f"{self.share:.0%} of the variance of its ranks"


def spearman(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation; equal values share their mean rank.

    Returns:
        -1 to 1; NaN below 3 pairs, or where one of the two does not vary.

    Raises:
        DataError: a value is no finite number.

    >>> spearman([1, 2, 3, 4], [1, 4, 9, 16]), spearman([1, 2, 3], [3, 2, 1])
    (1.0, -1.0)
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        raise DataError("An association needs finite numbers; leave out groups without a value.")
    return round(float(_rank_correlations(one, two, _once(one))[0]), 12)


def label_diameters(
    counts: pd.DataFrame, pixel_size: pd.Series, volumes: pd.Series, dims: int = 2
) -> pd.DataFrame:
    """Diameter of the disc, or ball, as large as the largest label of each volume's images.

    Of the area A of a slice it is 2 sqrt(A / pi), of the volume V of a scan it is
    cbrt(6 V / pi).

    Args:
        counts: counts of one model in one test mode; the label is counted by tp + fn.
        pixel_size: mm2 of a pixel, or mm3 of a voxel, by case; 1 measures in pixels.
        volumes: volume by case; an empty text where all images of a group are one.
        dims: 2 where a case is an image, 3 where it is a volume.

    Returns:
        Index: group, volume, columns: foreground classes; in mm or pixels, NaN where a volume has
        no such class.

    Raises:
        DataError: a case has no pixel size.
    """
    size = (counts["tp"] + counts["fn"]) * counts["case"].map(pixel_size)
    if size.isna().any():
        case = counts["case"][size.isna()].iloc[0]
        raise DataError(f"case {case} has no pixel spacing in cases.csv; evaluate again.")
    told = counts.assign(size=size, volume=counts["case"].map(volumes))
    largest = told.groupby([*UNIT, "class"])["size"].max().unstack("class")
    of_diameter_1 = np.pi / 4 if dims == 2 else np.pi / 6
    return (largest.where(largest > 0) / of_diameter_1) ** (1 / dims)


def volume_values(cases: pd.DataFrame, field: str) -> pd.Series:
    """Mean of the plain numbers that the cases of each volume have in a field.

    Args:
        cases: columns ``group``, ``volume`` and the field's, as text; what is no number is left
            out.
        field: name of a column.

    Returns:
        Values by group and volume: the tumours of a patient's two scans need not be as large.
    """
    numbers = pd.to_numeric(cases[field], errors="coerce").replace([np.inf, -np.inf], np.nan)
    return numbers.groupby([cases[name] for name in UNIT]).mean().dropna()


def volume_names(cases: pd.DataFrame, field: str) -> pd.Series:
    """The name that all cases of each volume have in a field, by group and volume.

    Volumes without one, or with several, are left out.

    Args:
        cases: columns ``group``, ``volume`` and the field's, as text, None where it has none.
        field: name of a column.
    """
    of_volume = cases[field].groupby([cases[name] for name in UNIT])
    return of_volume.first()[of_volume.nunique() == 1]


def associate_kinds(names: pd.Series, sizes: pd.Series, draws: int = 2000, seed: int = 0) -> Kinds:
    """Associate a category with a size of the volumes that have both, see `Kinds`.

    Args:
        names: values by group and volume, as of `volume_names`.
        sizes: size of the label by the same.
        draws: bootstrap samples.
        seed: of the bootstrap.

    >>> places = pd.MultiIndex.from_product([range(3), ["a", "b"]], names=UNIT)
    >>> sizes = pd.Series([1, 9, 2, 8, 3, 7], places)
    >>> apart = associate_kinds(pd.Series([*"xyxyxy"], places), sizes)
    >>> apart.values, round(apart.share, 2)
    (2, 0.71)
    """
    both = pd.concat([names, sizes], axis=1, join="inner", keys=["name", "size"]).dropna()
    place, groups = pd.factorize(both.index.get_level_values(0))
    kind, values = pd.factorize(both["name"])
    of_kind = (kind[:, None] == np.arange(len(values))).astype(float)
    size = both["size"].to_numpy(float)

    def share(times: np.ndarray) -> np.ndarray:
        return _share_between(_ranks(size, times), of_kind, times)

    low, high = group_interval(lambda times: share(times[:, place]), len(groups), draws, seed)
    of_all = round(float(share(_once(size))[0]), 12) if len(both) else NAN
    return Kinds(len(groups), len(both), len(values), of_all, low, high)


def associate(
    values: pd.Series, sizes: pd.Series, log: bool = False, draws: int = 2000, seed: int = 0
) -> Association:
    """Associate two values of the volumes that have both, see `Association`.

    Args:
        values: metadata by group and volume, as of `volume_values`; or by group.
        sizes: size of the label by the same.
        log: R2 of the logarithms, as a field of scale log is encoded; volumes with a value of 0 or
            below are left out.
        draws: bootstrap samples; one in which a value does not vary is dropped.
        seed: of the bootstrap.

    >>> found = associate(pd.Series([1, 10, 100]), pd.Series([1, 100, 10000]), log=True)
    >>> found.groups, found.r_squared, found.spearman
    (3, 1.0, 1.0)
    """
    both = pd.concat([values, sizes], axis=1, join="inner", keys=["value", "size"]).dropna()
    if log:
        both = both[(both > 0).all(axis=1)]
    one, two = both["value"].to_numpy(float), both["size"].to_numpy(float)
    scaled = (np.log(one), np.log(two)) if log else (one, two)
    place, names = pd.factorize(both.index.get_level_values(0))

    def share(times: np.ndarray) -> np.ndarray:
        return _correlations(scaled[0], scaled[1], times) ** 2

    def interval(number: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
        return group_interval(lambda times: number(times[:, place]), len(names), draws, seed)

    of_rank = interval(lambda times: _rank_correlations(one, two, times))
    of_all = round(float(share(_once(one))[0]), 12)
    return Association(
        len(names), len(both), of_all, *interval(share), spearman(one, two), *of_rank
    )


def _once(values: np.ndarray) -> np.ndarray:
    """One sample, in which every value stands once."""
    return np.ones((1, len(values)))


def _rank_correlations(first: np.ndarray, second: np.ndarray, times: np.ndarray) -> np.ndarray:
    return _correlations(_ranks(first, times), _ranks(second, times), times)


def _ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Ranks (S, n) within samples in which value k (n,) stands times[:, k] times."""
    _, place = np.unique(values, return_inverse=True)
    equal = times @ (place[:, None] == np.arange(place.max(initial=0) + 1))
    return (equal.cumsum(axis=1) - (equal - 1) / 2)[:, place]


def _share_between(ranks: np.ndarray, of_kind: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Epsilon squared (S,) of ranks (S, n) between kinds (n, K), see `_ranks`."""
    total, counts = times.sum(axis=1), times @ of_kind
    weighed = times * ranks
    mean = weighed.sum(axis=1) / total
    all_of_it = (weighed * ranks).sum(axis=1) - total * mean**2
    sums = (weighed @ of_kind) ** 2 / np.where(counts > 0, counts, 1)
    free = total - (counts > 0).sum(axis=1)
    known = (free > 0) & (all_of_it > 1e-9) & ((counts > 0).sum(axis=1) > 1)
    between = (sums.sum(axis=1) - total * mean**2) / np.where(known, all_of_it, 1)
    return np.where(known, 1 - (1 - between) * (total - 1) / np.where(known, free, 1), NAN)


def _correlations(first: np.ndarray, second: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Pearson correlation (S,) of samples in which pair k stands times[:, k] times.

    NaN below 3 pairs, or where one of the two does not vary in a sample.
    """
    sizes = times.sum(axis=1, keepdims=True)
    if times.shape[1] == 0 or sizes.min() < 3:
        return np.full(len(times), NAN)
    flat = _is_flat(first, times) | _is_flat(second, times)
    one = first - (times * first).sum(axis=1, keepdims=True) / sizes
    two = second - (times * second).sum(axis=1, keepdims=True) / sizes
    norm = np.sqrt((times * one**2).sum(axis=1) * (times * two**2).sum(axis=1))
    product = (times * one * two).sum(axis=1)
    return np.where(flat, NAN, np.clip(product / np.where(flat, 1, norm), -1, 1))


def _is_flat(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Whether all values of a sample are the same."""
    drawn = times > 0
    lowest = np.where(drawn, values, np.inf).min(axis=1)
    return lowest == np.where(drawn, values, -np.inf).max(axis=1)
