"""What the report says of single objects: how many were found, split and merged."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.object_scores import FOUND_COLUMNS, read_object_scores
from metaseg_monai.metrics.scores import pooled_f1
from metaseg_monai.reporting import scores
from metaseg_monai.reporting.comparisons import compare_all
from metaseg_monai.reporting.page import Details, Part, Section
from metaseg_monai.reporting.runs import Replicate, Result, Results, listed
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.words import TESTS, compared_row, compared_text
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
    values = _of_conditions(found)
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
    parts: list[Part] = [*filter(None, [_truth(found), _ignored(found), _lacking(results, found)])]
    parts.append(Table("objects", "Objects by condition", note, *values, first="condition"))
    by_domain = scores.f1_table(found)
    if len(by_domain.mean.columns) > 3:
        told = f"combined: counts pooled over all cases; average: mean of the domains. {seeds}"
        title = "Object F1 at IoU 0.5 in each domain"
        parts.append(
            Table("objects_domains", title, told, *by_domain, best="high", first="condition")
        )
    parts += _compared(found, protocol)
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

    The columns of `read_object_scores` are kept beside the counts. Conditions and replicates
    without scores of objects are left out; None where no run has any.
    """
    conditions: dict[str, Mapping[Replicate, Result]] = {}
    for name, by_seed in results.conditions.items():
        known = {
            key: replace(result, counts=table)
            for key, result in by_seed.items()
            if (table := _table_of(result, key)) is not None
        }
        if known:
            conditions[name] = known
    return replace(results, conditions=conditions) if conditions else None


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


def _table_of(result: Result, key: Replicate) -> pd.DataFrame | None:
    """Scores of a result's objects, named as in its counts; of experts each on its own domain.

    Raises:
        DataError: a file is damaged, or has other cases than the counts.
    """
    tables = []
    for domain, folder in result.folders.items():
        path = folder / OBJECT_SCORES
        if not path.is_file():
            return None
        table = read_object_scores(path)
        tables.append(table[table["domain"] == domain] if domain else table)
    table = pd.concat(tables, ignore_index=True)
    prefix = f"data{key.data_seed}/"  # the results name the cases of other data so
    if result.counts["case"].str.startswith(prefix).all():
        table["case"] = prefix + table["case"]
    if set(table["case"]) != set(result.counts["case"]):
        odd = min(set(table["case"]) ^ set(result.counts["case"]))
        raise DataError(
            f"{result.folder / OBJECT_SCORES}: only it or only counts.csv beside it has case "
            f"{odd}; evaluate again."
        )
    return _at(table, FOUND_COLUMNS[0])


def _at(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """The table with the counts of one threshold as tp, fp and fn."""
    found = table[column]
    return table.assign(tp=found, fp=table["pred"] - found, fn=table["true"] - found)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _of_conditions(results: Results) -> scores.Spread:
    rows = [
        scores.over_seeds(
            {
                key: pd.DataFrame([object_numbers(result.in_mode("normal"))], index=[name])
                for key, result in by_seed.items()
            }
        )
        for name, by_seed in results.conditions.items()
    ]
    mean, half_range = (pd.concat(frames) for frames in zip(*rows, strict=True))
    count = "true objects"  # the same with every training on the same data
    return scores.Spread(
        mean.assign(**{count: mean[count].round().astype(int)}),
        half_range.assign(**{count: float("nan")}),
    )


def _truth(results: Results) -> str:
    """Say what the true objects were made of, as touching objects of a mask are one."""
    sources = {
        source
        for by_seed in results.conditions.values()
        for result in by_seed.values()
        for source in result.counts["truth"].unique()
    }
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
    trainings = [one for by_seed in results.conditions.values() for one in by_seed.values()]
    tables = [one.in_mode("normal")["ignored"] for one in trainings]
    if any(table.isna().any() for table in tables):
        return (
            "Some runs were scored before small true objects were ignored and cases without "
            "object numbers kept whole; evaluate them again before they are compared."
        )
    most = max(int(table.sum()) for table in tables)
    return f"True objects ignored, as they are below the smallest size: {most}." if most else ""


def _lacking(results: Results, found: Results) -> str:
    without = [name for name in results.conditions if name not in found.conditions]
    told = [f"No objects were scored of {listed(without)}."] if without else []
    for name, by_seed in found.conditions.items():
        if len(by_seed) < len(results.conditions[name]):
            told.append(
                f"Of {name} only {len(by_seed)} of {len(results.conditions[name])} trainings have "
                "scores of objects."
            )
    return " ".join(told)


def _compared(results: Results, protocol: Protocol) -> list[Part]:
    """The planned comparisons, on the objects of each case."""
    if not protocol.comparisons:
        return []
    made, not_made = compare_all(results, protocol)
    parts: list[Part] = []
    if made:
        rows: dict[str, dict[str, Any]] = {one.name: compared_row(one) for one in made}
        note = (
            "Secondary to the planned comparisons above: the same pairs and test "
            f"({TESTS[protocol.test]}, corrected by Holm for {len(protocol.comparisons)} within "
            f"this table), with the {SCORE} of each case. Difference: first minus second, seeds "
            "averaged within a case, cases within a group; 95 % interval over groups."
        )
        parts.append(" ".join(compared_text(one, protocol, SCORE) for one in made))
        title = f"Planned comparisons on the {SCORE}"
        table = scores.rows_of(rows)
        parts.append(Table("objects_comparisons", title, note, table, first="comparison"))
    return parts + [f"Planned but not made on objects: {n} ({why})" for n, why in not_made.items()]
