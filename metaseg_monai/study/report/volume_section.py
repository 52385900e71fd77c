"""What the report says of whole volumes: scores of patients rather than of slices."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_monai.evaluation.leakage import volume_values
from metaseg_monai.evaluation.lesions import FOUND_SHARE
from metaseg_monai.study.design import Protocol
from metaseg_monai.study.report.comparison_row import compared_row
from metaseg_monai.study.report.comparisons import Scores, compare_all
from metaseg_monai.study.report.document import Part, Section
from metaseg_monai.study.report.run_files import (
    continuous_fields,
    given_values,
    listed,
    other_values,
)
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.report.volume_agreement import agreement_parts
from metaseg_monai.study.report.volume_conditions import completeness, how_scored, lacking
from metaseg_monai.study.report.volumes import (
    SIZE_EDGES,
    averaged,
    dice_scores,
    lesion_table,
    mean_over_groups,
    region_table,
    regions_of,
    subgroup_table,
    volume_tables,
)
from metaseg_monai.study.report.words import TESTS, compared_text
from metaseg_monai.study.results import Results

ORGANS = ("kidney_and_masses",)  # regions whose components are organs, not lesions


def volume_section(
    results: Results,
    protocol: Protocol,
    edges: Mapping[str, Sequence[float]] = SIZE_EDGES,
    ranked: bool = True,
) -> Section | None:
    """Scores of volumes; None where no run wrote any.

    Args:
        results: of the study.
        protocol: whose comparisons are made on the Dice of the most special region as well.
        edges: of the size subgroups, by field.
        ranked: say which condition is highest and lowest; False where they cannot be compared.
    """
    scores = volume_tables(results)
    if not scores:
        return None
    tables = {name: averaged(by_seed) for name, by_seed in scores.items()}
    regions = regions_of(tables)
    target = regions[-1]
    note = (
        "Dice and surface Dice: 1 where a region is empty in label and prediction, 0 where it is "
        "in one of them, as in the official KiTS scores. HD95: 95 % of the surfaces lie closer "
        "than this; undefined where the region is empty in either, then left out and counted over "
        "all trainings, so read it with the Dice and the number of patients that it is of. Mean "
        "over patients with its 95 % interval over patients, none below five of them; seeds "
        "averaged within a volume."
    )
    about = [completeness(tables), lacking(results, scores), how_scored(results, regions)]
    parts: list[Part] = [*filter(None, about), _words(tables, target, ranked)]
    for region in reversed(regions):
        title, stem = f"Whole volumes: {region}", re.sub(r"[^A-Za-z0-9._-]", "_", region)
        told = note if region == target else "As above."
        of_region = region_table(tables, region)
        parts.append(Table(f"volumes_{stem}", title, told, of_region, first="condition"))
    parts += _compared(results, protocol, scores, target)
    lesions = [region for region in regions if region not in ORGANS]
    if lesions:
        note = (
            "found: share of the true lesions, pooled over all volumes, of whose voxels at least "
            f"{100 * FOUND_SHARE:g} % were predicted, of the patients with any; false per volume: "
            "predicted lesions that touch no true one; false ml: mean volume predicted on planes "
            "whose label has none of the region. low and high: 95 % interval, for which patients "
            "are drawn with all their volumes; none below five of them. Seeds averaged within a "
            "volume."
        )
        of_lesions = lesion_table(tables, lesions)
        parts.append(
            Table("volumes_lesions", "Lesions", note, of_lesions, first="condition, region")
        )
    parts += _subgroups(results, tables, regions, edges)
    parts += agreement_parts(scores, tables, target)
    intro = "Slices stacked back into volumes and scored for each patient."
    return Section("Whole volumes", intro, parts)


def _words(tables: Mapping[str, pd.DataFrame], region: str, ranked: bool) -> str:
    """The mean Dice of the conditions; without saying which is highest where not `ranked`."""
    means = {
        name: mean_over_groups(table[table["region"] == region], "dice")[0]
        for name, table in tables.items()
    }
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    if not known:
        return f"No volume has a Dice of {region}."
    told = f"The mean Dice of {region} over patients is"
    shown = {name: f"{mean:.3f}" for name, mean in known.items()}  # what looks alike is alike
    best, worst = (end(shown.values(), key=float) for end in (max, min))
    highest, lowest = (
        listed([name for name, mean in shown.items() if mean == end]) for end in (best, worst)
    )
    if len(shown) == 1:
        return f"{told} {best} for {highest}."
    if not ranked:
        return f"{told} {listed([f'{mean} for {name}' for name, mean in shown.items()])}."
    if best == worst:
        return f"{told} alike for {highest}: {best}."
    return f"{told} {best} for {highest}, the highest; the lowest is {worst}, for {lowest}."


def _compared(results: Results, protocol: Protocol, scores: Scores, region: str) -> list[Part]:
    """The planned comparisons, on the Dice of volumes."""
    if not protocol.comparisons:
        return []
    everywhere = protocol.model_copy(update={"domain": None})
    made, not_made = compare_all(results, everywhere, dice_scores(scores, region))
    parts: list[Part] = []
    if made:
        rows = {one.name: compared_row(one, "volumes", "patients") for one in made}
        note = (
            "Secondary to the planned comparisons above: the same pairs and test "
            f"({TESTS[protocol.test]}, corrected by Holm for {len(protocol.comparisons)} within "
            f"this table), with the Dice of {region} of each volume. Difference: first minus "
            "second, seeds averaged within a volume, volumes within a patient; 95 % interval over "
            "patients."
        )
        title = f"Planned comparisons on the Dice of {region}"
        score = f"Dice of {region} of whole volumes"
        parts.append(" ".join(compared_text(one, everywhere, score) for one in made))
        table = rows_of(rows)
        parts.append(Table("volumes_comparisons", title, note, table, first="comparison"))
    parts += [f"Planned but not made on volumes: {name} ({why})" for name, why in not_made.items()]
    return parts


def _subgroups(
    results: Results,
    tables: Mapping[str, pd.DataFrame],
    regions: Sequence[str],
    edges: Mapping[str, Sequence[float]],
) -> list[Part]:
    parts: list[Part] = []
    for name, field in continuous_fields(results).items():
        given = given_values(results, name) if name in edges else []
        if not given:
            continue
        values = volume_values(given[0].cases, name)
        table = subgroup_table(tables, regions, values, field.unit, edges[name])
        note = (
            "Mean Dice over patients; low and high: 95 % interval over patients. With few patients "
            "in a row nothing can be said of it."
        )
        if others := other_values(given, name):
            note += f" {others} The volumes are grouped by the values of the latter for all."
        title = f"Dice by {name}"
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", f"volumes_by_{name}")
        parts.append(Table(stem, title, note, table, first="condition, subgroup"))
    return parts
