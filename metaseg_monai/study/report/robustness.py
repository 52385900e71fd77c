"""What wrong, missing or inexact metadata costs, from the counts of an evaluation's test modes.

No network is run: a case was counted with its true and with foreign metadata, and counts add. If
each case is mislabelled with the same chance, independently of the others, the expected counts
are (1 - share) x true + share x foreign, exactly. The curves give the F1 of these expected counts;
the expected F1 itself differs from it by less the more pixels are pooled.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.scores import pooled_f1

SHARES = tuple(np.linspace(0.0, 1.0, 21).round(2).tolist())


def wrong_share_curve(counts: pd.DataFrame, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """F1 of the expected counts when a share of the cases comes with foreign metadata.

    Args:
        counts: table of counts of one model and one training seed, with the modes ``normal`` and
            ``shuffle``.
        shares: shares in 0..1, of the cases.

    Returns:
        One row a share: ``share, f1, mode``, where mode names the foreign metadata.

    Raises:
        DataError: if a mode is absent or was counted on other cases than ``normal``.
    """
    return _share_curve(counts, "shuffle", shares)


def missing_share_curve(counts: pd.DataFrame, shares: Sequence[float] = SHARES) -> pd.DataFrame:
    """The same as `wrong_share_curve` for cases that come without metadata.

    Counts of the mode ``missing`` are used, or, where the metadata has no entry for an unknown
    value and that mode could not be run, those of ``zeros``; the column ``mode`` tells which.
    """
    absent = "missing" if (counts["mode"] == "missing").any() else "zeros"
    return _share_curve(counts, absent, shares)


def perturbation_curve(counts: pd.DataFrame) -> pd.DataFrame:
    """Pooled F1 against the factor that multiplies continuous metadata; ``normal`` is factor 1.

    Args:
        counts: table of counts of one model and one training seed, with modes such as
            ``perturb:0.8`` and ``perturb:1.25``.

    Returns:
        One row a factor, ascending: ``factor, f1``.

    Raises:
        DataError: if there is no ``normal`` or no ``perturb:<factor>``, or cases differ.
    """
    perturbed = [mode for mode in counts["mode"].unique() if str(mode).startswith("perturb:")]
    if not perturbed:
        raise DataError(_absent("perturb:<factor>", counts))
    normal = _mode(counts, "normal")
    scores = {float(mode.partition(":")[2]): pooled_f1(_mode(counts, mode)) for mode in perturbed}
    scores[1.0] = pooled_f1(normal)
    return pd.DataFrame(sorted(scores.items()), columns=["factor", "f1"])


def reliance(counts: pd.DataFrame) -> dict[str, float]:
    """Pooled F1 that is lost with foreign, with missing and with zero metadata.

    Near 0: the network hardly reads its metadata. Large: it cannot do without it. Only the modes
    that were evaluated appear, as ``normal - shuffle``, ``normal - missing``, ``normal - zeros``.

    Args:
        counts: table of counts of one model and one training seed.

    Raises:
        DataError: if mode ``normal`` is absent, or a mode was counted on other cases.
    """
    normal = pooled_f1(_mode(counts, "normal"))
    present = set(counts["mode"])
    return {
        f"normal - {mode}": normal - pooled_f1(_mode(counts, mode))
        for mode in ("shuffle", "missing", "zeros")
        if mode in present
    }


def _share_curve(counts: pd.DataFrame, foreign: str, shares: Sequence[float]) -> pd.DataFrame:
    true, false = _totals(_mode(counts, "normal")), _totals(_mode(counts, foreign))
    rows = []
    for share in shares:
        if not 0 <= share <= 1:
            raise DataError(f"A share of cases lies in 0..1; got {share}.")
        expected = (1 - share) * true + share * false
        rows.append((share, pooled_f1(expected.reset_index()), foreign))
    return pd.DataFrame(rows, columns=["share", "f1", "mode"])


def _totals(counts: pd.DataFrame) -> pd.DataFrame:
    return counts.groupby("class")[["tp", "fp", "fn"]].sum()


def _mode(counts: pd.DataFrame, mode: str) -> pd.DataFrame:
    """The counts of one mode, checked to cover the same cases and classes as ``normal``."""
    part = counts[counts["mode"] == mode]
    if part.empty:
        raise DataError(_absent(mode, counts))
    normal = counts[counts["mode"] == "normal"]
    keys = ["case", "class"]
    if sorted(zip(*(part[key] for key in keys), strict=True)) != sorted(
        zip(*(normal[key] for key in keys), strict=True)
    ):
        raise DataError(
            f"Mode {mode} was counted on other cases than mode normal; evaluate both in one run."
        )
    return part


def _absent(mode: str, counts: pd.DataFrame) -> str:
    present = ", ".join(map(str, counts["mode"].unique())) or "none"
    return f"The counts have no mode {mode} (they have {present}); evaluate the run with it."
