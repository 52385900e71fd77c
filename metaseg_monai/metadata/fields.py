"""What every metadata field declares, and how a missing value is told from a wrong one."""

from __future__ import annotations

import difflib
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic import Field as Setting

from metaseg_monai.errors import MetadataError

Provenance = Literal["acquisition", "clinical prior", "label-derived"]
Availability = Literal["acquisition", "pre-operative", "post-operative"]
Code = NDArray[np.float32]

UNKNOWN = "unknown"
_MOMENTS: tuple[str, ...] = get_args(Availability)  # earliest first


class MetadataWarning(UserWarning):
    """A metadata value was used as it is but looks wrong, for instance out of its range."""


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

    @staticmethod
    def is_missing(value: Any) -> bool:
        """Whether a raw value says nothing: None, blank text, ``unknown`` or a NaN number.

        >>> [MetadataField.is_missing(value) for value in (None, " ", "unknown", "NaN", 0)]
        [True, True, True, False, False]
        """
        if isinstance(value, str):
            return value.strip() in ("", UNKNOWN)
        return value is None or (isinstance(value, float | np.floating) and math.isnan(value))

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
                f"{did_you_mean(moment, _MOMENTS)}"
            )
        return _MOMENTS.index(self.availability) <= _MOMENTS.index(moment)

    def flags(self, value: Any) -> list[str]:
        """Doubts about a value that is allowed all the same, in words; only some kinds have any."""
        return []

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
        return MetadataError(
            f"field {self.name!r}: expected {self.expected()}, "
            f"got {value!r} ({type(value).__name__}); {step}"
        )

    def not_a_code(self, code: Code) -> MetadataError:
        """The error for a code that no raw value has, as in the test modes ones and zeros."""
        return MetadataError(
            f"field {self.name!r}: expected the code of {self.expected()}, got {code.tolist()}; "
            f"decode only vectors made by encode, not those of a test mode"
        )


def listing(names: Iterable[str], most: int = 30) -> str:
    """Names for a message, the first `most` of them.

    >>> listing(["disc", "ring", "cross"], most=2)
    "'disc', 'ring' and 1 more"
    """
    quoted = [repr(name) for name in names]
    rest = len(quoted) - most
    return ", ".join(quoted[:most]) + (f" and {rest} more" if rest > 0 else "")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """The next step for a name that is not among the allowed ones.

    >>> did_you_mean("dsic", ["disc", "ring"])
    "did you mean 'disc'?"
    """
    close = difflib.get_close_matches(name, list(allowed), n=1)
    return f"did you mean {close[0]!r}?" if close else "use one of these names"


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
