"""The order and meaning of the entries of `meta`, from raw values to the vector and back."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike

from metaseg_monai.errors import MetadataError, did_you_mean, listing
from metaseg_monai.files import read_json, replacing
from metaseg_monai.metadata.fields import (
    RESERVED,
    AnyField,
    Availability,
    Categorical,
    Code,
    Continuous,
    MetadataWarning,
    Ordinal,
    Softness,
    read_field,
)
from metaseg_monai.metadata.tags import check_tag


@final
class MetadataSchema:
    """Fields of metadata in the order of their entries in `meta` (M,).

    Args:
        fields: The fields, or their settings as in JSON; names distinct. The first field has the
            first entries. Without fields M is 0, for data that have no metadata: such a schema
            serves the variants none and se.

    Raises:
        MetadataError: Two fields share a name, or a setting is wrong.

    >>> from metaseg_monai.metadata import Categorical, Continuous
    >>> schema = MetadataSchema([
    ...     Categorical(name="task", values=("disc", "ring"),
    ...                 provenance="acquisition", availability="acquisition"),
    ...     Continuous(name="tumour_size", unit="mm", range=(0, 100), missing="unknown",
    ...                provenance="label-derived", availability="pre-operative"),
    ... ])
    >>> schema.entry_names
    ('task=disc', 'task=ring', 'tumour_size', 'tumour_size=unknown')
    >>> schema.encode({"task": "ring", "tumour_size": "41"}).tolist()
    [0.0, 1.0, 0.4099999964237213, 0.0]
    >>> schema.decode([1, 0, 0, 1])
    {'task': 'disc', 'tumour_size': None}
    """

    def __init__(self, fields: Sequence[AnyField | Mapping[str, Any]]) -> None:
        self.fields = tuple(read_field(place, field) for place, field in enumerate(fields))
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise MetadataError(
                f"schema: expected distinct names, got {listing(twice)} more than once"
            )
        for field in self.fields:
            check_tag(field)
            if field.name in RESERVED:
                raise MetadataError(
                    f"field {field.name!r}: results tell cases by a column of this name; name the "
                    f"field otherwise, and the column in the column map: "
                    f'"metadata": {{"{field.name}_value": "{field.name}"}}'
                )
        self.slices: dict[str, slice] = {}
        start = 0
        for field in self.fields:
            self.slices[field.name] = slice(start, start + field.width)
            start += field.width
        self.width = start  # M

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields, in order."""
        return tuple(field.name for field in self.fields)

    @property
    def entry_names(self) -> tuple[str, ...]:
        """Names of the M entries, in order."""
        return tuple(name for field in self.fields for name in field.entry_names)

    def field(self, name: str) -> AnyField:
        """The field of that name; MetadataError where there is none."""
        if name not in self.slices:
            raise MetadataError(self._no_field(name))
        return self.fields[self.names.index(name)]

    def encode(self, raw: Mapping[str, Any], case: str = "") -> Code:
        """Turn raw values by field name into `meta`.

        Args:
            raw: One value a field. A field whose policy is ``unknown`` may be left out.
            case: Name of the case, for messages.

        Returns:
            Vector of shape (M,), float32.

        Raises:
            MetadataError: A value is missing, not allowed, a range, or belongs to no field; all
                such problems of the case in one message.

        Warns:
            MetadataWarning: A value is out of range in a field whose policy is ``flag``.
        """
        return self._whole(raw, case, [field.encode for field in self.fields])

    def span(self, raw: Mapping[str, Any], case: str = "") -> Code:
        """The lowest and highest `meta` of raw values of which some may be ranges.

        Args:
            raw: As for `encode`; a value of a continuous field may also be ``20..40``.
            case: Name of the case, for messages.

        Returns:
            Vectors of shape (2, M), float32; equal but where a value is a range, whose codes all
            lie between with equal chance.

        Raises:
            MetadataError: As `encode`, but for ranges.

        Warns:
            MetadataWarning: As `encode`.

        >>> schema = MetadataSchema([
        ...     Continuous(name="size_mm", unit="mm", range=(0, 100), provenance="acquisition",
        ...                availability="acquisition"),
        ... ])
        >>> schema.span({"size_mm": "20..40"}).tolist()
        [[0.20000000298023224], [0.4000000059604645]]
        """
        return self._whole(raw, case, [field.span for field in self.fields], (2,))

    def softness(self, raw: Mapping[str, Any]) -> dict[str, Softness]:
        """How each value that is a distribution is taken, by field: ``mixed`` or ``drawn``."""
        found = {field.name: field.softness(raw.get(field.name)) for field in self.fields}
        return {name: how for name, how in found.items() if how is not None}

    def as_declared(
        self, raw: Mapping[str, Any], joined: Counter[tuple[str, str, str]]
    ) -> dict[str, Any]:
        """Raw values in the writing of the schema, where only letter case, blanks or zeros differ.

        Whoever reads metadata calls it once, so that one value is one in every score.

        Args:
            raw: values by field; other names stay.
            joined: counts what is read as what, for `told_as`.
        """
        made = dict(raw)
        for field in self.fields:
            value = raw.get(field.name)
            declared = field.as_declared(value)
            if declared is not value and declared != value:
                made[field.name] = declared
                joined[field.name, str(value), declared] += 1
        return made

    @staticmethod
    def told_as(joined: Counter[tuple[str, str, str]]) -> list[str]:
        """What `as_declared` has counted, one message a writing."""
        return [
            f"field {name!r}: {text!r} is read as {value!r} in {count} case(s), from which it "
            "differs in letter case, blanks or how a number is written alone"
            for (name, text, value), count in joined.items()
        ]

    def problems(self, raw: Mapping[str, Any], case: str = "") -> list[str]:
        """What `span` would refuse, one message each; empty where the values are all right."""
        return self._attempt(raw, case, [field.span for field in self.fields])[1]

    def flags(self, raw: Mapping[str, Any], case: str = "") -> list[str]:
        """What `span` would warn of, one message each."""
        return [
            _of_case(case) + flag
            for field in self.fields
            for flag in field.flags(raw.get(field.name))
        ]

    def decode(self, vector: ArrayLike) -> dict[str, Any]:
        """Turn a vector (M,) made by `encode` back into raw values; None where one is unknown.

        Raises:
            MetadataError: The vector has another width, holds NaN or inf, or is no encoding
                (as the vectors of the test modes ones and zeros).
        """
        codes = np.asarray(vector, dtype=np.float32)
        if codes.shape != (self.width,) or not np.isfinite(codes).all():
            raise MetadataError(
                f"meta: expected {self.width} finite entries ({listing(self.entry_names)}), got "
                f"shape {codes.shape} with {int((~np.isfinite(codes)).sum())} not finite; "
                f"encode it with this schema"
            )
        return {field.name: field.decode(codes[self.slices[field.name]]) for field in self.fields}

    @property
    def knows_unknown(self) -> bool:
        """Whether every field may be unknown (`missing="unknown"`), so that `unknown()` works."""
        return all(field.missing == "unknown" for field in self.fields)

    def unknown(self, fields: Iterable[str] | None = None) -> Code:
        """The vector (M,) that says unknown for the named fields, by default for all.

        The entries of fields that are not named are 0.

        Raises:
            MetadataError: The policy of a named field is ``error``, or there is no such field.
        """
        vector = np.zeros(self.width, dtype=np.float32)
        for name in self.names if fields is None else fields:
            vector[self.slices[self.field(name).name]] = self.field(name).unknown()
        return vector

    def check_availability(
        self, moment: Availability = "pre-operative", force: bool = False
    ) -> None:
        """Refuse a schema that needs values not yet known at a moment.

        Args:
            moment: When the model is used: acquisition, pre-operative or post-operative.
            force: Accept them all the same, as in a retrospective study.

        Raises:
            MetadataError: A field becomes available only later, or `moment` is no such moment.
        """
        later = [field for field in self.fields if not field.known_at(moment)]
        if later and not force:
            named = ", ".join(f"{field.name!r} ({field.availability})" for field in later)
            raise MetadataError(
                f"expected metadata known at the moment {moment!r}, got fields known only later: "
                f"{named}; use a model trained without them, or force it for a retrospective study"
            )

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Each field's settings that change its code or its use.

        That is all but its description, and where the values of a DICOM series are found.
        """
        beside = {"description", "tag", "tag_values"}
        return [field.model_dump(mode="json", exclude=beside) for field in self.fields]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of `settings`."""
        canonical = json.dumps(
            self.settings, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def with_policy(self, out_of_range: Literal["error", "flag"]) -> MetadataSchema:
        """The schema with another policy for values out of range.

        That is numbers out of the range of continuous fields, which ``flag`` takes as they are, and
        names that are none of a categorical or ordinal field, which it takes as unknown: only
        where the field's policy for missing values is ``unknown``.
        """
        own = {"out_of_range": out_of_range}
        return MetadataSchema(
            [
                field.model_copy(update=own)
                if isinstance(field, Continuous)
                or (isinstance(field, Categorical | Ordinal) and field.missing == "unknown")
                else field
                for field in self.fields
            ]
        )

    def to_dict(self) -> dict[str, Any]:
        """The schema as plain lists, texts and numbers, for JSON and checkpoints."""
        return {"fields": [field.model_dump(mode="json") for field in self.fields]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> MetadataSchema:
        """Read what `to_dict` gave.

        Raises:
            MetadataError: A field or setting is unknown, absent or wrong; names both.
        """
        fields = content.get("fields") if isinstance(content, Mapping) else None
        if not isinstance(fields, list | tuple) or set(content) != {"fields"}:
            raise MetadataError(f'schema: expected {{"fields": [...]}}, got {content!r:.200}')
        return cls(fields)

    def save(self, path: str | Path) -> None:
        """Write the schema as JSON, whole or not at all."""
        with replacing(path) as part:
            part.write_text(f"{self}\n", "utf-8")

    @classmethod
    def load(
        cls, path: str | Path, out_of_range: Literal["error", "flag"] | None = None
    ) -> MetadataSchema:
        """Read the JSON that `save` wrote.

        Args:
            path: The file.
            out_of_range: Policy that takes the place of the fields' own, see `with_policy`.

        Raises:
            MetadataError: The file is absent, no JSON or no schema; names file and field.
        """
        if out_of_range not in (None, "error", "flag"):
            raise MetadataError(f"out_of_range={out_of_range!r}: expected error or flag")
        try:
            schema = cls.from_dict(read_json(path))
            return schema if out_of_range is None else schema.with_policy(out_of_range)
        except (OSError, ValueError) as error:  # MetadataError and JSONDecodeError are ValueErrors
            raise MetadataError(
                f"{path}: not a metadata schema: {error}; correct the file, or write one with "
                f"python -m metaseg_monai fit-schema"
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MetadataSchema) and self.fields == other.fields

    def __hash__(self) -> int:
        return hash(self.fields)

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def __repr__(self) -> str:
        return f"MetadataSchema({', '.join(f'{f.name}: {f.kind}[{f.width}]' for f in self.fields)})"

    def _whole(
        self,
        raw: Mapping[str, Any],
        case: str,
        encoders: Sequence[Callable[[Any], Code]],
        ends: tuple[int, ...] = (),
    ) -> Code:
        """The codes of all fields, each (*ends, width), side by side; there may be no field."""
        codes, problems = self._attempt(raw, case, encoders)
        if problems:
            raise MetadataError("\n".join(problems))
        for flag in self.flags(raw, case):
            warnings.warn(flag, MetadataWarning, stacklevel=3)
        return np.concatenate([np.zeros((*ends, 0), np.float32), *codes], axis=-1)

    def _attempt(
        self, raw: Mapping[str, Any], case: str, encoders: Sequence[Callable[[Any], Code]]
    ) -> tuple[list[Code], list[str]]:
        """The codes of the fields that encode, and the problems of those that do not."""
        place = _of_case(case)
        if not isinstance(raw, Mapping):
            return [], [f"{place}metadata: expected values by field name, got {raw!r:.200}"]
        codes = []
        problems = [f"{place}{self._no_field(name)}" for name in raw if name not in self.slices]
        for field, encode in zip(self.fields, encoders, strict=True):
            try:
                codes.append(encode(raw.get(field.name)))
            except MetadataError as error:
                problems.append(f"{place}{error}")
        return codes, problems

    def _no_field(self, name: object) -> str:
        return (
            f"{name!r} is no field of the schema, expected one of {listing(self.names)}; "
            f"{did_you_mean(str(name), self.names, told=True)}"
        )


def _of_case(case: str) -> str:
    return f"case {case!r}, " if case else ""
