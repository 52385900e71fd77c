"""What the report says of single objects: how many were found, split and merged."""

from dataclasses import replace

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.object_scores import FOUND_COLUMNS, read_object_scores
from metaseg_monai.metrics.scores import pooled_f1
from metaseg_monai.reporting import scores
from metaseg_monai.reporting.comparisons import compared_again, lacking
from metaseg_monai.reporting.page import Details, Part, Section
from metaseg_monai.reporting.runs import TRAINING, Results
from metaseg_monai.reporting.tables import Table
from metaseg_monai.study.design import Protocol

OBJECT_SCORES = "objects_scores.csv"
SCORE = "object F1 at IoU 0.5"


def objects_section(results: Results, protocol: Protocol) -> Section | None:
    """Scores of objects; None where no run wrote any.

    Args:
        results: of the study.
        protocol: whose comparisons are made on the object F1 of each case as well, of its label
            class where it names one.
    """
    every = object_results(results)
    if every is None:
        return None
    found = every.of_class(protocol.label_class)
    values, half_range = scores.spread(scores.of_trainings(found.normal, object_numbers))
    number = "true objects"  # the same with every training on the same data
    values[number] = values[number].round().astype(int)
    half_range[number] = float("nan")
    seeds = scores.seeds_note(found)
    note = (
        "With true metadata. F1 at IoU 0.5: an object is found where a predicted one shares at "
        "least half of the union of both; F1 at IoU 0.5-0.95: mean over the ten thresholds; "
        "counts pooled over all cases, mean over label classes. Matched IoU: mean of the found "
        "objects. Splits: true objects in which two or more predicted ones lie; merges: predicted "
        "objects in which two or more true ones lie, each with more than half of its own pixels. "
        "True objects below the smallest size that predictions keep are ignored, and with them "
        "the predicted ones that stand for them. "
        f"{seeds}"
    )
    about = [_truth(found), _ignored(found), lacking(results, found.counts, "objects")]
    title = "Objects by condition"
    table = Table("objects", title, note, values, half_range, first="condition")
    parts: list[Part] = [*filter(None, about), table]
    by_domain = scores.f1_table(found)
    if len(by_domain.mean.columns) > 3:
        told = f"combined: counts pooled over all cases; average: mean of the domains. {seeds}"
        title = "Object F1 at IoU 0.5 in each domain"
        parts.append(
            Table("objects_domains", title, told, *by_domain, best="high", first="condition")
        )
    parts += compared_again(found, protocol, None, "objects", SCORE)
    reliance = scores.reliance_table(found)
    if reliance is not None:
        title = "Objects lost by other metadata"
        told = f"Pooled {SCORE} lost when each case gets other metadata than its own. {seeds}"
        parts.append(Table("objects_reliance", title, told, *reliance, first="condition"))
    told = (
        "Seeds averaged within a case. A case without any object in truth and prediction has no "
        "score and is counted; one that has objects in only one of them has 0."
    )
    title = "Object F1 at IoU 0.5 case by case"
    cases = scores.case_table(found).rename(columns={"with false pixels": "with false objects"})
    table = Table("objects_cases", title, told, cases, first="condition")
    parts.append(Details("Case by case", [table]))
    intro = "Predictions taken apart into objects, each compared with the true object it overlaps."
    return Section("Objects", intro, parts)


def object_results(results: Results) -> Results | None:
    """The results with objects in the place of pixels: found, false and missed ones at IoU 0.5.

    The columns of `read_object_scores` are kept beside the counts. Conditions and trainings
    without scores of objects are left out; None where no run has any.

    Raises:
        DataError: a file is damaged, or has other cases than the counts.
    """
    table = results.read(OBJECT_SCORES, read_object_scores, has="same")
    return None if table.empty else replace(results, counts=_at(table, FOUND_COLUMNS[0]))


def object_numbers(table: pd.DataFrame) -> dict[str, float]:
    """Pooled scores of one mode of one result, see `objects_section`."""
    true, found = table["true"].sum(), table["tp_50"].sum()
    matched = (table["matched_iou"].fillna(0) * table["tp_50"]).sum()
    return {
        "F1 at IoU 0.5": pooled_f1(table),
        "F1 at IoU 0.5-0.95": float(np.mean([pooled_f1(_at(table, c)) for c in FOUND_COLUMNS])),
        "precision": _share(found, table["pred"].sum()),
        "recall": _share(found, true),
        "matched IoU": _share(matched, found),
        "splits per 100": 100 * _share(table["splits"].sum(), true),
        "merges per 100": 100 * _share(table["merges"].sum(), true),
        "true objects": float(true),
    }


def _at(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with the counts of one threshold as tp, fp and fn."""
    found = table[column]
    return table.assign(tp=found, fp=table["pred"] - found, fn=table["true"] - found)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _truth(results: Results) -> str:
    """Say what the true objects were made of, as touching objects of a mask are one."""
    sources = set(results.counts["truth"])
    if "image" in sources:
        return (
            "The true objects are those of the real image, the predicted ones those of the "
            "generated image, both found by the same rule."
        )
    touching = "connected parts of the label, so that objects which touch are one"
    alike = "predicted ones are made likewise there, whatever the method"
    if sources == {"components"}:
        return f"The true objects are {touching}; {alike}."
    if "components" in sources:
        return (
            f"The true objects of some cases are numbered in a file; of the others {touching}, "
            f"and {alike}."
        )
    return "The true objects are numbered in files of their own."


def _ignored(results: Results) -> str:
    """Say how many true objects are too small to count, or that a run did not ignore them."""
    ignored = results.normal["ignored"]
    if ignored.isna().any():
        return (
            "Some runs were scored before small true objects were ignored and cases without "
            "object numbers kept whole; evaluate them again before they are compared."
        )
    most = int(results.normal.groupby(TRAINING)["ignored"].sum().max())
    return f"True objects ignored, as they are below the smallest size: {most}." if most else ""
