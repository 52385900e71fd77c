"""Test modes: what happens when a trained network is given other metadata than the true one.

The modes are those of the thesis (3.2, tables 4.2, 4.6, 4.11, 4.13) and of a clinic: metadata that
is swapped, constant, missing, wrong by a factor or guessed from the image. All of them are decided
here, before any image is read, so that a run of the modes is an ordinary evaluation over more
items.
"""

import logging
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError, MetadataError, listing
from metaseg_monai.evaluation.per_case import NUMBER, TEXT, WHOLE, Table, read_rows
from metaseg_monai.inferers.steered import STRONGEST
from metaseg_monai.metadata.fields import (
    UNKNOWN,
    Categorical,
    Continuous,
    MetadataField,
    MultiLabel,
    Ordinal,
)
from metaseg_monai.metadata.schema import MetadataSchema

Item = Mapping[str, Any]
Raw = dict[str, Any]  # values by field, before they are encoded
Unit = tuple[str, str]
Shuffle = Mapping[str, Mapping[str, str]]
PLAIN_MODES = ("normal", "shuffle", "inverse", "zeros", "ones", "missing", "predicted", "soft")
GUIDED = ("shuffle", "inverse", "predicted")  # modes that may have a guidance
DRAWS = 100  # of a shuffle, where several cases have equal values

logger = logging.getLogger(__name__)


def evaluation_items(
    items: Sequence[Item],
    schema: MetadataSchema,
    domain: str | None,
    modes: str | Sequence[str] = ("normal",),
    shuffle: Shuffle | None = None,
    seed: int = 0,
    predicted: str | Path | None = None,
    unknown: bool = True,
) -> list[dict[str, Any]]:
    """Every case once for each test mode, all cases of the first mode first.

    Args:
        items: cases of one split, with raw ``metadata``.
        schema: encodes the changed metadata.
        domain: metadata field whose true value is the domain that a case is scored in
            (cell line, task); where it is missing the domain is ``unknown``. None puts all cases
            in one domain ``all``.
        modes: names of test modes, see `expand_modes`; or one name.
        shuffle: ``{field: {label: foreign label}}`` of mode ``shuffle``; by default the texts'
            cycle (each label becomes the next of its field, thesis 4.3).
        seed: of the derangement that ``shuffle`` applies to continuous fields and vectors.
        predicted: ``predicted.csv`` of the estimates that mode ``predicted`` gives instead of the
            true values of their field.
        unknown: False for a network that was trained without unknown metadata: what it makes of
            mode ``missing`` means nothing, so that the mode is left out with a warning.

    Returns:
        Copies of the items with ``mode`` and ``domain``, and with an encoded ``meta`` (M,) in
        every mode but ``normal``; it is (2, M), both ends, where a value is a range.

    Modes that take another case's metadata are left out, and told, where there is no other group.

    Raises:
        MetadataError: if ``domain`` is no field of the schema, a mode cannot be applied to this
            schema or these items, or none is asked for, or ``missing`` alone without `unknown`.
        DataError: if `predicted` is no table of estimates of these cases.
    """
    if domain is not None and domain not in schema.names:
        raise MetadataError(
            f"The domain field {domain!r} is not in the schema; choose one of "
            f"{', '.join(schema.names)} or None."
        )
    field = None if domain is None else schema.field(domain)
    named = [{**item, "domain": _domain(item["metadata"], field)} for item in items]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if not modes:
        raise MetadataError("No test mode is named; give one or more, such as normal.")
    known = modes if unknown else _without_missing(modes, schema)
    check_modes(known, schema, shuffle, predicted)
    made: list[dict[str, Any]] = []
    alone: list[str] = []
    why = None
    for mode in expand_modes(known, schema):
        try:
            made += _in_mode(mode, named, schema, shuffle or {}, seed, predicted)
        except AloneError as error:
            alone, why = [*alone, mode], error
    if why is not None and not made:
        raise why
    if why is not None:
        logger.warning("Mode %s is left out: %s", listing(alone, 5), why)
    return made


