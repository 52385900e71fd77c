"""How images larger than a window are run, each window with its own image's metadata.

MONAI's `SlidingWindowInferer` mixes windows of several images in one batch but hands further
arguments over whole, so metadata would meet the wrong image; its `SliceInferer` drops them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from monai.utils import fall_back_tuple
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.inferers.outputs import map_tensors
from metaseg_monai.inferers.tiles import check_tiles, run_tiles

# Sliding windows: which settings are refused, and what a window's pixels count for.

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


Network = Callable[..., Any]


def _rows(meta: Tensor, images: int) -> Tensor:
    """Return `meta` (B, M) as a plain tensor after checking that it has a row per image."""
    if meta.ndim != 2 or meta.shape[0] != images:
        raise MetadataError(
            f"meta must be (B, M) with one row per image: expected {images} rows, got shape "
            f"{tuple(meta.shape)}. Give each image its own row; none is ever repeated."
        )
    return meta.as_tensor() if isinstance(meta, MetaTensor) else meta


class SlidingWindowMetadataInferer(Inferer):
    """Run a network on overlapping windows of a batch, each with its own image's metadata.

    For every batch, `sw_batch_size` and overlap the result equals that of running the images one
    at a time. The output has the images' size, also where they are smaller than the window.

    Args:
        roi_size: window size in pixels or voxels; -1 on an axis takes the image's own size.
        sw_batch_size: windows run at once.
        overlap: share of a window that overlaps the next, in [0, 1), for all axes or each.
        blend: a mean of overlapping windows with "gaussian", "constant" or "pyramid" weights
            (falling linearly to the edge), or "discard": each pixel comes from one window, whose
            margins are cut off (thesis 3.1); `inferers.tiles` says when that is exact.
        margin_px: of "discard", pixels cut off at each inner end, for all axes or each; None takes
            half of `overlap`.
        align: of "discard", windows begin at multiples of it; 2 ** levels of a U-Net.
        sigma_scale: width of the gaussian as a share of the window.
        padding_mode: how images smaller than the window are filled, "constant" or "replicate".
        cval: fill value of constant padding.
        sw_device: where windows are run; default: where the images are.
        device: where the output is put together; default: where the images are.
        progress: show a bar over the windows.
        cpu_thresh: put outputs of more pixels than this together on the CPU.
        buffer_steps: windows along `buffer_dim` gathered on `sw_device` before a move to `device`.
        buffer_dim: the spatial axis of that buffer.

    Raises:
        ConfigError: A setting is out of its range.

    Example:
        >>> inferer = SlidingWindowMetadataInferer(roi_size=8, sw_batch_size=3)
        >>> def network(image, meta):  # each window is multiplied by its image's metadata
        ...     return image * meta[:, :1, None, None]
        >>> images, meta = torch.ones(2, 1, 12, 20), torch.tensor([[1.0], [5.0]])
        >>> inferer(images, network, meta=meta).mean(dim=(1, 2, 3))
        tensor([1., 5.])
    """

    def __init__(
        self,
        roi_size: Sequence[int] | int,
        sw_batch_size: int = 4,
        overlap: Sequence[float] | float = 0.25,
        blend: str = "gaussian",
        sigma_scale: Sequence[float] | float = 0.125,
        padding_mode: str = "constant",
        cval: float = 0.0,
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
        cpu_thresh: int | None = None,
        buffer_steps: int | None = None,
        buffer_dim: int = -1,
        margin_px: Sequence[int] | int | None = None,
        align: int = 1,
    ) -> None:
        super().__init__()
        check_window(roi_size, sw_batch_size, padding_mode)
        check_blend(blend, overlap, margin_px, align, buffer_steps)
        self.blend, self.align = blend, align
        if blend == "discard":
            sizes = [roi_size] if isinstance(roi_size, int) else roi_size
            self.margins = margins_of(sizes, overlap, margin_px, align)
        self.spatial_dims = None if isinstance(roi_size, int) else len(roi_size)
        self.windows = SlidingWindowInferer(
            roi_size=roi_size,
            sw_batch_size=sw_batch_size,
            overlap=overlap,
            mode="gaussian" if blend == "gaussian" else "constant",
            sigma_scale=sigma_scale,
            padding_mode=padding_mode,
            cval=cval,
            sw_device=sw_device,
            device=device,
            progress=progress,
            cpu_thresh=cpu_thresh,
            buffer_steps=buffer_steps,
            buffer_dim=buffer_dim,
            with_coord=True,
        )

    def __call__(self, inputs: Tensor, network: Network, meta: Tensor | None = None) -> Any:
        """Return the network's output on whole images.

        Args:
            inputs: images (B, C, *S).
            network: called as `network(windows, meta=rows)`, or `network(windows)` without meta.
            meta: encoded metadata (B, M), or None.

        Returns:
            Logits (B, K, *S); a tuple or dict of them where the network gives one.

        Raises:
            DataError: The images have another number of spatial axes than `roi_size`.
            MetadataError: `meta` has not one row per image; nothing is run then.
        """
        check_axes(inputs, self.spatial_dims, "SlidingWindowMetadataInferer")
        rows = None if meta is None else _rows(meta, images=inputs.shape[0])

        def run(windows: Tensor, images: list[int]) -> Any:
            if rows is None:
                return network(windows)
            return network(windows, meta=rows[images].to(windows.device))

        sizes = fall_back_tuple(self.windows.roi_size, inputs.shape[2:])
        if self.blend == "discard":
            return self._discarding(inputs, run, sizes)
        if self.blend == "pyramid":
            self.windows.roi_weight_map = pyramid_weights(sizes)

        def blended(windows: Tensor, coordinates: list[list[slice]]) -> Any:
            return run(windows, [place[0].start for place in coordinates])  # the image's own slice

        return self.windows(inputs, blended)

    def _discarding(
        self, inputs: Tensor, run: Callable[[Tensor, list[int]], Any], sizes: tuple[int, ...]
    ) -> Any:
        given = self.windows
        large = given.cpu_thresh is not None and inputs.shape[2:].numel() > given.cpu_thresh
        return run_tiles(
            inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs,
            run,
            sizes,
            self.margins * (len(sizes) // len(self.margins)),  # one roi_size stands for all axes
            align=self.align,
            batch_size=given.sw_batch_size,
            pad_mode=given.padding_mode,
            pad_value=given.cval,
            sw_device=given.sw_device,
            device="cpu" if given.device is None and large else given.device,
            progress=given.progress,
        )


class SliceMetadataInferer(Inferer):
    """Run a 2D network over the slices of 3D volumes, each with its own volume's metadata.

    Args:
        roi_size: window size in pixels inside a slice, two numbers; -1 takes the slice's own size.
        spatial_dim: the axis that is cut: 0, 1 or 2 of the volume's spatial axes.
        sw_batch_size: slices (or windows of slices) run at once.
        overlap: share of a window that overlaps the next inside a slice, in [0, 1).
        blend: what becomes of overlapping windows, see `SlidingWindowMetadataInferer`.
        sw_device: where windows are run; default: where the volumes are.
        device: where the output is put together; default: where the volumes are.
        progress: show a bar over the windows.

    Raises:
        ConfigError: A setting is out of its range.

    Example:
        >>> inferer = SliceMetadataInferer(roi_size=(-1, -1), sw_batch_size=4)
        >>> def network(image, meta):
        ...     return image * meta[:, :1, None, None]
        >>> volumes, meta = torch.ones(2, 1, 6, 5, 3), torch.tensor([[1.0], [5.0]])
        >>> inferer(volumes, network, meta=meta).mean(dim=(1, 2, 3, 4))
        tensor([1., 5.])
    """

    def __init__(
        self,
        roi_size: Sequence[int],
        spatial_dim: int = 2,
        sw_batch_size: int = 4,
        overlap: float = 0.25,
        blend: str = "gaussian",
        sw_device: torch.device | str | None = None,
        device: torch.device | str | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(roi_size, Sequence) or len(roi_size) != 2:
            raise ConfigError(f"roi_size must be two numbers inside a slice, got {roi_size!r}.")
        if spatial_dim not in (0, 1, 2):
            raise ConfigError(f"spatial_dim must be 0, 1 or 2, got {spatial_dim!r}.")
        window = list(roi_size)
        window.insert(spatial_dim, 1)
        self.axis = spatial_dim + 2
        self.windows = SlidingWindowMetadataInferer(
            roi_size=window,
            sw_batch_size=sw_batch_size,
            overlap=overlap,
            blend=blend,
            sw_device=sw_device,
            device=device,
            progress=progress,
        )

    def __call__(self, inputs: Tensor, network: Network, meta: Tensor | None = None) -> Any:
        """Return the 2D network's output on whole volumes.

        Args:
            inputs: volumes (B, C, H, W, D).
            network: 2D; called as `network(slices, meta=rows)`, or `network(slices)` without meta.
            meta: encoded metadata (B, M), one row per volume, or None.

        Returns:
            Logits (B, K, H, W, D); a tuple or dict of them where the network gives one.

        Raises:
            DataError: The inputs are not volumes.
            MetadataError: `meta` has not one row per volume; nothing is run then.
        """
        check_axes(inputs, 3, "SliceMetadataInferer")

        def on_slices(windows: Tensor, **metadata: Tensor) -> Any:
            pred = network(windows.squeeze(self.axis), **metadata)
            return map_tensors(lambda logits: logits.unsqueeze(self.axis), pred)

        return self.windows(inputs, on_slices, meta=meta)
