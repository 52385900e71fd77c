"""What the table case by case counts: cases, however many classes and trainings there are."""

import pandas as pd

from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.runs import Replicate, Result, Results
from metaseg_monai.reporting.scores import case_table


def result(*rows):
    """Rows of (case, class, tp, fp, fn)."""
    filled = [(c, c, "test", "normal", "all", k, tp, fp, fn, 9) for c, k, tp, fp, fn in rows]
    return Result(pd.DataFrame(filled, columns=COUNT_COLUMNS), {})


def test_empty_targets_are_cases_not_classes_or_trainings():
    one = result(
        ("a", 1, 5, 0, 0), ("a", 2, 0, 4, 0),  # holds the first class: no empty target
        ("b", 1, 0, 0, 0), ("b", 2, 0, 0, 0),
        ("c", 1, 0, 3, 0), ("c", 2, 0, 0, 0),
        ("d", 1, 0, 0, 0), ("d", 2, 0, 0, 0),
    )  # fmt: skip
    two = result(
        ("a", 1, 5, 0, 0), ("a", 2, 0, 4, 0), ("b", 1, 0, 0, 0), ("b", 2, 0, 1, 0),
        ("c", 1, 0, 3, 0), ("c", 2, 0, 2, 0), ("d", 1, 0, 0, 0), ("d", 2, 0, 0, 0),
    )  # fmt: skip
    results = Results({"se": {Replicate(0, 0): one, Replicate(0, 1): two}}, {})
    row = case_table(results).loc["se"]
    assert row["empty targets"] == 3
    assert row["with false pixels"] == 2  # b in the second training, c in both
    assert row["empty, over all seeds"] == 3
