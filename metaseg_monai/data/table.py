"""A table of cases: one row is one image x one task (contract 7)."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_monai.data.columns import SPLITS, ColumnMap, as_column_map
from metaseg_monai.data.never_given import warn_never_given
from metaseg_monai.data.readers import FORMAT_OF_SUFFIX, image_suffix
from metaseg_monai.data.rows import Row, make_rows, name_cases, problems_between, read_lines
from metaseg_monai.errors import DataError
from metaseg_monai.metadata import MetadataSchema

SHOWN_PROBLEMS = 30


@dataclass(frozen=True)
class CaseTable:
    """The items of a validated table.

    Attributes:
        path: the table's file.
        rows: every item, in the table's order: `image` (path, or list of plane paths), `label`
            (path; absent where the table has none), `case`, `group`, `split`, `metadata` (raw
            values by schema field), `label_values` where the column map gives them, `volume`,
            `plane`, `planes` and `spacing_mm` (z, y, x) where the table has their columns
            (`place_of`), and `columns` (every cell as text).
    """

    path: Path
    rows: tuple[dict[str, Any], ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows, in the order train, val, test."""
        present = {row.get("split") for row in self.rows}
        return tuple(split for split in SPLITS if split in present)

    def items(self, split: str) -> list[dict[str, Any]]:
        """The items of a split, copied.

        Raises:
            DataError: the split has no rows.
        """
        items = [deepcopy(row) for row in self.rows if row.get("split") == split]
        if not items:
            raise DataError(
                f"{self.path}: no rows of the split {split!r}; the table has "
                f"{', '.join(self.splits) or 'no splits'}. Give rows that split, or name what the "
                "table calls it in the column map"
            )
        return items

    @property
    def digest(self) -> str:
        """SHA-256 of what the rows say (not of files, folders, and columns that nothing reads)."""
        rows = [
            {k: v for k, v in row.items() if k not in ("image", "label", "columns")}
            for row in self.rows
        ]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    def summary(self) -> str:
        """One line a split: cases, images, groups, and how often each metadata value occurs.

        Fields of more than 12 distinct values are told by their number of values.
        """
        lines = [f"{self.path}: {len(self.rows)} cases"]
        for split in self.splits:
            items = [row for row in self.rows if row.get("split") == split]
            images = {str(item["image"]) for item in items}
            groups = {item["group"] for item in items}
            told = [f"{len(items)} cases", f"{len(images)} images", f"{len(groups)} groups"]
            for name in items[0]["metadata"]:
                counts = Counter(str(item["metadata"][name]) or "missing" for item in items)
                values = ", ".join(f"{value} {n}" for value, n in sorted(counts.items()))
                told.append(f"{name}: {values if len(counts) <= 12 else f'{len(counts)} values'}")
            lines.append(f"  {split}: {'; '.join(told)}")
        return "\n".join(lines)


def read_table(
    path: str | Path,
    schema: MetadataSchema | None,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
) -> CaseTable:
    """Read and validate a table; every problem is told at once.

    Args:
        path: the table, or the folder that holds it.
        schema: of the metadata; None reads no metadata.
        columns: the column map, its settings, or its JSON file; None is the plain form.

    Raises:
        DataError: the table or columns are missing, or rows are wrong: missing files, repeated
            rows or cases, a group or image in two splits, unknown splits, metadata that the
            schema refuses, paths that leave the table's folder.
        ConfigError: the column map is wrong.

    Warns:
        MetadataWarning: no training row gives a field.
    """
    table, problems = scan_table(path, schema, columns)
    refuse(table.path, problems)
    warn_never_given(table.path, table.rows, schema)
    return table


def scan_table(
    path: str | Path,
    schema: MetadataSchema | None,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    inference: bool = False,
) -> tuple[CaseTable, list[str]]:
    """Read a table; return the rows that are right by themselves, and all problems.

    Args:
        path: the table, or the folder that holds it.
        schema: of the metadata; None reads no metadata.
        columns: as in `read_table`.
        metadata: raw values that take the place of the table's, for all rows.
        inference: the label, group and split columns may be absent, and labels may be empty
            (one that is leaves the labels out of all items).

    Raises:
        DataError: the table is missing or unreadable, or lacks columns.
        ConfigError: the column map is wrong or names fields that the schema has not.
    """
    columns = as_column_map(columns)
    file = find_table(path, columns)
    header, lines, problems = read_lines(file)
    _check_columns(file, header, schema, columns, metadata or {}, inference)
    absent = set(columns.exclude) - {cells[columns.image] for _, cells in lines}
    problems += [f"the column map excludes {name!r}, which no row has" for name in sorted(absent)]
    rows = [
        row
        for number, cells in lines
        if cells[columns.image] not in columns.exclude
        for row in make_rows(number, cells, schema, columns, metadata or {})
    ]
    name_cases(rows)
    folder = file.parent.resolve()
    exists: dict[str, bool] = {}
    for row in rows:
        row.problems += _problems_of(row, folder, schema, columns, inference, exists)
        problems += [f"row {row.number} ({row.case}): {problem}" for problem in row.problems]
    problems += problems_between(rows)
    right = [row for row in rows if not row.problems]
    labelled = all(row.label for row in right)
    return CaseTable(file, tuple(_as_item(row, folder, labelled) for row in right)), problems


