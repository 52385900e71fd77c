"""Which columns of a user's own table can be metadata: known of a new image, not from its label."""

import math
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import mannwhitneyu, spearmanr

from metaseg_monai.errors import ConfigError, DataError, did_you_mean, listing
from metaseg_monai.images.dicom import is_dicom_folder
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import (
    KINDS,
    RESERVED,
    UNKNOWN,
    read_number,
    said,
    same_name,
    says_nothing,
    shortens,
    spelled,
)
from metaseg_monai.metadata.fit import FEW, doubts, field_parts, widened
from metaseg_monai.metadata.tags import JOINED
from metaseg_monai.rows import WITH_COMMA
from metaseg_monai.sharing.own_table import (
    IN_MM,
    MOST_TOLD,
    NONE,
    NOTHING,
    OwnTable,
    plain_name,
    refuse_empty,
    tells_individuals,
)
from metaseg_monai.tables.find import THRESHOLD
from metaseg_monai.tables.select import FOREGROUND
from metaseg_monai.tables.tags import told_by_series

UNITS = ("mm", "cm", "um", "years", "months", "days", "kg", "g", "ms", "s", "hz", "kvp", "ma", "t")
MEASURED = {  # units that may be something else: which quantities have them
    "t": {"field", "strength", "magnet", "b0"},
    "g": {"weight", "mass"},
    "s": {"time", "duration", "delay", "exposure"},
    "ma": {"current", "tube"},
}
FEW_NUMBERS = 6  # whole numbers of so few values are taken as names
MOST_NAMES = 30  # of a category
ODD_SHARE = 5  # a quantity has one cell in so many, at most, that is no number
ASSOCIATED = 0.8  # rank correlation with what the label says from which a column is left out
BY_CHANCE = 1e-4  # probability above which an association may be
PERHAPS_CHANCE = 1e-3  # above which nothing is told of names that divide a measure
ENOUGH = 10  # rows, or groups, that an association is judged by
FEW_ALIKE = 4  # different values that it takes to say that a column of fewer is a measure
FEW_IN_ORDER, IN_ORDER = 6, 0.95  # rows, and rank correlation, from which fewer are looked at
FEW_EMPTY = 3  # empty labels, and others, that it takes to say that a column tells them apart
SPACING_TOLERANCE = 0.02  # of the thickness of a slice, as tables round it
MARGIN = 0.2  # of a range at either end, for cases beyond those of the table
COUNT, NO_UNIT = "count", "unit to be named"
UNIT_OF = {"age": "years", "index": COUNT, "count": COUNT, "number": COUNT}
UNIT_OF |= {"fraction": "fraction", "ratio": "fraction", "share": "fraction"}
OF_PERSON, YEARS_APART = {"sex", "gender", "race", "ethnicity"}, 15  # what a person has one of
SENTINELS = {float("9" * digits) for digits in range(1, 7)}  # with either sign, far from others
OF_GRID = "the size of a voxel"
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d+)?")
_CHANNELS = re.compile(r"(^|_)channels?$|^channel_count$", re.IGNORECASE)
OF_CODE = ("$", "@", "%")  # text that begins so MONAI takes as its language
_OUTCOME = re.compile(
    r"(^|[\W_])(death|dead|died|deceased|survival|outcome|recurrence|relapse|follow_?up|recist|"
    r"vital_status|treatment_response|response_to_\w+)(?![a-z])|^(os|pfs|dfs)(_(days|months|years|"
    r"time|event|status))?$",
    re.I,
)
_DOUBTFUL = re.compile(  # at the end of a name: stage_x and reader_software are something else
    r"(^|_)(diagnos[ei]s|(?<!microscope_)(?<!motor_)stage|radiologist|reader|rater|annotator|"
    r"(?<!injected_)(?<!contrast_)(?<!bolus_)volume)(_(id|ml|cc|cm3|mm3))?$"
)
_PLACE = re.compile(r"(^|_)(location|laterality|side|lobe|quadrant|hemisphere)(_|$)")
_OF_IMAGE = re.compile(r"(^|_)(stain\w*|image|img|scan|quality|artefacts?|artifacts?|motion)(_|$)")
_OF_SLICES = re.compile(r"(^|_)(slice_?)?(thickness|spacing)(_|$)|^slice_mm$")
_TISSUE = re.compile(  # what a laboratory finds in tissue that was taken out
    r"(^|[\W_])(grade|grading|gleason|histolog\w*|patholog\w*|mutation\w*|mutated|codeletion|idh\d?|"
    r"mgmt|ki67|methylation|who_grade|biopsy_(result|finding|score)s?|rnaseq|mirna|rppa|cn_?cluster|(onco|co)\w*_?cluster|subtype|p[tnm]_?stage)"
    r"(?![a-z])|^who$",
    re.I,
)


