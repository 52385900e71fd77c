"""Which cases a prediction runs over: a table, a folder of images, or one image."""

import logging
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from metaseg_monai.errors import (
    ConfigError,
    DataError,
    DataWarning,
    MetadataError,
    Problem,
    listing,
    typed,
)
from metaseg_monai.files import absolute, readable
from metaseg_monai.images.dicom import is_dicom_folder, is_single_plane
from metaseg_monai.images.image import (
    ADVICE,
    FORMAT_OF_SUFFIX,
    PICTURES,
    SLIDES,
    image_format,
    image_suffix,
    unusable,
)
from metaseg_monai.images.ome_zarr import is_zarr, plate_and_well, zarr_images
from metaseg_monai.metadata.fields import UNKNOWN, MetadataWarning, said
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.naming import Folder, composed
from metaseg_monai.tables.clinical import ClinicalTable, scan_clinical
from metaseg_monai.tables.columns import ColumnMap, as_column_map
from metaseg_monai.tables.table import (
    OF_LABELS,
    CaseTable,
    case_name,
    near_name,
    refuse,
    scan_table,
    sift,
    tell,
)
from metaseg_monai.tables.tags import with_tags

LABEL_FOLDERS = {"label", "labels", "labelstr", "mask", "masks", "annotations", "instances"}
THRESHOLD = "threshold"  # of an application's settings, the one that is of no field
SHOWN_CASES = 5

logger = logging.getLogger(__name__)
Given = Mapping[str, Any] | str | Path | None


@runtime_checkable
class Layout(Protocol):
    """Where the download of a data set keeps its images and metadata, such as `KitsLayout`."""

    def find(self, source: Path, problems: list[Problem] | None) -> Mapping[Path, str]:
        """The images of a source and their cases; empty where it is no such download.

        Then nothing is added to `problems`, see `image_paths`.
        """

    def is_label(self, path: Path) -> bool:
        """Whether a file is a label, so that it is never taken as an image."""

    def metadata_file(self, source: Path, image: Path) -> Path | None:
        """The file that holds the metadata of an image, where there is one in the source."""

    def read_metadata(self, path: Path) -> ClinicalTable:
        """Such a file as text by column and case, as far as it is right."""


@typed
def find_cases(
    source: str | Path,
    schema: MetadataSchema | None = None,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    metadata: Given = None,
    layout: Layout | None = None,
    default: Mapping[str, Any] | None = None,
    problems: list[Problem] | None = None,
    unknown_trained: bool = False,
) -> list[dict[str, Any]]:
    """Items for inference; labels, groups and splits may be absent.

    Args:
        source: a folder with a table, a table, a folder of images (searched recursively, in the
            order of their paths; hidden files left out, links followed, but named by their own
            names; a folder of DICOM files is one image, one of OME-Zarr the images in it), or one
            image.
        schema: of the metadata; None reads no metadata.
        columns: column map of the table, see `read_table`.
        metadata: raw values by schema field for every case (in a table they take the place of its
            columns), or a file of one row a case, see `read_clinical`. A case without a row or
            value is missing it; the schema decides whether it may.
        layout: of a data set's download; in a source that is one, it names images and cases,
            and without `metadata` each case takes those of the file that the layout finds.
        default: an application's settings, see `field_values`: raw values of the fields that
            neither `metadata` nor a column of the table names, and no element of a DICOM series
            tells (the `tag` of a field, see `metaseg_monai.tables.tags.with_tags`).
        problems: gets the rows and cases that are wrong by themselves, images of one case's name,
            folders that cannot be listed and what is named as an image and is none, which are left
            out, unless nothing else is there.
        unknown_trained: the network was trained with unknown metadata (contract 3): a field whose
            policy is ``unknown`` needs no column, neither in the table nor in the file of
            `metadata`. A column that nothing reads, with nearly its name, is a slip, and refused.

    Returns:
        Items with `image`, `case`, `group`, `metadata`; a NIfTI or DICOM image also has `mask`, the
        relative path of its mask: that of the image in the source, or the case's name where one
        image is several cases, or is of a layout's download. Of a plate of OME-Zarr `columns` has
        plate and well, and the group is both.

    Raises:
        DataError: the source is missing, may not be read, holds no images or two of one case's
            name, or its table has problems.
        MetadataError: the images' metadata are missing or refused; names the fields to give.
        ConfigError: the column map is wrong, or metadata are given where no schema takes them.

    Warns:
        MetadataWarning: values that were not given are taken as unknown; names the fields.
        DataWarning: images in the folder are left out; names them.

    >>> find_cases("nowhere")
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: nowhere: no such file or folder; check the path
    """
    source = Path(source)
    columns = as_column_map(columns)
    if isinstance(metadata, Mapping):
        metadata = {composed(name): value for name, value in metadata.items()}
    if schema is None and metadata:
        raise ConfigError(
            f"metadata {metadata!r:.200} for a model whose variant takes no metadata; leave "
            "--meta out, or choose another variant"
        )
    with readable(source):
        if not source.exists():
            raise DataError(f"{source}: no such file or folder; check the path")
        values = field_values(default or {}, schema) if schema is not None else {}
        if source.suffix.lower() == ".csv" or Folder(source).holds(columns.table):
            return _items_of_table(
                source, schema, columns, metadata, layout, values, problems, unknown_trained
            )
        return _items_of_images(
            *(absolute(source), schema, columns.table, metadata, layout, values, problems),
            unknown_trained,
        )


