"""Kinds of metadata fields: which raw values each allows, its code, and what a table suggests."""

from __future__ import annotations

import math
import numbers
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Annotated, Any, ClassVar, Literal, final, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic import Field as Setting

from metaseg_monai.errors import DataWarning, MetadataError, did_you_mean, listing
from metaseg_monai.naming import composed

Provenance = Literal["acquisition", "clinical prior", "label-derived"]
Availability = Literal["acquisition", "pre-operative", "post-operative"]
Softness = Literal["mixed", "drawn"]  # one code of all values; or many, whose results are averaged
Code = NDArray[np.float32]

UNKNOWN = "unknown"
MOST_SHORT = 3  # letters of a name that is short for another
# What a cell may say instead of nothing, in any case; the same words in every command.
MISSING_WORDS = ("", "nan", "na", "n/a", "null", "none", "-", ".")
RESERVED = (  # no names of fields: the columns by which results tell cases
    *("case", "group", "split", "volume", "plane"),
    *("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"),
)
SEPARATOR = ";"  # joins several names or numbers in one cell
FRACTION_TOLERANCE = 1e-5  # float32 fractions still sum to 1 after a round trip
WRITTEN_TOLERANCE = 1e-6  # of fractions in a text
_MOMENTS: tuple[str, ...] = get_args(Availability)  # earliest first
_PLAIN_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_END = r"\s*([+-]?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*"
_BETWEEN = re.compile(rf"{_END}\.\.{_END}")
_WEIGHED = re.compile(r":\s*[+-]?\.?[0-9]")  # a text that means to be a distribution
_LARGEST = float(np.finfo(np.float32).max)
_MEASURE = re.compile(  # a number and its unit, in one cell
    r"(\S+?)\s*(%|x|[nuµμmck]?m|[mu]?l|m?s|min|h|k?g|mg|k?v|kvp|mas?|m?t|[mg]?hz|y|yrs?|years?)"
)
_ROMAN = re.compile("[ivx]+[a-d]?", re.I)  # numerals of grades and stages
# punctuation and blanks between two letters, or a letter and a digit: never a sign at an end (ER-)
_JOINTS = re.compile(r"(?<=[^\W\d_])[\s_\-./,]+(?=\w)|(?<=\d)[\s_\-./,]+(?=[^\W\d_])")
_SLIPS = {  # (declared unit, factor that would bring the value inside) -> the unit it was given in
    ("mm", 10.0): "cm",
    ("mm", 0.001): "um",
    ("cm", 0.1): "mm",
    ("um", 1000.0): "mm",
}


_NO_SLIPS = ("years", "year", "months", "weeks", "days", "fraction", "%")  # others are no tenth


class MetadataWarning(DataWarning):
    """A metadata value was used as it is but looks wrong, for instance out of its range."""


def says_nothing(value: Any) -> bool:
    """Whether a raw value is missing: None, a NaN, ``unknown`` or one of `MISSING_WORDS`.

    >>> [says_nothing(value) for value in (None, " ", "unknown", "N/A", float("nan"), 0, "Unknown")]
    [True, True, True, True, True, False, False]
    """
    if isinstance(value, str):
        return value.strip() == UNKNOWN or value.strip().lower() in MISSING_WORDS
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def said(cell: Any) -> str:
    """The text of a table's cell, blank where it says nothing.

    >>> said(" 0.5 "), said("N/A")
    ('0.5', '')
    """
    return "" if says_nothing(cell) else str(cell).strip()


