"""What the metadata gives away of the answer, and whether a user has it in time."""

from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.leakage import (
    Association,
    associate,
    group_values,
    label_diameters,
)
from metaseg_monai.metadata import Continuous
from metaseg_monai.metadata.kinds import AnyField
from metaseg_monai.study.report.document import Part, Section
from metaseg_monai.study.report.run_files import (
    all_cases,
    cases_of,
    fields_of,
    pixel_areas,
)
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results

CLOSE = 0.7  # Spearman; from which a value tells much of the size of the label


def audit_section(results: Results) -> Section | None:
    """Origin of each field, and how closely quantities follow the size of the label."""
    fields = fields_of(results)
    if not fields:
        return None
    note = (
        "at inference: a field that is known only after the operation is refused, unless it is "
        "forced for a retrospective study."
    )
    rows = {name: _facts(field) for name, field in fields.items()}
    parts: list[Part] = [
        Table("metadata_fields", "Metadata fields", note, rows_of(rows), first="field")
    ]
    described = [f"{n}: {f.description}" for n, f in fields.items() if f.description]
    if described:
        parts.append("\n\n".join(described))
    found, unit = _associations(results, fields)
    warned = [
        warning
        for name, field in fields.items()
        if (warning := _warning(field, {n: a for (f, n), a in found.items() if f == name}))
    ]
    if found:
        table = {f"{name}, class {n}": _numbers(one) for (name, n), one in found.items()}
        note = (
            "Size of the label: the largest area over a group's images as the diameter of a disc "
            f"of that area, in {unit}. R2: of a straight line, of the logarithms where the field "
            "is encoded so; with 95 % intervals that draw groups. R2 is above 0 by chance alone. "
            "Groups without the class or the value are left out."
        )
        title = "Metadata against the size of the label"
        parts.append(Table("leakage", title, note, rows_of(table), first="field, class"))
    return Section("Leakage audit", "What the metadata tells of the answer.", [*warned, *parts])


def _facts(field: AnyField) -> dict[str, Any]:
    unit = values = ""
    if isinstance(field, Continuous):
        unit, values = field.unit, f"{field.range[0]:g} to {field.range[1]:g}"
    return {
        "kind": field.kind,
        "unit": unit,
        "range": values,
        "provenance": field.provenance,
        "available": field.availability,
        "if missing": "unknown" if field.missing == "unknown" else "refused",
        "at inference": "used" if field.known_at("pre-operative") else "refused unless forced",
    }


def _associations(
    results: Results, fields: dict[str, AnyField]
) -> tuple[dict[tuple[str, int], Association], str]:
    """Association of every quantity with the label size of every class, and the sizes' unit."""
    cases = all_cases(results)
    if cases is None:
        return {}, ""
    sizes, unit = _label_sizes(results)
    found = {}
    for name, field in fields.items():
        if not isinstance(field, Continuous) or name not in cases:
            continue
        values = group_values(cases, name)
        for number in map(int, sizes.columns.tolist()):
            one = associate(values, sizes[number], field.scale != "linear")
            if one.groups:
                found[name, number] = one
    return found, unit


def _label_sizes(results: Results) -> tuple[pd.DataFrame, str]:
    """Diameters of the evaluated labels of all data, from the first condition with cases."""
    for by_seed in results.conditions.values():
        told = {key: cases_of(result, key) for key, result in by_seed.items()}
        if any(cases is None for cases in told.values()):
            continue
        scales = {key: pixel_areas(told[key], result.counts) for key, result in by_seed.items()}
        known = all(scale is not None for scale in scales.values())
        tables = [
            label_diameters(result.in_mode("normal"), scales[key] if known else None)
            for key, result in by_seed.items()
        ]
        # other data may hold other slices of a group; the same data give the same sizes
        joined = pd.concat(tables).groupby(level=0).max()
        return joined, "mm" if known else "pixels"
    return pd.DataFrame(), ""


def _numbers(one: Association) -> dict[str, Any]:
    return {
        "R2": one.r_squared,
        "R2 low": one.r_squared_low,
        "R2 high": one.r_squared_high,
        "Spearman": one.spearman,
        "low": one.low,
        "high": one.high,
        "groups": one.groups,
    }


def _warning(field: AnyField, found: dict[int, Association]) -> str:
    """Warn where a field is read off the label, or follows its size closely."""
    ranks = {n: one.spearman for n, one in found.items() if not np.isnan(one.spearman)}
    closest = max(ranks, key=lambda n: abs(ranks[n]), default=None)
    close = closest is not None and abs(ranks[closest]) > CLOSE
    reasons = []
    if field.provenance == "label-derived":
        reasons.append("its provenance is the label")
    if close and closest is not None:
        reasons.append(f"it follows the size of class {closest} (Spearman {ranks[closest]:.2f})")
    if not reasons:
        return ""
    return (
        f"Warning: {field.name} is partly the answer: {' and '.join(reasons)}. A network that is "
        "given it knows something of the mask before it sees the image. Its scores hold only where "
        "a user has such a value of the same quality; compare them with those of predicted and "
        "unknown values, and do not read them as a gain of the image analysis."
    )
