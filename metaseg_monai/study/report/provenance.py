"""How the results were made: what was fixed and when, the runs, and those that are missing."""

from collections.abc import Mapping, Sequence
from typing import Any

from metaseg_monai.study.record import read_record
from metaseg_monai.study.report.document import Details, Part, Section
from metaseg_monai.study.report.scores import rows_of
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results


def record_section(results: Results, history: Sequence[Mapping[str, Any]]) -> Section:
    """How it was made: protocol, runs and files."""
    parts: list[Part] = []
    for entry in history:
        rows = {key: {"value": _plain(value)} for key, value in entry["protocol"].items() if value}
        title = f"Protocol of {entry['at'].replace('T', ' ').replace('+00:00', ' UTC')}"
        note = f"Written when {entry['finished_runs']} runs had results."
        stem = f"protocol_{len(parts)}"
        parts.append(Table(stem, title, note, rows_of(rows), first="fixed"))
    if runs := _run_table(results):
        parts.append(Details("Runs", runs))
    if results.missing:
        reasons = {name: {"reason": reason} for name, reason in results.missing.items()}
        title = "Runs without results"
        table = Table("missing", title, "Left out of everything above.", rows_of(reasons))
        parts.append(table)
    parts.append(
        "All of this is computed from the files of the runs (`counts.csv`, `calibration.csv`, "
        "`cases.csv`, `schema.json`, `volumes.csv`, `log.csv`, `samples.npz`, as far as a run "
        "wrote them); `python -m metaseg_monai report` makes it anew. Tables are in "
        "`tables/` as CSV, Markdown and LaTeX, figures in `figures/`. Research software, not a "
        "medical device."
    )
    return Section("How this was made", "", parts)


def _run_table(results: Results) -> list[Part]:
    rows: dict[str, dict[str, Any]] = {}
    for name, by_seed in results.conditions.items():
        for key, result in by_seed.items():
            for domain, folder in result.folders.items():
                record = read_record(folder)
                if record is None:  # evaluated by hand, outside a study
                    continue
                label = f"{name}, seed {key.seed}" + (f", {domain}" if domain else "")
                label += f", data {key.data_seed}" if key.data_seed else ""
                rows[label] = {
                    "seconds": round(record["seconds"]),
                    "ended": record["ended"][:19].replace("T", " "),
                    "torch": record["versions"]["torch"],
                    "configuration": record["key"][:8],
                }
    note = "configuration: start of the SHA-256 of the bundle's configuration and settings."
    return [Table("runs", "Runs", note, rows_of(rows), first="run")] if rows else []


def _plain(value: Any) -> str:
    """Write a setting as text: pairs of conditions, lists, and settings by name."""
    if isinstance(value, list):
        pairs = all(isinstance(part, list) for part in value)
        return "; ".join(" against ".join(map(str, p)) if pairs else str(p) for p in value)
    if isinstance(value, dict):
        return "; ".join(f"{key}: {inner}" if inner != {} else key for key, inner in value.items())
    return str(value)