def mend_cells(found: OwnTable, fields: str | Sequence[str] | None) -> None:
    """Make one of what a column writes in several ways, in the table as it is read and copied.

    Of a quantity the few cells that are no numbers become unknown. Names, and numbers taken as
    names, that differ in letter case, blanks or how a number is written alone become the most
    frequent of them, but where a column is given as categorical. Both are told.

    Args:
        found: the table, whose `rows` are changed; the user's file is not.
        fields: as of `infer_schema`.
    """
    given, beside = _given(found, fields)
    taken = _taken(found)
    for column in found.header if beside or fields is None else given:
        kind = given.get(column, ("", ""))[0]
        if column in taken:
            continue
        _clear_codes(found, column, kind)
        cells = [said(one[column]) for one in found.rows]
        odd = _no_numbers(column, kind, cells)
        few = 0 < ODD_SHARE * len(odd) <= sum(map(bool, cells))
        if kind in ("", "continuous") and few:
            told = [f"row {found.numbers[row]}: {cells[row]!r}" for row in odd]
            found.inferred[f"no number in {column}"] = (
                listing(told, 8, str),
                f"unknown in the copy of the table, as the other {_others(cells, odd)} cells are "
                "numbers; write numbers, or take all as names: --fields "
                + shlex.quote(f"+{column}:categorical"),
            )
            for row in odd:
                found.rows[row][column] = UNKNOWN
        elif kind in ("", "ordinal") and not odd:
            _join_writings(found, column)


def _clear_codes(found: OwnTable, column: str, kind: str) -> None:
    """Make unknown what stands for nothing: words such as ?, and numbers far from all others."""
    if kind in ("categorical", "multilabel", "vector"):
        return
    cells = [said(one[column]) for one in found.rows]
    codes = [row for row, cell in enumerate(cells) if cell.casefold() in NOTHING]
    numbers = {
        row: number for row, one in enumerate(cells) if (number := read_number(one)) is not None
    }
    plain = [one for one in numbers.values() if abs(one) not in SENTINELS]
    if len({*plain}) > FEW_NUMBERS and 2 * len(plain) > len(numbers):
        low, high = min(plain), max(plain)
        far = high - low
        codes += [row for row, one in numbers.items() if not low - far <= one <= high + far]
    if not codes or len(codes) == sum(map(bool, cells)):
        return
    told = [f"row {found.numbers[row]}: {cells[row]!r}" for row in sorted(codes)]
    found.inferred[f"nothing said in {column}"] = (
        listing(told, 8, str),
        "taken as missing, and unknown in the copy of the table; leave such cells empty, as "
        f"predict asks for, or keep them: --fields {shlex.quote(f'+{column}:categorical')}",
    )
    for row in codes:
        found.rows[row][column] = UNKNOWN


def read_elements(found: OwnTable, fields: str | Sequence[str] | None) -> None:
    """Fill the empty cells of columns whose field names a DICOM element, as the series tell it.

    A column that the table lacks is made. The user's file is not changed.

    Args:
        found: the table, whose `rows` are changed.
        fields: as of `infer_schema`.

    Raises:
        ConfigError: an element is none, or cannot be metadata.
        MetadataError: likewise.
        DataError: no image is a series, or one cannot be read.
    """
    given, _ = _given(found, fields)
    if not found.tags:
        return
    for column, tag in found.tags.items():
        if given[column][0] not in ("", "categorical", "continuous"):
            raise ConfigError(
                f"--fields {column}={tag}: elements are read as categorical or continuous, not as "
                f"{given[column][0]}; write such a field into schema.json"
            )
    series = [
        paths[0] if len(paths := found.image_paths(row)) == 1 and is_dicom_folder(paths[0]) else ""
        for row in range(len(found.rows))
    ]
    if not any(series):
        raise DataError(
            f"{found.file}: no image of column {listing(found.images)} is a folder with a DICOM "
            f"series, so that {listing([f'{c}={t}' for c, t in found.tags.items()], word=str)} has "
            "nothing to be read of; name columns alone in --fields"
        )
    told: list[str] = []
    for column, one in told_by_series(series, found.tags, given).items():
        if column not in found.header:
            found.header.append(column)
            found.others.append(column)
        empty = [row for row, cells in enumerate(found.rows) if says_nothing(cells.get(column, ""))]
        for row in empty:
            found.rows[row][column] = one.cells[row]
        filled = sum(one.cells[row] != "" for row in empty)
        found.inferred[f"{column} of series"] = (
            f"{filled} of {len(found.rows)} cells by {found.tags[column]}",
            "the table says nothing there; in the copy of the table, and read by predict, too",
        )
        told += [f"row {found.numbers[row]}: {why}" for row, why in one.doubts if row in empty]
    if told:
        found.inferred["odd elements"] = listing(told, MOST_TOLD, str), "of DICOM series"


def _of_tag(found: OwnTable, column: str) -> dict[str, Any]:
    """The settings of a field by which predict finds its value in a DICOM series."""
    if column not in found.tags:
        return {}
    words = {cell: cell for cell in _present(found.rows, column) if JOINED in cell}
    return {"tag": found.tags[column], **({"tag_values": words} if words else {})}