def read_number(value: Any) -> float | None:
    """A finite number, or None where the value is no plain number.

    >>> [read_number(value) for value in ("41", 41.5, "41 mm", "NaN", ">=90", True, "1e999")]
    [41.0, 41.5, None, None, None, None, None]
    """
    if isinstance(value, str):
        if _PLAIN_NUMBER.fullmatch(value.strip()) is None:
            return None
    elif not isinstance(value, numbers.Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        return None
    return number if math.isfinite(number) else None


def spelled(text: str) -> str:
    """Text without what one value is written in several ways by: case, blanks, number format.

    >>> [spelled(text) for text in (" Siemens", "SIEMENS ", "3", "3.0", "5-6", "GE  Signa")]
    ['siemens', 'siemens', '3.0', '3.0', '5-6', 'ge signa']
    >>> [spelled(text) for text in ("5 mm", "5.0MM", "1.5T", "1.50 T", "1.10b")]
    ['5.0 mm', '5.0 mm', '1.5 t', '1.5 t', '1.10b']
    """
    plain = " ".join(composed(text).casefold().split())
    measure = _MEASURE.fullmatch(plain)
    number = read_number(measure[1] if measure else plain)
    unit = f" {measure[2]}" if measure else ""
    return plain if number is None else f"{number + 0.0!r}{unit}"


def same_name(text: str, names: Iterable[str]) -> str | None:
    """The one of the names that a text is but for letter case, blanks and punctuation, or None.

    No name is guessed by its spelling: among values of patients it may be the opposite.

    >>> same_name("non contrast", ["Non-Contrast", "contrast"]), same_name("male", ["female", "m"])
    ('Non-Contrast', None)
    >>> same_name("ER+", ["ER-", "unclear"]), same_name("1.5", ["15"])
    (None, None)
    """
    plain = _unpunctuated(text)
    same = [name for name in names if _unpunctuated(name) == plain]
    return same[0] if len(same) == 1 else None


def shortens(short: str, name: str) -> bool:
    """Whether a name may be shortened so.

    >>> shortens("f", "female"), shortens("Art", "arterial")
    (True, True)
    >>> shortens("CT", "CTA"), shortens("I", "IIIa")
    (False, False)
    """
    longer = len(short) <= MOST_SHORT and len(name) >= len(short) + 3
    word = short.isalpha() and not _ROMAN.fullmatch(name)
    return longer and word and name.casefold().startswith(short.casefold())


def _unpunctuated(text: str) -> str:
    return _JOINTS.sub("", spelled(text).rstrip(".,;:!?"))


class MetadataField(BaseModel):
    """One column of metadata and its code, a run of entries in the vector `meta`.

    Args:
        name: Name of the field; letters, digits, spaces, ``_``, ``.`` and ``-``.
        provenance: Where the value comes from. ``label-derived`` marks values read off the
            target, which no user has for a new image.
        availability: The moment from which the value is known.
        missing: ``error`` refuses a missing value. ``unknown`` adds one entry at the end of the
            field's code, 1 where the value is missing while the others are 0.
        description: Free text for the reader; it changes nothing.
        tag: Keyword of the DICOM element that tells the value of a series where nobody gives one,
            such as ``PatientAge``; see `metaseg_monai.metadata.tags`.

    Raises:
        MetadataError: A setting is unknown, absent or of the wrong kind.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str
    name: str = Setting(pattern=r"^\w(?:[\w .\-]*\w)?$")
    provenance: Provenance
    availability: Availability
    missing: Literal["error", "unknown"] = "error"
    description: str = ""
    tag: str | None = Setting(
        default=None, pattern=r"^[A-Z][A-Za-z0-9]*$", exclude_if=lambda tag: tag is None
    )

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            named = f"field {settings['name']!r}" if "name" in settings else "a field"
            raise MetadataError(f"{named}: {explain_validation(error)}") from error

    @property
    @abstractmethod
    def value_entry_names(self) -> tuple[str, ...]:
        """Names of the entries that carry the value, without the unknown entry."""

    @property
    def entry_names(self) -> tuple[str, ...]:
        """Names of all entries of the field's code, in order."""
        if self.missing == "unknown":
            return (*self.value_entry_names, f"{self.name}={UNKNOWN}")
        return self.value_entry_names

    @property
    def width(self) -> int:
        """Number of entries of the field's code."""
        return len(self.entry_names)

    def is_missing(self, value: Any) -> bool:
        """Whether a raw value says nothing, see `says_nothing`; a declared name says something."""
        declared = isinstance(value, str) and composed(value.strip()) in getattr(self, "values", ())
        return says_nothing(value) and not declared

    def encode(self, value: Any) -> Code:
        """Turn a raw value into the field's code.

        Returns:
            Code of shape (width,), float32.

        Raises:
            MetadataError: The value is missing under policy ``error``, or is not allowed.
        """
        if self.is_missing(value):
            if self.missing == "error":
                raise MetadataError(
                    f"field {self.name!r}: expected {self.expected()}, got nothing ({value!r}); "
                    f"give the value, or declare missing='unknown' in the schema and train so"
                )
            return self.unknown()
        code = np.zeros(self.width, dtype=np.float32)
        code[: len(self.value_entry_names)] = self.encode_value(value)
        return code

    def span(self, value: Any) -> Code:
        """The lowest and highest code of a value, shape (2, width), float32.

        They differ where the value is known to lie in a range only, with equal chance for each code
        between.

        Raises:
            MetadataError: As `encode`, for each end of the range.
        """
        code = self.encode(value)
        return np.stack([code, code])

    def softness(self, value: Any) -> Softness | None:
        """How a distribution over values is taken; None where the value is one alone."""
        return None

    def needs_unknown(self, value: Any) -> bool:
        """Whether the code of a value has a share of unknown."""
        return self.is_missing(value)

    def decode(self, code: Code) -> Any:
        """Turn a code of shape (width,) back into a raw value; None where it is unknown.

        Raises:
            MetadataError: No raw value of this field has such a code.
        """
        if self.missing == "error":
            return self.decode_value(code)
        if np.array_equal(code, self.unknown()):
            return None
        if code[-1] != 0:
            raise self.not_a_code(code)
        return self.decode_value(code[:-1])

    def unknown(self) -> Code:
        """The code of a missing value, shape (width,), float32.

        Raises:
            MetadataError: The field's policy for missing values is ``error``.
        """
        if self.missing == "error":
            raise MetadataError(
                f"field {self.name!r} has no code for a missing value: expected "
                f"missing='unknown' in the schema, got 'error'; change it and train again"
            )
        code = np.zeros(self.width, dtype=np.float32)
        code[-1] = 1
        return code

    def known_at(self, moment: Availability) -> bool:
        """Whether the value is known at that moment; MetadataError where there is none such."""
        if moment not in _MOMENTS:
            raise MetadataError(
                f"moment: expected one of {listing(_MOMENTS)}, got {moment!r}; "
                f"{did_you_mean(moment, _MOMENTS, told=True)}"
            )
        return _MOMENTS.index(self.availability) <= _MOMENTS.index(moment)

    def as_declared(self, value: Any) -> Any:
        """A raw value in the writing that the field declares; only names may have another."""
        return value

    def flags(self, value: Any) -> list[str]:
        """Doubts about a value that is allowed all the same, in words; only some kinds have any."""
        return []

    @staticmethod
    @abstractmethod
    def propose(column: str, present: Sequence[str]) -> dict[str, Any]:
        """The settings that a table's column suggests, from its values that are not missing."""

    @abstractmethod
    def expected(self) -> str:
        """The raw values that are allowed, in words."""

    @abstractmethod
    def encode_value(self, value: Any) -> Sequence[float]:
        """The entries that carry a value known to be present."""

    @abstractmethod
    def decode_value(self, code: Code) -> Any:
        """The raw value of a code without its unknown entry."""

    def refusal(self, value: Any, step: str) -> MetadataError:
        """The error for a value that is not allowed; `step` says what to do next."""
        if self.missing == "unknown":
            step += ", or leave it empty for unknown"
        kind = "" if isinstance(value, str) else f" ({type(value).__name__})"
        return MetadataError(
            f"field {self.name!r}: expected {self.expected()}, got {value!r}{kind}; {step}"
        )

    def not_a_code(self, code: Code) -> MetadataError:
        """The error for a code that no raw value has, as in the test modes ones and zeros."""
        return MetadataError(
            f"field {self.name!r}: expected the code of {self.expected()}, got {code.tolist()}; "
            f"decode only vectors made by encode, not those of a test mode"
        )


def _numbers(column: str, texts: Sequence[str]) -> list[float]:
    """The numbers that a column's texts are."""
    for text in texts:
        if read_number(text) is None:
            raise MetadataError(
                f"field {column!r}: expected plain numbers, got {text!r}; write the number alone"
            )
    return [float(text) for text in texts]


def _two_digits(number: float, rounding: str) -> float:
    """A number to two significant digits, rounded as `decimal` names it.

    >>> _two_digits(157.2, ROUND_CEILING), _two_digits(-0.0413, ROUND_FLOOR)
    (160.0, -0.042)
    """
    exact = Decimal(repr(number))
    if exact == 0:
        return 0.0
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), rounding=rounding))


