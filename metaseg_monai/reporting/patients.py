"""What the report says of patients: overlap, outlines and objects of each class."""

from collections.abc import Mapping

import pandas as pd

from metaseg_monai.evaluation import read_surfaces
from metaseg_monai.reporting.comparisons import compared_again, lacking
from metaseg_monai.reporting.objects import object_results
from metaseg_monai.reporting.page import Part, Section
from metaseg_monai.reporting.runs import TRAINING, Results, class_text
from metaseg_monai.reporting.scores import ENDS, over_groups
from metaseg_monai.reporting.tables import Table
from metaseg_monai.study.design import Protocol

SURFACES = "surfaces.csv"
NO_TOLERANCE = (
    "How close the outlines lie (NSD) was not scored: no tolerance was set. Set one in the study's "
    'settings, such as `"tolerance": {"px": 2}` or `{"mm": 1.5}`: the distance between two '
    "annotators, where it is known."
)


def patient_section(results: Results, protocol: Protocol) -> Section:
    """Scores of each patient and class, and the planned comparisons on the surface Dice.

    Args:
        results: of all classes.
        protocol: whose comparisons are made on the NSD as well.
    """
    surfaces = results.read(SURFACES, read_surfaces)
    found = object_results(results)
    measures = {"Dice": _dice(results.normal)}
    if not surfaces.empty:
        measures["NSD"] = surfaces.assign(score=surfaces["nsd"])
    if found is not None:
        measures["object F1"] = _dice(found.normal)
    table = patient_table(results, measures)
    empty = _empty(results)
    note = (
        "With true metadata. Mean over patients (groups) of the mean of their cases, seeds "
        "averaged within a case, with its 95 % interval over patients, none below five. A case "
        "whose class is empty in label and prediction has no score (left out: how many, over all "
        "trainings); one where it is empty in one of them has 0. Dice: overlap. NSD: share of both "
        "outlines that lies within the tolerance of the other. object F1: objects found at IoU 0.5."
    )
    about = [_tolerance(surfaces) if not surfaces.empty else NO_TOLERANCE, empty]
    if not surfaces.empty:
        about.append(lacking(results, surfaces, "surfaces"))
    title = "Scores of a patient, by class"
    parts: list[Part] = [
        Table("patients", title, note, table, first="condition, class"),
        *filter(None, about),
    ]
    if not surfaces.empty:
        scores = surfaces.assign(f1=surfaces["nsd"])
        if protocol.label_class is not None:
            scores = scores[scores["class"] == protocol.label_class]
        place = [*TRAINING, "case", "group", "domain"]
        of_case = scores.groupby(place, sort=False)["f1"].mean().reset_index()
        parts += compared_again(results, protocol, of_case, "surfaces", "NSD")
    return Section("Patients", "Scores of each patient, as a reader of one patient's scan.", parts)


def patient_table(results: Results, measures: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Conditions and classes x (measure; mean, low, high) and the number of patients.

    Args:
        results: whose conditions and classes are rows.
        measures: rows with the columns `TRAINING`, ``case, group, class, score``, by name.
    """
    columns: dict[tuple[str, str], pd.Series] = {}
    for name, rows in measures.items():
        of_case = rows.groupby(["condition", "class", "group", "case"], sort=False)["score"].mean()
        of_group = of_case.groupby(["condition", "class", "group"], sort=False).mean()
        means = over_groups(of_group, bounded=True)
        columns |= {(name, end): means[end] for end in ENDS}
        columns[name, "patients"] = means["groups"]
    table = pd.DataFrame(columns)
    order = [
        (name, number)
        for name in results.conditions
        for number in sorted(set(results.counts["class"]))
        if (name, number) in table.index
    ]
    table = table.loc[order]
    for name in measures:
        table[name, "patients"] = table[name, "patients"].fillna(0).astype(int)
    several = results.counts["class"].nunique() > 1
    names = results.class_names
    heads = [f"{name}, {class_text(names, n)}" if several else str(name) for name, n in order]
    return table.set_axis(heads)


def _dice(counts: pd.DataFrame) -> pd.DataFrame:
    """The Dice of each training, case and class; NaN where it is in neither."""
    tp, fp, fn = (counts[name] for name in ("tp", "fp", "fn"))
    return counts.assign(score=2 * tp / (2 * tp + fp + fn))  # NaN of 0 / 0


def _tolerance(surfaces: pd.DataFrame) -> str:
    kinds = surfaces[["tolerance", "unit"]].drop_duplicates().to_numpy()
    told = [f"{number:g} {unit}" for number, unit in kinds]
    if len(told) > 1:
        return f"Tolerances of the NSD differ ({', '.join(told)}): its rows cannot be compared."
    return f"Tolerance of the NSD: {told[0]}."


def _empty(results: Results) -> str:
    """How many scores do not exist, of all trainings."""
    scores = _dice(results.normal)
    left = int(scores["score"].isna().sum())
    return f"Left out as empty in label and prediction: {left} of {len(scores)}." if left else ""
