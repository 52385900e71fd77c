"""Whether intervals of areas hold what they promise, from the stored results of evaluations.

Cases are divided into a calibration and a test at random, whole groups at a time and many times
over: for each metadata value the share of test cases is told whose true area lies in the interval
that the calibration gives, and how wide that is beside the interval of all values together. Of
tables of calibration bins it also tells which share of the foreground is found at the threshold
that conformal risk control chooses. Nothing is trained or predicted.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import read_calibration, read_cases, read_counts
from metaseg_monai.metadata.fields import Continuous, read_number
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.conformal import (
    POOLED,
    area_interval,
    area_scores,
    bin_edges,
    bin_name,
    coverage,
    coverage_band,
    cutoff,
    mondrian,
)

THRESHOLDS = np.arange(10) / 10  # the ends of the stored bins


def main(
    results: str,
    by: str,
    level: float = 0.9,
    divisions: int = 100,
    bins: int = 4,
    label_class: int = 1,
    share: float = 0.5,
    seed: int = 0,
    output: str | None = None,
) -> None:
    """Print, for each metadata value, coverage and width over many divisions.

    Example:
        python scripts/conformal_coverage.py runs/cells/sme --by line
        python scripts/conformal_coverage.py runs/ct0,runs/ct1 --by tumour_size_mm --label_class 2

    Args:
        results: folders of evaluations (counts.csv, cases.csv, maybe calibration.csv), whose cases
            are joined.
        by: field whose values are kept apart; a quantity in bins.
        level: that is promised, of coverage and of the share of the foreground that is found.
        divisions: how many.
        bins: of a quantity.
        label_class: number of the class.
        share: of the groups that calibrate.
        seed: of the divisions.
        output: file of the table, such as coverage.csv.
    """
    rows = stored_cases(
        [Path(one.strip()) for one in str(results).split(",")], by, label_class, bins
    )
    table = divided(rows, level, divisions, share, seed)
    print(table.round(3).to_string())
    if output is not None:
        table.to_csv(output)


def stored_cases(folders: Sequence[Path], by: str, label_class: int, bins: int) -> pd.DataFrame:
    """A row for each case: `group`, `value`, `true`, `predicted` in pixels, `missed` (T,) or None.

    Raises:
        DataError: a table is missing, or no case has a value of the field.
    """
    found = []
    for folder in folders:
        counts = read_counts(folder / "counts.csv")
        own = counts[(counts["mode"] == "normal") & (counts["class"] == label_class)]
        known = read_cases(folder / "cases.csv").set_index("case")
        if by not in known:
            raise DataError(f"{folder}: no column {by} in cases.csv; give another --by")
        field = MetadataSchema.load(folder / "schema.json").field(by)
        missed = _missed(folder / "calibration.csv", label_class)
        found.append(
            pd.DataFrame(
                {
                    "case": own["case"],
                    "group": f"{folder} " * (len(folders) > 1) + own["group"],
                    "raw": own["case"].map(known[by]),
                    "true": own["tp"] + own["fn"],
                    "predicted": own["tp"] + own["fp"],
                    "missed": own["case"].map(missed) if missed else None,
                }
            )
        )
    rows = pd.concat(found, ignore_index=True)
    rows = rows[rows["raw"].notna() & (rows["raw"] != "")]
    if rows.empty:
        raise DataError(f"no case has a value of {by}, of class {label_class}; give another --by")
    if isinstance(field, Continuous):
        numbers = rows["raw"].map(read_number)
        edges = bin_edges(numbers.dropna().tolist(), bins)
        return rows.assign(value=[bin_name(one, edges) for one in numbers])
    return rows.assign(value=rows["raw"])


def _missed(path: Path, label_class: int) -> dict[str, Any]:
    """The missed share of each case's foreground at each of `THRESHOLDS`; nothing without bins."""
    if not path.is_file():
        return {}
    rows = read_calibration(path)
    rows = rows[rows["class"] == label_class]
    table = rows.pivot_table(index="case", columns="bin", values="positives", fill_value=0)
    table = table.reindex(columns=range(10), fill_value=0)
    below = np.concatenate([np.zeros((len(table), 1)), table.to_numpy().cumsum(1)[:, :-1]], axis=1)
    total = table.to_numpy().sum(1)
    return {
        str(case): below[place] / total[place]
        for place, case in enumerate(table.index)
        if total[place]
    }