def explain_validation(error: ValidationError) -> str:
    """A pydantic error in one line, each setting by its name."""
    reasons = []
    for detail in error.errors():
        cause = detail.get("ctx", {}).get("error")
        if isinstance(cause, MetadataError):  # a field explained itself already
            reasons.append(str(cause))
            continue
        place = ".".join(str(part) for part in detail["loc"])
        reason = detail["msg"].removeprefix("Value error, ")
        came = "" if detail["type"] == "missing" else f", got {detail['input']!r}"
        reasons.append(f"{place}: {reason}{came}" if place else reason)
    return "; ".join(reasons)


def _checked_names(values: tuple[str, ...]) -> tuple[str, ...]:
    values = tuple(map(composed, values))
    for value in values:
        if value.strip() in ("", UNKNOWN):
            raise ValueError(f"{value!r} stands for a missing value and cannot be a value")
        if value != value.strip():
            raise ValueError(f"{value!r} begins or ends with a space")
    if len(set(values)) < len(values):
        raise ValueError("the values are not distinct")
    return values


Names = Annotated[tuple[str, ...], Setting(min_length=1), AfterValidator(_checked_names)]


class _NamedValues(MetadataField):
    joint: ClassVar[str] = "="

    values: Names
    tag_values: dict[str, str] | None = Setting(  # {word or pattern in the element: value}
        default=None, min_length=1, exclude_if=lambda words: words is None
    )

    @model_validator(mode="after")
    def _words_are_of_a_tag(self) -> _NamedValues:
        if self.tag_values is not None and self.tag is None:
            raise ValueError("tag_values: say which element has these words: tag")
        for word, value in (self.tag_values or {}).items():
            if composed(value) not in self.values:
                step = self._meant(value)
                raise ValueError(f"tag_values: {word!r} means {value!r}, no value; {step}")
        return self

    @property
    def value_entry_names(self) -> tuple[str, ...]:
        """One name a value, for instance ``task=disc``, or a step, as ``grade>=II``."""
        return tuple(f"{self.name}{self.joint}{value}" for value in self.values)

    def expected(self) -> str:
        """The allowed names; the steps of a scale lowest first."""
        return f"one of {self._listed()}"

    def _listed(self) -> str:
        """The values for a message, with the way to leave them out where the policy has one."""
        listed = listing(self.values)
        return f"{listed} (or {UNKNOWN!r})" if self.missing == "unknown" else listed

    def as_declared(self, value: Any) -> Any:
        """A name in the declared writing, where only that differs (`spelled`) and one is so."""
        if not isinstance(value, str) or self.is_missing(value):
            return value
        joint = getattr(self, "separator", None)
        names = [] if joint is None else [self._declared(one) for one in value.split(joint)]
        return self._declared(value) if joint is None else joint.join(names)

    def _declared(self, name: str) -> str:
        if composed(name.strip()) in self.values:
            return name
        same = [one for one in self.values if spelled(one) == spelled(name)]
        return same[0] if len(same) == 1 else name

    def _meant(self, name: str) -> str:
        """The next step for a name that is no value; the values stand in the message already."""
        like = self._like(name)
        return f"did you mean {like!r}?" if like else "use one of these names"

    def _like(self, name: str) -> str | None:
        """The value that a name is but for its writing, or plainly is short for, or the reverse."""
        short = [one for one in self.values if shortens(one, name) or shortens(name, one)]
        return same_name(name, self.values) or (short[0] if len(short) == 1 else None)

    def _index(self, name: Any, value: Any) -> int:
        """Position of one name; `value` is the whole raw value, for the message."""
        if not isinstance(name, str):
            raise self.refusal(value, "give the value's name as text")
        if (text := composed(name.strip())) not in self.values:
            step = self._meant(text)
            if self.missing == "unknown" and getattr(self, "out_of_range", "flag") == "error":
                step += ", or take such values as unknown (--out_of_range flag)"
            raise self.refusal(value, step)
        return self.values.index(text)


