"""Whether probabilities can be taken at their word: calibration by condition and domain."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from metaseg_monai.evaluation import (
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
    read_calibration,
    reliability,
)
from metaseg_monai.study.report import figures
from metaseg_monai.study.report.document import Details, Figure, Part, Section
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results


def calibration_section(results: Results) -> Section | None:
    """Whether probabilities can be taken at their word."""
    tables = calibration_tables(results)
    if not tables:
        return None
    rows = {
        name: {
            "ECE": expected_calibration_error(table),
            "ECE without sure background": foreground_calibration_error(table),
        }
        for name, table in tables.items()
    }
    note = (
        "Expected calibration error of the foreground probability, ten bins, pixels of all seeds "
        "pooled; without sure background: bins above 0.1 only."
    )
    by_domain: dict[str, Any] = {
        name: calibration_errors(table)["foreground_error"].to_dict()
        for name, table in tables.items()
    }
    first, *others = diagrams(tables)
    parts: list[Part] = [
        Table(
            "calibration",
            "Calibration",
            note,
            rows_of(rows),
            best="low",
            first="condition",
        ),
        first,
    ]
    if others:
        table = rows_of(by_domain)
        title = "ECE without sure background, by domain"
        of_domains = Table("calibration_domains", title, "", table, best="low", first="condition")
        parts.append(Details("For each metadata value", [of_domains, *others]))
    return Section("Calibration", "", parts)


def diagrams(tables: Mapping[str, pd.DataFrame]) -> list[Figure]:
    """Reliability diagram of the conditions, and of the domains of each."""
    if not tables:
        return []
    caption = (
        "Foreground probability against how often it was right, all seeds pooled. On the diagonal: "
        "a probability can be taken at its word."
    )
    curves = {name: reliability(table) for name, table in tables.items()}
    drawn = [Figure("reliability", caption, figures.reliability(curves))]
    for name, table in tables.items():
        if table["domain"].nunique() > 1:
            of_domains = {str(d): reliability(part) for d, part in table.groupby("domain")}
            png = figures.reliability(of_domains, name)
            drawn.append(Figure(f"reliability_{name}", f"The same for each domain: {name}.", png))
    return drawn


def calibration_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Calibration bins of each condition, over all seeds; experts on their own domains."""
    tables = {}
    for name, by_seed in results.conditions.items():
        parts = []
        for result in by_seed.values():
            for domain, folder in result.folders.items():
                if (folder / "calibration.csv").is_file():
                    table = read_calibration(folder / "calibration.csv")
                    parts.append(table[table["domain"] == domain] if domain else table)
        if parts:
            tables[name] = pd.concat(parts, ignore_index=True)
    return tables
