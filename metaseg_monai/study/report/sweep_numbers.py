"""What the runs say of a network that is asked with one value after the other, as tables."""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from metaseg_monai.metadata import Continuous
from metaseg_monai.study.report.figures.sweep import Response
from metaseg_monai.study.report.run_files import (
    PixelSizes,
    cases_of,
    class_text,
    pixel_sizes,
    reads_metadata,
)
from metaseg_monai.study.report.scores import Spread, over_seeds, rows_of
from metaseg_monai.study.report.sweep import (
    Monotonicity,
    monotonicity,
    sweep_areas,
    sweep_modes,
)
from metaseg_monai.study.report.volumes import ML
from metaseg_monai.study.results import Replicate, Results

UNITS: Mapping[int, str] = {0: "pixels", 2: "mm²", 3: "ml"}  # by the axes of a case, 0: unknown


class Swept(NamedTuple):
    """What was counted: areas by condition and replicate, counts with true metadata, and the unit.

    The areas of whole volumes, as 3D networks have them, are their volumes. Counts have a further
    column ``scale``, the area (volume) of a pixel in that unit. ``unasked``: conditions that read
    metadata, but were given no other value than their own; they are not among the counts, because
    nobody knows whether they are flat.
    """

    areas: dict[str, dict[Replicate, pd.DataFrame]]
    normal: dict[str, pd.DataFrame]
    unit: str
    unasked: list[str]

    @property
    def what(self) -> str:
        """What is measured: the area or the volume of a class."""
        return "volume" if self.unit == UNITS[3] else "area"


def swept_areas(results: Results, field: Continuous) -> Swept:
    """Areas in mm2, volumes in ml; in pixels unless every case has a spacing and all are alike."""
    places = [(n, key, r) for n, rs in results.conditions.items() for key, r in rs.items()]
    sizes = [pixel_sizes(cases_of(r, key), r.counts) for _, key, r in places]
    dims = {0 if size is None else size.dims for size in sizes}
    unit = UNITS[dims.pop() if len(dims) == 1 else 0]
    scales = [_scale(size, unit) for size in sizes]
    areas: dict[str, dict[Replicate, pd.DataFrame]] = {}
    normal: dict[str, list[pd.DataFrame]] = {}
    for (name, key, result), scale in zip(places, scales, strict=True):
        if len(sweep_modes(result.counts, field.name)) > 1:
            table = sweep_areas(result.counts, field.name, scale)
            areas.setdefault(name, {})[key] = table
        rows = result.in_mode("normal")
        used = 1.0 if scale is None else rows["case"].map(scale)
        normal.setdefault(name, []).append(rows.assign(scale=used))
    unasked = [name for name in normal if name not in areas and reads_metadata(results, name)]
    joined = {
        name: pd.concat(tables, ignore_index=True)
        for name, tables in normal.items()
        if name not in unasked
    }
    return Swept(areas, joined, unit, unasked)


def _scale(size: PixelSizes | None, unit: str) -> pd.Series | None:
    """What a pixel of each case measures in a unit; None where the unit is the pixel."""
    if size is None or unit == UNITS[0]:
        return None
    return size.of_case / ML if unit == UNITS[3] else size.of_case


def responses(
    swept: Swept, curves: Mapping[str, pd.DataFrame], names: Mapping[int, str]
) -> dict[str, Response]:
    """What is drawn, by class."""
    first = next(iter(swept.normal.values()))
    return {
        class_text(names, number): Response(
            {name: curve[curve["class"] == number] for name, curve in curves.items()},
            {
                name: _group_mean(rows, "tp", "fp", number)
                for name, rows in swept.normal.items()
                if name not in curves
            },
            _group_mean(first, "tp", "fn", number),
        )
        for number in sorted(first["class"].unique())
    }


def _group_mean(rows: pd.DataFrame, one: str, other: str, number: int) -> float:
    """Mean over groups of the mean area of their cases, all seeds alike."""
    chosen = rows[rows["class"] == number]
    areas = (chosen[one] + chosen[other]) * chosen["scale"]
    return float(areas.groupby(chosen["group"]).mean().mean())


def monotone_table(swept: Swept, names: Mapping[int, str]) -> tuple[Spread, pd.Series]:
    """How the areas of each condition and class follow the value, and the number of cases.

    The cases are those of all data whose label holds the class.
    """
    spreads, cases = [], {}
    for name, of_seeds in swept.areas.items():
        found = {key: monotonicity(areas) for key, areas in of_seeds.items()}
        spreads.append(over_seeds({key: _rows(name, one, names) for key, one in found.items()}))
        held = pd.concat(of_seeds.values()).query("label > 0").groupby("class")["case"].nunique()
        for number in next(iter(found.values())):
            cases[f"{name}, {class_text(names, number)}"] = int(held.get(number, 0))
    mean, half_range = (pd.concat(frames) for frames in zip(*spreads, strict=True))
    return Spread(mean, half_range), pd.Series(cases)


def _rows(name: str, found: Mapping[int, Monotonicity], names: Mapping[int, str]) -> pd.DataFrame:
    return rows_of(
        {
            f"{name}, {class_text(names, number)}": {
                "monotone": one.monotone,
                "flat": one.flat,
                "steps": one.not_shrinking,
                "Spearman": one.spearman,
                "never predicted": one.empty / one.cases if one.cases else float("nan"),
            }
            for number, one in found.items()
        }
    )
