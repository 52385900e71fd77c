"""Fields whose values are numbers: one quantity with a unit and a range, or a free vector."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Sequence
from typing import Any, Literal, final

import numpy as np
from pydantic import Field as Setting
from pydantic import field_validator, model_validator

from metaseg_monai.metadata.fields import Code, MetadataField

_PLAIN_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LARGEST = float(np.finfo(np.float32).max)
_SLIPS = {  # (declared unit, factor that would bring the value inside) -> the unit it was given in
    ("mm", 10.0): "cm",
    ("mm", 0.001): "um",
    ("cm", 0.1): "mm",
    ("um", 1000.0): "mm",
}


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


@final
class Continuous(MetadataField):
    """One quantity in one entry: (f(value) - f(low)) / (f(high) - f(low)).

    The range is a fact of the schema, so that the code of a value never depends on the data at
    hand. A value outside it is never clamped: under policy ``flag`` its entry lies below 0 or
    above 1.

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

    def expected(self) -> str:
        """A number, its unit and its range."""
        low, high = self.range
        return f"a plain number in {self.unit} from {low:g} to {high:g}"

    def encode_value(self, value: Any) -> Sequence[float]:
        """The position of the value between the ends of the range, 0 to 1 inside it."""
        number = read_number(value)
        if number is None:
            raise self.refusal(value, f"write the number alone, in {self.unit}")
        doubt = self._doubt(number)
        if doubt and self.out_of_range == "error":
            raise self.refusal(value, doubt)
        if self.scale != "linear" and number <= 0:
            raise self.refusal(value, f"the scale {self.scale} needs a value above 0")
        low, high = (self._scaled(end) for end in self.range)
        entry = (self._scaled(number) - low) / (high - low)
        if abs(entry) > _LARGEST:
            raise self.refusal(value, "correct it, it cannot be stored")
        return [entry]

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
        number = read_number(value)
        doubt = None if number is None else self._doubt(number)
        if doubt is None or self.out_of_range == "error":
            return []
        return [f"field {self.name!r}: expected {self.expected()}, got {value!r}; {doubt}"]

    def _scaled(self, number: float) -> float:
        return number if self.scale == "linear" else math.log(number)

    def _doubt(self, number: float) -> str | None:
        """What may be wrong with a number outside the range; None inside it."""
        low, high = self.range
        if low <= number <= high:
            return None
        for factor in (10.0, 0.1, 1000.0, 0.001):
            if low <= number * factor <= high:
                given = _SLIPS.get((self.unit, factor), "another unit")
                return f"is it in {given}? In {self.unit} {number * factor:g} would be inside"
        return "correct the value, or the range in the schema"


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

    def expected(self) -> str:
        """How many numbers, and what each is."""
        size = len(self.value_entry_names)
        named = "" if isinstance(self.entries, int) else f" ({', '.join(self.entries)})"
        return f"{size} plain numbers{named}, as a list or joined by ';'"

    def encode_value(self, value: Any) -> Sequence[float]:
        """The numbers as given."""
        given = value.split(";") if isinstance(value, str) else value
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