def _domain(metadata: Mapping[str, Any], field: MetadataField | None) -> str:
    """What a case is scored as: the value of a field, however it is missing one."""
    if field is None:
        return "all"
    value = metadata.get(field.name)
    return UNKNOWN if field.is_missing(value) else str(value)


def expand_modes(modes: Sequence[str], schema: MetadataSchema) -> list[str]:
    """Replace ``fixed:*`` by one mode for each label of the schema and check every name.

    Args:
        modes: names such as ``normal``, ``shuffle``, ``zeros``, ``fixed:*``, ``fixed:disc``,
            ``fixed:line=HeLa``, ``perturb:1.25``, ``predicted``, ``soft``, ``guided:0.5`` (true
            metadata at that guidance), ``guided:0.5:shuffle`` (those of another mode).
        schema: the fields that the labels belong to.

    Raises:
        MetadataError: for a name that is not a mode, or a label that no field has.
    """
    expanded: list[str] = []
    for mode in modes:
        name, _, argument = mode.partition(":")
        if mode == "fixed:*":
            fields = _labelled(schema)
            for field in fields:
                named = f"{field.name}=" if len(fields) > 1 else ""
                expanded += [f"fixed:{named}{value}" for value in field.values]
            continue
        if name == "fixed" and argument:
            _fixed_field(argument, schema)
        elif name == "perturb" and argument:
            _factor(argument)
        elif name == "guided" and argument:
            strength_of(argument)
        elif mode not in PLAIN_MODES:
            raise MetadataError(
                f"There is no test mode {mode!r}. Use one of {', '.join(PLAIN_MODES)}, "
                "fixed:<label>, fixed:*, perturb:<factor>, guided:<w> or guided:<w>:shuffle."
            )
        expanded.append(mode)
    return list(dict.fromkeys(expanded))


def check_modes(
    modes: Sequence[str],
    schema: MetadataSchema,
    shuffle: Shuffle | None = None,
    predicted: str | Path | None = None,
) -> None:
    """Refuse what could not be tested on any case of a schema, before there are cases.

    Args:
        modes: as for `expand_modes`.
        schema: whose metadata are changed.
        shuffle: as for `evaluation_items`; likewise `predicted`.

    Raises:
        MetadataError: see `evaluation_items`.
    """
    for mode in expand_modes(modes, schema):
        name = mode.partition(":")[0]
        if name == "inverse":
            _inverted([], schema)
        elif name == "perturb":
            _perturbed([], schema, 1.0)
        elif name in ("predicted", "soft") and predicted is None:
            raise MetadataError(NO_ESTIMATES)
        elif name == "shuffle":
            for field in schema.fields:
                if isinstance(field, Categorical | Ordinal | MultiLabel):
                    _mapping(field, shuffle or {})
    if strange := sorted(set(shuffle or {}) - set(schema.names)):
        logger.warning(
            "shuffle maps %s, which the schema does not have (%s); labels of fields without a "
            "mapping change by the texts' cycle",
            ", ".join(strange),
            ", ".join(schema.names),
        )


def _without_missing(modes: Sequence[str], schema: MetadataSchema) -> list[str]:
    left = [mode for mode in modes if mode != "missing" and not mode.startswith("guided:")]
    if len(left) == len(modes):
        return left
    why = (
        "the network was trained without unknown metadata (metadata_dropout 0) and does not know "
        "it; train with --metadata_dropout 0.1"
    )
    if all(field.missing == "unknown" for field in schema.fields):
        why += ", or pass --items#unknown True if its training table had missing values"
    if not left:
        raise MetadataError(f"Mode {modes[0]} cannot be tested: {why}.")
    logger.warning(
        "Mode %s is left out: %s.", listing([m for m in modes if m not in left], 5, str), why
    )
    return left