def each_value(
    items: Sequence[Mapping[str, Any]], schema: MetadataSchema, field: str
) -> list[dict[str, Any]]:
    """Every case once for each value of a field: all that a network for several tasks can tell.

    Args:
        items: as `find_cases` gives them without a schema.
        schema: of the metadata.
        field: a field with named values, such as the task.

    Returns:
        Copies of the items, whose `case` and `mask` end in the value.

    Raises:
        MetadataError: the schema has no such field.
        ConfigError: the field has no named values.

    >>> field = {"kind": "categorical", "name": "task", "values": ["disc", "ring"],
    ...          "provenance": "acquisition", "availability": "acquisition"}
    >>> items = [{"case": "a", "image": "a.nii.gz", "mask": "in/a.nii.gz"}]
    >>> [(one["case"], one["mask"]) for one in each_value(items, MetadataSchema([field]), "task")]
    [('a_disc', 'in/a_disc.nii.gz'), ('a_ring', 'in/a_ring.nii.gz')]
    """
    values = getattr(schema.field(field), "values", ())
    if not values:
        raise ConfigError(f"field {field!r} has no named values, each of which could be asked for")
    made = []
    for item, value in product(items, values):
        named = {"case": f"{item['case']}_{value}"}
        if "mask" in item:
            folder, slash, name = item["mask"].rpartition("/")
            stem, dot, suffix = name.partition(".")
            named["mask"] = f"{folder}{slash}{stem}_{value}{dot}{suffix}"
        metadata = {**(item.get("metadata") or {}), field: value}
        made.append({**item, **named, "metadata": metadata})
    return made


def field_values(settings: Mapping[str, Any], schema: MetadataSchema) -> dict[str, Any]:
    """The raw values of fields among the settings of an application (`displayable_configs`).

    A value that is ``unknown`` says nothing, and whoever else knows the value is asked: so a bundle
    may list the fields of its schema, and be used with another.

    Raises:
        ConfigError: a name is neither a field nor the threshold of the mask.
    """
    told = {name: value for name, value in settings.items() if value != UNKNOWN}
    if strangers := sorted(set(told) - {*schema.names, THRESHOLD}):
        raise ConfigError(
            f"displayable_configs names {listing(strangers)}; expected fields of the schema "
            f"({', '.join(schema.names)}) or {THRESHOLD}"
        )
    return {name: value for name, value in told.items() if name != THRESHOLD}


