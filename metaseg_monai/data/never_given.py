"""Metadata that no training row gives: a network would learn of them nothing but "unknown"."""

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from metaseg_monai.metadata import MetadataSchema, MetadataWarning
from metaseg_monai.metadata.fields import listing


def warn_never_given(
    path: Path, rows: Iterable[Mapping[str, Any]], schema: MetadataSchema | None
) -> None:
    """Warn of fields that are missing in every training row.

    A field whose policy is ``error`` is refused row by row before.

    Args:
        path: of the table, for the message.
        rows: with `metadata`, and `split` where the table has one; without, all are of training.
        schema: of the metadata; None has no fields.

    Warns:
        MetadataWarning: names the fields.
    """
    training = [row["metadata"] for row in rows if row.get("split", "train") == "train"]
    never = [
        field.name
        for field in (schema.fields if schema is not None else ())
        if training and all(field.is_missing(raw.get(field.name)) for raw in training)
    ]
    if never:
        warnings.warn(
            f"{path}: no {listing(never)} in any of {len(training)} training row(s), so that a "
            "network would only learn what unknown means; fill the column in, or leave the field "
            "out of the schema",
            MetadataWarning,
            stacklevel=3,
        )
