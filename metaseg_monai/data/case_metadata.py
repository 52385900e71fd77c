"""The metadata of images that no table describes: one value for all, or a row for each case."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.data.kits.clinical import read_clinical
from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import UNKNOWN, MetadataWarning, listing

SHOWN_PROBLEMS, SHOWN_CASES = 30, 5


def attach_metadata(
    items: Sequence[dict[str, Any]],
    source: Path,
    schema: MetadataSchema | None,
    metadata: Mapping[str, Any] | str | Path | None,
) -> None:
    """Put the raw values of every case under `metadata`, after the schema has checked them.

    Args:
        items: with `case` and `group`, by which their rows are found in a file; changed in place.
        source: where the items come from, for messages.
        schema: of the metadata; None leaves the items as they are.
        metadata: raw values by schema field for all cases, or a file with one row a case.

    Raises:
        MetadataError: a value is missing where it must not be, or refused, or the file has no
            column of a field, or a row for none of the cases; names cases and fields.
        DataError: the file cannot be read.

    Warns:
        MetadataWarning: values that no one gave are taken as unknown; names fields and cases.
            Where "unknown" is given for all cases, there is no warning.
    """
    if schema is None:
        return
    if isinstance(metadata, (str, Path)):
        _attach_rows(items, Path(metadata), schema)
        return
    values = dict(metadata or {})
    told = listing((item["case"] for item in items), SHOWN_CASES)
    problems = schema.problems(values, "")
    if problems:
        raise MetadataError(
            f"{source} ({told}): "
            + "; ".join(problems)
            + ". Give the metadata of the images: "
            + _as_written(schema)
            + ", or a table with one row a case"
        )
    for field in schema.fields:
        value = values.get(field.name)
        if field.is_missing(value) and str(value).strip() != UNKNOWN:
            warnings.warn(
                f"{source}: no {field.name} is given; taken as unknown for all {len(items)} "
                f"image(s) ({told}). Give it (--meta {field.name}=VALUE, or a table), or say that "
                f"it is not known: --meta {field.name}={UNKNOWN}",
                MetadataWarning,
                stacklevel=2,
            )
    for item in items:
        item["metadata"] = dict(values)


def _as_written(schema: MetadataSchema) -> str:
    """How values for all images are given, by our command and by MONAI's."""
    given = ",".join(f"{name}=VALUE" for name in schema.names)
    pairs = ", ".join(f"'{name}': 'VALUE'" for name in schema.names)
    return f'--meta {given} (monai.bundle run: --metadata "{{{pairs}}}")'


def _attach_rows(items: Sequence[dict[str, Any]], file: Path, schema: MetadataSchema) -> None:
    rows = read_clinical(file)
    columns = sorted({column for row in rows.values() for column in row})
    if absent := [name for name in schema.names if name not in columns]:
        raise MetadataError(
            f"{file}: no column {listing(absent)}; it has {listing(columns)}. Give the values by "
            + _as_written(schema)
        )
    if not any(item["case"] in rows or item["group"] in rows for item in items):
        raise MetadataError(
            f"{file}: no row for any of {len(items)} case(s) "
            f"({listing((item['case'] for item in items), SHOWN_CASES)}); it has rows for "
            f"{listing(rows, SHOWN_CASES)}. Name the cases in it as here, or give the values by "
            + _as_written(schema)
        )
    problems: list[str] = []
    unknown: dict[str, list[str]] = {}
    for item in items:
        row = rows.get(item["case"], rows.get(item["group"]))
        values = {name: row[name] for name in schema.names if name in row} if row else {}
        found = schema.problems(values, item["case"])
        problems += found if row else [f"{problem} (it has no row)" for problem in found]
        for field in schema.fields:
            if field.is_missing(values.get(field.name)):
                unknown.setdefault(field.name, []).append(item["case"])
        item["metadata"] = values
    if problems:
        shown = problems[:SHOWN_PROBLEMS]
        more = len(problems) - len(shown)
        raise MetadataError(
            "\n  ".join([f"{file}: {len(problems)} problem(s)", *shown])
            + (f"\n  and {more} more" if more else "")
        )
    for name, cases in unknown.items():
        warnings.warn(
            f"{file}: no {name} for {listing(cases)}; taken as unknown",
            MetadataWarning,
            stacklevel=2,
        )
