"""What a network makes of the same image when a continuous value is set to each of a range.

Pure functions from the counts of the modes ``fixed:<field>=<value>`` (paper figure 2A).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.leakage import spearman
from metaseg_monai.evaluation.paired_tests import bootstrap_interval
from metaseg_monai.metadata.quantities import read_number

TOLERANCE = 0.02  # of a case's largest area; what a contour may shake without meaning it


class Monotonicity(NamedTuple):
    """How areas follow a growing value, over the cases whose label holds a class.

    Attributes:
        not_shrinking: mean share of the steps, from one value to the next, without a smaller area;
            of the cases with a predicted pixel at any value.
        spearman: mean over cases of the rank correlation of area and value; a case whose area
            never changes has none.
        monotone: share of cases that grow, by more than 2 % of their largest area from the lowest
            to the highest value, without a step that shrinks by more than that. One in which the
            class is never predicted does not grow.
        flat: share of cases whose area never changes by more than 2 % of the largest, among them
            those in which the class is never predicted.
        cases: whose label holds the class.
        empty: those of them without a predicted pixel at any value.
    """

    not_shrinking: float
    spearman: float
    monotone: float
    flat: float
    cases: int
    empty: int


def sweep_modes(counts: pd.DataFrame, field: str) -> dict[float, str]:
    """The modes that fix a field to a number, by that number, ascending.

    >>> table = pd.DataFrame({"mode": ["normal", "fixed:size=40", "fixed:size=7", "fixed:red"]})
    >>> sweep_modes(table, "size")
    {7.0: 'fixed:size=7', 40.0: 'fixed:size=40'}
    """
    start = f"fixed:{field}="
    found = {}
    for mode in map(str, counts["mode"].unique()):
        value = read_number(mode.removeprefix(start)) if mode.startswith(start) else None
        if value is not None:
            found[value] = mode
    return dict(sorted(found.items()))


def sweep_areas(
    counts: pd.DataFrame, field: str, pixel_mm2: pd.Series | None = None
) -> pd.DataFrame:
    """Predicted area (tp + fp) of each case and class at each value of a field.

    Args:
        counts: counts of one model and one training seed.
        field: name of a continuous field.
        pixel_mm2: area of a pixel by case; None measures in pixels.

    Returns:
        Columns ``case, group, class, value, area, label``, values ascending within a case and
        class; label is the true area.

    Raises:
        DataError: there are fewer than two values, or they were counted on different cases.
    """
    values = {mode: value for value, mode in sweep_modes(counts, field).items()}
    if len(values) < 2:
        raise DataError(
            f"A response to {field} needs two modes fixed:{field}=<value> or more; evaluate with "
            "them."
        )
    rows = counts[counts["mode"].isin(values)]
    scale = 1.0 if pixel_mm2 is None else rows["case"].map(pixel_mm2)
    table = pd.DataFrame(
        {
            "case": rows["case"],
            "group": rows["group"],
            "class": rows["class"],
            "value": rows["mode"].map(values),
            "area": (rows["tp"] + rows["fp"]) * scale,
            "label": (rows["tp"] + rows["fn"]) * scale,
        }
    )
    sizes = table.groupby(["case", "class"])["value"].agg(["size", "nunique"])
    if not (sizes == len(values)).all(axis=None):
        case = sizes.index[(sizes != len(values)).any(axis=1)][0][0]
        raise DataError(
            f"Case {case} was not counted once at each value of {field}; evaluate all in one run."
        )
    return table.sort_values(["case", "class", "value"], ignore_index=True)


def response_curve(of_seeds: Sequence[pd.DataFrame], draws: int = 2000) -> pd.DataFrame:
    """Mean area at each value, seeds averaged within a case and cases within their group.

    Args:
        of_seeds: table of `sweep_areas` of each training seed.
        draws: bootstrap samples, which draw groups.

    Returns:
        Columns ``class, value, area, low, high, groups``; low and high are the ends of the 95 %
        `bootstrap_interval`.
    """
    by_case = pd.concat(of_seeds).groupby(["class", "value", "group", "case"])["area"].mean()
    by_group = by_case.groupby(level=["class", "value", "group"]).mean()
    table = by_group.unstack("group")
    rows = []
    for (number, value), areas in zip(table.index.tolist(), table.to_numpy(float), strict=True):
        known = areas[~np.isnan(areas)]
        low, high = bootstrap_interval(known, draws, seed=0)
        rows.append((number, value, float(known.mean()), low, high, len(known)))
    return pd.DataFrame(rows, columns=["class", "value", "area", "low", "high", "groups"])


def monotonicity(areas: pd.DataFrame) -> dict[int, Monotonicity]:
    """Tell how the areas of each class follow the value, see `Monotonicity`.

    Args:
        areas: table of `sweep_areas`.
    """
    found = {}
    for number, of_class in areas.groupby("class"):
        held = of_class[of_class["label"] > 0]
        table = held.pivot(index="case", columns="value", values="area").sort_index(axis=1)
        found[int(str(number))] = _of_cases(table.to_numpy(float), table.columns.to_numpy(float))
    return found


def _of_cases(areas: np.ndarray, values: np.ndarray) -> Monotonicity:
    """Summarise areas (cases, values)."""
    nan = float("nan")
    if not len(areas):
        return Monotonicity(nan, nan, nan, nan, 0, 0)
    predicted = areas.max(axis=1) > 0
    steps = np.diff(areas, axis=1)
    allowed = TOLERANCE * areas.max(axis=1)
    grown = areas[:, -1] - areas[:, 0] > allowed
    monotone = grown & (steps >= -allowed[:, None]).all(axis=1)
    ranks = [spearman(values, row) for row in areas]
    known = [rank for rank in ranks if not np.isnan(rank)]
    return Monotonicity(
        float((steps[predicted] >= 0).mean()) if predicted.any() else nan,
        float(np.mean(known)) if known else nan,
        float(monotone.mean()),
        float((np.ptp(areas, axis=1) <= allowed).mean()),
        len(areas),
        int((~predicted).sum()),
    )