class _OneOfValues(_NamedValues):
    """A field with one value of several, or a distribution over them, whose code is the mean one.

    A distribution is a mapping of names to fractions that sum to 1, or a text such as
    ``disc:0.7|ring:0.3``. A declared name is always that name, whatever is in it. ``unknown`` may
    have a share where the policy has it.

    Args:
        out_of_range: ``error`` refuses a value that is not declared, ``flag`` takes it as unknown
            and warns of it, which needs the policy ``unknown`` for missing values. Where it is
            ``error`` it is not written down.
    """

    out_of_range: Literal["error", "flag"] = Setting(
        default="error", exclude_if=lambda policy: policy == "error"
    )

    @model_validator(mode="after")
    def _flagged_is_unknown(self) -> _OneOfValues:
        if self.out_of_range == "flag" and self.missing != "unknown":
            raise ValueError(
                "out_of_range: flag takes other values as unknown, which needs missing='unknown'"
            )
        return self

    def shares(self, value: Any) -> dict[str, float] | None:
        """The fractions of a distribution by name; None where the value is none.

        Raises:
            MetadataError: A name is none of the field's, a fraction is no number from 0, or they
                do not sum to 1.
        """
        tolerance = FRACTION_TOLERANCE
        if isinstance(value, str):
            tolerance = WRITTEN_TOLERANCE
            given = self._written(value)
        else:
            given = list(value.items()) if isinstance(value, Mapping) else None
        if given is None:
            return None
        shares: dict[str, float] = {}
        for name, fraction in given:
            share = read_number(fraction)
            if share is None or share < 0:
                raise self.refusal(value, f"the fraction of {name!r} is to be a number >= 0")
            if name == UNKNOWN:
                self.unknown()  # refuses a field that has none
                known = UNKNOWN
            else:
                known = self.values[self._index(name, value)]
            shares[known] = shares.get(known, 0.0) + share
        if not math.isclose(sum(shares.values()), 1.0, rel_tol=0, abs_tol=tolerance):
            total = f"{sum(shares.values()):.9g}"
            raise self.refusal(value, f"the fractions sum to {total}: make the sum 1")
        return shares

    def _written(self, text: str) -> list[tuple[str, str]] | None:
        """Names and fractions of a text that is a distribution; None where it is none."""
        text = composed(text.strip())
        if text in self.values or says_nothing(text) or not _WEIGHED.search(text):
            return None
        names = "|".join(re.escape(name) for name in (*self.values, UNKNOWN))
        part = rf"\s*(?:{names})\s*:[^:|]*"
        if re.fullmatch(rf"{part}(?:\|{part})*", text):
            of_declared = re.finditer(rf"(?:^|\|)\s*({names})\s*:([^:|]*)(?=\||$)", text)
            return [(found[1], found[2]) for found in of_declared]
        # some name is none of ours: told by its own words
        parts = [part.rpartition(":") for part in text.split("|")]
        return [(name.strip(), fraction) for name, _, fraction in parts]

    def encode(self, value: Any) -> Code:
        """The code of a value, or the mean of the codes of a distribution; shape (width,)."""
        if self._is_strange(value):
            return self.unknown()
        shares = self.shares(value)
        if shares is None:
            return super().encode(value)
        codes = [share * super(_OneOfValues, self).encode(name) for name, share in shares.items()]
        return np.stack(codes).sum(axis=0, dtype=np.float64).astype(np.float32)

    def softness(self, value: Any) -> Softness | None:
        """``mixed`` for a distribution, whose code is the mean of its values' codes."""
        shares = self.shares(value)
        return None if shares is None or 1.0 in shares.values() else "mixed"

    def needs_unknown(self, value: Any) -> bool:
        """Whether the value is unknown, or is with some probability."""
        if self.is_missing(value) or self._is_strange(value):
            return True
        return (self.shares(value) or {}).get(UNKNOWN, 0.0) > 0

    def flags(self, value: Any) -> list[str]:
        """Says that a value is none of the declared ones, and which of them may be meant."""
        if not self._is_strange(value):
            return []
        like = self._like(value)
        return [
            f"field {self.name!r}: expected {self.expected()}, got {value!r}, which is taken as "
            f"unknown" + (f"; did you mean {like!r}?" if like else "")
        ]

    def _is_strange(self, value: Any) -> bool:
        """Whether a name is none of the declared ones, and the policy takes it as unknown."""
        if self.out_of_range == "error" or not isinstance(value, str) or self.is_missing(value):
            return False
        return composed(value.strip()) not in self.values and self._written(value) is None


