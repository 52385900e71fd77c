"""Metadata that DICOM series bring along, beside what tables and commands say of them."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import MetadataError, listing
from metaseg_monai.images.dicom import is_dicom_folder, series_elements
from metaseg_monai.metadata.fields import UNKNOWN, AnyField, Categorical, Continuous, says_nothing
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metadata.tags import JOINED, check_tag, value_of_tag
from metaseg_monai.naming import composed

SAME_NUMBER = 1e-3  # of the width of a field's range; spacings are written with few digits


class Tagged(NamedTuple):
    """What is known of an image with what its DICOM elements say.

    Attributes:
        metadata: raw values by field.
        doubts: what is odd in the elements or disagrees, and what was taken instead, in words.
    """

    metadata: dict[str, Any]
    doubts: list[str]


def with_tags(image: Any, given: Mapping[str, Any], schema: MetadataSchema | None) -> Tagged:
    """Add what a DICOM series says of the fields whose value nobody gave.

    An element that is empty, odd, or not the same in all planes gives no value, and the field is
    missing as its policy has it. A given value, also ``unknown``, always outranks the element.

    Args:
        image: a folder with a series; all else has no elements.
        given: raw values by field, as a table, file or command has them.
        schema: of the metadata; elements are read where a field names a `tag`.

    Raises:
        ConfigError: pydicom is not installed, or a tag cannot be metadata.
        DataError: the series cannot be read.
    """
    tagged = [field for field in schema.fields if field.tag is not None] if schema else []
    is_path = isinstance(image, str | Path)
    if not tagged or not is_path or not is_dicom_folder(image):
        return Tagged(dict(given), [])
    elements = series_elements(image, list(dict.fromkeys(str(one.tag) for one in tagged)))
    metadata, doubts = dict(given), list[str]()
    for field in tagged:
        said = given.get(field.name)
        is_given = not field.is_missing(said) or str(said).strip() == UNKNOWN
        value = _value(field, elements[str(field.tag)], doubts)
        if value is not None and not is_given:
            metadata[field.name] = value
        elif value is not None and not _same(field, said, value):
            doubts.append(
                f"{field.name} is given as {said!r}, but {field.tag} says {value!r}; the given "
                "value is taken"
            )
    return Tagged(metadata, doubts)


def _value(
    field: AnyField, planes_of: Mapping[tuple[str, ...], int], doubts: list[str]
) -> Any | None:
    """The value that all planes agree on; what is wrong with it is added to the doubts."""
    values: list[Any] = []
    texts = {found: count for found, count in planes_of.items() if found}
    for found in texts:
        try:
            value = value_of_tag(field, found)
        except MetadataError as error:
            doubts.append(f"{error}; {field.name} is taken as missing")
            return None
        if not any(_same(field, value, other) for other in values):
            values.append(value)
    if len(values) > 1:
        told = (f"{JOINED.join(found)} in {count} planes" for found, count in texts.items())
        doubts.append(
            f"{field.tag} is not the same in all planes ({listing(told, 5, str)}); {field.name} is "
            "taken as missing"
        )
        return None
    value = values[0] if values else None
    if value is not None and (empty := planes_of.get((), 0)):
        doubts.append(f"{field.tag} is empty in {empty} of {sum(planes_of.values())} planes")
    return value


def _same(field: AnyField, one: Any, other: Any) -> bool:
    """Whether two raw values mean one thing."""
    if one == other:
        return True
    try:
        codes = field.span(one), field.span(other)
    except MetadataError:
        return False
    return bool(np.allclose(*codes, rtol=0, atol=SAME_NUMBER))


class Column(NamedTuple):
    """What series say of a field that is not made yet.

    Attributes:
        cells: of each image; "" where it says nothing, or what is odd.
        doubts: image and what is odd there, in words.
    """

    cells: list[str]
    doubts: list[tuple[int, str]]


def told_by_series(
    images: Sequence[str | Path],
    tags: Mapping[str, str],
    given: Mapping[str, tuple[str, str]],
) -> dict[str, Column]:
    """What the elements of DICOM series say, as the cells of a table.

    Words are those of the elements, several joined by a backslash as in DICOM, in the letter case
    in which they come first; numbers are in the unit that is given.

    Args:
        images: folders with a series; "" for other images.
        tags: the element of each column.
        given: kind and unit of each column; words where there is no kind.

    Raises:
        ConfigError: pydicom is not installed, or an element cannot be metadata.
        MetadataError: likewise, or its unit is another one.
        DataError: a series cannot be read.
    """
    units = {one: unit if kind == "continuous" else None for one, (kind, unit) in given.items()}
    for column, tag in tags.items():  # before a file is read
        check_tag(_provisional(column, tag, units[column], []))
    keywords = list(dict.fromkeys(tags.values()))
    elements = [series_elements(one, keywords) if one else None for one in images]
    found = {}
    for column, tag in tags.items():
        texts = [text for of_series in elements if of_series for text in of_series[tag] if text]
        field = _provisional(column, tag, units[column], texts)
        cells, doubts = list[str](), list[tuple[int, str]]()
        for number, of_series in enumerate(elements):
            odd: list[str] = []
            value = _value(field, of_series[tag], odd) if of_series else None
            shown = f"{value:.9g}" if isinstance(value, float) else value
            cells.append("" if shown is None else shown)
            doubts += [(number, why) for why in odd]
        found[column] = Column(cells, doubts)
    return found


def _provisional(
    column: str, tag: str, unit: str | None, texts: Sequence[tuple[str, ...]]
) -> AnyField:
    """A field that knows all that elements say: the range of their numbers, or their words."""
    name = re.sub(r"[^\w .-]", "_", column).strip(" .-") or "field"
    known: dict[str, Any] = {"name": name, "tag": tag, "missing": "unknown"}
    known |= {"provenance": "acquisition", "availability": "acquisition"}
    if unit is not None:
        field = Continuous(unit=unit, range=(0, 1), **known)
        numbers = set[float]()
        for text in texts:
            with suppress(MetadataError):  # which `_value` tells
                numbers |= {value_of_tag(field, text)} - {None}
        if not numbers:
            return field
        low = min(numbers)
        return Continuous(unit=unit, range=(low, max(max(numbers), low + SAME_NUMBER)), **known)
    words = dict[str, str]()
    for text in texts:
        word = JOINED.join(composed(part) for part in text)
        if not says_nothing(word) and word.casefold() != UNKNOWN:
            words.setdefault(word.casefold(), word)
    several = {word: word for word in words.values() if JOINED in word}
    more: dict[str, Any] = {"tag_values": several} if several else {}
    return Categorical(values=(*words.values(),) or ("none seen",), **known, **more)
