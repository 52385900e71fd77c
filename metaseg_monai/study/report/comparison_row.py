"""The row that every table of planned comparisons has for one of them."""

from typing import Any

from metaseg_monai.study.report.comparisons import Compared
from metaseg_monai.study.report.words import by_training, p_text


def compared_row(one: Compared, cases: str = "cases", groups: str = "groups") -> dict[str, Any]:
    """The row of a comparison in every table of them.

    Args:
        one: the comparison.
        cases: what a case is called.
        groups: what a group is called.
    """
    return {
        "difference": one.overall.mean,
        "low": one.overall.low,
        "high": one.overall.high,
        "d_z": one.overall.effect,
        "p corrected": p_text(one.p_holm),
        "by training": by_training(one),
        "trainings, low": one.trainings.low,
        "trainings, high": one.trainings.high,
        cases: one.overall.cases,
        groups: one.overall.groups,
    }
