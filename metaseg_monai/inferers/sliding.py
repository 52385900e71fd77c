"""How images larger than a window are run, each window with its own image's metadata.

MONAI's `SlidingWindowInferer` mixes windows of several images in one batch but hands further
arguments over whole, so metadata would meet the wrong image; its `SliceInferer` drops them.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from monai.utils import fall_back_tuple
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError, MetadataError

LARGE_PIXELS = 1 << 24  # an image that is blended in bands
BAND_WINDOWS = 16
BLENDS = ("gaussian", "constant", "pyramid", "discard")

Network = Callable[..., Any]


class SlidingWindowMetadataInferer(Inferer):
    """Run a network on overlapping windows of a batch, each with its own image's metadata.

    For every batch, `sw_batch_size` and overlap the result equals that of running the images one
    at a time. The output has the images' size, also where they are smaller than the window and
    therefore lie in the middle of one, among zeros.

    Args:
        roi_size: window size in pixels or voxels; -1 on an axis takes the image's own size.
        sw_batch_size: windows run at once.
        overlap: share of a window that overlaps the next, in [0, 1), for all axes or each.
        blend: a mean of overlapping windows with "gaussian", "constant" or "pyramid" weights
            (falling linearly to the edge), or "discard": each pixel comes from one window, whose
            margins are cut off (thesis 3.1); `run_tiles` says when that is exact.
        margin_px: of "discard", pixels cut off at each inner end, for all axes or each; None takes
            half of `overlap`.
        align: of "discard", windows begin at multiples of it; 2 ** levels of a U-Net.

    Raises:
        ConfigError: A setting is out of its range, or does not go with another.

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
        margin_px: Sequence[int] | int | None = None,
        align: int = 1,
    ) -> None:
        super().__init__()
        _check_whole("roi_size", roi_size, -1)
        _check_whole("sw_batch_size", sw_batch_size, 1)
        _check_whole("margin_px", margin_px or 0, 0)
        _check_whole("align", align, 1)
        shares = [overlap] if isinstance(overlap, int | float | str) else list(overlap)
        if any(not isinstance(share, int | float) or not 0 <= share < 1 for share in shares):
            raise ConfigError(f"overlap must be in [0, 1), for all axes or each, got {overlap!r}.")
        if blend not in BLENDS:
            raise ConfigError(f"blend must be one of {', '.join(BLENDS)}, got {blend!r}.")
        if blend != "discard" and (margin_px is not None or align != 1):
            raise ConfigError(
                f"margin_px and align are settings of blend discard, not of {blend}; leave them "
                "out, or set blend to discard."
            )
        self.blend, self.align = blend, align
        self.spatial_dims = None if isinstance(roi_size, int) else len(roi_size)
        if blend == "discard":
            sizes = [roi_size] if isinstance(roi_size, int) else roi_size
            self.margins = margins_of(sizes, overlap, margin_px, align)
        self.windows = SlidingWindowInferer(
            roi_size=roi_size,
            sw_batch_size=sw_batch_size,
            overlap=overlap,
            mode="gaussian" if blend == "gaussian" else "constant",
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
        if self.spatial_dims not in (None, inputs.ndim - 2):
            raise DataError(
                f"SlidingWindowMetadataInferer expects images (B, C, ...) of {self.spatial_dims} "
                f"spatial axes, got shape {tuple(inputs.shape)}. Set roi_size to one number per "
                "axis of the images."
            )
        _check_rows(inputs, meta)
        rows = meta.as_tensor() if isinstance(meta, MetaTensor) else meta

        def run(windows: Tensor, images: list[int]) -> Any:
            if rows is None:
                return network(windows)
            return network(windows, meta=rows[images])

        def blended(windows: Tensor, coordinates: list[list[slice]]) -> Any:
            return run(windows, [place[0].start for place in coordinates])  # the image's own slice

        window = fall_back_tuple(self.windows.roi_size, inputs.shape[2:])
        if self.blend == "discard":
            return run_tiles(
                inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs,
                run,
                window,
                self.margins * (len(window) // len(self.margins)),  # one roi_size for all axes
                self.align,
                self.windows.sw_batch_size,
            )
        if self.blend == "pyramid":
            self.windows.roi_weight_map = pyramid_weights(window)
        bands = self._bands(inputs.shape[2], window[0])
        if len(inputs) > 1 or inputs[0, 0].numel() <= LARGE_PIXELS or len(bands) == 1:
            return self.windows(inputs, blended)
        output: Any = None
        for seen, kept in bands:
            pred = self.windows(inputs[:, :, seen], blended)
            if output is None:
                output = map_tensors(
                    lambda part: part.new_empty((*part.shape[:2], *inputs.shape[2:])), pred
                )
            for whole, part in zip(each_tensor(output), each_tensor(pred), strict=True):
                if part.shape[2:] != inputs[:, :, seen].shape[2:]:  # of another resolution
                    return self.windows(inputs, blended)
                inner = slice(kept.start - seen.start, kept.stop - seen.start)
                whole[:, :, kept] = part[:, :, inner]
        return output

    def _bands(self, size: int, window: int) -> list[tuple[slice, slice]]:
        """Rows of windows that are run together, and the rows of the image that they alone touch.

        The sum of the weights then takes no memory of the whole image's size; some windows at the
        joints are run twice. The windows are those of the whole image.
        """
        overlap = self.windows.overlap
        share = overlap if isinstance(overlap, int | float) else overlap[0]
        step = max(1, int(window * (1 - share))) if window < size else window
        starts = sorted({*range(0, max(1, size - window), step), max(0, size - window)})
        reach = -(-window // step)  # windows before one that may touch its first row
        bands = []
        for first in range(0, len(starts), BAND_WINDOWS):
            last = min(first + BAND_WINDOWS, len(starts))
            until = size if last == len(starts) else starts[last]
            begin = max(0, first - reach)
            seen = slice(starts[begin], starts[last - 1] + window)
            bands.append((seen, slice(starts[first] if first else 0, until)))
        return bands


class PlaneInferer(Inferer):
    """Run a 2D network plane by plane over volumes, each with its own volume's metadata.

    Planes are cut along the last axis, as `LoadCased` gives them. Images of planes are given to the
    inferer as they are, and so is everything where it runs windows of another number of axes.

    Args:
        inferer: of planes.
        planes: of a volume that are run at once.

    Example:
        >>> inferer = PlaneInferer(SlidingWindowMetadataInferer(roi_size=(-1, -1)))
        >>> def network(image, meta):
        ...     return image * meta[:, :1, None, None]
        >>> volumes, meta = torch.ones(2, 1, 6, 5, 3), torch.tensor([[1.0], [5.0]])
        >>> inferer(volumes, network, meta=meta).mean(dim=(1, 2, 3, 4))
        tensor([1., 5.])
    """

    def __init__(self, inferer: SlidingWindowMetadataInferer, planes: int = 4) -> None:
        super().__init__()
        _check_whole("planes", planes, 1)
        self.inferer, self.planes = inferer, planes

    def __call__(self, inputs: Tensor, network: Network, meta: Tensor | None = None) -> Any:
        """Return the network's output on whole images or volumes.

        Args:
            inputs: images (B, C, H, W) or volumes (B, C, H, W, D).
            network: as for `SlidingWindowMetadataInferer`.
            meta: encoded metadata (B, M), one row per image or volume, or None.

        Returns:
            Logits (B, K, H, W) or (B, K, H, W, D); a tuple or dict of them where the network gives
            one.

        Raises:
            MetadataError: `meta` has not one row per image or volume; nothing is run then.
        """
        if inputs.ndim != 5 or self.inferer.spatial_dims != 2:
            return self.inferer(inputs, network, meta)
        _check_rows(inputs, meta)
        batch, depth = len(inputs), inputs.shape[-1]
        output: Any = None
        for start in range(0, depth, self.planes):
            here = slice(start, min(start + self.planes, depth))
            planes = inputs[..., here].movedim(-1, 1)
            rows = None if meta is None else meta.repeat_interleave(planes.shape[1], dim=0)
            pred = self.inferer(planes.flatten(0, 1), network, rows)
            if output is None:
                output = map_tensors(
                    lambda part: part.new_empty((batch, *part.shape[1:], depth)), pred
                )
            for whole, part in zip(each_tensor(output), each_tensor(pred), strict=True):
                whole[..., here] = part.unflatten(0, (batch, -1)).movedim(1, -1)
        return output


def map_tensors(function: Callable[[Tensor], Any], output: Any) -> Any:
    """Apply `function` to each tensor of a network's output and keep the output's form.

    Raises:
        ConfigError: The output is no tensor, nor a list, tuple or dict of them.

    Example:
        >>> map_tensors(torch.neg, {"pred": torch.tensor([1.0])})
        {'pred': tensor([-1.])}
    """
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, Mapping):
        return {key: map_tensors(function, value) for key, value in output.items()}
    if isinstance(output, list | tuple):
        return tuple(map_tensors(function, value) for value in output)
    raise ConfigError(
        f"The network returned {type(output).__name__}; expected a tensor, or a list, tuple or "
        "dict of tensors. Change the network's forward()."
    )


def each_tensor(output: Any) -> list[Tensor]:
    """List the tensors of a network's output; see `map_tensors` for the forms."""
    found: list[Tensor] = []
    map_tensors(found.append, output)
    return found


def pyramid_weights(window: Sequence[int]) -> Tensor:
    """Weights (*window) that fall from the centre to the edge, where they are above 0; mean 1.

    W = a De / (De + Dc): De is the distance of a pixel's centre to the nearest edge, Dc to the
    centre of the window (the reference of the report on the adipocyte challenge, on inference).

    >>> pyramid_weights((1, 4))
    tensor([[0.6667, 1.3333, 1.3333, 0.6667]])
    """
    edge = torch.full(tuple(window), float("inf"))
    square = torch.zeros(tuple(window))
    for axis, size in enumerate(window):
        places = torch.arange(size) + 0.5
        shape = [-1 if other == axis else 1 for other in range(len(window))]
        edge = torch.minimum(edge, torch.minimum(places, size - places).reshape(shape))
        square = square + ((places - size / 2) ** 2).reshape(shape)
    weights = edge / (edge + square.sqrt())
    return weights / weights.mean()


class Span(NamedTuple):
    """A tile along one axis of the image: what the network sees, and the part that is kept."""

    seen: slice
    kept: slice

    @property
    def pixels(self) -> int:
        """How many the network sees."""
        return self.seen.stop - self.seen.start

    @property
    def inner(self) -> slice:
        """The kept part, counted from the tile's own start."""
        return slice(self.kept.start - self.seen.start, self.kept.stop - self.seen.start)


def tile_spans(size: int, window: int, margin: int, align: int) -> list[Span]:
    """Cover an axis by tiles whose kept parts meet without gap or overlap.

    Tiles begin at multiples of `align`, so that the cells of pooling layers are those of the
    untiled image. The last tile ends with the image and is up to `align - 1` pixels smaller; an
    image of at most a window is one tile. All in pixels.

    >>> for seen, kept in tile_spans(size=20, window=12, margin=2, align=4):
    ...     print(seen.start, seen.stop, kept.start, kept.stop)
    0 12 0 10
    8 20 10 20
    """
    if size <= window:
        return [Span(slice(0, size), slice(0, size))]
    step = (window - 2 * margin) // align * align
    last = -((window - size) // align) * align  # the first multiple from which a tile reaches over
    starts = [*range(0, last, step), last]
    joints = [0, *(start + margin for start in starts[1:]), size]
    return [
        Span(slice(start, min(start + window, size)), slice(*kept))
        for start, kept in zip(starts, itertools.pairwise(joints), strict=True)
    ]


def margins_of(
    windows: Sequence[int],
    overlap: Sequence[float] | float,
    margin_px: Sequence[int] | int | None,
    align: int,
) -> list[int]:
    """Pixels that blend discard cuts off at each inner end of a window, along each axis.

    A window of -1 is the image's own size and has no margin.

    Raises:
        ConfigError: there is not one margin an axis, it leaves nothing of a window, or a window is
            no multiple of `align`.

    >>> margins_of((512, -1), 0.25, None, 1), margins_of((512, 512), 0.25, 30, 1)
    ([64, 0], [30, 30])
    """
    name, given = ("overlap", overlap) if margin_px is None else ("margin_px", margin_px)
    per_axis = list(given) if isinstance(given, Sequence) else [given] * len(windows)
    if len(per_axis) != len(windows):
        raise ConfigError(f"{name} must be one number or one per axis of roi_size, got {given!r}.")
    margins = []
    for window, one in zip(windows, per_axis, strict=True):
        margin = 0 if window <= 0 else int(window * one / 2) if margin_px is None else int(one)
        if window > 0 and window % align:
            raise ConfigError(
                f"roi_size {window} is no multiple of align {align}: the last cell of a pooling "
                "layer would be cut inside the image. Round roi_size."
            )
        if window > 0 and window - 2 * margin < align:
            raise ConfigError(
                f"A tile of {window} pixels keeps {window - 2 * margin} without its margins of "
                f"{margin}, expected at least {align} (align). Make roi_size larger, or margin_px "
                "or overlap smaller."
            )
        margins.append(margin)
    return margins


def run_tiles(
    inputs: Tensor,
    run: Callable[[Tensor, list[int]], Any],
    window: Sequence[int],
    margins: Sequence[int],
    align: int = 1,
    batch_size: int = 4,
) -> Any:
    """Run a network tile by tile and put the kept parts straight into its output (thesis 3.1).

    No weights are needed beside the output, which saves a third of its memory with two classes.
    The result is that of the untiled image where

    - the margin holds all that a pixel at a tile's joint sees: 33, 69, 141 and 285 pixels for a
      Unet3 of 2, 3, 4 and 5 levels whose tiles are aligned (a pixel elsewhere sees up to 33, 73,
      153 and 313 to one side, as its pooling cells lie);
    - tiles begin at multiples of 2 ** levels, so that they share the pooling cells of the image.
      The image itself may have any size, for its last tile ends where it ends, as its own pooling
      does;
    - the image is not smaller than the tile (it would be padded);
    - the network does not pool over the whole image, as the gates of SE and SME do.

    Args:
        inputs: images (B, C, *S).
        run: called with tiles (N, C, *window) and the N numbers of their images.
        window: pixels of a tile along each axis; smaller images are padded with zeros around.
        margins: see `margins_of`.
        align: tiles begin at multiples of it.
        batch_size: tiles run at once.

    Raises:
        ConfigError: the network changes the size of a tile.
    """
    missing = [max(pixels - size, 0) for pixels, size in zip(window, inputs.shape[2:], strict=True)]
    inner = [slice(m // 2, m // 2 + n) for m, n in zip(missing, inputs.shape[2:], strict=True)]
    if any(missing):
        inputs = F.pad(inputs, [width for m in reversed(missing) for width in (m // 2, m - m // 2)])
    settings = zip(inputs.shape[2:], window, margins, strict=True)
    axes = [tile_spans(size, pixels, margin, align) for size, pixels, margin in settings]

    def shape(tile: tuple[int, tuple[Span, ...]]) -> tuple[int, ...]:
        return tuple(span.pixels for span in tile[1])

    def whole(part: Tensor) -> Tensor:
        return part.new_empty((len(inputs), part.shape[1], *inputs.shape[2:]))

    output: Any = None
    every = sorted(itertools.product(range(len(inputs)), itertools.product(*axes)), key=shape)
    for size, alike in itertools.groupby(every, key=shape):
        while batch := list(itertools.islice(alike, batch_size)):
            places = [
                (image, slice(None), *(span.seen for span in spans)) for image, spans in batch
            ]
            tiles = torch.stack([inputs[place] for place in places])
            pred = run(tiles, [image for image, _ in batch])
            if output is None:
                output = map_tensors(whole, pred)
            for target, parts in zip(each_tensor(output), each_tensor(pred), strict=True):
                if parts.shape[2:] != size:
                    raise ConfigError(
                        f"The network gave {tuple(parts.shape[2:])} pixels for a tile of {size}; "
                        "tiles need a network that keeps the size. Use blend gaussian or constant."
                    )
                for part, (image, spans) in zip(parts, batch, strict=True):
                    kept = part[(slice(None), *(s.inner for s in spans))]
                    target[(image, slice(None), *(s.kept for s in spans))] = kept
    if any(missing):
        output = map_tensors(lambda padded: padded[(slice(None), slice(None), *inner)], output)
    return output


def _check_rows(inputs: Tensor, meta: Tensor | None) -> None:
    if meta is not None and (meta.ndim != 2 or meta.shape[0] != inputs.shape[0]):
        raise MetadataError(
            f"meta must be (B, M) with one row per image: expected {inputs.shape[0]} rows, got "
            f"shape {tuple(meta.shape)}. Give each image its own row; none is ever repeated."
        )


def _check_whole(name: str, given: Sequence[int] | int, least: int) -> None:
    numbers = list(given) if isinstance(given, Sequence) else [given]
    if not numbers or any(type(number) is not int or number < least for number in numbers):
        raise ConfigError(
            f"{name} must be whole numbers, {least} or more (-1 in roi_size: the image's own "
            f"size), got {given!r}."
        )