def _given(
    found: OwnTable, fields: str | Sequence[str] | None
) -> tuple[dict[str, tuple[str, str]], bool]:
    """Kind and unit by column, as they are given, and whether they stand beside what is inferred.

    Raises:
        ConfigError: a column is not there, is no metadata, or cannot be named.
    """
    refuse_empty("fields", fields)
    taken = _taken(found)
    specs = fields.split(",") if isinstance(fields, str) else list(fields or ())
    specs = [] if specs == [NONE] else [one.strip() for one in specs]
    more = [one.removeprefix("+") for one in specs if one.startswith("+")]
    if more and len(more) < len(specs):
        raise ConfigError(
            f"fields={','.join(specs)}: a + before each takes them beside what is inferred, before "
            "none takes them alone; write one or the other"
        )
    raw = fields if isinstance(fields, str) else ",".join(fields or ())
    if divided := [one for one in found.header if _divided(one) and one in raw]:
        raise ConfigError(
            f"{found.file}: column {divided[0]!r} cannot be named, as --fields divides at , : and "
            "=; rename it in the table"
        )
    parts = [field_parts(one) for one in more or specs]
    given = {column: (kind, unit) for column, kind, unit, _ in parts}
    found.tags = {column: tag for column, _, _, tag in parts if tag}
    for column in given:
        if column not in found.header and column not in found.tags:
            raise ConfigError(
                f"{found.file}: no column {column!r}; {did_you_mean(column, found.header)}"
            )
        if column in taken:
            raise ConfigError(
                f"{found.file}: column {column!r} cannot be metadata: {taken[column]}; leave it "
                "out of --fields, or copy it under another name"
            )
    return given, bool(more)


def names_alike(found: OwnTable) -> list[str]:
    """Columns of few names that may be metadata, by which splits are made alike."""
    taken = _taken(found)
    every = range(len(found.rows))
    return [
        column
        for column in found.header
        if column not in taken
        and _kind(column, _present(found.rows, column)) == "categorical"
        and _no_metadata(found, every, column) is None
    ]


