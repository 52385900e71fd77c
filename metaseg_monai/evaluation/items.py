"""Which items an evaluation runs over: cases x test modes, each with the domain it counts for."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.errors import MetadataError
from metaseg_monai.evaluation.modes import cross_modes
from metaseg_monai.metadata import MetadataSchema

logger = logging.getLogger(__name__)


def evaluation_items(
    items: Sequence[dict[str, Any]],
    schema: MetadataSchema,
    domain: str | None,
    modes: Sequence[str] = ("normal",),
    shuffle: Mapping[str, Mapping[str, str]] | None = None,
    seed: int = 0,
    predicted: str | Path | None = None,
    unknown: bool = True,
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
        unknown: False for a network that was trained without unknown metadata: what it makes of
            mode ``missing`` means nothing, so that the mode is left out with a warning.

    Raises:
        MetadataError: if ``domain`` is no field of the schema, a mode cannot be applied,
            or no other mode than ``missing`` is asked for without `unknown`.
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
    known = list(modes) if unknown else _without_missing(modes, schema)
    return cross_modes(named, known, schema, shuffle, seed, predicted)


def _without_missing(modes: Sequence[str], schema: MetadataSchema) -> list[str]:
    left = [mode for mode in modes if mode != "missing"]
    if len(left) == len(modes):
        return left
    why = (
        "the network was trained without unknown metadata (metadata_dropout 0) and does not know "
        "it; train with --metadata_dropout 0.1"
    )
    if all(field.missing == "unknown" for field in schema.fields):
        why += ", or pass --allow_missing True if its training table had missing values"
    if not left:
        raise MetadataError(f"Mode missing cannot be tested: {why}.")
    logger.warning("Mode missing is left out: %s.", why)
    return left