def image_paths(folder: Path, problems: list[Problem] | None = None) -> list[Path]:
    """Every file and DICOM folder below that may be an image, in the order of the paths.

    Hidden ones are left out; linked folders are searched too, but never in a circle.

    Args:
        folder: to search.
        problems: gets the folders within that cannot be listed, and what is named as an image and
            is none; None raises the OSError, and tells the others in the log.
    """

    def unread(error: OSError) -> None:
        """Not to pass silently over folders that cannot be listed, as `os.walk` does."""
        if problems is None or Path(error.filename) == folder:
            raise error
        name = Path(error.filename).relative_to(folder).as_posix()
        told = f"cannot be listed ({error.strerror})"
        problems.append(Problem(name, error.filename, told, "check the folder's permissions"))

    def is_series(path: Path) -> bool:
        try:
            return is_dicom_folder(path)
        except OSError:
            if problems is None:
                raise
            return False  # told by `unread`, or by whoever reads its files

    def tell(path: Path, problem: str, next_step: str) -> None:
        name = path.relative_to(folder).as_posix()
        if problems is None:
            logger.warning("%s: %s; %s", path, problem, next_step)
        else:
            problems.append(Problem(name, str(path), problem, next_step))

    images, empty, others = list[Path](), list[Path](), list[Path]()
    for path in sorted(_walk(folder, unread)):
        named, is_folder = image_suffix(path) in FORMAT_OF_SUFFIX, path.is_dir()
        if is_folder and is_zarr(path):
            try:
                images += zarr_images(path)
            except DataError as error:
                name = path.relative_to(folder).as_posix()
                one = Problem.of_error(name, str(path), path, error)
                tell(path, one.problem, one.next_step)
        elif is_folder and not is_series(path):
            empty += [path] * named
        elif not (is_folder or named):
            others += [path] * (path.suffix.lower() in (*PICTURES, *SLIDES))
        elif why := unusable(path):
            tell(path, *why)
        else:
            images.append(path)
    known = {path.with_suffix("") for path in images}
    for path in others:
        if path.with_suffix("") not in known:  # no preview of an image
            tell(path, "unsupported file type", ADVICE[path.suffix.lower()])
    inside = {above for path in images for above in path.parents}
    for path in empty:
        if path not in inside:
            step = "copy the image anew in its place, or rename the folder"
            tell(path, "is a folder without images, named as an image", step)
    return images


def _walk(folder: Path, unread: Callable[[OSError], None]) -> Iterator[Path]:
    for at, folders, files in os.walk(folder, onerror=unread, followlinks=True):
        here = Path(at)
        folders[:] = [
            name for name in folders if not name.startswith(".") and not _leads_back(here / name)
        ]
        for name in [name for name in folders if is_zarr(here / name)]:  # chunks are no images
            folders.remove(name)
            yield here / name
        yield from (here / name for name in (*folders, *files) if not name.startswith("."))


def _leads_back(path: Path) -> bool:
    """Whether a link leads to a folder on the way to it."""
    return path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}


def _items_of_table(
    source: Path,
    schema: MetadataSchema | None,
    columns: ColumnMap,
    metadata: Given,
    layout: Layout | None,
    default: Mapping[str, Any],
    problems: list[Problem] | None,
    unknown_trained: bool,
) -> list[dict[str, Any]]:
    from_file = isinstance(metadata, (str, Path))
    fixed = None if isinstance(metadata, (str, Path)) else metadata
    known = None if from_file else schema
    own = default if known is not None else None
    table, wrong = scan_table(source, known, columns, fixed, True, unknown_trained, own)
    sift(table, wrong, problems)
    tell(table)
    _tell_replaced(table, columns, fixed or {})
    items = [{k: v for k, v in row.items() if k not in OF_LABELS} for row in table.rows]
    _name_masks(items, table.folder.resolve())
    if from_file:
        _attach(items, table.path, schema, metadata, layout, problems, unknown_trained, default)
    return items


def _tell_replaced(table: CaseTable, columns: ColumnMap, fixed: Mapping[str, Any]) -> None:
    """Say which columns of a table are not read, since values were given for all its rows."""
    for name, value in fixed.items():
        if name == columns.rows_per or str(value).strip() == UNKNOWN:
            continue  # one of the tasks that rows have; or said not to be known
        cells = [said(row["columns"].get(columns.column_of(name), "")) for row in table.rows]
        if others := [cell for cell in cells if cell and cell != str(value).strip()]:
            warnings.warn(
                f"{table.path}: {name}={value} is given for all rows, {len(others)} of which say "
                f"otherwise ({listing(sorted({*others}), 3)}); leave it out to read the column",
                MetadataWarning,
                stacklevel=2,
            )


