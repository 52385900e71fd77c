"""Which items an evaluation runs over: cases x test modes, each with the domain it counts for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.errors import MetadataError
from metaseg_monai.evaluation.modes import cross_modes
from metaseg_monai.metadata import MetadataSchema


def evaluation_items(
    items: Sequence[dict[str, Any]],
    schema: MetadataSchema,
    domain: str | None,
    modes: Sequence[str] = ("normal",),
    shuffle: Mapping[str, Mapping[str, str]] | None = None,
    seed: int = 0,
    predicted: str | Path | None = None,
) -> list[dict[str, Any]]:
    """Cross the cases with the test modes and name the domain of each case.

    Args:
        items: cases of one split.
        schema: of the metadata.
        domain: metadata field whose true value is the domain that a case is scored in
            (cell line, task); None puts all cases in one domain ``all``.
        modes: test modes, see `metaseg_monai.evaluation.expand_modes`.
        shuffle: label mapping of mode ``shuffle``.
        seed: of the derangement of continuous fields.
        predicted: ``predicted.csv`` of mode ``predicted``, see `cross_modes`.

    Raises:
        MetadataError: if ``domain`` is no field of the schema, or a mode cannot be applied.
        DataError: if `predicted` is no table of estimates of these cases.
    """
    if domain is not None and domain not in schema.names:
        raise MetadataError(
            f"The domain field {domain!r} is not in the schema; choose one of "
            f"{', '.join(schema.names)} or None."
        )
    named = [
        {**item, "domain": "all" if domain is None else str(item["metadata"].get(domain))}
        for item in items
    ]
    return cross_modes(named, modes, schema, shuffle, seed, predicted)
