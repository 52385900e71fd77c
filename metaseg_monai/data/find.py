"""Which cases a prediction runs over: a table, a folder of images, or one image."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.data.case_metadata import attach_metadata
from metaseg_monai.data.columns import ColumnMap, as_column_map
from metaseg_monai.data.headers import image_format
from metaseg_monai.data.image_paths import absolute, all_images, clinical_beside, kits_images
from metaseg_monai.data.readable import readable
from metaseg_monai.data.rows import Row, name_cases
from metaseg_monai.data.table import refuse, scan_table
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata import MetadataSchema

LABEL_FOLDERS = {"label", "labels", "labelstr", "mask", "masks", "annotations", "instances"}

logger = logging.getLogger(__name__)


def find_cases(
    source: str | Path,
    schema: MetadataSchema | None,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    metadata: Mapping[str, Any] | str | Path | None = None,
) -> list[dict[str, Any]]:
    """Items for inference; labels, groups and splits may be absent.

    In a folder of KiTS cases (``case_*/imaging.nii.gz``, at any depth, one such folder or file)
    only these images are taken, not the labels beside them, and each folder names its case. Links
    are followed, but go by their own names.

    Args:
        source: a folder with a table, a table, a folder of images (searched recursively, in the
            order of their paths; hidden files left out; a folder of DICOM files is one image), or
            one image.
        schema: of the metadata; None reads no metadata.
        columns: column map of the table, see `read_table`.
        metadata: raw values by schema field for every case (in a table they take the place of its
            columns), or a file of one row a case (kits.json or another clinical JSON or CSV, see
            `read_clinical`). None takes the kits.json (or kits23.json ...) nearest to each KiTS
            case, if there is one. A case without a row or value is missing it; the schema decides
            whether it may.

    Returns:
        Items with `image`, `case`, `group`, `metadata`; a NIfTI or DICOM image also has `mask`, the
        relative path of its mask: that of the image in the source, or the case's name where one
        image is several cases.

    Raises:
        DataError: the source is missing, may not be read, holds no images or two of one case's
            name, or its table has problems.
        MetadataError: the images' metadata are missing or refused; names the fields to give.
        ConfigError: the column map is wrong, or metadata are given where no schema takes them.

    Warns:
        MetadataWarning: values that were not given are taken as unknown; names the fields.
        DataWarning: images in the folder are left out; names them.

    >>> find_cases("nowhere", None)
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: nowhere: no such file or folder; check the path
    """
    source = Path(source)
    columns = as_column_map(columns)
    if schema is None and metadata:
        raise ConfigError(
            f"metadata {metadata!r:.200} for a model whose variant takes no metadata; leave "
            "--meta out, or choose another variant"
        )
    with readable(source):
        if not source.exists():
            raise DataError(f"{source}: no such file or folder; check the path")
        if source.suffix.lower() == ".csv" or (source / columns.table).is_file():
            return _items_of_table(source, schema, columns, metadata)
        return _items_of_images(absolute(source), schema, columns.table, metadata)


def _items_of_images(
    source: Path,
    schema: MetadataSchema | None,
    table: str,
    metadata: Mapping[str, Any] | str | Path | None,
) -> list[dict[str, Any]]:
    """The items of a folder of images without a table, or of one image."""
    kits = kits_images(source)
    images = kits or all_images(source, table)
    folder = source if source.is_dir() else source.parent
    rows = [
        Row(
            number,
            (_relative(path, folder),),
            None,
            {},
            "",
            None,
            _case_of(path, folder, bool(kits)),
        )
        for number, path in enumerate(images, start=1)
    ]
    name_cases(rows)
    refuse(source, _namesakes(rows))
    items = [
        {"image": str(path), "case": row.case, "group": row.case, "metadata": {}}
        for path, row in zip(images, rows, strict=True)
    ]
    _name_masks(items, [row.images[0] for row in rows])
    _tell_labels([Path(row.images[0]) for row in rows], source)
    if metadata is None and kits and schema is not None:
        _attach_nearest(items, source, schema)
    else:
        attach_metadata(items, source, schema, metadata)
    return items


def _attach_nearest(items: Sequence[dict[str, Any]], source: Path, schema: MetadataSchema) -> None:
    """Give each KiTS case the row of its own download's table, never that of a namesake."""
    of_table: dict[Path | None, list[dict[str, Any]]] = {}
    for item in items:
        of_table.setdefault(clinical_beside(source, Path(item["image"])), []).append(item)
    for table, beside in of_table.items():
        attach_metadata(beside, source, schema, table)


def _namesakes(rows: Sequence[Row]) -> list[str]:
    """Problems of images that would be one case, by their paths: there is no table to look into."""
    first: dict[str, Row] = {}
    problems = []
    for row in rows:
        other = first.setdefault(row.case, row)
        if other is not row:
            problems.append(
                f"{row.images[0]}: the case {row.case!r} is also {other.images[0]}; rename one of "
                "the two, or predict on their folders apart"
            )
    return problems


def _items_of_table(
    source: Path,
    schema: MetadataSchema | None,
    columns: ColumnMap,
    metadata: Mapping[str, Any] | str | Path | None,
) -> list[dict[str, Any]]:
    from_file = isinstance(metadata, (str, Path))
    known = None if from_file else schema
    fixed = None if isinstance(metadata, (str, Path)) else metadata
    table, problems = scan_table(source, known, columns, fixed, inference=True)
    refuse(table.path, problems)
    unneeded = ("label", "label_values")
    items = [{k: v for k, v in row.items() if k not in unneeded} for row in table.rows]
    folder = table.path.parent.resolve()
    single = [item for item in items if isinstance(item["image"], str)]
    _name_masks(single, [_relative(Path(item["image"]), folder) for item in single])
    if from_file:
        attach_metadata(items, table.path, schema, metadata)
    return items


def _tell_labels(paths: Sequence[Path], source: Path) -> None:
    """Warn of a folder that holds images and labels beside each other, without a table."""
    labels = [path for path in paths if LABEL_FOLDERS & {part.lower() for part in path.parts[:-1]}]
    if 0 < len(labels) < len(paths):
        logger.warning(
            "%s: %d of %d files lie in a folder of labels (%s ...), and are taken as images; give "
            "the folder of the images alone if they are none",
            *(source, len(labels), len(paths), labels[0]),
        )


def _relative(path: Path, folder: Path) -> str:
    """The path in its folder; a DICOM folder that is itself the source goes by its own name."""
    return path.relative_to(folder).as_posix() if path != folder else path.name


def _case_of(path: Path, folder: Path, kits: bool) -> str:
    """The case's name where the path alone does not give it (see `name_cases`), else empty."""
    if kits:
        return path.parent.name
    return _relative(path, folder).replace("/", "_") if path.is_dir() else ""


def _name_masks(items: Sequence[dict[str, Any]], paths: Sequence[str]) -> None:
    """Give NIfTI and DICOM images the paths of their masks, relative to the folder of all masks."""
    times = Counter(paths)
    for item, path in zip(items, paths, strict=True):
        if image_format(item["image"]) not in ("nifti", "dicom"):
            continue
        if times[path] > 1:
            item["mask"] = f"{item['case']}.nii.gz"
        else:
            item["mask"] = f"{path}.nii.gz" if Path(item["image"]).is_dir() else path
