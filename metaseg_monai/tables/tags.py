"""Metadata that DICOM series bring along, beside what tables and commands say of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import MetadataError, listing
from metaseg_monai.images.dicom import is_dicom_folder, series_elements
from metaseg_monai.metadata.fields import UNKNOWN, AnyField
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metadata.tags import JOINED, value_of_tag

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
