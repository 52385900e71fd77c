"""Fields whose values are names: one of several, several at once, or steps of a scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, final

from pydantic import AfterValidator, model_validator
from pydantic import Field as Setting

from metaseg_monai.metadata.fields import (
    UNKNOWN,
    Code,
    MetadataField,
    did_you_mean,
    listing,
)
from metaseg_monai.metadata.quantities import read_number

FRACTION_TOLERANCE = 1e-5  # float32 fractions still sum to 1 after a round trip


def _checked_names(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if MetadataField.is_missing(value):
            raise ValueError(f"{value!r} stands for a missing value and cannot be a value")
        if value != value.strip():
            raise ValueError(f"{value!r} begins or ends with a space")
    if len(set(values)) < len(values):
        raise ValueError("the values are not distinct")
    return values


Names = Annotated[tuple[str, ...], Setting(min_length=1), AfterValidator(_checked_names)]


class _NamedValues(MetadataField):
    values: Names

    def _listed(self) -> str:
        """The values for a message, with the way to leave them out where the policy has one."""
        listed = listing(self.values)
        return f"{listed} (or {UNKNOWN!r})" if self.missing == "unknown" else listed

    def _index(self, name: Any, value: Any) -> int:
        """Position of one name; `value` is the whole raw value, for the message."""
        if not isinstance(name, str):
            raise self.refusal(value, "give the value's name as text")
        if name.strip() not in self.values:
            raise self.refusal(value, did_you_mean(name, self.values))
        return self.values.index(name.strip())


@final
class Categorical(_NamedValues):
    """One of several values, one entry a value (thesis section 3.2).

    A raw value is a name, or a mapping of names to fractions that sum to 1, for mixed domains.

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
    """

    kind: Literal["categorical"] = "categorical"

    @property
    def value_entry_names(self) -> tuple[str, ...]:
        """One name a value, for instance ``task=disc``."""
        return tuple(f"{self.name}={value}" for value in self.values)

    def expected(self) -> str:
        """The allowed names."""
        return f"one of {self._listed()}"

    def encode_value(self, value: Any) -> Sequence[float]:
        """1 for the named value, or the fractions of a mapping."""
        if not isinstance(value, Mapping):
            chosen = self._index(value, value)
            return [float(entry == chosen) for entry in range(len(self.values))]
        entries = [0.0] * len(self.values)
        for name, fraction in value.items():
            share = read_number(fraction)
            if share is None or share < 0:
                raise self.refusal(value, f"the fraction of {name!r} is to be a number >= 0")
            entries[self._index(name, value)] += share
        if not math.isclose(sum(entries), 1.0, abs_tol=FRACTION_TOLERANCE):
            raise self.refusal(value, f"the fractions sum to {sum(entries):g}: make the sum 1")
        return entries

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
    separator: str = Setting(default=";", min_length=1)

    @model_validator(mode="after")
    def _values_are_separable(self) -> MultiLabel:
        for value in self.values:
            if self.separator in value:
                raise ValueError(f"values: {value!r} contains the separator {self.separator!r}")
        return self

    @property
    def value_entry_names(self) -> tuple[str, ...]:
        """One name a value, for instance ``stain=DAPI``."""
        return tuple(f"{self.name}={value}" for value in self.values)

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
class Ordinal(_NamedValues):
    """One step of a scale, as a thermometer: entry i is 1 where the value is step i or later.

    The first step is (1, 0, 0, ...) and the last (1, 1, 1, ...), so that neighbours differ in one
    entry and no step has the code of all zeros.

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

    @property
    def value_entry_names(self) -> tuple[str, ...]:
        """One name a step, for instance ``grade>=II``."""
        return tuple(f"{self.name}>={value}" for value in self.values)

    def expected(self) -> str:
        """The allowed steps, lowest first."""
        return f"one of {self._listed()}"

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
