"""Under what conditions volumes were scored: planes, runs, pixel size and tolerances."""

from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_monai.evaluation.volumes import KITS_REGIONS
from metaseg_monai.study.report.comparisons import Scores
from metaseg_monai.study.report.run_files import cases_of, listed
from metaseg_monai.study.results import Results


def completeness(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say of how many volumes every plane was scored, by every condition that scored them."""
    known = pd.concat(tables.values()).groupby(["group", "volume"])["complete"].min()
    whole, count = int((known == 1).sum()), len(known)
    volumes = "the only volume" if count == 1 else f"all {count} volumes"
    if whole == count:
        return f"Every plane of {volumes} was scored."
    told = (
        f"Every plane was scored of {whole} of {count} volumes; of the others only some were"
        if whole
        else f"Of {volumes} only some planes were scored"
    )
    return (
        f"{told}, such as those with a mass. Their scores are not those of whole patients: false "
        "findings elsewhere in the body were not looked for."
    )


def lacking(results: Results, scores: Scores) -> str:
    """Name the conditions, or how many of their trainings, that have no scores of volumes."""
    without = [name for name in results.conditions if name not in scores]
    told = [f"No volumes were scored of {listed(without)}."] if without else []
    for name, by_seed in scores.items():
        if len(by_seed) < len(results.conditions[name]):
            told.append(
                f"Of {name} only {len(by_seed)} of {len(results.conditions[name])} trainings have "
                "scores of volumes."
            )
    return " ".join(told)


def how_scored(results: Results, regions: Sequence[str]) -> str:
    """State pixel size and tolerances, and that the scores are not the official ones."""
    spacings = [
        cases[["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]].dropna()
        for by_seed in results.conditions.values()
        for key, result in by_seed.items()
        if (cases := cases_of(result, key)) is not None
    ]
    known = pd.concat(spacings) if spacings else pd.DataFrame()
    where = "pixels of a size that the runs do not tell"
    if len(known):
        rows, columns = (_range(known[f"spacing_{axis}_mm"]) for axis in "yx")
        pixels = rows if rows == columns else f"{rows} by {columns}"
        planes = _range(known["spacing_z_mm"])
        where = f"pixels of {pixels} mm in planes {planes} mm apart, as the network saw them"
    told = f"All scores of volumes are on {where}."
    official = [region for region in regions if region in KITS_REGIONS]
    if official:
        tolerances = [f"{KITS_REGIONS[r]['tolerance_mm']:g} mm for {r}" for r in official]
        told += (
            f" Surface Dice forgives {listed(tolerances)}. They are not the official KiTS scores, "
            'which are made on the files\' own pixels: "python -m metaseg_monai score" makes '
            "those from predicted masks in the geometry of the files."
        )
    return told


def _range(values: pd.Series) -> str:
    """One number, or the lowest to the highest."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