def infer_schema(
    found: OwnTable, fields: str | Sequence[str] | None, training: Collection[int]
) -> tuple[MetadataSchema, dict[str, str], dict[str, str]]:
    """The schema of the given fields, or of all columns that can be metadata.

    Args:
        found: the table, its labels scanned.
        fields: column[:kind[:unit]]; with a + before each of them, beside what is inferred.
        training: the rows that ranges, names and kinds are read of; what goes with labels is
            judged by all rows, as that only leaves columns out.

    Returns:
        The schema, the column of each field, and why others are left out.
    """
    given, beside = _given(found, fields)
    taken = _taken(found)
    rows = [found.rows[row] for row in sorted(training)]
    unused = [one for one in found.of_splits if one not in (found.split_column, found.fold_column)]
    left_out = {
        one: f"tells splits, which are others; --split {shlex.quote(one)} takes it"
        for one in unused
    }
    settings, names_of, alike, late, few = [], {}, [], list[str](), list[str]()
    for column in found.header if beside or fields is None else given:
        kind, unit = given.get(column, ("", ""))
        if column in taken:
            continue
        mixed = None if kind else _mixed(found, column)
        if mixed and column in given:
            raise ConfigError(f"{found.file}: column {column!r}: {mixed}")
        if mixed:
            left_out[column] = mixed
            continue
        why = None if column in given else _no_metadata(found, sorted(training), column)
        present = _present(rows, column)
        if why and present and all(map(WITH_COMMA.fullmatch, present)):
            why = f"numbers with commas, such as {present[0]!r}: write points, or no thousands"
        if why:
            why = re.sub("[;,] leave (it|the field) out.*$", "", why)
            if _divided(column):
                step = "; rename it to take it all the same: --fields divides at , : and ="
            else:
                step = f"; --fields {shlex.quote(f'+{column}')} takes it all the same"
            left_out[column] = why + ("" if why.endswith("otherwise") else step)
            continue
        goes = _goes_along(found, column, range(len(found.rows)))
        if goes is None and len(_present(found.rows, column)) < ENOUGH:
            few.append(column)
        if goes is not None and not goes.computed:
            alike.append(f"{column} ({goes.told})")
        elif _DOUBTFUL.search(plain_name(column)) and not _known_late(column):
            alike.append(f"{column} (by its name)")
        elif _PLACE.search(plain_name(column)) and not _known_late(column):
            alike.append(f"{column} (says where the label is; fine if known before)")
        computed = goes is not None and goes.computed
        settings.append(_field(rows, column, kind, unit, computed) | _of_tag(found, column))
        if _known_late(column):
            late.append(column)
        names_of[settings[-1]["name"]] = column
    if twice := [name for name, n in Counter(one["name"] for one in settings).items() if n > 1]:
        raise ConfigError(
            f"{found.file}: several columns make the field {listing(twice)}; rename one"
        )
    if alike:
        found.inferred["to look at"] = (
            ", ".join(alike),
            "known before anybody drew a mask, as a scanner is? else leave it out: name the "
            "others, --fields a,b",
        )
    if few:
        found.inferred["not judged"] = (
            listing(few, MOST_TOLD, str),
            f"fewer than {ENOUGH} rows say something there, too few to tell whether it "
            "goes with the labels: is it known before anybody draws a mask?",
        )
    if late:
        found.inferred["known late"] = (
            listing(late, MOST_TOLD, str),
            "post-operative by their names, so that predict refuses them; mend availability in "
            "schema.json where they are known before",
        )
    cells = {column: sorted({*_present(rows, column)}) for column in names_of.values()}
    codes = [
        f"{column} {listing(sorted(cells[column], key=float), 8, str)}"
        for one in settings
        if one["kind"] == "categorical"
        and not given.get(column := names_of[one["name"]], ("",))[0]
        and all(read_number(cell) is not None for cell in cells[column])
    ]
    if codes:
        found.inferred["codes"] = (
            "; ".join(codes),
            "few whole numbers, taken as names, in no order: for words write them in the table, as "
            "predict reads the same; a quantity is --fields +COLUMN:continuous:UNIT, steps are "
            "--fields +COLUMN:ordinal",
        )
    if apart := [told for column in names_of.values() if (told := _beside_header(found, column))]:
        found.inferred["not as in headers"] = (
            "; ".join(apart),
            "images are resampled by their headers, the network is told the column: right where "
            "slices overlap or have gaps, else mend the cells or the files, or --fields without it",
        )
    named = [names_of[one["name"]] for one in settings if one["kind"] == "categorical"]
    if commas := [one for one in named if all(map(WITH_COMMA.fullmatch, cells[one]))]:
        found.inferred["numbers with commas"] = (
            listing([f"{one} ({cells[one][0]})" for one in commas], MOST_TOLD, str),
            "taken as names: where they are quantities, write points for decimals and no commas "
            "for thousands",
        )
    if same := [told for column in named for told in _look_like_one(found, column)]:
        found.inferred["look like one value"] = (
            "; ".join(same),
            "if they are; each is a value of its own as long as the table writes both",
        )
    if apart := [told for column in names_of.values() if (told := _differ(found, column))]:
        found.inferred["differs within a group"] = (
            "; ".join(apart),
            "a person has one: were rows mixed up, or is the group of several?",
        )
    if THRESHOLD in names_of:
        raise ConfigError(
            f"{found.file}: column {names_of[THRESHOLD]!r}: applications set the mask's threshold "
            "by this name, and could not set the field; rename the column, or take others: --fields"
        )
    if not settings:
        why = "as asked for" if fields is not None else "no column can be metadata"
        found.inferred["metadata"] = (None, f"{why}: the variants none and se, no others")
    return MetadataSchema(settings), names_of, left_out


def _differ(found: OwnTable, column: str) -> str:
    """The rows of groups that say different things of a person; nothing where none does."""
    words = plain_name(column).split("_")
    far = YEARS_APART if "age" in words else 0.0 if OF_PERSON & {*words} else None
    if far is None or found.group is None:
        return ""
    of_group: dict[str, list[int]] = defaultdict(list)
    for row, cells in enumerate(found.rows):
        if not says_nothing(cells[column]):
            of_group[found.groups[row]].append(row)
    told = []
    for group, rows in of_group.items():
        texts = [found.rows[row][column].strip() for row in rows]
        numbers = [read_number(text) for text in texts]
        known = [one for one in numbers if one is not None]
        several = len({text.casefold() for text in texts}) > 1
        if several and (not far or max(known, default=0) - min(known, default=0) > far):
            places = listing([found.numbers[row] for row in rows], MOST_TOLD, str)
            values = listing(dict.fromkeys(texts), MOST_TOLD, str)
            told.append(f"{column} {values} in rows {places} of {group}")
    return listing(told, MOST_TOLD, str)


def _divided(column: str) -> bool:
    """Whether a name would be taken apart in --fields."""
    return bool({",", ":", "="} & {*column})


def not_in_training(
    found: OwnTable, schema: MetadataSchema, names_of: Mapping[str, str], training: Collection[int]
) -> dict[tuple[int, str], str]:
    """Cells of other rows that the schema does not know: {(row, column): what it says}."""
    known = {
        one.name: {said(found.rows[row][names_of[one.name]]) for row in training}
        for one in schema.fields
    }
    return {
        (row, names_of[one.name]): cell
        for row in range(len(found.rows))
        for one in schema.fields
        if (cell := said(found.rows[row][names_of[one.name]])) not in known[one.name]
        and MetadataSchema([one]).problems({one.name: cell})
    }