def divided(
    rows: pd.DataFrame, level: float, divisions: int, share: float = 0.5, seed: int = 0
) -> pd.DataFrame:
    """Coverage of the test cases of many divisions, a row for each value and one of all.

    Args:
        rows: of `stored_cases`.
        level: that is promised.
        divisions: how many.
        share: of the groups that calibrate.
        seed: of the divisions.

    Returns:
        `cases`, `groups`; `coverage`, each group counted once, the mean over divisions; `one`, that
        of the first division, with the ends `low` and `high` of the band in which it lies 99 times
        of 100 if the promise is kept, and `kept`; `width`, the median over test cases of the
        interval's width by the predicted area, and both of the interval of all values, `coverage of
        all`, `width of all`; `pooled`, whether a value had too few groups of its own; `found` and
        `threshold` where bins are known.
    """
    rng, told = np.random.default_rng(seed), list[pd.DataFrame]()
    names = rows["group"].unique()
    known = rows["missed"].notna()
    missed = np.full((len(rows), len(THRESHOLDS)), np.nan)
    if known.any():
        missed[known] = np.stack(list(rows.loc[known, "missed"]))
    rows = rows.drop(columns="missed").reset_index(drop=True)
    for number in range(divisions):
        chosen = rng.permutation(names)[: round(share * len(names))]
        own = rows["group"].isin(chosen)
        found = _division(rows[own], rows[~own], missed, level)
        told.append(found.assign(division=number))
    every = pd.concat(told)
    table = every.groupby("value", sort=False).mean(numeric_only=True).drop(columns="division")
    first = told[0].set_index("value")
    of_value = rows.groupby("value")
    sizes = pd.DataFrame({"cases": of_value.size(), "groups": of_value["group"].nunique()})
    sizes.loc[POOLED] = [len(rows), len(names)]
    table = sizes.reindex(table.index).join(table.drop(columns=["test", "calibration"]))
    table.insert(3, "one", first["coverage"])
    ends = [
        coverage_band(int(test), int(calibration), level)
        for test, calibration in zip(first["test"], first["calibration"], strict=True)
    ]
    table.insert(4, "low", pd.Series([low for low, _ in ends], first.index))
    table.insert(5, "high", pd.Series([high for _, high in ends], first.index))
    inside = table["one"].between(table["low"] - 1e-9, table["high"] + 1e-9)
    table.insert(6, "kept", inside)
    return table


def _division(
    calibration: pd.DataFrame, test: pd.DataFrame, missed: np.ndarray, level: float
) -> pd.DataFrame:
    scores = area_scores(calibration["predicted"], calibration["true"])
    bounds = mondrian(scores, calibration["group"], calibration["value"], level)
    every, made = bounds[POOLED], []
    for value, part in [*test.groupby("value", sort=False), (POOLED, test)]:
        of_value = bounds.get(str(value), every)
        inside, width = _inside(part, of_value.bound)
        of_all = _inside(part, every.bound)
        row: dict[str, Any] = {
            "value": str(value),
            "test": part["group"].nunique(),
            "calibration": of_value.groups,
            "coverage": inside,
            "width": width,
            "coverage of all": of_all[0],
            "width of all": of_all[1],
            "pooled": of_value.pooled,
        }
        own = calibration if of_value.pooled else calibration[calibration["value"] == value]
        made.append(row | _risk(own, part, missed, 1 - level))
    return pd.DataFrame(made)


def _inside(part: pd.DataFrame, of_value: float) -> tuple[float, float]:
    low, high = area_interval(part["predicted"], of_value)
    true = part["true"].to_numpy(float)
    relative = (high - low) / (part["predicted"].to_numpy(float) + 1)
    return coverage((low <= true) & (true <= high), part["group"]), float(np.median(relative))


def _risk(
    calibration: pd.DataFrame, test: pd.DataFrame, missed: np.ndarray, allowed: float
) -> dict[str, float]:
    """The share of the foreground that is found at the threshold of the calibration."""
    losses, asked = missed[calibration.index], missed[test.index]
    known = ~np.isnan(losses[:, 0])
    if not known.any() or np.isnan(asked).all():
        return {}
    place = cutoff(losses[known], calibration["group"].to_numpy()[known], allowed)
    if place is None:
        return {"found": np.nan, "threshold": np.nan}
    return {
        "found": 1 - float(np.nanmean(asked[:, place])),
        "threshold": float(THRESHOLDS[place]),
    }


if __name__ == "__main__":
    run_script(main)
