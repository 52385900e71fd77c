"""The entries of a clinical file, JSON or CSV, each with the case that it is of."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metaseg_monai.data.rows import read_lines
from metaseg_monai.errors import DataError

CASE = "case_id"
WORDS: Mapping[str, bool | None] = {  # as a cell of a CSV file
    "true": True,
    "false": False,
    **dict.fromkeys(("", "null", "none", "nan")),
}


class Repeated(list[Any]):
    """The values of a key that one object of a JSON file has several times."""


def entries_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every entry with its case.

    Args:
        path: `.json`, a list of objects with a `case_id` each, or `.csv`. Of a key that an object
            has several times, the value is `Repeated`.

    Raises:
        DataError: the file is missing or no such table, a column is there twice, or an entry names
            no case or several.
    """
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise DataError(f"{path}: expected a clinical table named .json or .csv")
    if not path.is_file():
        raise DataError(f"{path}: no clinical table (no such file); give kits.json or a CSV")
    entries = _json_entries(path) if suffix == ".json" else _csv_entries(path)
    for number, entry in enumerate(entries, start=1):
        case = entry.get(CASE) if isinstance(entry, Mapping) else None
        if isinstance(case, Repeated):
            raise DataError(f"{path}: entry {number} has {CASE} twice {case}; keep the right one")
        if not isinstance(case, str) or not case.strip():
            raise DataError(
                f"{path}: entry {number} names no {CASE}; expected one such as 'case_00000'"
            )
        yield case.strip(), entry


def _json_entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no clinical table ({error}); give kits.json or a CSV") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of cases, at least one; give KiTS's kits.json")
    return entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[Any]] = defaultdict(list)
    for key, value in pairs:
        values[key].append(value)
    return {key: all_[0] if len(all_) == 1 else Repeated(all_) for key, all_ in values.items()}


def _csv_entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a CSV file; empty cells and words for "missing" become None."""
    _, lines, problems = read_lines(path)
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}; mend these rows")
    return [
        {name: WORDS.get(cell.strip().lower(), cell.strip()) for name, cell in cells.items()}
        for _, cells in lines
    ]