def _taken(found: OwnTable) -> dict[str, str]:
    """The columns that are something else than metadata, and what."""
    taken = dict.fromkeys(found.of_paths, "paths of files")
    taken |= dict.fromkeys(found.images, "the image") | {found.label: "the label"}
    taken |= dict.fromkeys(found.of_place, "the size of pixels, or the place in a volume")
    taken |= dict.fromkeys(found.group_columns, "the group, which tells patients apart")
    taken |= dict.fromkeys(found.of_splits, "it is not used")
    taken[FOREGROUND] = "which planes of a volume have foreground"
    for column, what in ((found.split_column, "splits"), (found.fold_column, "folds")):
        if column is not None:
            taken[column] = f"the {what} as the table has them"
    return taken


def _no_metadata(found: OwnTable, training: Sequence[int], column: str) -> str | None:
    """Why a column is left out, or None."""
    rows, groups = [found.rows[row] for row in training], [found.groups[row] for row in training]
    present = _present(rows, column)
    if not present:
        return "no value at all"
    if re.fullmatch(r"\W*|Unnamed: \d+", column):
        return "has no name, as a counter of rows that was saved along; name it if it is none"
    if column.strip().casefold() == THRESHOLD:
        return "applications set the mask's threshold by this name; rename it"
    dotted = [one for one in present if "." in one]
    if found.decimal_commas and dotted and all(map(_THOUSANDS.fullmatch, dotted)):
        return (
            f"thousands or decimals, such as {dotted[0]!r}, in a table of decimal commas: write "
            "1250 or 1,25"
        )
    kind = _kind(column, present)
    if kind == "categorical" and (code := [one for one in present if one.startswith(OF_CODE)]):
        return f"{code[0]!r} begins as MONAI's language does; write it otherwise"
    if told := doubts(rows, column, kind, present, groups) or _counts(found, column):
        return told[0]
    if tells_individuals(column):
        return "tells individuals, by its name, so that a network would learn them by heart"
    if kind == "categorical" and len(set(present)) > MOST_NAMES:
        return f"{len(set(present))} different texts, which nobody has seen often enough"
    if late := _known_late(column):
        return late
    for axis in range(2):
        sides = [shape[axis] for shape in found.shapes]
        if [read_number(cells[column]) for cells in found.rows] == sides:
            return "the size of the image in pixels, which it shows by itself"
    if _CHANNELS.search(column) and {*present} <= {"1", "2", "3", "4"}:
        return "the number of the image's channels by its name, which it shows by itself"
    goes = _goes_along(found, column, range(len(found.rows)))
    return goes.told if goes is not None and goes.computed else None


def _counts(found: OwnTable, column: str) -> list[str]:
    """Whether a column counts the rows of the whole table, of which training rows have a part."""
    numbers = [read_number(cells[column]) for cells in found.rows]
    known = [one for one in numbers if one is not None and one.is_integer()]
    if len(known) < FEW or len({*known}) < len(numbers):
        return []
    if max(known) - min(known) != len(numbers) - 1:
        return []
    return [f"counts the rows, from {min(known):.0f} to {max(known):.0f}"]


def _no_numbers(column: str, kind: str, cells: Sequence[str]) -> list[int]:
    """The rows whose cells are no numbers, where the numbers alone would be a quantity."""
    numbers = [text for text in cells if read_number(text) is not None]
    unit = _unit(column) not in (NO_UNIT, COUNT) or kind == "continuous"
    if not numbers or not (unit or _kind(column, numbers) == "continuous"):
        return []
    return [row for row, text in enumerate(cells) if text and read_number(text) is None]


def _others(cells: Sequence[str], odd: Collection[int]) -> str:
    known = sum(map(bool, cells))
    return f"{known - len(odd)} of {known}"


def _mixed(found: OwnTable, column: str) -> str | None:
    """That many cells of a column of numbers are none, and which; or None."""
    cells = [said(one[column]) for one in found.rows]
    odd = _no_numbers(column, "", cells)
    if not odd or 2 * len(odd) > sum(map(bool, cells)):
        return None
    told = listing([f"row {found.numbers[row]}: {cells[row]!r}" for row in odd], 5, str)
    step = shlex.quote(f"+{column}:categorical")
    return (
        f"{_others(cells, odd)} cells are numbers, and {told} is none; mend or "
        f"empty these cells, or take all as names: --fields {step}"
    )


def _join_writings(found: OwnTable, column: str) -> None:
    """Write each name of a column as it is written most often, and tell the others."""
    ways: dict[str, Counter[str]] = defaultdict(Counter)
    present = _present(found.rows, column)
    if not present or _kind(column, present) == "continuous":
        return
    for text in present:
        ways[spelled(text)][text] += 1
    if len(ways) > MOST_NAMES:
        return
    kept = {key: ways_of.most_common(1)[0][0] for key, ways_of in ways.items()}
    others: dict[str, Counter[str]] = defaultdict(Counter)
    for cells in found.rows:
        if says_nothing(raw := cells[column]) or raw == (name := kept[spelled(raw)]):
            continue
        others[name][raw] += 1
        cells[column] = name
    if others:
        told = []
        for name, counts in others.items():
            ways_of = listing([f"{raw!r} ({n})" for raw, n in counts.items()], 8, str)
            told.append(f"{ways_of} -> {name!r}")
        step = f"; --fields {shlex.quote(f'+{column}:categorical')} keeps them apart"
        found.inferred[f"joined in {column}"] = (
            "; ".join(told),
            "they differ in letter case, blanks around or how a number is written alone; in the "
            f"copy of the table, and read so by predict{'' if _divided(column) else step}",
        )


