"""Test modes: what happens when a trained network is given other metadata than the true one.

The modes are those of the thesis (3.2, tables 4.2, 4.6, 4.11, 4.13) and of a clinic: metadata that
is swapped, constant, missing, wrong by a factor or guessed from the image. All of them are decided
here, before any image is read, so that a run of the modes is an ordinary evaluation over more
items.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_monai.errors import MetadataError
from metaseg_monai.evaluation.changes import (
    beyond_range,
    inverted,
    labelled,
    perturbed,
    shuffled,
)
from metaseg_monai.evaluation.predicted import unit_of, with_predicted
from metaseg_monai.metadata import MetadataSchema

Item = dict[str, Any]
PLAIN_MODES = ("normal", "shuffle", "inverse", "zeros", "ones", "missing", "predicted")


def expand_modes(modes: Sequence[str], schema: MetadataSchema) -> list[str]:
    """Replace ``fixed:*`` by one mode for each label of the schema and check every name.

    Args:
        modes: names such as ``normal``, ``shuffle``, ``zeros``, ``fixed:*``, ``fixed:disc``,
            ``fixed:line=HeLa``, ``perturb:1.25``, ``predicted``.
        schema: the fields that the labels belong to.

    Raises:
        MetadataError: for a name that is not a mode, or a label that no field has.
    """
    expanded: list[str] = []
    for mode in modes:
        name, _, argument = mode.partition(":")
        if mode == "fixed:*":
            several = len(labelled(schema)) > 1
            expanded += [
                f"fixed:{field.name}={value}" if several else f"fixed:{value}"
                for field in labelled(schema)
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
    predicted: str | Path | None = None,
) -> list[Item]:
    """Return every item once for each mode, all items of the first mode first.

    Args:
        items: items with raw ``metadata``.
        modes: names of test modes, see `expand_modes`.
        schema: encodes the changed metadata.
        shuffle: ``{field: {label: foreign label}}``; by default the texts' cycle (each label
            becomes the next of its field, thesis 4.3).
        seed: of the derangement that ``shuffle`` applies to continuous fields and vectors.
        predicted: ``predicted.csv`` of the estimates that mode ``predicted`` gives instead of the
            true values of their field.

    Returns:
        Copies of the items with the key ``mode``, and with an encoded ``meta`` (M,) in every mode
        but ``normal``.

    Raises:
        MetadataError: if a mode cannot be applied to this schema or these items.
        DataError: if `predicted` is no table of estimates of these items.
    """
    return [
        changed
        for mode in expand_modes(modes, schema)
        for changed in _apply(mode, items, schema, shuffle or {}, seed, predicted)
    ]


def _apply(
    mode: str,
    items: Sequence[Item],
    schema: MetadataSchema,
    shuffle: Mapping[str, Mapping[str, str]],
    seed: int,
    predicted: str | Path | None,
) -> Iterable[Item]:
    name, _, argument = mode.partition(":")
    if name == "normal":
        return ({**item, "mode": mode} for item in items)
    if name in ("zeros", "ones", "missing"):
        vectors: Iterable[np.ndarray] = [_constant(name, schema)] * len(items)
    else:
        raws = [dict(item["metadata"]) for item in items]
        if name == "shuffle":
            raws = shuffled(raws, [unit_of(item) for item in items], schema, shuffle, seed)
        elif name == "inverse":
            raws = inverted(raws, schema)
        elif name == "fixed":
            field, value = _fixed_field(argument, schema)
            raws = [{**raw, field: value} for raw in raws]
        elif name == "predicted":
            raws = with_predicted(items, schema, predicted)
        else:
            raws = perturbed(raws, schema, _factor(argument))
        known = beyond_range(schema) if name in ("perturb", "predicted") else schema
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


def _fixed_field(argument: str, schema: MetadataSchema) -> tuple[str, str]:
    """Split ``label`` or ``field=value`` into the field's name and its value."""
    name, equals, value = argument.partition("=")
    if equals and name in schema.names:
        return name, value
    owners = [field.name for field in labelled(schema) if argument in field.values]
    if len(owners) != 1:
        labels = [f"{field.name}={v}" for field in labelled(schema) for v in field.values]
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
