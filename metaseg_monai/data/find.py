"""Which cases a prediction runs over: a table, a folder of images, or one image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.data.columns import ColumnMap, as_column_map
from metaseg_monai.data.readers import FORMAT_OF_SUFFIX, image_suffix
from metaseg_monai.data.rows import Row, name_cases, problems_between
from metaseg_monai.data.table import refuse, scan_table
from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.metadata import MetadataSchema


def find_cases(
    source: str | Path,
    schema: MetadataSchema | None,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Items for inference; labels, groups and splits may be absent.

    Args:
        source: a folder with a table, a table, a folder of images (searched recursively, in the
            order of their paths; hidden files left out), or one image.
        schema: of the metadata; None reads no metadata.
        columns: column map of the table, see `read_table`.
        metadata: raw values by schema field for every case; in a table they take the place of
            its columns.

    Raises:
        DataError: the source is missing, holds no images, or its table has problems.
        MetadataError: the images' metadata are missing or refused; names the fields to give.
        ConfigError: the column map is wrong.

    >>> find_cases("nowhere", None)
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: nowhere: no such file or folder; check the path
    """
    source = Path(source)
    columns = as_column_map(columns)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; check the path")
    if source.suffix.lower() == ".csv" or (source / columns.table).is_file():
        table, problems = scan_table(source, schema, columns, metadata, inference=True)
        refuse(table.path, problems)
        unneeded = ("label", "label_values")
        return [{k: v for k, v in row.items() if k not in unneeded} for row in table.rows]
    return _items_of(source, _images_in(source, columns), schema, dict(metadata or {}))


def _images_in(source: Path, columns: ColumnMap) -> list[Path]:
    if source.is_file():
        return [source]
    images = sorted(
        path
        for path in source.rglob("*")
        if image_suffix(path) in FORMAT_OF_SUFFIX
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(source).parts)
    )
    if not images:
        raise DataError(
            f"{source}: neither the table {columns.table} nor images "
            f"({', '.join(FORMAT_OF_SUFFIX)}); check the folder"
        )
    return images


def _items_of(
    source: Path, images: Sequence[Path], schema: MetadataSchema | None, metadata: dict[str, Any]
) -> list[dict[str, Any]]:
    if schema is not None:
        problems = schema.problems(metadata, "")
        if problems:
            raise MetadataError(
                f"{source}: "
                + "; ".join(problems)
                + ". Give the metadata of the images: "
                + " ".join(f"--meta {name}=VALUE" for name in schema.names)
                + ", or a table with one row a case"
            )
    folder = source if source.is_dir() else source.parent
    rows = [
        Row(number, (path.relative_to(folder).as_posix(),), None, {}, "", None, "")
        for number, path in enumerate(images, start=1)
    ]
    name_cases(rows)
    refuse(source, problems_between(rows))
    return [
        {
            "image": str(path.resolve()),
            "case": row.case,
            "group": row.case,
            "metadata": dict(metadata),
        }
        for path, row in zip(images, rows, strict=True)
    ]