def _in_mode(
    mode: str,
    items: Sequence[Item],
    schema: MetadataSchema,
    shuffle: Shuffle,
    seed: int,
    predicted: str | Path | None,
) -> Iterable[dict[str, Any]]:
    name, _, argument = mode.partition(":")
    if name == "normal":
        return [{**item, "mode": mode} for item in items]
    if name == "guided":
        return _guided(mode, items, schema, shuffle, seed, predicted)
    raws = [dict(item["metadata"]) for item in items]
    if name in ("zeros", "ones", "missing"):
        constant = np.full(schema.width, float(name == "ones"), dtype=np.float32)
        vectors = [schema.unknown() if name == "missing" else constant] * len(items)
    else:
        if name == "shuffle":
            raws = _shuffled(raws, [unit_of(item) for item in items], schema, shuffle, seed)
        elif name == "inverse":
            raws = _inverted(raws, schema)
        elif name == "fixed":
            field, value = _fixed_field(argument, schema)
            raws = [{**raw, field: value} for raw in raws]
        elif name in ("predicted", "soft"):
            raws = _with_predicted(items, schema, predicted, name)
        else:
            raws = _perturbed(raws, schema, _factor(argument))
        known = _beyond_range(schema) if name in ("perturb", "predicted", "soft") else schema
        spans = [
            known.span(raw, case=f"{item['case']} (mode {mode})")
            for raw, item in zip(raws, items, strict=True)
        ]
        vectors = [ends[0] if np.array_equal(*ends) else ends for ends in spans]
    return [{**item, "mode": mode, "meta": meta} for item, meta in zip(items, vectors, strict=True)]


def strength_of(argument: str) -> tuple[float, str]:
    """Guidance and mode of ``0.5`` or ``0.5:shuffle``.

    Raises:
        MetadataError: the guidance is no number from 0 to 2, or the mode is none that changes
            metadata.
    """
    number, _, inner = argument.partition(":")
    try:
        strength = float(number)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= STRONGEST or (inner and inner not in GUIDED):
        raise MetadataError(
            f"Mode 'guided:{argument}' needs a guidance from 0 to {STRONGEST:g}, as guided:0.5, "
            f"and maybe one of {', '.join(GUIDED)}, as guided:0.5:shuffle."
        )
    return strength, inner or "normal"


def _guided(
    mode: str,
    items: Sequence[Item],
    schema: MetadataSchema,
    shuffle: Shuffle,
    seed: int,
    predicted: str | Path | None,
) -> list[dict[str, Any]]:
    """The items of another mode, each with a guidance of its own."""
    strength, inner = strength_of(mode.partition(":")[2])
    changed = []
    for item in _in_mode(inner, items, schema, shuffle, seed, predicted):
        meta = item.get("meta")
        if meta is None:
            ends = schema.span(dict(item["metadata"]), case=f"{item['case']} (mode {mode})")
            meta = ends[0] if np.array_equal(*ends) else ends
        if np.ndim(meta) == 2:
            raise MetadataError(
                f"Mode {mode!r} cannot be tested: {item['case']} has a range of values, over which "
                "predictions are averaged; leave the mode out."
            )
        rows = np.stack([meta, meta, np.full_like(meta, strength)])
        changed.append({**item, "mode": mode, "meta": rows})
    return changed


# How the raw metadata of all cases are changed, before they are encoded.


def _labelled(schema: MetadataSchema) -> list[Categorical | Ordinal]:
    """The fields whose value is one label of a list."""
    return [field for field in schema.fields if isinstance(field, Categorical | Ordinal)]


def _shuffled(
    raws: Sequence[Raw],
    units: Sequence[Hashable],
    schema: MetadataSchema,
    shuffle: Shuffle,
    seed: int,
) -> list[Raw]:
    """Labels changed by the mapping; numbers and vectors those of another unit.

    Slices of one patient share a size: drawn slice by slice, many would keep their own. So whole
    units change places, unless the items of one differ in the field; then single items do.
    """
    changed = [dict(raw) for raw in raws]
    for number, field in enumerate(schema.fields):
        if isinstance(field, Categorical | Ordinal | MultiLabel):
            mapping = _mapping(field, shuffle)
            separator = field.separator if isinstance(field, MultiLabel) else None
            for raw in changed:
                raw[field.name] = _relabel(_mixture(raw.get(field.name), field), mapping, separator)
        else:
            foreign = _foreign([raw.get(field.name) for raw in raws], units, seed + number, field)
            for raw, value in zip(changed, foreign, strict=True):
                raw[field.name] = value
    return changed