@final
class Categorical(_OneOfValues):
    """One of several values, one entry a value (thesis section 3.2).

    A raw value is a name, or a mapping of names to fractions that sum to 1, for mixed domains or
    where the value is known by its probabilities; as text ``HeLa:0.25|A549:0.75``.

    Args:
        values: The names, in the order of the entries.

    >>> line = Categorical(
    ...     name="line", values=("HeLa", "MDCK", "A549"),
    ...     provenance="acquisition", availability="acquisition",
    ... )
    >>> line.encode("MDCK").tolist()
    [0.0, 1.0, 0.0]
    >>> line.encode({"HeLa": 0.25, "A549": 0.75}).tolist()
    [0.25, 0.0, 0.75]
    >>> line.encode("HeLa:0.25|A549:0.75").tolist()
    [0.25, 0.0, 0.75]
    """

    kind: Literal["categorical"] = "categorical"

    @staticmethod
    def propose(column: str, present: Sequence[str]) -> dict[str, Any]:
        """The names that occur, sorted."""
        return {"values": sorted(set(present))}

    def encode_value(self, value: Any) -> Sequence[float]:
        """1 for the named value."""
        chosen = self._index(value, value)
        return [float(entry == chosen) for entry in range(len(self.values))]

    def decode_value(self, code: Code) -> str | dict[str, float]:
        """The name, or a mapping of names to their fractions where the code mixes values."""
        if (code < 0).any() or not math.isclose(code.sum(), 1.0, abs_tol=FRACTION_TOLERANCE):
            raise self.not_a_code(code)
        present = {
            name: float(share) for name, share in zip(self.values, code, strict=True) if share
        }
        return next(iter(present)) if list(present.values()) == [1.0] else present