def _look_like_one(found: OwnTable, column: str) -> list[str]:
    """Names of a column that may mean one value, each with the edit that makes them one."""
    rows: dict[str, list[int]] = defaultdict(list)
    for number, cells in zip(found.numbers, found.rows, strict=True):
        if not says_nothing(cells[column]):
            rows[cells[column].strip()].append(number)
    pairs = [
        (one, same) for one in rows if (same := same_name(one, [two for two in rows if two != one]))
    ]
    for short in rows:
        whole = [one for one in rows if shortens(short, one)]
        pairs += [(short, whole[0])] if len(whole) == 1 else []
    told = []
    for pair in dict.fromkeys(tuple(sorted(pair)) for pair in pairs):
        kept, other = sorted(pair, key=lambda one: -len(rows[one]))
        at = listing(rows[other], 5, str)
        told.append(f"{column} {other!r} and {kept!r} (write {kept!r} in row {at} of the file)")
    return told


def _beside_header(found: OwnTable, column: str) -> str:
    """In how many volumes a column of slices' thickness is no spacing of the file, in words."""
    if not _OF_SLICES.search(plain_name(column)) or _unit(column) not in ("mm", NO_UNIT):
        return ""
    known, odd = 0, list[str]()
    for number, cells, steps in zip(found.numbers, found.rows, found.spacings, strict=True):
        told = read_number(said(cells[column]))
        if told is None or steps is None or len(steps) < 3:
            continue
        known += 1
        if min(abs(told - one) for one in steps) > SPACING_TOLERANCE * max(told, *steps):
            header = " x ".join(f"{one:.3g}" for one in steps)
            odd.append(f"row {number}: {told:g}, header {header}")
    return f"{column} of {len(odd)} in {known} volumes ({listing(odd, 3, str)})" if odd else ""


def _known_late(column: str) -> str | None:
    """Why nobody knows a column when an image is taken, by its name, or None.

    >>> _known_late("tumorGrade"), _known_late("histology_stain")
    ('found in tissue, by its name, after the image was taken', None)
    """
    name = plain_name(column)
    if _OUTCOME.search(name):
        return "an outcome by its name, which nobody knows when an image is taken"
    if _TISSUE.search(name) and not _OF_IMAGE.search(name):
        return "found in tissue, by its name, after the image was taken"
    return None


def _present(rows: Iterable[Mapping[str, str]], column: str) -> list[str]:
    return [cells[column].strip() for cells in rows if not says_nothing(cells[column])]


def _kind(column: str, present: Sequence[str]) -> str:
    numbers = [read_number(one) for one in present]
    if any(one is None for one in numbers):
        return "categorical"
    whole = all(one is not None and one.is_integer() for one in numbers)
    few = whole and len(set(numbers)) <= FEW_NUMBERS and _unit(column) in (NO_UNIT, COUNT)
    return "categorical" if few or len(set(numbers)) < 2 else "continuous"


def _field(
    rows: Sequence[Mapping[str, str]], column: str, kind: str, unit: str, computed: bool
) -> dict[str, Any]:
    present = _present(rows, column)
    kind = kind or _kind(column, present)
    if kind != "continuous" and (code := [one for one in present if one.startswith(OF_CODE)]):
        raise ConfigError(
            f"column {column!r}: {code[0]!r} begins as MONAI's language does, so that bundles "
            "would run it; write it otherwise"
        )
    proposed, told = KINDS[kind].propose(column, present), ""
    numbers = kind == "categorical" and all(read_number(one) is not None for one in present)
    if kind == "continuous":
        proposed |= {"unit": unit or _unit(column), "out_of_range": "flag"}
        proposed["range"], told = _ranged(present, proposed["range"], proposed["unit"])
    name = re.sub(r"[\s_]*[^\w .\-]+[\s_]*", "_", column).strip(" _.-") or "field"
    return {
        "kind": kind,
        "name": f"{name}_value" if name in RESERVED else name,
        "description": "; ".join(
            filter(
                None,
                [
                    told,
                    f"{len(rows) - len(present)} of {len(rows)} training rows say nothing"
                    if len(present) < len(rows)
                    else "",
                    "its few numbers are taken as names" if numbers else "",
                ],
            )
        ),
        "provenance": "label-derived"
        if computed
        else "clinical prior"  # whoever says where it is has seen it
        if _PLACE.search(plain_name(column))
        else "acquisition",
        "availability": "post-operative" if _known_late(column) else "acquisition",
        "missing": "unknown",
        **proposed,
    }


