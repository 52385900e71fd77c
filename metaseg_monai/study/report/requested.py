"""What a network makes of the same images when it is asked for one label after the other.

Pure functions from counts and bins: how large the masks are, and how sure the network is inside the
true ones (paper 3.2: a coarse annotation style lowers confidence, and with it the area).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.paired_tests import bootstrap_interval

OWN = "own value"  # what mode normal is called beside requested values
QUANTITIES = ("area", "inside", "outside")


def requested_modes(modes: Sequence[str], field: str, values: Sequence[str]) -> dict[str, str]:
    """The modes that ask for a label of a field, by mode, after that of the own label.

    >>> requested_modes(["normal", "zeros", "fixed:coarse"], "style", ["exact", "coarse"])
    {'normal': 'own value', 'fixed:coarse': 'coarse'}
    """
    found = {"normal": OWN}
    for value in values:
        found |= {m: value for m in (f"fixed:{value}", f"fixed:{field}={value}") if m in modes}
    return found


def by_group(
    counts: pd.DataFrame, bins: pd.DataFrame | None, modes: Mapping[str, str]
) -> pd.DataFrame:
    """Area and probability of each group of one trained network, its cases' pixels pooled.

    Args:
        counts: of the network.
        bins: its calibration bins of all modes; None where it wrote none.
        modes: what is asked for, by mode.

    Returns:
        Index (class, asked, group); columns ``area`` (predicted area over that of the labels),
        ``inside`` and ``outside`` (mean probability of the class in and out of the labels, 0..1).
        NaN where no label of the group holds the class, and of probabilities that were not kept.
    """
    index = ["class", "asked", "group"]
    asked = counts.assign(asked=counts["mode"].map(modes)).dropna(subset="asked")
    sums = asked.groupby(index)[["tp", "fp", "fn"]].sum()
    true = (sums["tp"] + sums["fn"]).astype(float).replace(0.0, np.nan)
    table = pd.DataFrame({"area": (sums["tp"] + sums["fp"]) / true})
    table[["inside", "outside"]] = np.nan
    if bins is not None:
        of_bins = bins.assign(asked=bins["mode"].map(modes)).dropna(subset="asked")
        columns = ["pixels", "confidence", "positives", "inside"]
        found = of_bins.groupby(index)[columns].sum(min_count=1).reindex(table.index)
        known = true.notna()
        table["inside"] = (found["inside"] / found["positives"])[known]
        rest = (found["pixels"] - found["positives"]).replace(0.0, np.nan)
        table["outside"] = ((found["confidence"] - found["inside"]) / rest)[known]
    return table


def summarise_requested(of_seeds: Sequence[pd.DataFrame], draws: int = 2000) -> pd.DataFrame:
    """Mean over groups, seeds averaged within each group before, with its interval.

    Args:
        of_seeds: table of `by_group` of each training.
        draws: bootstrap samples, which draw groups.

    Returns:
        Index (class, asked) in the order of the tables; columns (quantity; ``mean``, ``low``,
        ``high``, ``groups``): low and high are the ends of the 95 % `bootstrap_interval`.
    """
    groups = pd.concat(of_seeds).groupby(level=["class", "asked", "group"], sort=False).mean()
    rows = {}
    for place, of_place in groups.groupby(level=["class", "asked"], sort=False):
        row: dict[tuple[str, str], float] = {}
        for quantity in QUANTITIES:
            values = of_place[quantity].dropna().to_numpy(float)
            low, high = bootstrap_interval(values, draws, seed=0)
            row[quantity, "mean"] = float(values.mean()) if len(values) else float("nan")
            row[quantity, "low"], row[quantity, "high"] = low, high
            row[quantity, "groups"] = len(values)
        rows[place] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["class", "asked"])
    table.columns = pd.MultiIndex.from_tuples(list(next(iter(rows.values()))))
    return table