def _mapping(field: Categorical | Ordinal | MultiLabel, shuffle: Shuffle) -> Mapping[str, str]:
    mapping = shuffle.get(field.name) or _cycle(field.values)
    wrong = set(mapping) ^ set(field.values) | set(mapping.values()) - set(field.values)
    if wrong:
        raise MetadataError(
            f"The shuffle mapping of field {field.name!r} must give each of "
            f"{', '.join(field.values)} a label of the same field; check "
            f"{', '.join(sorted(wrong))} in the setting shuffle, or pass --shuffle {{}} "
            "for the texts' cycle."
        )
    return mapping


def _cycle(values: Sequence[str]) -> dict[str, str]:
    return dict(zip(values, (*values[1:], values[0]), strict=True))


def _mixture(value: Any, field: Categorical | Ordinal | MultiLabel) -> Any:
    """The fractions by label of a distribution; any other value as it is."""
    shares = None if isinstance(field, MultiLabel) else field.shares(value)
    return value if shares is None else shares


def _relabel(value: Any, mapping: Mapping[str, str], separator: str | None = None) -> Any:
    """Map a label, a mixture of labels or several labels; leave a missing value missing."""
    if isinstance(value, str):
        parts = [value] if separator is None else value.split(separator)
        return (separator or "").join(mapping.get(part.strip(), part) for part in parts)
    if isinstance(value, Mapping):
        return {mapping.get(label, label): share for label, share in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [mapping[label] for label in value]
    return value


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


class AloneError(MetadataError):
    """There is nobody whose metadata a case could be given."""


def _derangement(values: Sequence[str], seed: int, field: str) -> list[int]:
    """Draw one cycle through all units: none gets its own value back.

    Where several units have equal values, of many draws the one counts that gives the fewest of
    them a value like their own.
    """
    count = len(values)
    if count < 2:
        raise AloneError(
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


def _inverted(raws: Sequence[Raw], schema: MetadataSchema) -> list[Raw]:
    """The other one of two labels; MetadataError for any other schema."""
    pairs = [field for field in _labelled(schema) if len(field.values) == 2]
    if len(schema.fields) != 1 or not pairs:
        raise MetadataError(
            "Mode 'inverse' needs a schema of one field with two labels (thesis 4.1); this one has "
            f"{', '.join(schema.entry_names)}. Use 'shuffle' instead."
        )
    name, mapping = pairs[0].name, _cycle(pairs[0].values)
    return [{**raw, name: _relabel(_mixture(raw.get(name), pairs[0]), mapping)} for raw in raws]


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


def _perturbed(raws: Sequence[Raw], schema: MetadataSchema, factor: float) -> list[Raw]:
    """Every continuous value times a factor, missing ones still missing."""
    continuous = [field for field in schema.fields if isinstance(field, Continuous)]
    if not continuous:
        raise MetadataError("Mode 'perturb' needs a continuous field; this schema has none.")
    return [
        raw
        | {
            field.name: field.times(raw[field.name], factor)
            for field in continuous
            if not field.is_missing(raw.get(field.name))
        }
        for raw in raws
    ]


def _factor(argument: str) -> float:
    try:
        factor = float(argument)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise MetadataError(f"Mode 'perturb:{argument}' needs a positive number, as perturb:1.25.")
    return factor


def _beyond_range(schema: MetadataSchema) -> MetadataSchema:
    """The schema that flags what it would refuse: a changed value may leave the range."""
    return MetadataSchema(
        [
            field.model_copy(update={"out_of_range": "flag"})
            if isinstance(field, Continuous)
            else field
            for field in schema.fields
        ]
    )


# The mode whose metadata were estimated from the image, in the place of the true ones.

ESTIMATE_COMMAND = "python -m metaseg_monai estimate <bundle> --output_dir runs/size"
NO_ESTIMATES = (
    "Modes 'predicted' and 'soft' need estimates of the metadata. Make them: "
    f"{ESTIMATE_COMMAND} and "
    "pass --predicted_metadata runs/size/predicted.csv, or leave the mode out."
)
PREDICTED = Table(
    "estimates",
    f"make them: {ESTIMATE_COMMAND}",
    {
        **dict.fromkeys(("group", "volume", "split", "field", "unit"), TEXT),
        **{"predicted": NUMBER, "true": NUMBER._replace(empty=True)},
        **{"clipped": WHOLE, "slices": WHOLE, "soft": TEXT},
    },
    key=("group", "volume"),
    later={"soft": ""},  # 0.1.0 had none
    again=f"estimate again: {ESTIMATE_COMMAND}",
)
PREDICTED_NAMES = replace(PREDICTED, columns={**PREDICTED.columns, "predicted": TEXT, "true": TEXT})


def unit_of(item: Item) -> Unit:
    """The group and volume whose items share one value; an empty text where there is no volume."""
    return str(item.get("group", item.get("case", ""))), str(item.get("volume", ""))


def read_predicted(path: str | Path) -> pd.DataFrame:
    """Read the ``predicted.csv`` that an estimate wrote: a row a group (and volume).

    Raises:
        DataError: see `read_rows`; or the estimates are of several fields.
    """
    rows = read_rows(path, PREDICTED_NAMES if _of_names(Path(path)) else PREDICTED)
    if len(fields := sorted(set(rows["field"]))) != 1:
        raise DataError(f"{path}: expected estimates of one field, got {', '.join(fields)}.")
    return rows


def _of_names(path: Path) -> bool:
    """Whether estimates are names, which have no unit."""
    try:
        units = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=["unit"])["unit"]
    except (OSError, ValueError):  # told by who reads the table
        return False
    return bool(len(units)) and not units.any()


def _with_predicted(
    items: Sequence[Item], schema: MetadataSchema, path: str | Path | None, mode: str
) -> list[Raw]:
    """The raw metadata of items, with the estimates of one field instead of its true values.

    In mode soft they are distributions or ranges, as `EncodeMetadatad` takes them.

    An estimate of a case that was trained on is none: its group must be in the same split.
    """
    if path is None:
        raise MetadataError(NO_ESTIMATES)
    table = read_predicted(path)
    name, unit = table["field"].iloc[0], table["unit"].iloc[0]
    field = schema.field(name) if name in schema.names else None
    if field is None or getattr(field, "unit", "") != unit:
        raise MetadataError(
            f"{path} holds estimates of {name!r}{f' in {unit}' if unit else ''}, which is no field "
            f"of the schema ({', '.join(schema.names)}) in that unit. Estimate a field of this "
            f"bundle: {ESTIMATE_COMMAND}"
        )
    if mode == "soft" and not table["soft"].all():
        raise MetadataError(
            f"{path} says nothing of how sure its estimates are; estimate again: {ESTIMATE_COMMAND}"
        )
    kind = "soft" if mode == "soft" else "predicted"
    of_unit = table.set_index(["group", "volume"])[[kind, "split"]].T.to_dict("list")
    changed = []
    for item in items:
        group, volume = unit_of(item)
        if (group, volume) not in of_unit:
            named = f"{group!r}, volume {volume!r}" if volume else repr(group)
            raise DataError(
                f"{path} has no estimate for group {named} (case {item.get('case', '?')!r}); "
                f"estimate on the same table: {ESTIMATE_COMMAND}"
            )
        value, split = of_unit[group, volume]
        if item.get("split", split) != split:
            raise DataError(
                f"{path}: group {group!r} was in the split {split!r} when {name} was estimated, "
                f"but is in {item['split']!r} here; estimate on the same table, or the network "
                "that estimates may have seen the case."
            )
        known = value if isinstance(value, str) else float(value)
        changed.append({**item["metadata"], name: known})
    return changed