def _items_of_images(
    source: Path,
    schema: MetadataSchema | None,
    table: str,
    metadata: Given,
    layout: Layout | None,
    default: Mapping[str, Any],
    left_out: list[Problem] | None,
    unknown_trained: bool,
) -> list[dict[str, Any]]:
    """The items of a folder of images without a table, or of one image."""
    known = layout.find(source, left_out) if layout is not None else {}
    folder = source if source.is_dir() else source.parent
    items: list[dict[str, Any]] = []
    of_case: dict[str, list[str]] = {}
    for path in known or _all_images(source, table, layout, left_out):
        relative = _relative(path, folder)
        case = known.get(path) or case_name(relative, is_folder=path.is_dir())
        of_case.setdefault(case, []).append(relative)
        items.append({"image": str(path), "case": case, "group": case, "metadata": {}})
        if path.is_dir() and is_zarr(path) and (of := plate_and_well(path)):
            columns = {"plate": of[0], "well": of[1]}
            items[-1] |= {"group": "/".join(of), "columns": columns}
    if clashes := [one for case, names in of_case.items() for one in _clashes(case, names)]:
        alike = {problem.case for problem in clashes}
        if left_out is None or len(alike) == len(of_case):
            refuse(source, [f"{one.file}: {one.problem}; {one.next_step}" for one in clashes])
        else:
            left_out += clashes
        items = [item for item in items if item["case"] not in alike]
        of_case = {case: names for case, names in of_case.items() if case not in alike}
    _name_masks(items, folder)
    for item in items:
        if Path(item["image"]) in known:  # a mask of a download is named by its case, not as a scan
            item["mask"] = f"{item['case']}.nii.gz"
    _tell_labels([Path(relative) for (relative,) in of_case.values()], source)
    if layout is not None and schema is not None and known and metadata is None:
        of_file: dict[Path | None, list[dict[str, Any]]] = defaultdict(list)
        for item in items:  # a case has the row of its own download, never that of a namesake
            of_file[layout.metadata_file(source, Path(item["image"]))].append(item)
        for file, beside in of_file.items():
            _attach(beside, source, schema, file, layout, left_out, unknown_trained, default)
        place = {case: number for number, case in enumerate(of_case)}
        items = [item for beside in of_file.values() for item in beside]
        items.sort(key=lambda item: place[item["case"]])
    else:
        _attach(items, source, schema, metadata, layout, left_out, unknown_trained, default)
    return items


def _clashes(case: str, names: Sequence[str]) -> list[Problem]:
    """The images of one case's name, each with another of them; none where it is one."""
    step = "rename one of the two, or predict on their folders apart"
    problems = []
    for name in names if len(names) > 1 else ():
        other = names[0] if name != names[0] else names[1]
        shown = ascii(other) if composed(other) == composed(name) else other  # they look the same
        problems.append(Problem(case, name, f"the case {case!r} is also {shown}", step))
    return problems


def _all_images(
    source: Path, table: str, layout: Layout | None, problems: list[Problem] | None
) -> list[Path]:
    """Every image in a folder, or the image itself; DICOM series of one plane are told."""
    if source.is_file():
        return [source]
    if is_zarr(source):
        return zarr_images(source)
    try:
        if is_dicom_folder(source):
            return [source]
    except PermissionError as error:  # of one file among many
        if problems is None or Path(error.filename) == source:
            raise
    found = image_paths(source, problems)
    series = [path for path in found if path.is_dir() and not is_zarr(path)]
    single = [path for path in series if is_single_plane(path)]
    images = [
        path for path in found if path not in single and not (layout and layout.is_label(path))
    ]
    told = listing(path.relative_to(source).as_posix() for path in single)
    wrong = f"; left out: {listing(problems, word=str)}" if problems else ""
    if not images:
        raise DataError(
            f"{source}: neither the table {table} nor images "
            f"({', '.join(FORMAT_OF_SUFFIX)}, DICOM, OME-Zarr); check the folder"
            + (
                f"; the DICOM series {told} have one plane each and are no volumes"
                if single
                else wrong
            )
        )
    if single:
        warnings.warn(
            f"{source}: {len(single)} DICOM series of one plane (a localiser?) left out: {told}",
            DataWarning,
            stacklevel=2,
        )
    return images


def _relative(path: Path, folder: Path) -> str:
    """The path in its folder; a DICOM folder that is itself the source goes by its own name."""
    return path.relative_to(folder).as_posix() if path != folder else path.name


