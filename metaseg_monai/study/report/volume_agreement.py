"""How well predicted volumes agree with true ones, as a figure and as numbers."""

from collections.abc import Mapping

import pandas as pd

from metaseg_monai.evaluation.bland_altman import Limits, bland_altman
from metaseg_monai.study.report.comparisons import Scores
from metaseg_monai.study.report.document import Details, Figure, Part
from metaseg_monai.study.report.figures.agreement import Panel, agreement
from metaseg_monai.study.report.run_files import listed
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.volumes import DRAWS, ML

PANELS = 6


def agreement_parts(scores: Scores, tables: Mapping[str, pd.DataFrame], region: str) -> list[Part]:
    """Predicted against true volumes of a region.

    Args:
        scores: volumes of every training, of which bias and limits are: a user has one network,
            and the mean of several errs less.
        tables: of `averaged`, of which the dots are.
        region: whose volumes are taken.
    """
    panels, rows = {}, {}
    sloped: dict[str, Limits] = {}
    for name, table in tables.items():
        part = table[table["region"] == region]
        if part.empty:
            continue
        every = pd.concat(scores[name].values())
        every = every[every["region"] == region]
        true, pred = ((every[f"{side}_mm3"] / ML).tolist() for side in ("true", "pred"))
        limits = bland_altman(true, pred, every["group"].tolist(), DRAWS)
        dots = [part[f"{side}_mm3"].to_numpy(float) / ML for side in ("true", "pred")]
        panels[name] = Panel(dots[0], dots[1], limits)
        if limits.slope_low > 0 or limits.slope_high < 0:
            sloped[name] = limits
        rows[name] = {
            "bias": limits.bias,
            "bias, low": limits.bias_low,
            "bias, high": limits.bias_high,
            "lower limit": limits.lower,
            "lower, low": limits.lower_low,
            "lower, high": limits.lower_high,
            "upper limit": limits.upper,
            "upper, low": limits.upper_low,
            "upper, high": limits.upper_high,
            "slope": limits.slope,
            "slope, low": limits.slope_low,
            "slope, high": limits.slope_high,
            "volumes": len(part),
            "trainings": len(scores[name]),
        }
    if not rows:
        return []
    shown = sorted(panels, key=lambda name: name.endswith("-dummy"))[:PANELS]
    caption = (
        f"Volume of {region}, predicted minus true, over the mean of both; a dot for each volume, "
        "seeds averaged. Solid: bias, dashed: limits of agreement, between which 95 % of the "
        "differences of a single training are expected, so they are of all trainings' volumes and "
        "wider than the dots where trainings differ; bars on the right: their 95 % intervals, for "
        "which patients are drawn with all their trainings."
    )
    if left := [name for name in panels if name not in shown]:
        caption += f" Not drawn, but among the numbers: {listed(left)}."
    png = agreement({name: panels[name] for name in panels if name in shown})
    numbers = Table(
        "volumes_agreement",
        f"Agreement of volumes of {region} (ml)",
        "Predicted minus true, every volume with every training. bias: mean difference; limits: "
        "bias ± 1.96 standard deviations of the differences; slope: change of the difference with "
        "each ml of the mean of both; each with its 95 % interval, which draws patients with all "
        "their trainings; none below five of them. The limits suppose a slope of 0.",
        rows_of(rows),
        digits=2,
        first="condition",
    )
    return [
        *([_slopes(sloped)] if sloped else []),
        Figure("volumes_agreement", caption, png),
        Details("Agreement as numbers", [numbers]),
    ]


def _slopes(sloped: Mapping[str, Limits]) -> str:
    """Say that the differences of some conditions depend on the size of the volume."""
    told = [
        f"{name} {one.slope:+.2f} [{one.slope_low:+.2f}, {one.slope_high:+.2f}]"
        for name, one in sloped.items()
    ]
    return (
        "Predicted minus true changes with the volume, in ml for each ml of the mean of both: "
        f"{', '.join(told)}. There one bias and one pair of limits do not hold for small and large "
        "volumes alike: below 0, large volumes are underestimated more."
    )
