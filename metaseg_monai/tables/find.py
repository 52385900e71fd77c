"""Which cases a prediction runs over: a table, a folder of images, or one image."""

import logging
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.files import readable
from metaseg_monai.images.dicom import is_dicom_folder, is_single_plane
from metaseg_monai.images.read import FORMAT_OF_SUFFIX, image_format, image_suffix
from metaseg_monai.metadata.fields import UNKNOWN, MetadataWarning, listing
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.prepare.clinical import read_clinical
from metaseg_monai.prepare.kits_find import CLINICAL_NAMES, IMAGE_NAMES
from metaseg_monai.tables.cases import DataWarning
from metaseg_monai.tables.columns import ColumnMap, as_column_map
from metaseg_monai.tables.table import Row, name_cases, refuse, scan_table

# Which files and folders below a source are images to predict on, and which only look so.

# What KiTS19, KiTS21 and KiTS23 keep in a case's folder beside its image, all made from labels.
KITS_LABEL_FILES = re.compile(r"(aggregated_(AND|MAJ|OR)_seg|segmentation)\.nii(\.gz)?")
KITS_LABEL_FOLDERS = ("raw", "segmentations", "instances")


def absolute(path: str | Path) -> Path:
    """The path from the root, without following links, whose names are what the user sees.

    Links are followed only where ``..`` demands it.

    >>> absolute("/data/case_00000").as_posix()[-16:]
    '/data/case_00000'
    """
    parts = Path(path).absolute().parts
    up = max((index for index, part in enumerate(parts) if part == ".."), default=-1)
    return Path(*parts[: up + 1]).resolve().joinpath(*parts[up + 1 :])


def kits_images(source: Path) -> list[Path]:
    """The images of a folder of KiTS cases, or of one case; empty where it is no such source.

    Args:
        source: a folder, or a file ``imaging.nii.gz``; absolute.

    Warns:
        DataWarning: other images lie there too, and are left out; names them.
    """
    if source.is_file():
        return [source] if source.name in IMAGE_NAMES else []
    one = [source / name for name in IMAGE_NAMES if (source / name).is_file()]
    found = [path for path in _walk(source) if _may_be_image(path)]
    images = one[:1] or [
        path for path in found if path.name in IMAGE_NAMES and path.parent.name.startswith("case_")
    ]
    folders = {image.parent for image in images}
    left_out = [
        path.relative_to(source).as_posix()
        for path in found
        if images and path not in images and not _belongs_to_case(path, folders)
    ]
    if left_out:
        warnings.warn(
            f"{source}: taken as {'a KiTS case' if one else 'a folder of KiTS cases'}, so "
            f"{len(left_out)} image(s) that are no {'' if one else 'case_*/'}{IMAGE_NAMES[0]} are "
            f"left out: {listing(left_out)}; predict on them apart, from a folder of their own",
            DataWarning,
            stacklevel=2,
        )
    return images


def clinical_beside(source: Path, image: Path) -> Path | None:
    """The clinical table (kits.json, kits23.json ...) of a KiTS case, the nearest there is.

    It is looked for beside the case's folder (also where the source is that case), then in the
    folders above it up to the source. Another case of the source may have another table.
    """
    beside = image.parent.parent
    folders = [beside]
    if source.is_dir():
        folders += [folder for folder in beside.parents if folder.is_relative_to(source)]
    tables = [folder / name for folder in folders for name in CLINICAL_NAMES]
    return next((table for table in tables if table.is_file()), None)


def all_images(source: Path, table: str) -> list[Path]:
    """Every image in a folder at any depth, in the order of the paths, or the image itself.

    Hidden files are left out, and segmentations of KiTS beside an ``imaging.nii.gz``. A folder of
    DICOM files is one image.

    Args:
        source: absolute.
        table: name of the table that was not found, for the message.

    Raises:
        DataError: there are none.

    Warns:
        DataWarning: DICOM series of one plane, such as localisers, are left out; names them.
    """
    if source.is_file() or is_dicom_folder(source):
        return [source]
    images = [path for path in _walk(source) if _may_be_image(path) and not _is_label(path)]
    single = [path for path in images if path.is_dir() and is_single_plane(path)]
    images = [path for path in images if path not in single]
    told = listing(path.relative_to(source).as_posix() for path in single)
    if not images:
        raise DataError(
            f"{source}: neither the table {table} nor images "
            f"({', '.join(FORMAT_OF_SUFFIX)}, DICOM); check the folder"
            + (
                f"; the DICOM series {told} have one plane each and are no volumes"
                if single
                else ""
            )
        )
    if single:
        warnings.warn(
            f"{source}: {len(single)} DICOM series of one plane (a localiser?) left out: {told}",
            DataWarning,
            stacklevel=2,
        )
    return images


def _walk(folder: Path) -> Iterator[Path]:
    """All files and folders below, hidden ones apart; linked folders too, but never in a circle."""
    paths = []
    for at, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here = Path(at)
        folders[:] = [
            name for name in folders if not name.startswith(".") and not _leads_back(here / name)
        ]
        paths += [here / name for name in (*folders, *files) if not name.startswith(".")]
    return iter(sorted(paths))


def _raise(error: OSError) -> None:
    """Not to pass silently over folders that cannot be listed, as `os.walk` does."""
    raise error


def _leads_back(path: Path) -> bool:
    """Whether a link leads to a folder on the way to it."""
    return path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}


def _may_be_image(path: Path) -> bool:
    if path.is_dir():
        return is_dicom_folder(path)
    return image_suffix(path) in FORMAT_OF_SUFFIX and path.is_file()


def _is_label(path: Path) -> bool:
    """Whether it is the segmentation of a KiTS case, whatever its folder is called."""
    beside = (path.with_name(name) for name in IMAGE_NAMES)
    named = KITS_LABEL_FILES.fullmatch(path.name) is not None
    return named and any(image.is_file() for image in beside)


def _belongs_to_case(path: Path, folders: set[Path]) -> bool:
    """Whether a KiTS download has that file in the folder of a case."""
    if path.parent in folders:
        return path.name in IMAGE_NAMES or KITS_LABEL_FILES.fullmatch(path.name) is not None
    return any(
        above.name in KITS_LABEL_FOLDERS
        and (above.parent in folders or above.parent.name.startswith("case_"))
        for above in (path, *path.parents)
    )


# The metadata of images that no table describes: one value for all, or a row for each case.

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
