"""What one column of a table suggests for its field: values, steps, a range or a size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata.fields import listing
from metaseg_monai.metadata.quantities import read_number

SEPARATOR = ";"  # joins several names or numbers in one cell


def _numbers(column: str, texts: Sequence[str]) -> list[float]:
    numbers = []
    for text in texts:
        number = read_number(text)
        if number is None:
            raise MetadataError(
                f"field {column!r}: expected plain numbers, got {text!r}; write the number alone"
            )
        numbers.append(number)
    return numbers


def _categories(column: str, present: Sequence[str]) -> dict[str, Any]:
    return {"values": sorted(set(present))}


def _labels(column: str, present: Sequence[str]) -> dict[str, Any]:
    labels = {label.strip() for text in present for label in text.split(SEPARATOR)}
    return {"values": sorted(labels), "separator": SEPARATOR}


def _steps(column: str, present: Sequence[str]) -> dict[str, Any]:
    """Steps by number; the order of names is in nobody's table."""
    texts = sorted(set(present))
    if any(read_number(text) is None for text in texts):
        raise MetadataError(
            f"field {column!r}: the order of {listing(texts)} cannot be read from a table; "
            f"fit it as categorical, then set kind and order in the JSON"
        )
    return {"values": sorted(texts, key=float)}


def _range(column: str, present: Sequence[str]) -> dict[str, Any]:
    numbers = _numbers(column, present)
    low = rounded_outwards(min(numbers), ROUND_FLOOR)
    high = rounded_outwards(max(numbers), ROUND_CEILING)
    if min(numbers) == max(numbers):
        raise MetadataError(
            f"field {column!r}: every value is {low:g}, which gives no range; leave the field out"
        )
    return {"range": (low, high)}


def _size(column: str, present: Sequence[str]) -> dict[str, Any]:
    sizes = {len(_numbers(column, text.split(SEPARATOR))) for text in present}
    if len(sizes) > 1:
        raise MetadataError(
            f"field {column!r}: expected as many numbers in each row, got {sorted(sizes)}"
        )
    return {"entries": sizes.pop()}


def rounded_outwards(number: float, rounding: str) -> float:
    """A number to two significant digits, rounded as `decimal` names it.

    >>> rounded_outwards(157.2, ROUND_CEILING), rounded_outwards(-0.0413, ROUND_FLOOR)
    (160.0, -0.042)
    """
    exact = Decimal(repr(number))
    if exact == 0:
        return 0.0
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), rounding=rounding))


PROPOSALS: dict[str, Callable[[str, Sequence[str]], dict[str, Any]]] = {
    "categorical": _categories,
    "multilabel": _labels,
    "ordinal": _steps,
    "continuous": _range,
    "vector": _size,
}
