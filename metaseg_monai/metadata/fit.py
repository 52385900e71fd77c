"""Propose a schema from a table: its categories and its ranges, for a person to review."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from metaseg_monai.errors import ConfigError, DataError, MetadataError, did_you_mean, listing
from metaseg_monai.metadata.fields import KINDS, read_field, read_number, says_nothing
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metadata.tags import UNITS
from metaseg_monai.rows import read_lines

logger = logging.getLogger(__name__)

PerField = str | Mapping[str, str]  # one setting for all fields, or by column


def fit_schema(
    table: str | Path,
    fields: Sequence[str],
    output: str | Path | None = None,
    *,
    missing: PerField = "error",
    scale: PerField = "linear",
    out_of_range: PerField = "error",
    provenance: PerField = "acquisition",
    availability: PerField = "acquisition",
    split_column: str = "split",
    train_split: str = "train",
    margin: float = 0.0,
) -> MetadataSchema:
    """Propose a metadata schema from the training rows of a table; check it before you train.

    Example:
        python -m metaseg_monai fit-schema table.csv --fields line,size_mm:continuous:mm \
--output schema.json

    Categories are sorted; a continuous range runs from the lowest to the highest value, rounded
    outwards to two significant digits. Only rows of the training split are read where the table
    has a split column, otherwise all rows; each field's description says which. Columns that are
    probably no metadata (identifiers, dates, one value in every row) are told in the log.

    Args:
        table: CSV file with a header.
        fields: One ``column[:kind[:unit]]`` a field, in the order wanted. The kind is categorical,
            multilabel, ordinal (numbers only), continuous (needs a unit) or vector; without one
            it is categorical, unless all values are numbers, which is refused as unclear. One
            text with commas between the fields will do. ``column=Element`` names the DICOM element
            that tells the value of a series where nobody gives one, as ``age=PatientAge``; a number
            is in DICOM's unit (years) unless another one is given.
        output: JSON file to write; nothing is written without it.
        missing: Policy for missing values, ``error`` or ``unknown``. This and the following four
            are one setting for all fields, or a mapping from columns to settings.
        scale: Scale of continuous fields: linear, log or log2.
        out_of_range: Policy of continuous fields for values out of range: error or flag.
        provenance: acquisition, clinical prior or label-derived. Review it: no table tells.
        availability: acquisition, pre-operative or post-operative. Review it likewise.
        split_column: Column that names each row's split.
        train_split: Name of the training split in it.
        margin: Share of a continuous range that is added at either end (of its logarithm where
            the scale is one), for patients beyond those of the table. A range above 0 stays so.

    Raises:
        DataError: The table cannot be read or has no training rows.
        MetadataError: A column is absent, a value does not fit its kind, or is missing under policy
            ``error``.
        ConfigError: `fields` or a setting is wrong, or `output` exists already.
    """
    if output is not None and Path(output).exists():
        raise ConfigError(f"{output}: exists already; delete it, or name another output")
    if not 0 <= margin < math.inf:
        raise ConfigError(f"margin={margin}: expected a share from 0, such as 0.2")
    rows, numbers, source = _training_rows(Path(table), split_column, train_split)
    specs = fields.split(",") if isinstance(fields, str) else fields
    parts = [field_parts(spec.strip()) for spec in specs]
    columns = [column for column, _, _, _ in parts]
    given = {
        "missing": missing,
        "provenance": provenance,
        "availability": availability,
        "scale": scale,
        "out_of_range": out_of_range,
    }
    for name, setting in given.items():
        for key in () if isinstance(setting, str) else setting:
            if key not in columns:
                raise ConfigError(
                    f"{name}: {key!r} is none of the fields, expected {listing(columns)}; "
                    f"{did_you_mean(key, columns, told=True)}"
                )
    proposals = []
    for place, (column, kind, unit, tag) in enumerate(parts):
        names = [*given] if kind == "continuous" else ["missing", "provenance", "availability"]
        settings = {
            name: setting if isinstance(setting, str) else setting[column]
            for name in names
            if isinstance(setting := given[name], str) or column in setting
        }
        present = _present(rows, numbers, column, settings.get("missing", "error"), source)
        if not kind and all(read_number(text) is not None for text in present):
            raise ConfigError(  # they may be names (magnifications): only the caller knows
                f"field {column!r}: all values are numbers; write {column}:continuous:UNIT if they "
                f"are quantities, {column}:categorical if they are names"
            )
        kind = kind or "categorical"
        for doubt in doubts(rows, column, kind, present, [row.get("group", "") for row in rows]):
            logger.warning("field %r: %s", column, doubt)
        proposed = KINDS[kind].propose(column, present)
        if kind == "continuous":
            proposed["range"] = widened(proposed["range"], margin, settings.get("scale"))
        content = {
            "kind": kind,
            "name": column,
            **({"unit": unit} if unit else {}),
            **({"tag": tag} if tag else {}),
            **settings,
            "description": f"proposed from {source}; review provenance and availability",
            **proposed,
        }
        proposals.append(read_field(place, content))
    schema = MetadataSchema(proposals)
    if output is not None:
        schema.save(output)
    logger.info("%d entries of %s proposed from %s", schema.width, listing(columns), source)
    return schema


def _training_rows(
    table: Path, split_column: str, train_split: str
) -> tuple[list[dict[str, str]], list[int], str]:
    """The rows to fit, their numbers in the table, and where they come from in words."""
    if table.is_dir():
        table = table / "table.csv"
    columns, lines, broken = read_lines(table)
    if broken:
        raise DataError(f"{table}: {'; '.join(broken)}; mend these rows")
    if split_column not in columns:
        chosen, source = lines, f"all {len(lines)} rows of {table.name}, without a split column"
    else:
        chosen = [line for line in lines if line[1][split_column].strip() == train_split]
        source = f"{len(chosen)} {train_split} rows of {table.name}"
    if not chosen:
        splits = listing(sorted({row[split_column] for _, row in lines}))
        raise DataError(
            f"{table}: expected rows with {split_column} = {train_split!r}, got {splits}; "
            f"name the training split"
        )
    return [row for _, row in chosen], [number for number, _ in chosen], source


def field_parts(spec: str) -> tuple[str, str, str, str]:
    """Column, kind, unit and DICOM element of ``column[=Element][:kind[:unit]]``.

    They are blank where left out; kind and unit of an element in numbers are DICOM's own then.

    >>> field_parts("age=PatientAge"), field_parts("site")
    (('age', 'continuous', 'years', 'PatientAge'), ('site', '', '', ''))
    """
    column, kind, unit, *rest = (*spec.split(":"), "", "")
    column, equals, tag = (part.strip() for part in column.partition("="))
    if any(rest) or not column or bool(equals) != bool(tag):
        raise ConfigError(f"field {spec!r}: expected column[=Element][:kind[:unit]]")
    if tag in UNITS and kind in ("", "continuous"):
        kind, unit = "continuous", unit or UNITS[tag]
    if kind and kind not in KINDS:
        raise ConfigError(
            f"field {spec!r}: expected a kind among {listing(KINDS)}, got {kind!r}; "
            f"{did_you_mean(kind, KINDS, told=True)}"
        )
    if (kind == "continuous") != bool(unit):
        raise ConfigError(
            f"field {spec!r}: expected a unit for a continuous field and for no other; "
            f"write for instance {column}:continuous:mm"
        )
    return column, kind, unit, tag


def widened(range_: tuple[float, float], margin: float, scale: str | None) -> tuple[float, float]:
    """The range with a share of it at either end, to four significant digits."""
    low, high = range_
    if margin == 0 or (scale != "linear" and low <= 0):  # the field refuses such a range itself
        return range_
    if scale == "linear":
        wide = (low - margin * (high - low), high + margin * (high - low))
        if low >= 0 > wide[0]:  # no size or age is below 0
            wide = (0.0, wide[1])
    else:
        factor = (high / low) ** margin
        wide = (low / factor, high * factor)
    return float(f"{wide[0]:.4g}"), float(f"{wide[1]:.4g}")


_DATE = re.compile(
    r"(\d{4}([-/.])\d{1,2}\2\d{1,2}|\d{1,2}([-/.])\d{1,2}\3(\d{4}|\d{2})|(19|20)\d{2}[01]\d[0-3]\d)"
    r"([T ]\d{1,2}:\d{2}.*)?"
)
IDENTIFIER = re.compile(r"(^|[\W_])(id|ids|uid|uuid|mrn|accession|barcode)($|[\W_])", re.I)
FEW = 5  # rows, below which every column may look like an identifier


def doubts(
    rows: Sequence[Mapping[str, str]],
    column: str,
    kind: str,
    present: Sequence[str],
    groups: Sequence[str],
) -> list[str]:
    """What speaks against a column as metadata, in words.

    Args:
        rows: of the table.
        column: of them.
        kind: of the field that it would become.
        present: its values without the missing ones.
        groups: of the rows, alike where none is known.
    """
    distinct = set(present)
    if len(distinct) == 1:
        return [
            f"every value is {present[0]!r}, of which a network learns nothing; leave the field out"
        ]
    if sum(_DATE.fullmatch(text) is not None for text in present) > len(present) / 2:
        return [
            f"values such as {present[0]!r} are dates, which tell a case or a time apart instead "
            "of what is in the image; leave the field out, or give an age or an interval"
        ]
    numbers = [float(text) for text in distinct if read_number(text) is not None]
    steps = len(numbers) == len(distinct) and all(number.is_integer() for number in numbers)
    counted = steps and max(numbers) - min(numbers) == len(numbers) - 1
    each = len(distinct) > 0.9 * len(present)
    named = kind != "continuous" or counted or IDENTIFIER.search(column)
    of_group: dict[str, set[str]] = {}
    for row, group in zip(rows, groups, strict=True):
        of_group.setdefault(group, set()).add(row[column].strip())
    of_groups = len(of_group) == len(distinct) and all(len(one) == 1 for one in of_group.values())
    names_groups = of_groups and len(distinct) >= FEW and kind != "continuous"
    if len(present) >= FEW and kind != "vector" and ((each and named) or names_groups):
        what = "group" if names_groups else "row"
        return [
            f"{len(distinct)} values in {len(present)} rows, one for each {what}, as an identifier "
            "has: a network would learn the cases by heart, and knows no new one; leave it out"
        ]
    return []


def _present(
    rows: Sequence[Mapping[str, str]],
    numbers: Sequence[int],
    column: str,
    missing: str,
    source: str,
) -> list[str]:
    """The column's values without the missing ones, which need policy ``unknown``."""
    if column not in rows[0]:
        raise MetadataError(
            f"field {column!r} is no column of the table, expected one of {listing(rows[0])}; "
            f"{did_you_mean(column, rows[0], told=True)}"
        )
    present = [row[column].strip() for row in rows if not says_nothing(row[column])]
    absent = len(rows) - len(present)
    lacking = [n for n, row in zip(numbers, rows, strict=True) if says_nothing(row[column])]
    if not present or (absent and missing == "error"):
        raise MetadataError(
            f"field {column!r}: {absent} of {source} lack a value (row "
            f"{listing(lacking, 5, str)}); fill them in, or take them as unknown: --missing unknown"
            if present
            else f"field {column!r}: {source} have no value at all; leave the field out"
        )
    return present