def _ranged(
    present: Sequence[str], proposed: tuple[float, float], unit: str
) -> tuple[tuple[float, float], str]:
    """The range of a quantity with its margin, and what of it was seen, in words.

    What is whole in every row stays so, and fractions stay between 0 and 1. What was seen is told
    as rounded as it was proposed: a schema goes with the model, and its ends are single patients.
    """
    seen = [float(one) for one in present]
    low, high = widened(proposed, MARGIN, "linear")
    least, most = proposed
    if all(one.is_integer() for one in seen):
        low, high = float(math.floor(low)), float(math.ceil(high))
    if unit == "fraction" and least >= 0 and most <= 1:
        low, high = max(low, 0.0), min(high, 1.0)
    return (low, high), (
        f"{least:g} to {most:g} seen in training rows, the rest is a margin for others"
    )


def _unit(column: str) -> str:
    """The unit that the name of a quantity ends with.

    >>> _unit("slice_thickness_mm"), _unit("field_strength_t"), _unit("clinical_t") == NO_UNIT
    ('mm', 't', True)
    """
    words = [one for one in re.split(r"[\W_]+", column.lower()) if one]
    if told := [UNIT_OF[one] for one in words if one in UNIT_OF]:
        return told[0]
    if len(words) < 2 or words[-1] not in UNITS:
        return NO_UNIT
    plain = words[-1] not in MEASURED or MEASURED[words[-1]] & {*words[:-1]}
    return words[-1] if plain else NO_UNIT


class Link(NamedTuple):
    """That a column goes with what labels say, in words, and whether as if computed from it."""

    told: str
    computed: bool


def _goes_along(found: OwnTable, column: str, training: Collection[int]) -> Link | None:
    """Whether a column goes with what the labels say by more than chance.

    Its values are held against what the label of each row says. A column that says one thing in
    each group is held against the largest and the sum in the group, which counts once.
    """
    every = sorted(training)
    without = [says_nothing(found.rows[row][column]) for row in every]
    blank = [size == 0 for size in found.sizes()[every].tolist()]
    if without == blank and min(sum(blank), len(blank) - sum(blank)) >= FEW_EMPTY:
        return Link("says nothing just where labels are empty, as if computed from them", True)
    rows = [row for row in every if not says_nothing(found.rows[row][column])]
    texts = [found.rows[row][column].strip() for row in rows]
    of_group: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        of_group[found.groups[row]].append(place)
    measures = {what: values[rows] for what, values in found.said_by_labels.items()}
    if (sizes := found.voxel_sizes) is not None:
        measures[OF_GRID] = sizes[rows]
    empty, unit = found.sizes()[rows] == 0, "rows"
    once = all(len({texts[place] for place in one}) == 1 for one in of_group.values())
    if once and len(of_group) < len(rows):
        places = list(of_group.values())
        measures = {
            f"{what} ({how} of its group)": np.array([join(values[one]) for one in places])
            for what, values in measures.items()
            for how, join in (("largest", np.max), ("sum", np.sum))
        }
        empty, unit = np.array([empty[one].all() for one in places]), "groups"
        texts = [texts[one[0]] for one in places]
    if len(set(texts)) < 2:
        return None
    grid = [measures.pop(what) for what in [*measures] if what.startswith(OF_GRID)]
    with_grid = max((_rank(texts, one) for one in grid), default=0.0)
    if len(texts) < ENOUGH:
        return _few_go_along(texts, measures, unit, with_grid)
    both = min(int(empty.sum()), int((~empty).sum())) >= FEW_EMPTY
    kinds: dict[str, set[bool]] = defaultdict(set)
    for text, one in zip(texts, empty.tolist(), strict=True):
        kinds[text].add(one)
    if both and 3 * len(kinds) <= len(texts) and all(len(one) == 1 for one in kinds.values()):
        return Link("tells which labels are empty, as if computed from them", True)
    weaker = None
    for what, known in measures.items():
        if len(set(known.tolist())) < 2 or (goes := _goes_with(texts, known)) is None:
            continue
        rank, computed = goes
        if not (computed and IN_MM in what) and abs(rank) <= with_grid:
            continue  # thick slices have fewer voxels, which says nothing of the label
        told = f"goes with {what}, rank correlation {rank:.2f} in {len(known)} {unit}"
        if computed:
            return Link(f"{told}, as if computed from it: at prediction nobody knows it", True)
        weaker = weaker or Link(told, False)
    return _goes_with_place(found, column, rows) or weaker


