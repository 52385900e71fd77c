"""How well estimated values agree with true ones: pure formulas."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from metaseg_monai.metadata import Continuous


def agreement(
    predicted: Sequence[float], true: Sequence[float], field: Continuous
) -> dict[str, float | None]:
    """Mean absolute error, R2 and Spearman's rank correlation of estimates of a field.

    Args:
        predicted: N values in the field's unit.
        true: N values in the field's unit.
        field: gives the scale of R2: the logarithm where the field's scale is one.

    Returns:
        `mae` in the field's unit; `r2`, 1 - squared errors / squared distances from the mean of
        `true`, so 0 for that mean and negative for worse; `spearman`. None where undefined: `mae`
        of no values, `r2` where all true values are one, `spearman` where either side is constant.

    >>> size = Continuous(name="size", unit="mm", range=(1, 1000), scale="log",
    ...                   provenance="acquisition", availability="acquisition")
    >>> agreement([1, 10, 1000], [1, 100, 1000], size)
    {'mae': 30.0, 'r2': 0.785714, 'spearman': 1.0}
    """
    if not true:
        return {"mae": None, "r2": None, "spearman": None}
    guess, truth = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    scores: dict[str, float | None] = {
        "mae": round(float(np.abs(guess - truth).mean()), 6), "r2": None, "spearman": None,
    }  # fmt: skip
    if np.ptp(truth) > 0:
        x, y = (values if field.scale == "linear" else np.log(values) for values in (guess, truth))
        explained = 1 - ((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        scores["r2"] = round(float(explained), 6)
        if np.ptp(guess) > 0:
            scores["spearman"] = round(float(spearmanr(guess, truth).statistic), 6)
    return scores
