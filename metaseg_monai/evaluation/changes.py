"""How the raw metadata of all cases are changed for a test mode, before they are encoded."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import (
    Categorical,
    Continuous,
    MetadataField,
    MetadataSchema,
    MultiLabel,
    Ordinal,
)

Raw = dict[str, Any]

DRAWS = 100  # of a shuffle, where several cases have equal values


def labelled(schema: MetadataSchema) -> list[Categorical | Ordinal]:
    """The fields whose value is one label of a list."""
    return [field for field in schema.fields if isinstance(field, Categorical | Ordinal)]


def shuffled(
    raws: Sequence[Raw],
    units: Sequence[Hashable],
    schema: MetadataSchema,
    shuffle: Mapping[str, Mapping[str, str]],
    seed: int,
) -> list[Raw]:
    """Labels changed by the mapping; numbers and vectors those of another unit.

    Slices of one patient share a size: drawn slice by slice, many would keep their own. So whole
    units change places, unless the items of one differ in the field; then single items do.

    Args:
        raws: N raw values by field name.
        units: to which unit each of the N belongs, such as its group and volume.
        schema: of the metadata.
        shuffle: ``{field: {label: foreign label}}``; by default each label becomes the next.
        seed: of the derangement.

    Raises:
        MetadataError: a mapping forgets a label, or there are not two units.
    """
    changed = [dict(raw) for raw in raws]
    for number, field in enumerate(schema.fields):
        if isinstance(field, Categorical | Ordinal | MultiLabel):
            mapping = shuffle.get(field.name) or _cycle(field.values)
            _check_mapping(mapping, field.name, field.values)
            separator = field.separator if isinstance(field, MultiLabel) else None
            for raw in changed:
                raw[field.name] = _relabel(raw.get(field.name), mapping, separator)
        else:
            foreign = _foreign([raw.get(field.name) for raw in raws], units, seed + number, field)
            for raw, value in zip(changed, foreign, strict=True):
                raw[field.name] = value
    return changed


def _foreign(
    values: Sequence[Any], units: Sequence[Hashable], seed: int, field: MetadataField
) -> list[Any]:
    """Give every unit the value of another, or every item where the items of a unit differ."""
    of_unit: dict[Hashable, Any] = {}
    # by their text, for a vector may be an array, and NaN is no other value than NaN
    if any(
        repr(of_unit.setdefault(unit, value)) != repr(value)
        for unit, value in zip(units, values, strict=True)
    ):
        units = range(len(values))
        of_unit = dict(enumerate(values))
    names = list(of_unit)
    source = _derangement([repr(value) for value in of_unit.values()], seed, field.name)
    foreign = {name: of_unit[names[origin]] for name, origin in zip(names, source, strict=True)}
    return [foreign[unit] for unit in units]


def inverted(raws: Sequence[Raw], schema: MetadataSchema) -> list[Raw]:
    """The other one of two labels; MetadataError for any other schema."""
    pairs = [field for field in labelled(schema) if len(field.values) == 2]
    if len(schema.fields) != 1 or not pairs:
        raise MetadataError(
            "Mode 'inverse' needs a schema of one field with two labels (thesis 4.1); this one has "
            f"{', '.join(schema.entry_names)}. Use 'shuffle' instead."
        )
    field = pairs[0]
    mapping = _cycle(field.values)
    return [{**raw, field.name: _relabel(raw.get(field.name), mapping)} for raw in raws]


def perturbed(raws: Sequence[Raw], schema: MetadataSchema, factor: float) -> list[Raw]:
    """Every continuous value times a factor, missing ones still missing.

    Raises:
        MetadataError: the schema has no continuous field.
    """
    continuous = [field.name for field in schema.fields if isinstance(field, Continuous)]
    if not continuous:
        raise MetadataError("Mode 'perturb' needs a continuous field; this schema has none.")
    return [
        {
            **raw,
            **{
                name: float(raw[name]) * factor
                for name in continuous
                if not schema.field(name).is_missing(raw.get(name))
            },
        }
        for raw in raws
    ]


def beyond_range(schema: MetadataSchema) -> MetadataSchema:
    """The schema that flags what it would refuse: a changed value may leave the range."""
    return MetadataSchema(
        [
            field.model_copy(update={"out_of_range": "flag"})
            if isinstance(field, Continuous)
            else field
            for field in schema.fields
        ]
    )


def _cycle(values: Sequence[str]) -> dict[str, str]:
    return dict(zip(values, (*values[1:], values[0]), strict=True))


def _check_mapping(mapping: Mapping[str, str], field: str, values: Sequence[str]) -> None:
    wrong = set(mapping) ^ set(values) | set(mapping.values()) - set(values)
    if wrong:
        raise MetadataError(
            f"The shuffle mapping of field {field!r} must give each of {', '.join(values)} a label "
            f"of the same field; check {', '.join(sorted(wrong))} in the setting shuffle, or pass "
            "--shuffle {} for the texts' cycle."
        )


def _relabel(value: Any, mapping: Mapping[str, str], separator: str | None = None) -> Any:
    """Map a label, a mixture of labels or several labels; leave a missing value missing."""
    if isinstance(value, str):
        parts = [value] if separator is None else value.split(separator)
        return (separator or "").join(mapping.get(part.strip(), part) for part in parts)
    if isinstance(value, Mapping):
        return {mapping[label]: share for label, share in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mapping[label] for label in value]
    return value


def _derangement(values: Sequence[str], seed: int, field: str) -> list[int]:
    """Draw one cycle through all units: none gets its own value back.

    Where several units have equal values, of many draws the one counts that gives the fewest of
    them a value like their own.
    """
    count = len(values)
    if count < 2:
        raise MetadataError(
            f"Mode 'shuffle' of field {field!r} needs at least two cases of different groups; "
            f"there is {count}."
        )
    random = np.random.default_rng(seed)
    best: list[int] = []
    fewest = count + 1
    for _ in range(DRAWS):
        order = random.permutation(count)
        source = np.empty(count, dtype=int)
        source[order] = np.roll(order, 1)
        kept = sum(values[place] == values[other] for place, other in enumerate(source))
        if kept < fewest:
            best, fewest = source.tolist(), kept
        if fewest == 0:
            break
    return best
