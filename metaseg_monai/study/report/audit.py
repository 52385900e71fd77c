"""What the metadata gives away of the answer, and whether a user has it in time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.leakage import (
    Association,
    associate,
    label_diameters,
    volume_values,
)
from metaseg_monai.metadata import Continuous
from metaseg_monai.metadata.kinds import AnyField
from metaseg_monai.study.report.document import Part, Section
from metaseg_monai.study.report.run_files import (
    Given,
    cases_of,
    class_names,
    class_text,
    fields_of,
    given_values,
    listed,
    other_values,
    pixel_sizes,
)
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Result, Results

CLOSE = 0.7  # Spearman; from which a value tells much of the size of the label
DISC = (
    "the largest area over a volume's images as the diameter of a disc of that area, in {} (images "
    "without a volume are one of their group)"
)
BALL = "the volume of the label as the diameter of a ball of that volume, in mm"


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
    names, told = class_names(results), list[str]()
    table, units = dict[str, dict[str, Any]](), set[str]()
    for name, field in fields.items():
        given = given_values(results, name)
        warned, found, unit = _audited(results, field, given, names)
        told += [*warned, *_who(results, field, given)]
        table |= found
        units |= unit
    if table:
        note = (
            f"Size of the label: {listed(sorted(units))}. R2: of a straight line, of the "
            "logarithms where the field is encoded so; with 95 % intervals that draw groups, none "
            "below five of them. R2 is above 0 by chance alone. Volumes without the class or the "
            "value are left out."
        )
        title = "Metadata against the size of the label"
        parts.append(Table("leakage", title, note, rows_of(table), first="field, class"))
    return Section("Leakage audit", "What the metadata tells of the answer.", [*told, *parts])


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


def _audited(
    results: Results, field: AnyField, given: Sequence[Given], names: Mapping[int, str]
) -> tuple[list[str], dict[str, dict[str, Any]], set[str]]:
    """Warnings of a field, the associations of each set of its values, and what sizes are."""
    warned, rows, units = [], {}, set()
    for place, one in enumerate(given):
        found: dict[int, Association] = {}
        if isinstance(field, Continuous):
            sizes, told = _label_sizes(results, one.conditions)
            values = volume_values(one.cases, field.name)
            for number in map(int, sizes.columns.tolist()):
                association = associate(values, sizes[number], field.scale != "linear")
                if association.groups:
                    found[number] = association
                    units.add(told)
        whose = f" ({listed(one.conditions)})" if len(given) > 1 else ""
        for number, association in found.items():
            rows[f"{field.name}{whose}, {class_text(names, number)}"] = _numbers(association)
        # the origin that the schema tells is that of the usual values
        warned.append(_warning(field, found, names, f"{field.name}{whose}", first=place == 0))
    if not given:
        warned.append(_warning(field, {}, names, field.name, first=True))
    return [*filter(None, warned)], rows, units


def _who(results: Results, field: AnyField, given: Sequence[Given]) -> list[str]:
    """Say which conditions were given other values of a field than most, or have no such field."""
    told = [other_values(given, field.name)] if len(given) > 1 else []
    having = [name for one in given for name in one.conditions]
    for name, by_seed in results.conditions.items():
        key, result = next(iter(by_seed.items()))
        if having and name not in having and cases_of(result, key) is not None:
            told.append(f"{name} has no field {field.name}.")
    return told


def _label_sizes(results: Results, names: Sequence[str]) -> tuple[pd.DataFrame, str]:
    """Diameters of the evaluated labels of some conditions, of all their data; what they are."""
    chosen: dict[int, tuple[Result, pd.DataFrame]] = {}  # each data once
    for name in names:
        for key, result in results.conditions[name].items():
            cases = cases_of(result, key)
            if cases is not None:
                chosen.setdefault(key.data_seed, (result, cases))
    found = [pixel_sizes(cases, result.counts) for result, cases in chosen.values()]
    scales = [size for size in found if size is not None]
    known = len(scales) == len(found) and len({size.dims for size in scales}) == 1
    dims = scales[0].dims if known else 2
    tables = [
        label_diameters(
            result.in_mode("normal"),
            size.of_case if known and size is not None else None,
            cases.set_index("case")["volume"],
            dims,
        )
        for (result, cases), size in zip(chosen.values(), found, strict=True)
    ]
    # other data may hold other slices of a volume; the same data give the same sizes
    joined = pd.concat(tables).groupby(level=[0, 1]).max()
    return joined, BALL if dims == 3 else DISC.format("mm" if known else "pixels")


def _numbers(one: Association) -> dict[str, Any]:
    return {
        "R2": one.r_squared,
        "R2 low": one.r_squared_low,
        "R2 high": one.r_squared_high,
        "Spearman": one.spearman,
        "low": one.low,
        "high": one.high,
        "volumes": one.volumes,
        "groups": one.groups,
    }


def _warning(
    field: AnyField,
    found: Mapping[int, Association],
    names: Mapping[int, str],
    called: str,
    first: bool,
) -> str:
    """Warn where a field is read off the label (of its first values), or follows its size."""
    ranks = {n: one.spearman for n, one in found.items() if not np.isnan(one.spearman)}
    closest = max(ranks, key=lambda n: abs(ranks[n]), default=None)
    close = closest is not None and abs(ranks[closest]) > CLOSE
    reasons = []
    if first and field.provenance == "label-derived":
        reasons.append("its provenance is the label")
    if close and closest is not None:
        size = f"the size of {class_text(names, closest)}"
        reasons.append(f"it follows {size} (Spearman {ranks[closest]:.2f})")
    if not reasons:
        return ""
    return (
        f"Warning: {called} is partly the answer: {' and '.join(reasons)}. A network that is "
        "given it knows something of the mask before it sees the image. Its scores hold only where "
        "a user has such a value of the same quality; compare them with those of predicted and "
        "unknown values, and do not read them as a gain of the image analysis."
    )
