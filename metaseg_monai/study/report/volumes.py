"""The numbers of whole volumes: seeds averaged within a volume, intervals over groups."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.group_bootstrap import ratio_interval
from metaseg_monai.evaluation.paired_tests import bootstrap_interval
from metaseg_monai.study.report.comparisons import Scores
from metaseg_monai.study.report.run_files import volumes_of
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.results import Results

MEASURES = {"dice": "Dice", "surface_dice": "surface Dice", "hd95_mm": "HD95 (mm)"}
SIZE_EDGES: Mapping[str, Sequence[float]] = {
    "tumour_size_mm": (40, 70)  # T1a, T1b and T2 of the TNM stages of renal cancer
}
LESION_RATES = {  # each by its columns
    "found": ("lesions_found", "lesions"),
    "false per volume": ("lesions_false", "volumes"),
    "false ml": ("false_ml", "volumes"),
}
DRAWS = 2000
UNKNOWN_SIZE = "size unknown"
ML = 1000.0  # mm3


def volume_tables(results: Results, mode: str = "normal") -> Scores:
    """The volumes of a test mode, by condition and replicate; only of runs that wrote any."""
    found: dict[str, dict[Any, pd.DataFrame]] = {}
    for name, by_seed in results.conditions.items():
        for key, result in by_seed.items():
            table = volumes_of(result, key)
            if table is not None and (table["mode"] == mode).any():
                found.setdefault(name, {})[key] = table[table["mode"] == mode]
    return found


def averaged(by_seed: Mapping[Any, pd.DataFrame]) -> pd.DataFrame:
    """Mean over seeds of every number of a volume and region; undefined ones are left out.

    Returns:
        A row a volume and region, with a further column ``undefined``: seeds without an HD95.
    """
    names = ["volume", "group", "region"]
    table = pd.concat(by_seed.values())
    table = table.assign(undefined=table["hd95_mm"].isna())
    by_volume = table.groupby(names, sort=False)
    means = by_volume.mean(numeric_only=True)
    return means.assign(undefined=by_volume["undefined"].sum()).reset_index()


def regions_of(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The regions of all conditions, the most special of those with the most regions last."""
    told = sorted(([*map(str, t["region"].unique())] for t in tables.values()), key=len)
    rare = [region for regions in told for region in regions if region not in told[-1]]
    return [*dict.fromkeys(rare), *told[-1]]


