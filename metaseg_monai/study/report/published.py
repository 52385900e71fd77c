"""The texts' own figures beside ours, with a verdict on each difference."""

from collections.abc import Mapping
from pathlib import Path

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.statistics import compare_cases
from metaseg_monai.study.report import scores
from metaseg_monai.study.report.document import Part, Section
from metaseg_monai.study.report.references import Reference, beside, find_reference, verdict
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results, is_expert


def published_section(results: Results, file: Path) -> Section | None:
    """The texts' own figures beside ours."""
    if results.study is None or not results.study.references:
        return None
    parts: list[Part] = []
    for name, renamed in results.study.references.items():
        try:
            reference = find_reference(name, file)
        except ConfigError as error:
            parts.append(f"{name} cannot be shown: {error}")
            continue
        parts += _beside(results, reference, renamed)
    intro = (
        "The texts used other images and larger networks: scores cannot be equal. The verdict is "
        "about the sign of a difference: agrees where our 95 % interval lies on the published "
        "side of 0, disagrees where it lies on the other, else cannot tell."
    )
    return Section("Beside the published figures", intro, parts)


def _beside(results: Results, reference: Reference, renamed: Mapping[str, str]) -> list[Part]:
    if reference.kind == "findings":
        rows = {name: {"published": row["finding"]} for name, row in reference.rows.items()}
        title = f"Findings of {reference.source}"
        found = scores.rows_of(rows)
        return [Table(f"beside-{reference.id}", title, reference.note, found, first="what")]
    ours = scores.f1_table(results).mean.rename(columns={v: k for k, v in renamed.items()})
    if reference.kind == "modes":
        return _beside_modes(results, reference, renamed)
    try:
        table = beside(reference, ours)
    except DataError as error:
        return [str(error)]
    return [table, *_verdicts(results, reference)]


def _beside_modes(results: Results, reference: Reference, renamed: Mapping[str, str]) -> list[Part]:
    tested = scores.with_modes(results)
    condition = next((name for name in ("me", "sme") if name in tested), None)
    if condition is None:
        return [f"{reference.id} is a matrix of test modes; none was evaluated."]
    ours = scores.mode_table(tested[condition]).mean
    back = {value: key for key, value in renamed.items()}
    try:
        return [beside(reference, ours.rename(index=back, columns=back))]
    except DataError as error:
        return [str(error)]


def _verdicts(results: Results, reference: Reference) -> list[Part]:
    """Published differences to SE beside our intervals of the same."""
    column = "combined" if "combined" in reference.columns else "average"
    rows = {}
    for name in results.conditions:
        if name == "se" or is_expert(name) or "se" not in results.conditions:
            continue
        try:
            published = reference.difference(name, "se", column)
        except ConfigError:  # not printed
            continue
        ours = compare_cases(results.cases(name), results.cases("se"))
        rows[f"{name} - se"] = {
            "published": published,
            "ours": ours.mean,
            "low": ours.low,
            "high": ours.high,
            "verdict": verdict(published, ours.low, ours.high),
        }
    if not rows:
        return []
    title = f"Differences to SE beside {reference.source}"
    note = f"Published: {column}; ours: mean difference of the case F1 with its 95 % interval."
    table = scores.rows_of(rows)
    return [Table(f"verdict-{reference.id}", title, note, table, first="difference")]