def _goes_with_place(found: OwnTable, column: str, rows: Sequence[int]) -> Link | None:
    """Whether a quantity goes with where the label lies, of rows whose label is not empty."""
    holding = [row for row in rows if found.places[row] is not None]
    numbers = [read_number(found.rows[row][column]) for row in holding]
    if len(holding) < ENOUGH or None in numbers or len({*numbers}) <= FEW_NUMBERS:
        return None
    for axis in range(len(found.places[holding[0]] or ())):
        known = [(found.places[row] or ())[axis] for row in holding]
        if len({*known}) < 2:
            continue
        tested = spearmanr(numbers, known)
        if abs(tested.statistic) >= IN_ORDER and tested.pvalue < BY_CHANCE:
            rank = f"rank correlation {tested.statistic:.2f} in {len(holding)} rows"
            told = f"goes with where the label lies, {rank}, as if computed from it"
            return Link(f"{told}: at prediction nobody knows it", True)
    return None


def _rank(texts: Sequence[str], known: np.ndarray) -> float:
    """How closely a column goes with a measure, from 0 to 1; 0 where that may be chance."""
    if len(texts) >= ENOUGH:
        goes = _goes_with(texts, known)
        return 0.0 if goes is None else abs(goes[0])
    numbers = [read_number(one) for one in texts]
    if None in numbers or len(set(known.tolist())) < 2:
        return 0.0
    return abs(float(spearmanr(numbers, known).statistic))


def _few_go_along(
    texts: Sequence[str], measures: Mapping[str, np.ndarray], unit: str, with_grid: float
) -> Link | None:
    """What can be told of a column of fewer than `ENOUGH` values: whether it is the measure itself.

    A measure in another unit is as if computed from it; one in the same order is to be looked at.
    """
    told = [read_number(text) for text in texts]
    numbers = np.array([math.nan if one is None else one for one in told])
    if np.isnan(numbers).any() or len(set(numbers.tolist())) < FEW_ALIKE:
        return None
    for what, known in measures.items():
        if (known <= 0).any() or (numbers <= 0).any():
            continue
        if np.ptp(np.log(numbers / known)) < SPACING_TOLERANCE < np.ptp(np.log(known)):
            why = f"is {what} times a constant in {len(texts)} {unit}, as if computed from it"
            return Link(f"{why}: at prediction nobody knows it", True)
    for what, known in measures.items():
        if len(texts) < FEW_IN_ORDER or len(set(known.tolist())) < FEW_ALIKE:
            continue
        rank = float(spearmanr(numbers, known).statistic)
        if abs(rank) >= IN_ORDER and (IN_MM in what or abs(rank) > with_grid):
            return Link(f"goes with {what}, rank {rank:.2f} in {len(texts)} {unit}", False)
    return None


def _goes_with(texts: Sequence[str], known: np.ndarray) -> tuple[float, bool] | None:
    """The rank correlation of a column with a measure if it is no chance, else None.

    Of numbers it is Spearman's; of names, and of few numbers, also the largest rank-biserial
    correlation of one of them against the rest. Names, and few numbers that stand for them, may
    well go with a measure, as kinds of images do; they are as if computed from it where they divide
    it into ranges, also where some of them have too few rows to be held against the rest.
    """
    numbers = [read_number(one) for one in texts]
    if _divide(texts, known) and (chance := _chance_to_divide(texts)) < PERHAPS_CHANCE:
        order = {text: at for at, text in enumerate(texts[one] for one in np.argsort(known))}
        places = [order[one] for one in texts] if None in numbers else numbers
        return float(spearmanr(places, known).statistic), chance < BY_CHANCE
    if None not in numbers and len(set(numbers)) > 1:
        tested = spearmanr(numbers, known)
        if abs(tested.statistic) >= ASSOCIATED and tested.pvalue < BY_CHANCE:
            few = len(set(numbers)) <= FEW_NUMBERS
            return float(tested.statistic), not few or _divide(texts, known)
        if len(set(numbers)) > FEW_NUMBERS:
            return None
    for name in sorted(set(texts)):
        inside = np.array([one == name for one in texts])
        if min(inside.sum(), (~inside).sum()) < FEW_EMPTY:
            continue
        compared = mannwhitneyu(known[inside], known[~inside])
        pairs = int(inside.sum()) * int((~inside).sum())
        biserial = 2 * float(compared.statistic) / pairs - 1
        if abs(biserial) >= ASSOCIATED and compared.pvalue < BY_CHANCE:
            return biserial, _divide(texts, known)
    return None


def _divide(texts: Sequence[str], known: np.ndarray) -> bool:
    """Whether the values of each name lie in a range in which none of another name lies."""
    order = np.argsort(known, kind="stable")
    runs = 1 + sum(texts[one] != texts[next_] for one, next_ in pairwise(order))
    values = [{known[at] for at, text in enumerate(texts) if text == one} for one in set(texts)]
    return runs == len(values) and sum(map(len, values)) == len(set(known.tolist()))


def _chance_to_divide(texts: Sequence[str]) -> float:
    """The probability that names, dealt out by chance, divide as many values into ranges.

    >>> _chance_to_divide(["a", "a", "b", "b"])  # aabb or bbaa of six orders
    0.3333333333333333
    """
    counts = [*Counter(texts).values()]
    orders = math.factorial(len(texts)) // math.prod(map(math.factorial, counts))
    return math.factorial(len(counts)) / orders