def mean_over_groups(table: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Mean over groups of the mean of their volumes, with its 95 % `bootstrap_interval`."""
    means = table.groupby("group")[column].mean().dropna().to_numpy(float)
    if not len(means):
        return (float("nan"),) * 3
    return (float(means.mean()), *bootstrap_interval(means, DRAWS, seed=0))


def region_table(tables: Mapping[str, pd.DataFrame], region: str) -> pd.DataFrame:
    """Overlap and surface scores of a region: conditions x (measure; mean, low, high).

    Args:
        tables: of `averaged`, by condition.
        region: whose rows are taken.
    """
    rows: dict[str, dict[tuple[str, str], Any]] = {}
    for name, table in tables.items():
        part = table[table["region"] == region]
        row: dict[tuple[str, str], Any] = {}
        for column, measure in MEASURES.items():
            ends = mean_over_groups(part, column)
            row |= {(measure, k): v for k, v in zip(("mean", "low", "high"), ends, strict=True)}
        row["HD95 (mm)", "undefined"] = int(part["undefined"].sum())
        row["HD95 (mm)", "patients"] = part.loc[part["hd95_mm"].notna(), "group"].nunique()
        row["n", "volumes"], row["n", "patients"] = len(part), part["group"].nunique()
        rows[name] = row
    return _two_levels(rows)


def lesion_table(tables: Mapping[str, pd.DataFrame], regions: Sequence[str]) -> pd.DataFrame:
    """Lesions found and false ones: (condition, region) x (measure; mean, low, high) and n.

    Means are sums over all volumes, of lesions or of volumes; intervals are over patients. What is
    found rests on the patients with any lesion.
    """
    rows: dict[str, dict[tuple[str, str], Any]] = {}
    for name, table in tables.items():
        for region in regions:
            part = table[table["region"] == region]
            part = part.assign(volumes=1, false_ml=part["false_mm3"] / ML)
            sums = part.groupby("group").sum(numeric_only=True)
            row: dict[tuple[str, str], Any] = {}
            for measure, (column, of) in LESION_RATES.items():
                ends = _rate(sums[column].to_numpy(float), sums[of].to_numpy(float))
                row |= {(measure, k): v for k, v in zip(("mean", "low", "high"), ends, strict=True)}
            row["n", "lesions"] = round(sums["lesions"].sum())
            row["n", "patients with any"] = int((sums["lesions"] > 0).sum())
            row["n", "patients"] = len(sums)
            rows[f"{name}, {region}"] = row
    return _two_levels(rows)


def _rate(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float, float]:
    """Sum of parts over sum of wholes, one of each group, with its 95 % `ratio_interval`."""
    rate = float(parts.sum() / wholes.sum()) if wholes.any() else float("nan")
    return (rate, *ratio_interval(parts, wholes, DRAWS, seed=0))


def subgroup_table(
    tables: Mapping[str, pd.DataFrame], regions: Sequence[str], values: pd.Series, unit: str,
    edges: Sequence[float],
) -> pd.DataFrame:  # fmt: skip
    """Dice of volumes by the size of a value: (condition, subgroup) x regions and n.

    Args:
        tables: of `averaged`, by condition.
        regions: columns.
        values: value by group and volume; volumes without one are a subgroup of their own.
        unit: of the values.
        edges: ascending; a value equal to an edge belongs below it.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        known = values.reindex(pd.MultiIndex.from_frame(table[["group", "volume"]]))
        within = np.array([size_group(float(v), edges, unit) for v in known])
        for label in (*size_labels(edges, unit), UNKNOWN_SIZE):
            part = table[within == label]
            if part.empty:
                continue
            means = {
                region: mean_over_groups(part[part["region"] == region], "dice")[0]
                for region in regions
            }
            ends = mean_over_groups(part[part["region"] == regions[-1]], "dice")[1:]
            rows[f"{name}, {label}"] = {
                **means,
                f"{regions[-1]}, low": ends[0],
                f"{regions[-1]}, high": ends[1],
                "patients": part["group"].nunique(),
            }
    return rows_of(rows)


def size_labels(edges: Sequence[float], unit: str) -> list[str]:
    """Name the subgroups between edges.

    >>> size_labels((40, 70), "mm")
    ['<= 40 mm', '40-70 mm', '> 70 mm']
    """
    between = [f"{a:g}-{b:g} {unit}" for a, b in pairwise(edges)]
    return [f"<= {edges[0]:g} {unit}", *between, f"> {edges[-1]:g} {unit}"]


def size_group(value: float, edges: Sequence[float], unit: str) -> str:
    """Name the subgroup of a value.

    >>> [size_group(value, (40, 70), "mm") for value in (40.0, 40.1, 71.0, float("nan"))]
    ['<= 40 mm', '40-70 mm', '> 70 mm', 'size unknown']
    """
    if np.isnan(value):
        return UNKNOWN_SIZE
    return size_labels(edges, unit)[int(np.searchsorted(edges, value, side="left"))]


def dice_scores(tables: Scores, region: str) -> Scores:
    """Dice of a region in the form that comparisons take, a volume a case."""
    return {
        name: {
            key: table.loc[table["region"] == region, ["volume", "group", "dice"]]
            .rename(columns={"volume": "case", "dice": "f1"})
            .assign(domain="all")
            for key, table in by_seed.items()
        }
        for name, by_seed in tables.items()
    }


def _two_levels(rows: Mapping[str, Mapping[tuple[str, str], Any]]) -> pd.DataFrame:
    heads = list(next(iter(rows.values())))
    table = rows_of({name: {str(head): row[head] for head in heads} for name, row in rows.items()})
    table.columns = pd.MultiIndex.from_tuples(heads)
    return table
