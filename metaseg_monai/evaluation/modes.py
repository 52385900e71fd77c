"""Test modes: what happens when a trained network is given other metadata than the true one.

The modes are those of the thesis (3.2, tables 4.2, 4.6, 4.11, 4.13) and of a clinic: metadata that
is swapped, constant, missing or wrong by a factor. All of them are decided here, before any image
is read, so that a run of the modes is an ordinary evaluation over more items.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, MultiLabel, Ordinal

Item = dict[str, Any]
PLAIN_MODES = ("normal", "shuffle", "inverse", "zeros", "ones", "missing")


def expand_modes(modes: Sequence[str], schema: MetadataSchema) -> list[str]:
    """Replace ``fixed:*`` by one mode for each label of the schema and check every name.

    Args:
        modes: names such as ``normal``, ``shuffle``, ``zeros``, ``fixed:*``, ``fixed:disc``,
            ``fixed:line=HeLa``, ``perturb:1.25``.
        schema: the fields that the labels belong to.

    Raises:
        MetadataError: for a name that is not a mode, or a label that no field has.
    """
    expanded: list[str] = []
    for mode in modes:
        name, _, argument = mode.partition(":")
        if mode == "fixed:*":
            several = len(_labelled(schema)) > 1
            expanded += [
                f"fixed:{field.name}={value}" if several else f"fixed:{value}"
                for field in _labelled(schema)
                for value in field.values
            ]
        elif mode in PLAIN_MODES or (name in ("fixed", "perturb") and argument):
            if name == "fixed":
                _fixed_field(argument, schema)
            elif name == "perturb":
                _factor(argument)
            expanded.append(mode)
        else:
            raise MetadataError(
                f"There is no test mode {mode!r}. Use one of {', '.join(PLAIN_MODES)}, "
                "fixed:<label>, fixed:* or perturb:<factor>."
            )
    return list(dict.fromkeys(expanded))


def cross_modes(
    items: Sequence[Item],
    modes: Sequence[str],
    schema: MetadataSchema,
    shuffle: Mapping[str, Mapping[str, str]] | None = None,
    seed: int = 0,
) -> list[Item]:
    """Return every item once for each mode, all items of the first mode first.

    Args:
        items: items with raw ``metadata``.
        modes: names of test modes, see `expand_modes`.
        schema: encodes the changed metadata.
        shuffle: ``{field: {label: foreign label}}``; by default the texts' cycle (each label
            becomes the next of its field, thesis 4.3).
        seed: of the derangement that ``shuffle`` applies to continuous fields and vectors.

    Returns:
        Copies of the items with the key ``mode``, and with an encoded ``meta`` (M,) in every mode
        but ``normal``.

    Raises:
        MetadataError: if a mode cannot be applied to this schema or these items.
    """
    return [
        changed
        for mode in expand_modes(modes, schema)
        for changed in _apply(mode, items, schema, shuffle or {}, seed)
    ]


def _apply(
    mode: str,
    items: Sequence[Item],
    schema: MetadataSchema,
    shuffle: Mapping[str, Mapping[str, str]],
    seed: int,
) -> Iterable[Item]:
    name, _, argument = mode.partition(":")
    if name == "normal":
        return ({**item, "mode": mode} for item in items)
    if name in ("zeros", "ones", "missing"):
        vectors: Iterable[np.ndarray] = [_constant(name, schema)] * len(items)
    else:
        raws = [dict(item["metadata"]) for item in items]
        if name == "shuffle":
            raws = _shuffled(raws, schema, shuffle, seed)
        elif name == "inverse":
            raws = _inverted(raws, schema)
        elif name == "fixed":
            field, value = _fixed_field(argument, schema)
            raws = [{**raw, field: value} for raw in raws]
        else:
            raws = _perturbed(raws, schema, _factor(argument))
        known = _beyond_range(schema) if name == "perturb" else schema
        vectors = [
            known.encode(raw, case=f"{item['case']} (mode {mode})")
            for raw, item in zip(raws, items, strict=True)
        ]
    return (
        {**item, "mode": mode, "meta": vector} for item, vector in zip(items, vectors, strict=True)
    )


def _constant(name: str, schema: MetadataSchema) -> np.ndarray:
    if name == "missing":
        return schema.unknown()
    return np.full(schema.width, float(name == "ones"), dtype=np.float32)


def _shuffled(
    raws: list[Item], schema: MetadataSchema, shuffle: Mapping[str, Mapping[str, str]], seed: int
) -> list[Item]:
    shuffled = [dict(raw) for raw in raws]
    for number, field in enumerate(schema.fields):
        if isinstance(field, Categorical | Ordinal | MultiLabel):
            mapping = shuffle.get(field.name) or _cycle(field.values)
            _check_mapping(mapping, field.name, field.values)
            separator = field.separator if isinstance(field, MultiLabel) else None
            for raw in shuffled:
                raw[field.name] = _relabel(raw.get(field.name), mapping, separator)
        else:
            source = _derangement(len(raws), seed + number, field.name)
            for target, origin in zip(shuffled, source, strict=True):
                target[field.name] = raws[origin].get(field.name)
    return shuffled


def _inverted(raws: list[Item], schema: MetadataSchema) -> list[Item]:
    pairs = [field for field in _labelled(schema) if len(field.values) == 2]
    if len(schema.fields) != 1 or not pairs:
        raise MetadataError(
            "Mode 'inverse' needs a schema of one field with two labels (thesis 4.1); this one has "
            f"{', '.join(schema.entry_names)}. Use 'shuffle' instead."
        )
    field = pairs[0]
    mapping = _cycle(field.values)
    return [{**raw, field.name: _relabel(raw.get(field.name), mapping)} for raw in raws]


def _perturbed(raws: list[Item], schema: MetadataSchema, factor: float) -> list[Item]:
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


def _labelled(schema: MetadataSchema) -> list[Categorical | Ordinal]:
    """The fields whose value is one label of a list."""
    return [field for field in schema.fields if isinstance(field, Categorical | Ordinal)]


def _beyond_range(schema: MetadataSchema) -> MetadataSchema:
    """The schema that flags what it would refuse: a perturbed value may leave the range."""
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


def _derangement(count: int, seed: int, field: str) -> list[int]:
    """Draw one cycle through all cases, so that no case keeps its own value."""
    if count < 2:
        raise MetadataError(
            f"Mode 'shuffle' of field {field!r} needs at least two cases; there is {count}."
        )
    order = np.random.default_rng(seed).permutation(count)
    source = np.empty(count, dtype=int)
    source[order] = np.roll(order, 1)
    return source.tolist()


def _fixed_field(argument: str, schema: MetadataSchema) -> tuple[str, str]:
    """Split ``label`` or ``field=value`` into the field's name and its value."""
    name, equals, value = argument.partition("=")
    if equals and name in schema.names:
        return name, value
    owners = [field.name for field in _labelled(schema) if argument in field.values]
    if len(owners) != 1:
        labels = [f"{field.name}={v}" for field in _labelled(schema) for v in field.values]
        raise MetadataError(
            f"Mode 'fixed:{argument}' names {len(owners) or 'no'} label(s) of the schema. "
            f"Labels: {', '.join(labels) or 'none'}; write fixed:<field>=<value>."
        )
    return owners[0], argument


def _factor(argument: str) -> float:
    try:
        factor = float(argument)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise MetadataError(f"Mode 'perturb:{argument}' needs a positive number, as perturb:1.25.")
    return factor