@final
class MultiLabel(_NamedValues):
    """Any subset of several values, one entry a value.

    A raw value is a list, tuple or set of names, the empty one included, or one text with the
    names joined by `separator`. Blank text is a missing value, not the empty subset.

    Args:
        values: The names, in the order of the entries; none contains `separator`.
        separator: What joins the names in a table's cell.

    >>> stain = MultiLabel(
    ...     name="stain", values=("DAPI", "actin"),
    ...     provenance="acquisition", availability="acquisition",
    ... )
    >>> stain.encode("DAPI;actin").tolist(), stain.encode([]).tolist()
    ([1.0, 1.0], [0.0, 0.0])
    """

    kind: Literal["multilabel"] = "multilabel"
    separator: str = Setting(default=SEPARATOR, min_length=1)

    @model_validator(mode="after")
    def _values_are_separable(self) -> MultiLabel:
        for value in self.values:
            if self.separator in value:
                raise ValueError(f"values: {value!r} contains the separator {self.separator!r}")
        return self

    @staticmethod
    def propose(column: str, present: Sequence[str]) -> dict[str, Any]:
        """The names that occur, sorted."""
        names = {name.strip() for text in present for name in text.split(SEPARATOR)}
        return {"values": sorted(names), "separator": SEPARATOR}

    def expected(self) -> str:
        """The allowed names and what joins them."""
        return f"any of {self._listed()}, as a list or joined by {self.separator!r}"

    def encode_value(self, value: Any) -> Sequence[float]:
        """1 for each name given."""
        names = value.split(self.separator) if isinstance(value, str) else value
        if not isinstance(names, list | tuple | set | frozenset):
            raise self.refusal(value, "give a list of names or one text")
        entries = [0.0] * len(self.values)
        for name in names:
            entries[self._index(name, value)] = 1.0
        return entries

    def decode_value(self, code: Code) -> list[str]:
        """The names whose entry is 1, in the order of the schema."""
        if not set(code.tolist()) <= {0.0, 1.0}:
            raise self.not_a_code(code)
        return [name for name, entry in zip(self.values, code, strict=True) if entry]


@final
class Ordinal(_OneOfValues):
    """One step of a scale, as a thermometer: entry i is 1 where the value is step i or later.

    The first step is (1, 0, 0, ...) and the last (1, 1, 1, ...), so that neighbours differ in one
    entry and no step has the code of all zeros. Of a distribution over steps, ``II:0.5|III:0.5``,
    entry i is the probability that the value is step i or later.

    Args:
        values: The steps, lowest first.

    >>> grade = Ordinal(
    ...     name="grade", values=("I", "II", "III"),
    ...     provenance="clinical prior", availability="pre-operative",
    ... )
    >>> grade.encode("II").tolist()
    [1.0, 1.0, 0.0]
    """

    kind: Literal["ordinal"] = "ordinal"
    joint: ClassVar[str] = ">="

    @staticmethod
    def propose(column: str, present: Sequence[str]) -> dict[str, Any]:
        """Steps by number; the order of names is in nobody's table."""
        texts = sorted(set(present))
        if any(read_number(text) is None for text in texts):
            raise MetadataError(
                f"field {column!r}: the order of {listing(texts)} cannot be read from a table; "
                f"fit it as categorical, then set kind and order in the JSON"
            )
        return {"values": sorted(texts, key=float)}

    def encode_value(self, value: Any) -> Sequence[float]:
        """1 up to and with the step."""
        step = self._index(value, value)
        return [float(step >= entry) for entry in range(len(self.values))]

    def decode_value(self, code: Code) -> str:
        """The last step whose entry is 1."""
        steps = int(code.sum()) if 1 <= code.sum() <= len(code) else 0
        if steps == 0 or code.tolist() != [1.0] * steps + [0.0] * (len(code) - steps):
            raise self.not_a_code(code)
        return self.values[steps - 1]


