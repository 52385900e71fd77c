"""How well predicted volumes agree with true ones, as a figure and as numbers."""

from collections.abc import Mapping

import pandas as pd

from metaseg_monai.evaluation.bland_altman import bland_altman
from metaseg_monai.study.report.document import Details, Figure, Part
from metaseg_monai.study.report.figures.agreement import Panel, agreement
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.volumes import DRAWS, ML

PANELS = 6


def agreement_parts(tables: Mapping[str, pd.DataFrame], region: str) -> list[Part]:
    """Predicted against true volumes of a region."""
    panels, rows = {}, {}
    for name, table in tables.items():
        part = table[table["region"] == region]
        if part.empty:
            continue
        true, pred = (part[f"{side}_mm3"].to_numpy(float) / ML for side in ("true", "pred"))
        limits = bland_altman(true.tolist(), pred.tolist(), part["group"].tolist(), DRAWS)
        panels[name] = Panel(true, pred, limits)
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
            "volumes": limits.volumes,
        }
    if not rows:
        return []
    shown = sorted(panels, key=lambda name: name.endswith("-dummy"))[:PANELS]
    caption = (
        f"Volume of {region}, predicted minus true, over the mean of both; a dot for each volume, "
        "seeds averaged. Solid: bias, dashed: limits of agreement, between which 95 % of the "
        "differences are expected; bars on the right: their 95 % intervals over patients."
    )
    png = agreement({name: panels[name] for name in panels if name in shown})
    numbers = Table(
        "volumes_agreement",
        f"Agreement of volumes of {region} (ml)",
        "Predicted minus true. bias: mean difference; limits: bias ± 1.96 standard deviations of "
        "the differences; each with its 95 % interval over patients. They suppose that differences "
        "do not grow with the volume: look at the figure.",
        rows_of(rows),
        digits=1,
        first="condition",
    )
    return [Figure("volumes_agreement", caption, png), Details("Agreement as numbers", [numbers])]
