"""Sliding windows: which settings are refused, and what a window's pixels count for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from metaseg_monai.engines.tiles import check_tiles
from metaseg_monai.errors import ConfigError, DataError

BLENDS = ("gaussian", "constant", "pyramid", "discard")


def pyramid_weights(window: Sequence[int]) -> Tensor:
    """Weights (*window) that fall linearly from the centre, 1, to the edge, where they are above 0.

    A pixel's weight is the distance of its centre to the nearest edge. (The report on the
    adipocyte challenge, on inference, tells of such weights without their formula.)

    Args:
        window: pixels along each axis.

    >>> pyramid_weights((3, 5))
    tensor([[0.2000, 0.3333, 0.3333, 0.3333, 0.2000],
            [0.2000, 0.6000, 1.0000, 0.6000, 0.2000],
            [0.2000, 0.3333, 0.3333, 0.3333, 0.2000]])
    """
    weights = torch.ones(tuple(window))
    for axis, size in enumerate(window):
        centres = torch.arange(size) + 0.5
        distance = torch.minimum(centres, size - centres) / (size / 2)
        shape = [-1 if other == axis else 1 for other in range(len(window))]
        weights = torch.minimum(weights, distance.reshape(shape))
    return weights


def check_window(roi_size: Sequence[int] | int, sw_batch_size: int, padding_mode: str) -> None:
    """Refuse a window that is none.

    Raises:
        ConfigError: names the setting.
    """
    sizes = list(roi_size) if isinstance(roi_size, Sequence) else [roi_size]
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) for size in sizes):
        raise ConfigError(
            f"roi_size must be whole numbers, one per axis (-1: the image's own size), "
            f"got {roi_size!r}."
        )
    if sw_batch_size < 1:
        raise ConfigError(f"sw_batch_size must be at least 1 window, got {sw_batch_size}.")
    if padding_mode not in ("constant", "replicate"):
        raise ConfigError(
            f"padding_mode must be constant or replicate, got {padding_mode!r}: the other ways of "
            "padding fail on images much smaller than the window."
        )


def check_axes(inputs: Tensor, spatial_dims: int | None, name: str) -> None:
    """Refuse images of another number of axes than the inferer `name` was made for.

    Raises:
        DataError: names the inferer and the shape.
    """
    if spatial_dims is not None and inputs.ndim != spatial_dims + 2:
        raise DataError(
            f"{name} expects images (B, C, ...) of {spatial_dims} spatial axes, got shape "
            f"{tuple(inputs.shape)}. Set roi_size to one number per axis of the images."
        )


def check_blend(
    blend: str,
    overlap: Sequence[float] | float,
    margin_px: Sequence[int] | int | None,
    align: int,
    buffer_steps: int | None,
) -> None:
    """Refuse settings of a sliding window that do not go with each other.

    Raises:
        ConfigError: names the setting.
    """
    overlaps = _numbers(overlap)
    if any(not isinstance(share, (int, float)) or not 0 <= share < 1 for share in overlaps):
        raise ConfigError(f"overlap must be in [0, 1), for all axes or each, got {overlap!r}.")
    for name, given in (("margin_px", margin_px), ("align", align)):
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in _numbers(given))
        if given is not None and not whole:
            raise ConfigError(f"{name} must be whole numbers of pixels, got {given!r}.")
    if blend not in BLENDS:
        raise ConfigError(f"blend must be one of {', '.join(BLENDS)}, got {blend!r}.")
    if blend != "discard" and (margin_px is not None or align != 1):
        raise ConfigError(
            f"margin_px and align are settings of blend discard, not of {blend}; leave them out, "
            "or set blend to discard."
        )
    if blend == "discard" and buffer_steps is not None:
        raise ConfigError(
            "buffer_steps gathers blended windows; tiles of blend discard go straight into the "
            "output: leave buffer_steps out."
        )


def _numbers(given: object) -> list[object]:
    """One number or several, as a list; text is one thing."""
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def margins_of(
    windows: Sequence[int],
    overlap: Sequence[float] | float,
    margin_px: Sequence[int] | int | None,
    align: int,
) -> list[int]:
    """Pixels that blend discard cuts off at each inner end of a window, along each axis.

    Args:
        windows: pixels of a window along each axis; -1 is the image's own size and has no margin.
        overlap: share of a window that overlaps the next: each of the two loses half of it.
        margin_px: the margin itself, for all axes or each; None leaves it to `overlap`.
        align: what windows begin at multiples of.

    Raises:
        ConfigError: the margins leave nothing of a window.

    >>> margins_of((512, -1), 0.25, None, 1), margins_of((512, 512), 0.25, 30, 1)
    ([64, 0], [30, 30])
    """
    axes = len(windows)
    if margin_px is None:
        shares = [overlap] * axes if isinstance(overlap, (int, float)) else list(overlap)
        if len(shares) != axes:
            raise ConfigError(f"overlap must be one number or {axes}, one per axis; got {shares}.")
        margins = [
            int(max(window, 0) * share / 2) for window, share in zip(windows, shares, strict=True)
        ]
    else:
        margins = [margin_px] * axes if isinstance(margin_px, int) else list(margin_px)
    if len(margins) != axes:
        raise ConfigError(
            f"margin_px must be one number or one per axis of roi_size, got {margin_px!r}."
        )
    check_tiles(windows, margins, align)
    return [margin if window > 0 else 0 for window, margin in zip(windows, margins, strict=True)]
