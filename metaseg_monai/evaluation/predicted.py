"""The test mode whose metadata were estimated from the image, in the place of the true ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.metadata import Continuous, MetadataSchema

ESTIMATE_COMMAND = "python -m metaseg_monai estimate <bundle> --output_dir runs/size"
COLUMNS = ("group", "volume", "split", "field", "unit", "predicted", "true", "clipped", "slices")
Unit = tuple[str, str]


def unit_of(item: Mapping[str, Any]) -> Unit:
    """The group and volume whose items share one value; an empty text where there is no volume."""
    return str(item.get("group", item.get("case", ""))), str(item.get("volume", ""))


def read_predicted(path: str | Path) -> pd.DataFrame:
    """Read the ``predicted.csv`` that an estimate wrote.

    Returns:
        One row a group (and volume): the columns `COLUMNS`; `true` is NaN where it is unknown.

    Raises:
        DataError: the file is missing or is no table of estimates.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There are no estimates at {path}; make them: {ESTIMATE_COMMAND}")
    text = dict.fromkeys(COLUMNS[:5], str)
    try:
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"true": [""]})
    except ValueError as error:  # pandas' errors of empty and broken files
        raise DataError(f"{path} is no table of estimates ({error}); estimate again.") from error
    missing = [column for column in COLUMNS if column not in table.columns]
    if missing or table.empty:
        raise DataError(
            f"{path} is no table of estimates: it lacks {', '.join(missing) or 'rows'}. Make one: "
            f"{ESTIMATE_COMMAND}"
        )
    for column in ("predicted", "true"):
        numbers = table[column] if column == "predicted" else table[column].dropna()
        if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all():
            raise DataError(f"{path}: column {column!r} must hold plain numbers; estimate again.")
    if len(fields := sorted(set(table["field"]))) != 1:
        raise DataError(f"{path}: expected estimates of one field, got {', '.join(fields)}.")
    twice = table.duplicated(["group", "volume"])
    if twice.any():
        raise DataError(f"{path}: group {table.loc[twice, 'group'].iloc[0]!r} stands there twice.")
    return table


def with_predicted(
    items: Sequence[Mapping[str, Any]], schema: MetadataSchema, path: str | Path | None
) -> list[dict[str, Any]]:
    """The raw metadata of items, with the estimates of one field instead of its true values.

    Args:
        items: with `group`, maybe `volume` and `split`, and raw `metadata`.
        schema: of the metadata.
        path: ``predicted.csv``.

    Raises:
        MetadataError: there is no path, or the estimates' field is no continuous one of the
            schema in the same unit.
        DataError: the file is missing or no table of estimates, lacks a group, or its group was
            in another split: an estimate that was trained on the case is no estimate.
    """
    if path is None:
        raise MetadataError(
            f"Mode 'predicted' needs estimates of the metadata. Make them: {ESTIMATE_COMMAND} and "
            "pass --predicted_metadata runs/size/predicted.csv, or leave the mode out."
        )
    table = read_predicted(path)
    name, unit = table["field"].iloc[0], table["unit"].iloc[0]
    field = schema.field(name) if name in schema.names else None
    if not isinstance(field, Continuous) or field.unit != unit:
        raise MetadataError(
            f"{path} holds estimates of {name!r} in {unit}, which is no continuous field of the "
            f"schema ({', '.join(schema.names)}) in that unit. Estimate a field of this bundle: "
            f"{ESTIMATE_COMMAND}"
        )
    of_unit: dict[Unit, tuple[float, str]] = {
        (str(group), str(volume)): (float(value), str(split))
        for group, volume, value, split in table[["group", "volume", "predicted", "split"]].values
    }
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
        changed.append({**item["metadata"], name: value})
    return changed