@final
class Continuous(MetadataField):
    """One quantity in one entry: (f(value) - f(low)) / (f(high) - f(low)).

    The range is a fact of the schema, so that the code of a value never depends on the data at
    hand. A value outside it is never clamped: under policy ``flag`` its entry lies below 0 or
    above 1.

    A value may be a range, ``20..40``: it lies anywhere between the two, each code with equal
    chance, that is evenly on the field's own scale. Such a value has no single code: what a network
    makes of the mean is not the mean of what it makes of the values. `span` gives both ends.

    Args:
        unit: Unit of raw values and range, for instance ``mm``; ``x`` for a magnification.
        range: Lowest and highest expected value, in `unit`.
        scale: f, the identity or a logarithm, which needs values above 0. ``log`` and ``log2``
            give the same code; write ``log2`` where the steps are doublings (magnification).
        out_of_range: ``error`` refuses a value outside the range, ``flag`` warns of it.

    >>> magnification = Continuous(
    ...     name="magnification", unit="x", range=(10, 40), scale="log2",
    ...     provenance="acquisition", availability="acquisition",
    ... )
    >>> [magnification.encode(value).tolist() for value in (10, "20", 40.0)]
    [[0.0], [0.5], [1.0]]
    """

    kind: Literal["continuous"] = "continuous"
    unit: str = Setting(min_length=1)
    range: tuple[float, float]
    scale: Literal["linear", "log", "log2"] = "linear"
    out_of_range: Literal["error", "flag"] = "error"

    @model_validator(mode="after")
    def _range_is_ordered(self) -> Continuous:
        low, high = self.range
        if low >= high:
            raise ValueError(f"range: expected the lowest value first, got {low:g} to {high:g}")
        if self.scale != "linear" and low <= 0:
            raise ValueError(f"range: expected values above 0 for scale {self.scale}, got {low:g}")
        return self

    @property
    def value_entry_names(self) -> tuple[str, ...]:
        """The field's own name."""
        return (self.name,)

    @staticmethod
    def propose(column: str, present: Sequence[str]) -> dict[str, Any]:
        """The range of the values, rounded outwards to two significant digits.

        Of values that lie close together, such as years, to those of their difference.
        """
        found = _numbers(column, present)
        low, high = _two_digits(min(found), ROUND_FLOOR), _two_digits(max(found), ROUND_CEILING)
        width = max(found) - min(found)
        if high - low > 1.5 * width > 0:
            step = 10.0 ** (math.floor(math.log10(width)) - 1)
            digits = max(0, -round(math.log10(step)))
            low = round(math.floor(min(found) / step) * step, digits)
            high = round(math.ceil(max(found) / step) * step, digits)
        if min(found) == max(found):
            raise MetadataError(
                f"field {column!r}: every value is {low:g}, which gives no range; leave the field "
                "out"
            )
        return {"range": (low, high)}

    def expected(self) -> str:
        """A number, its unit and its range."""
        low, high = self.range
        return f"a plain number in {self.unit} from {low:g} to {high:g}"

    def encode_value(self, value: Any) -> Sequence[float]:
        """The position of the value between the ends of the range, 0 to 1 inside it."""
        low, high = self.ends(value) or (value, value)
        if low != high:
            raise self.refusal(
                value,
                "a range has no single code: give one value, or average over the range, as "
                "evaluations and predictions do (metaseg_monai.inferers.SteeredInferer)",
            )
        value = low
        number = read_number(value)
        if number is None:
            raise self.refusal(
                value, f"write the number alone, in {self.unit}, or a range as low..high"
            )
        beyond = self._beyond(number)
        if beyond and self.out_of_range == "error":
            raise self.refusal(
                value,
                f"{beyond}; use it as it is (--out_of_range flag), correct it, or fit a wider "
                "range (fit-schema --margin 0.2) and train anew",
            )
        if self.scale != "linear" and number <= 0:
            raise self.refusal(value, f"the scale {self.scale} needs a value above 0")
        low, high = (self._scaled(end) for end in self.range)
        entry = (self._scaled(number) - low) / (high - low)
        if abs(entry) > _LARGEST:
            raise self.refusal(value, "correct it, it cannot be stored")
        return [entry]

    def ends(self, value: Any) -> tuple[float, float] | None:
        """Both ends of a value that is a range; None where it is none.

        Raises:
            MetadataError: The lower end is not the first.
        """
        found = _BETWEEN.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return None
        low, high = (float(end) for end in found.groups())
        if low > high:
            raise self.refusal(value, f"write the lower end first: {high:g}..{low:g}")
        return low, high

    def span(self, value: Any) -> Code:
        """The codes of both ends of a range, or twice that of one value; shape (2, width)."""
        low, high = self.ends(value) or (value, value)
        return np.stack([self.encode(low), self.encode(high)])

    def softness(self, value: Any) -> Softness | None:
        """``drawn`` for a range: what is made of values drawn from it is averaged."""
        low, high = self.ends(value) or (0.0, 0.0)
        return "drawn" if low < high else None

    def times(self, value: Any, factor: float) -> Any:
        """A value times a factor; what is no number, nor a range of them, stays as it is."""
        if ends := self.ends(value):
            return "..".join(f"{end * factor:.9g}" for end in ends)
        number = read_number(value)
        return value if number is None else number * factor

    def decode_value(self, code: Code) -> float:
        """The value in the field's unit, to float32 precision."""
        low, high = (self._scaled(end) for end in self.range)
        scaled = low + float(code[0]) * (high - low)
        try:
            return scaled if self.scale == "linear" else math.exp(scaled)
        except OverflowError as error:
            raise self.not_a_code(code) from error

    def flags(self, value: Any) -> list[str]:
        """Says that a value lies outside the range, and which unit it may have been given in."""
        found = self.ends(value) or (read_number(value),)
        beyond = next(filter(None, (self._beyond(end) for end in found if end is not None)), None)
        if beyond is None or self.out_of_range == "error":
            return []
        return [
            f"field {self.name!r}: expected {self.expected()}, got {value!r}, which is used as it "
            f"is, {beyond}; --out_of_range error leaves such cases out"
        ]

    def _scaled(self, number: float) -> float:
        return number if self.scale == "linear" else math.log(number)

    def _beyond(self, number: float) -> str | None:
        """That a number is outside the range, and the unit that it may be in; None inside it."""
        low, high = self.range
        if low <= number <= high:
            return None
        told = "beyond what was trained"
        for factor in () if self.unit in _NO_SLIPS else (10.0, 0.1, 1000.0, 0.001):
            if low <= number * factor <= high:
                given = _SLIPS.get((self.unit, factor), "another unit")
                inside = f"In {self.unit} {number * factor:g} would be inside"
                return f"{told}; is it in {given}? {inside}"
        return told


