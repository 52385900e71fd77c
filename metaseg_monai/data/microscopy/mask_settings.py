"""The settings that say how masks are read, checked before any file is."""

import math
from typing import get_args

from metaseg_monai.data.microscopy.masks import (
    BinaryMasks,
    ClassMasks,
    Labels,
    MaskRule,
    NumberedMasks,
    ThresholdMasks,
)
from metaseg_monai.errors import DataError

DEFAULT_LABELS = "classes"
DEFAULT_CLASSES = 2


def mask_rule(
    labels: str, classes: int = DEFAULT_CLASSES, threshold: float | None = None
) -> MaskRule:
    """The rule that settings name.

    Args:
        labels: "classes", "binary" or "instances".
        classes: number of classes with the background, for "classes".
        threshold: takes the place of `labels`, see `ThresholdMasks`.

    Raises:
        DataError: a setting has a wrong value, or would have no effect beside another.

    >>> mask_rule("binary"), mask_rule("classes", threshold=127)
    (BinaryMasks(), ThresholdMasks(above=127.0))
    """
    if labels not in get_args(Labels):
        raise DataError(f"labels={labels!r}: expected one of {', '.join(get_args(Labels))}")
    if isinstance(classes, bool) or not isinstance(classes, int) or not 2 <= classes <= 256:
        raise DataError(f"classes={classes!r}: expected a whole number from 2 to 256")
    other = f"labels={labels}" if labels != "classes" else ""
    other = other if threshold is None else f"threshold={threshold!r}"
    if other and classes != DEFAULT_CLASSES:
        raise DataError(f"classes={classes}: {other} makes two classes; leave one of both out")
    if threshold is not None:
        if labels == "instances":
            raise DataError(
                f"threshold={threshold!r}: labels=instances are object numbers, which have none; "
                "leave one of both out"
            )
        return threshold_rule(threshold)
    if labels == "classes":
        return ClassMasks(classes)
    return BinaryMasks() if labels == "binary" else NumberedMasks()


def threshold_rule(threshold: object) -> ThresholdMasks:
    """The rule of a threshold.

    Args:
        threshold: as it came; see `ThresholdMasks`.

    Raises:
        DataError: it is no finite number.
    """
    number = threshold if isinstance(threshold, int | float) else math.nan
    if isinstance(threshold, bool) or not math.isfinite(number):
        raise DataError(f"threshold={threshold!r}: expected a number, such as 127")
    return ThresholdMasks(float(number))


def refuse_without_masks(labels: str, classes: int, threshold: float | None) -> None:
    """Refuse settings of masks where there are none to read.

    Raises:
        DataError: one is not its default.
    """
    given = {"labels": labels, "classes": classes, "threshold": threshold}
    default = {"labels": DEFAULT_LABELS, "classes": DEFAULT_CLASSES, "threshold": None}
    idle = [f"{name}={value!r}" for name, value in given.items() if value != default[name]]
    if idle:
        raise DataError(
            f"{', '.join(idle)}: there are no masks to read; name them with --mask_pattern, or "
            "leave this out"
        )