def find_table(path: str | Path, columns: ColumnMap) -> Path:
    """The table's file.

    Raises:
        DataError: there is none.
    """
    path = Path(path)
    file = path / columns.table if path.is_dir() else path
    if not file.is_file():
        others = ", ".join(sorted(one.name for one in file.parent.glob("*.csv"))[:5])
        raise DataError(
            f"{file}: no such table; expected a folder with {columns.table}, or a CSV file"
            + (
                f". There is {others}: name it as table in a column map (columns_file)"
                if others
                else ". Make one with `python -m metaseg_monai prepare`, or `generate`"
            )
        )
    return file


def refuse(path: Path, problems: Sequence[str]) -> None:
    """Raise one DataError that lists the problems, if there are any.

    >>> refuse(Path("table.csv"), ["row 2: no label"])
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: table.csv: 1 problem
      row 2: no label
    """
    if problems:
        shown = [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            shown.append(f"  and {len(problems) - SHOWN_PROBLEMS} more")
        plural = "" if len(problems) == 1 else "s"
        raise DataError("\n".join([f"{path}: {len(problems)} problem{plural}", *shown]))


def _check_columns(
    file: Path,
    header: Sequence[str],
    schema: MetadataSchema | None,
    columns: ColumnMap,
    metadata: Mapping[str, Any],
    inference: bool,
) -> None:
    names = schema.names if schema else ()
    strangers = sorted(columns.fields_named() - set(names))
    if strangers:
        raise DataError(
            f"{file}: the column map names {', '.join(strangers)}, but the fields of the schema "
            f"are {', '.join(names) or 'none'}; mend the one or the other"
        )
    needed: list[str | None] = [columns.image]
    needed += [columns.column_of(name) for name in names if name not in metadata]
    if not inference:
        needed += [columns.label, columns.group, columns.split]
    if columns.case is not None:
        needed.append(columns.case)
    missing = [name for name in needed if name is not None and name not in header]
    if missing:
        raise DataError(
            f"{file}: no column {', '.join(map(repr, missing))}; the table has "
            f"{', '.join(header)}. Add it, or name the table's own columns in a column map"
        )


def _problems_of(
    row: Row,
    folder: Path,
    schema: MetadataSchema | None,
    columns: ColumnMap,
    inference: bool,
    exists: dict[str, bool],
) -> list[str]:
    """Problems of one row that need the disk, the schema or the moment."""
    problems = []
    if not inference and columns.label is not None and row.label is None:
        problems.append(f"column {columns.label!r}: no label; give one, or remove the row")
    if not inference and not row.group:
        problems.append(f"column {columns.group!r}: no group; name the patient or well")
    if not row.problems:  # paths are inside the folder
        for path in [*row.images, *([row.label] if row.label else [])]:
            if path not in exists:
                exists[path] = (folder / path).is_file()
            if not exists[path]:
                problems.append(f"no such file {path!r} beside the table")
            elif image_suffix(path) not in FORMAT_OF_SUFFIX:
                problems.append(f"unsupported file type {path!r}")
    if schema is not None:
        problems += schema.problems(row.metadata, "")
    return problems


def _as_item(row: Row, folder: Path, labelled: bool) -> dict[str, Any]:
    images = [str(folder / image) for image in row.images]
    item: dict[str, Any] = {"image": images[0] if len(images) == 1 else images}
    if labelled and row.label is not None:
        item["label"] = str(folder / row.label)
        if row.label_values is not None:
            item["label_values"] = row.label_values
    item |= {"case": row.case, "group": row.group or row.case, "metadata": row.metadata}
    if row.split is not None:
        item["split"] = row.split
    return {**item, **row.place, "columns": dict(row.cells)}
