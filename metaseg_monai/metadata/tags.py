"""What an element of a DICOM image says of a metadata field: words, numbers, ages and units."""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from metaseg_monai.errors import MetadataError, listing
from metaseg_monai.metadata.fields import (
    AnyField,
    Continuous,
    MultiLabel,
    Vector,
    read_number,
    says_nothing,
)
from metaseg_monai.naming import composed

AGE = "PatientAge"
JOINED = "\\"  # several values of one element, as DICOM itself writes them
# The units in which DICOM has the numbers of an element (PS3.3 and PS3.6).
UNITS: Mapping[str, str] = {
    **{AGE: "years", "PatientSize": "m", "PatientWeight": "kg"},
    **dict.fromkeys(("SliceThickness", "SpacingBetweenSlices", "PixelSpacing"), "mm"),
    **dict.fromkeys(("ImagerPixelSpacing", "ReconstructionDiameter", "FocalSpots"), "mm"),
    **{"DataCollectionDiameter": "mm", "GantryDetectorTilt": "degrees", "FlipAngle": "degrees"},
    **{"KVP": "kV", "XRayTubeCurrent": "mA", "Exposure": "mAs", "ExposureTime": "ms"},
    **{"CTDIvol": "mGy", "SpiralPitchFactor": "1", "MagneticFieldStrength": "T"},
    **dict.fromkeys(("EchoTime", "RepetitionTime", "InversionTime", "TriggerTime"), "ms"),
    **{"ImagingFrequency": "MHz", "PixelBandwidth": "Hz", "DiffusionBValue": "s/mm2"},
    **{"NumberOfAverages": "1", "EchoTrainLength": "1", "ContrastFlowRate": "ml/s"},
    **{"ContrastBolusVolume": "ml", "ContrastBolusTotalDose": "ml"},
}
# How many of each unit make one and the same quantity.
SCALES: Sequence[Mapping[str, float]] = (
    {"years": 1, "months": 12, "weeks": 365.25 / 7, "days": 365.25},
    {"m": 1, "cm": 100, "mm": 1000, "um": 1e6},
    {"s": 1, "ms": 1000, "us": 1e6},
    {"kg": 1, "g": 1000},
    {"kV": 1, "V": 1000},
    {"ml": 1, "l": 1e-3},
)
AGES: Mapping[str, str] = {"Y": "years", "M": "months", "W": "weeks", "D": "days"}
# Elements that tell who somebody is, beside those whose kind says it (names, dates, times, UIDs),
# by how their keywords end (PS3.15, table E.1-1, has all of them): numbers and places of people,
# visits, orders, trials and devices, remarks, and what a person is beside a patient.
IDENTIFYING = re.compile(
    r"(IDs?|Identification|Locator|(Accession|Serial|Phone|Telephone|Approval|Registration)Numbers?"
    r"|Address|Residence|(?<!Slice)Location|Comments|History|BirthDate|BirthName|PatientName"
    r"|MilitaryRank|BranchOfService|Occupation|ReligiousPreference|EthnicGroup|Calendar)$"
)


def check_tag(field: AnyField) -> None:
    """Refuse a field whose DICOM element tells who somebody is, or has another unit.

    Raises:
        MetadataError: names field and element.

    >>> check_tag(Continuous(name="age", unit="mm", range=(0, 90), tag="PatientAge",
    ...                      provenance="clinical prior", availability="acquisition"))
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.MetadataError: field 'age': PatientAge is in years, which cannot be \
converted to 'mm'; expected one of 'years', 'months', 'weeks', 'days'
    """
    if field.tag is None:
        return
    place = f"field {field.name!r}: {field.tag}"
    if IDENTIFYING.search(field.tag):
        raise MetadataError(f"{place} tells who somebody is, which is no metadata; leave it out")
    if not isinstance(field, Continuous):
        return
    if field.tag not in UNITS:
        raise MetadataError(
            f"{place} is no DICOM element whose unit is known here, so that its numbers could mean "
            f"anything; expected one of {listing(sorted(UNITS))}"
        )
    if _factor(UNITS[field.tag], field.unit) is None:
        known = _scale(UNITS[field.tag])
        raise MetadataError(
            f"{place} is in {UNITS[field.tag]}, which cannot be converted to {field.unit!r}; "
            f"expected one of {listing(known)}"
        )