def _name_masks(items: Sequence[dict[str, Any]], folder: Path) -> None:
    """Give NIfTI and DICOM images the paths of their masks, relative to the folder of all masks."""
    single = [item for item in items if isinstance(item["image"], str)]
    times = Counter(item["image"] for item in single)
    for item in single:
        path = Path(item["image"])
        if image_format(path) in ("nifti", "dicom"):
            shared, suffix = times[item["image"]] > 1, ".nii.gz" if path.is_dir() else ""
            item["mask"] = f"{item['case']}.nii.gz" if shared else _relative(path, folder) + suffix


def _tell_labels(paths: Sequence[Path], source: Path) -> None:
    """Warn of a folder that holds images and labels beside each other, without a table."""
    labels = [path for path in paths if LABEL_FOLDERS & {part.lower() for part in path.parts[:-1]}]
    if 0 < len(labels) < len(paths):
        logger.warning(
            "%s: %d of %d files lie in a folder of labels (%s ...), and are taken as images; give "
            "the folder of the images alone if they are none",
            *(source, len(labels), len(paths), labels[0]),
        )


# The metadata of images that no table describes: one value for all, or a row for each case.


def _attach(
    items: list[dict[str, Any]],
    source: Path,
    schema: MetadataSchema | None,
    metadata: Given,
    layout: Layout | None,
    left_out: list[Problem] | None,
    unknown_trained: bool,
    default: Mapping[str, Any],
) -> None:
    """Put the raw values of every case under `metadata`, after the schema has checked them."""
    if schema is None:
        return
    if isinstance(metadata, (str, Path)):
        file = Path(metadata)
        names = [name for field in schema.fields for name in getattr(field, "values", ())]
        read = layout.read_metadata if layout else partial(scan_clinical, declared=names)
        _attach_rows(items, file, read(file), schema, left_out, unknown_trained, default)
    else:
        _attach_values(items, source, schema, metadata or {}, default, left_out)


def _attach_values(
    items: list[dict[str, Any]],
    source: Path,
    schema: MetadataSchema,
    values: Mapping[str, Any],
    default: Mapping[str, Any],
    left_out: list[Problem] | None,
) -> None:
    joined: Counter[tuple[str, str, str]] = Counter()
    for item in items:
        item["metadata"] = schema.as_declared(values, joined)
    _tell_joined(source, joined)
    _add_tags(items, source, schema, left_out)
    for item in items:
        item["metadata"] = {**default, **item["metadata"]}
    problems = {item["case"]: schema.problems(item["metadata"], "") for item in items}
    wrong = {case: told for case, told in problems.items() if told}
    if len(wrong) == len(items) or (wrong and left_out is None):
        first = next(iter(wrong.values()))
        alike = [case for case, told in wrong.items() if told == first]
        raise MetadataError(
            f"{source} ({_some(alike)}): {'; '.join(first)} (give the metadata of the images: "
            f"{_as_written(schema)}, or a table with one row a case)"
        )
    if left_out is not None:
        step = f"give the metadata: {_as_written(schema)}"
        left_out += [
            Problem(item["case"], item["image"], "; ".join(wrong[item["case"]]), step)
            for item in items
            if item["case"] in wrong
        ]
    items[:] = [item for item in items if item["case"] not in wrong]
    for field in schema.fields:
        unknown = [
            item["case"]
            for item in items
            for value in [item["metadata"].get(field.name)]
            if field.is_missing(value) and str(value).strip() != UNKNOWN
        ]
        if unknown:
            some = f"{len(unknown)} of" if len(unknown) < len(items) else "all"
            warnings.warn(
                f"{source}: no {field.name} is given; taken as unknown for {some} {len(items)} "
                f"image(s) ({_some(unknown)}). Give it (--meta {field.name}=VALUE, or a table), or "
                f"say that it is not known: --meta {field.name}={UNKNOWN}",
                MetadataWarning,
                stacklevel=2,
            )


def _tell_joined(place: Path, joined: Counter[tuple[str, str, str]]) -> None:
    for told in MetadataSchema.told_as(joined):
        warnings.warn(f"{place}: {told}", MetadataWarning, stacklevel=3)


def _add_tags(
    items: list[dict[str, Any]],
    source: Path,
    schema: MetadataSchema,
    left_out: list[Problem] | None,
) -> None:
    """Add what DICOM series say themselves to `metadata`; series that cannot be read go."""
    broken: list[Problem] = []
    for item in items:
        try:
            item["metadata"], doubts = with_tags(item["image"], item["metadata"], schema)
        except DataError as error:
            if left_out is None or len(broken) + 1 == len(items):
                raise
            broken.append(Problem.of_error(item["case"], item["image"], item["image"], error))
            continue
        for doubt in doubts:
            told = f"{source}: case {item['case']!r}: {doubt}"
            warnings.warn(told, MetadataWarning, stacklevel=3)
    names = {problem.case for problem in broken}
    items[:] = [item for item in items if item["case"] not in names]
    if left_out is not None:
        left_out += broken