@final
class Vector(MetadataField):
    """Several free numbers, one entry each, taken as they are.

    A raw value is a list or tuple of numbers, a one-dimensional array, or one text with the
    numbers joined by ``;``.

    Args:
        entries: Names of the entries, or how many there are.

    >>> texture = Vector(
    ...     name="texture", entries=("contrast", "entropy"),
    ...     provenance="acquisition", availability="acquisition",
    ... )
    >>> texture.encode([0.5, -2]).tolist(), texture.entry_names
    ([0.5, -2.0], ('texture[contrast]', 'texture[entropy]'))
    """

    kind: Literal["vector"] = "vector"
    entries: tuple[str, ...] | int

    @field_validator("entries", mode="after")
    @classmethod
    def _entries_are_distinct(cls, entries: tuple[str, ...] | int) -> tuple[str, ...] | int:
        if entries in (0, ()) or (isinstance(entries, int) and entries < 0):
            raise ValueError("expected at least one entry")
        if isinstance(entries, tuple) and len(set(entries)) < len(entries):
            raise ValueError("the names are not distinct")
        return entries

    @property
    def value_entry_names(self) -> tuple[str, ...]:
        """One name an entry, for instance ``texture[contrast]`` or ``texture[0]``."""
        names = range(self.entries) if isinstance(self.entries, int) else self.entries
        return tuple(f"{self.name}[{name}]" for name in names)

    @staticmethod
    def propose(column: str, present: Sequence[str]) -> dict[str, Any]:
        """How many numbers there are in each cell."""
        sizes = {len(_numbers(column, text.split(SEPARATOR))) for text in present}
        if len(sizes) > 1:
            raise MetadataError(
                f"field {column!r}: expected as many numbers in each row, got {sorted(sizes)}"
            )
        return {"entries": sizes.pop()}

    def expected(self) -> str:
        """How many numbers, and what each is."""
        size = len(self.value_entry_names)
        named = "" if isinstance(self.entries, int) else f" ({', '.join(self.entries)})"
        return f"{size} plain numbers{named}, as a list or joined by ';'"

    def encode_value(self, value: Any) -> Sequence[float]:
        """The numbers as given."""
        given = value.split(SEPARATOR) if isinstance(value, str) else value
        if isinstance(given, np.ndarray) and given.ndim == 1:
            given = given.tolist()
        if not isinstance(given, list | tuple) or len(given) != len(self.value_entry_names):
            raise self.refusal(value, "give every number, in the order of the entries")
        entries = []
        for position, part in enumerate(given):
            number = read_number(part)
            if number is None or abs(number) > _LARGEST:
                raise self.refusal(value, f"entry {position} is {part!r}: write a plain number")
            entries.append(number)
        return entries

    def decode_value(self, code: Code) -> list[float]:
        """The numbers, to float32 precision."""
        return [float(entry) for entry in code]


AnyField = Annotated[
    Categorical | MultiLabel | Ordinal | Continuous | Vector, Setting(discriminator="kind")
]
KINDS: dict[str, type[MetadataField]] = {
    kind.model_fields["kind"].default: kind
    for kind in (Categorical, MultiLabel, Ordinal, Continuous, Vector)
}
_FIELD: TypeAdapter[AnyField] = TypeAdapter(AnyField)


def read_field(place: int, content: Any) -> AnyField:
    """Make the field that JSON content describes, by its ``kind``; a field stays as it is.

    Args:
        place: Index of the field in its schema, for messages.
        content: The field's settings by name.

    Raises:
        MetadataError: The kind or a setting is unknown, absent or wrong.
    """
    try:
        return _FIELD.validate_python(content)
    except ValidationError as error:
        raise MetadataError(f"schema, field {place + 1}: {explain_validation(error)}") from error