def value_of_tag(field: AnyField, texts: Sequence[str]) -> Any:
    """The raw value of a field that an element of a DICOM series says.

    Words are looked up in the field's `tag_values`, whatever their case: first whole, then, unless
    they are among the words for missing, as patterns with ``*`` and ``?``, in their order; then
    they may be names of the field themselves. Of several words that of the whole (joined by a
    backslash, as in DICOM), or the only one that any of them means. Ages (``045Y``, ``006M``) and
    other numbers come in the field's unit.

    Args:
        field: with a `tag`.
        texts: the values of the element.

    Returns:
        The value; None where the element is empty or says that the value is missing.

    Raises:
        MetadataError: what it says is odd: no such word, no number, several numbers.

    >>> age = Continuous(name="age", unit="years", range=(0, 90), tag="PatientAge",
    ...                  provenance="clinical prior", availability="acquisition")
    >>> value_of_tag(age, ["045Y"]), value_of_tag(age, ["006M"]), value_of_tag(age, [""])
    (45.0, 0.5, None)
    """
    parts = [composed(str(text).strip("\0 ")) for text in texts]
    if not any(parts):
        return None
    if isinstance(field, Vector):
        numbers = list(_numbers(field, parts))
        if len(numbers) != len(field.value_entry_names):
            raise _odd(field, parts)
        return numbers
    if isinstance(field, Continuous):
        if all(map(says_nothing, parts)):
            return None
        if field.tag == AGE:
            return _age(field, parts)
        found = set(_numbers(field, parts))
        if len(found) > 1:
            raise _odd(field, parts)
        return found.pop() * (_factor(UNITS[field.tag or ""], field.unit) or 1)
    if isinstance(field, MultiLabel):
        return _words(field, parts)
    return _word(field, parts)


def _word(field: Any, parts: Sequence[str]) -> str | None:
    """The one name that an element means, as a whole or by its parts."""
    whole = _whole_words(field).get(JOINED.join(parts).casefold())
    meanings = [(True, whole)] if whole is not None else [_meaning(field, one) for one in parts]
    found = {meant for known, meant in meanings if known and meant is not None}
    if len(found) > 1 or not any(known for known, _ in meanings):
        raise _odd(field, parts)
    return found.pop() if found else None


def _words(field: MultiLabel, parts: Sequence[str]) -> list[str] | None:
    names = []
    for part in parts:
        known, meant = _meaning(field, part)
        if not known:
            raise _odd(field, parts)
        names += [] if meant is None else [meant]
    return list(dict.fromkeys(names)) or None


def _meaning(field: Any, text: str) -> tuple[bool, str | None]:
    """Whether a word is known, and the value that it means; None where it says nothing."""
    word, whole = text.casefold(), _whole_words(field)
    if word in whole:
        return True, whole[word]
    if field.is_missing(text):
        return True, None
    for pattern, value in whole.items():
        if fnmatchcase(word, pattern):
            return True, value
    names = {name.casefold(): name for name in field.values}
    return word in names, names.get(word)


def _whole_words(field: Any) -> dict[str, str]:
    """The value by each word that a field declares for its element."""
    declared = (field.tag_values or {}).items()
    return {composed(word).casefold(): composed(value) for word, value in declared}


def _age(field: Continuous, parts: Sequence[str]) -> float:
    found = re.fullmatch(r"([0-9]{1,3})([DWMY])", parts[0]) if len(parts) == 1 else None
    if found is None:
        raise _odd(field, parts)
    return int(found[1]) * (_factor(AGES[found[2]], field.unit) or 1)


def _numbers(field: AnyField, parts: Sequence[str]) -> Iterator[float]:
    for part in parts:
        number = read_number(part)
        if number is None:
            raise _odd(field, parts)
        yield number


def _scale(unit: str) -> Mapping[str, float]:
    return next((scale for scale in SCALES if unit in scale), {unit: 1})


def _factor(given: str, wanted: str) -> float | None:
    """By which a number in one unit becomes one in another; None where there is no such thing."""
    scale = _scale(given)
    return scale[wanted] / scale[given] if wanted in scale else None


def _odd(field: AnyField, parts: Sequence[str]) -> MetadataError:
    expected = field.expected()
    if field.tag == AGE:
        expected = "an age such as 045Y or 006M"
    elif isinstance(field, Continuous):
        expected = f"one plain number in {UNITS[field.tag or '']}"
    elif words := getattr(field, "tag_values", None):
        expected += f" by {listing(words)}"
    return MetadataError(f"{field.tag} is {JOINED.join(parts)!r}, expected {expected}")