def _attach_rows(
    items: list[dict[str, Any]],
    file: Path,
    table: ClinicalTable,
    schema: MetadataSchema,
    left_out: list[Problem] | None,
    unknown_trained: bool,
    default: Mapping[str, Any],
) -> None:
    rows, wrong = table.rows, table.problems
    if wrong and not rows:
        refuse(file, [f"{case}: {'; '.join(told)}" for case, told in wrong.items()])
    columns = sorted({column for row in rows.values() for column in row})
    unread = [column for column in columns if column not in schema.names]
    absent = {name: near_name(unread, name) for name in schema.names if name not in columns}
    series = len(absent) < len(schema.names) and all(
        isinstance(item["image"], str) and is_dicom_folder(item["image"]) for item in items
    )
    lacking = [
        name
        for name, near in absent.items()
        if not (series and schema.field(name).tag and not near)
        if near
        or len(absent) == len(schema.names)  # a file of something else
        or (name not in default and (not unknown_trained or schema.field(name).missing == "error"))
    ]
    if lacking:
        near = "".join(f" did you mean {one!r}?" for one in absent.values() if one)
        raise MetadataError(
            f"{file}: no column {listing(lacking)}; it has {listing(columns)}.{near} Give the "
            f"values by {_as_written(schema)}"
        )
    row_of = {item["case"]: rows.get(item["case"], rows.get(item["group"])) for item in items}
    problems = {
        item["case"]: [f"case {item['case']!r}: {'; '.join(wrong[name])}"]
        for item in items
        for name in (item["group"], item["case"])
        if name in wrong and not row_of[item["case"]]
    }
    if not problems and not any(row_of.values()):
        raise MetadataError(
            f"{file}: no row for any of {len(items)} case(s) ({_some(row_of)}); it has rows for "
            f"{_some(rows)}. Name the cases in it as here, or give the values by "
            + _as_written(schema)
        )
    unknown: dict[str, list[str]] = defaultdict(list)
    joined: Counter[tuple[str, str, str]] = Counter()
    for item in items:
        cells = row_of[item["case"]] or {}
        given = {name: cells[name] for name in schema.names if name in cells}
        item["metadata"] = schema.as_declared(given, joined)
    _tell_joined(file, joined)
    _add_tags(items, file, schema, left_out)
    there = {item["case"] for item in items}
    problems = {case: told for case, told in problems.items() if case in there}
    for item in (one for one in items if one["case"] not in problems):
        row = row_of[item["case"]]
        untold = [name for name in default if name in absent and name not in item["metadata"]]
        item["metadata"] |= {name: default[name] for name in untold}
        if found := schema.problems(item["metadata"], item["case"]):
            told = found if row else [f"{problem} (it has no row)" for problem in found]
            problems[item["case"]] = told
            continue
        for field in schema.fields:
            if field.is_missing(item["metadata"].get(field.name)):
                unknown[field.name].append(item["case"])
    if left_out is None or len(problems) == len(items):
        refuse(file, [text for texts in problems.values() for text in texts], MetadataError)
    else:
        for case, texts in problems.items():
            error = MetadataError("; ".join(texts))
            left_out.append(Problem.of_error(case, str(file), file, error))
        items[:] = [item for item in items if item["case"] not in problems]
    for name, cases in unknown.items():
        warnings.warn(
            f"{file}: no {name} for {listing(cases)}; taken as unknown",
            MetadataWarning,
            stacklevel=2,
        )


def _some(cases: Iterable[str]) -> str:
    return listing(cases, SHOWN_CASES)


def _as_written(schema: MetadataSchema) -> str:
    """How values for all images are given, by our command and by MONAI's."""
    given = ",".join(f"{name}=VALUE" for name in schema.names)
    pairs = ", ".join(f"'{name}': 'VALUE'" for name in schema.names)
    return f'--meta {given} (monai.bundle run: --metadata "{{{pairs}}}")'
