"""How images larger than a window are run, each window with its own image's metadata.

MONAI's `SlidingWindowInferer` mixes windows of several images in one batch but hands further
arguments over whole, so metadata would meet the wrong image; its `SliceInferer` drops them.
"""

import functools
import itertools
import math
import operator
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import Inferer, SlidingWindowInferer
from monai.inferers.utils import _get_scan_interval
from monai.utils import fall_back_tuple
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.images.lazy import LARGE_PIXELS, LazyTensor, Place, at_hand

BLENDS = ("gaussian", "constant", "pyramid", "discard")

Network = Callable[..., Any]
Bands = Iterable[tuple[slice, Any]]  # rows of the images, and the network's output there


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
        reflect_px: pixels by which images are continued on all sides by their reflection, so that
            what lies at their border lies inside of windows, too; images of as many pixels or
            fewer by what they have. It is cut off again.

    Attributes:
        reduce: what becomes of logits (B, K, rows, ...) before they are put together, where less is
            needed than those of whole images; None leaves them. The output for a `LazyTensor` is
            one, too, whose values lie in a temporary file.

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
        reflect_px: int = 0,
    ) -> None:
        super().__init__()
        _check_whole("roi_size", roi_size, -1)
        _check_whole("reflect_px", reflect_px, 0)
        self.reflect_px = reflect_px
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
        self.reduce: Callable[[Tensor], Tensor] | None = None
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

        stored, widths = inputs.shape[2:], [min(self.reflect_px, n - 1) for n in inputs.shape[2:]]
        if self.reflect_px:
            around = [width for width in reversed(widths) for _ in range(2)]
            inputs = F.pad(at_hand(inputs), around, mode="reflect")
        window = fall_back_tuple(self.windows.roi_size, inputs.shape[2:])
        if self.blend == "discard":
            bands: Bands = run_tiles(
                inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs,
                run,
                window,
                self.margins * (len(window) // len(self.margins)),  # one roi_size for all axes
                self.align,
                self.windows.sw_batch_size,
            )
        else:
            bands = self._blended(inputs, run, window)
        pred = _joined(bands, inputs.shape[2], self.reduce, isinstance(inputs, LazyTensor))
        if not self.reflect_px:
            return pred
        inner = [slice(width, width + n) for width, n in zip(widths, stored, strict=True)]
        return _cut(pred, (slice(None), slice(None), *inner))

    def _blended(
        self, inputs: Tensor, run: Callable[[Tensor, list[int]], Any], window: Sequence[int]
    ) -> Iterator[tuple[slice, Any]]:
        """Run overlapping windows; of a large image no more rows are held than a window has."""
        if self.blend == "pyramid":
            self.windows.roi_weight_map = pyramid_weights(window)
        if _is_large(inputs) and all(map(operator.le, window, inputs.shape[2:])):
            bands = self._rows(inputs, run, window)
            first = next(bands, None)
            if first is not None:
                yield first
                yield from bands
                return

        def of_images(windows: Tensor, coordinates: list[list[slice]]) -> Any:
            return run(windows, [place[0].start for place in coordinates])

        yield slice(0, inputs.shape[2]), self.windows(at_hand(inputs), of_images)

    def _rows(
        self, inputs: Tensor, run: Callable[[Tensor, list[int]], Any], window: Sequence[int]
    ) -> Iterator[tuple[slice, Tensor]]:
        """Blend the windows of one image as MONAI does, one row of windows after the other.

        Nothing comes where the network gives more than one tensor, or another resolution.
        """
        shape, overlap = tuple(inputs.shape[2:]), self.windows.overlap
        shares = (overlap,) * len(shape) if isinstance(overlap, int | float) else tuple(overlap)
        steps = _get_scan_interval(shape, tuple(window), len(shape), shares)
        places = dense_patch_slices(shape, tuple(window), steps)
        weights = self.windows.roi_weight_map
        if weights is None:
            weights = compute_importance_map(
                tuple(window), mode=self.windows.mode, device=inputs.device, dtype=inputs.dtype
            )
        weights = weights.to(inputs.device, inputs.dtype)
        rows = [
            (start, list(row)) for start, row in itertools.groupby(places, lambda at: at[0].start)
        ]
        sums = counts = torch.empty(0)
        for (start, row), after in zip(rows, [*(at for at, _ in rows[1:]), shape[0]], strict=True):
            across = [(slice(None), slice(None), slice(None), *at[1:]) for at in row]
            for first in range(0, len(row), self.windows.sw_batch_size):
                chosen = slice(first, first + self.windows.sw_batch_size)
                here = [inputs[(slice(None), slice(None), *at)] for at in row[chosen]]
                pred = run(torch.cat(here), [0] * len(here))
                if not isinstance(pred, Tensor) or pred.shape[2:] != weights.shape:
                    return
                if not sums.numel():
                    sums = weights.new_zeros((1, pred.shape[1], window[0], *shape[1:]))
                    counts = weights.new_zeros((1, 1, window[0], *shape[1:]))
                pred *= weights
                for at, one in zip(across[chosen], pred, strict=True):
                    sums[at] += one
            for at in across:
                counts[at] += weights
            done, left = after - start, window[0] - (after - start)
            yield slice(start, after), sums[:, :, :done] / counts[:, :, :done]
            for held in (sums, counts):
                held[:, :, :left] = held[:, :, done:].clone()
                held[:, :, left:] = 0


def _is_large(inputs: Tensor) -> bool:
    return len(inputs) == 1 and inputs[0, 0].numel() > LARGE_PIXELS


def _cut(pred: Any, place: tuple[slice, ...]) -> Any:
    return map_tensors(lambda part: part[place], pred)


def _empty(pred: Any, batch: int, *shape: int) -> Any:
    """Room for what has the channels of `pred` and this shape."""
    return map_tensors(lambda part: part.new_empty((batch, part.shape[1], *shape)), pred)


def _joined(
    bands: Bands,
    size: int,
    reduce: Callable[[Tensor], Tensor] | None = None,
    on_disk: bool = False,
) -> Any:
    """Put rows together that are `size` in all, each band reduced first."""
    output: Any = None
    targets: Sequence[Any] = ()
    for rows, band in bands:
        pred = band if reduce is None else map_tensors(reduce, band)
        if rows == slice(0, size):
            return pred
        if output is None:
            first = each_tensor(pred)[0]
            if on_disk:
                targets = [_Spool(part, size) for part in each_tensor(pred)]
                spooled = iter([target.tensor() for target in targets])
                output = map_tensors(functools.partial(next, spooled), pred)
            else:
                output = _empty(pred, len(first), size, *first.shape[3:])
                targets = each_tensor(output)
        for whole, part in zip(targets, each_tensor(pred), strict=True):
            whole[:, :, rows] = part
    return output


class _Spool:
    """The output for one image on disk, in a file that has no name and goes with the process."""

    def __init__(self, first: Tensor, size: int) -> None:
        self.shape, self.kind = (first.shape[1], size, *first.shape[3:]), first.dtype
        self.row = first.element_size() * math.prod(self.shape[2:])
        self.device = first.device  # of labels, too, with which the values are compared
        self.file = tempfile.TemporaryFile()  # noqa: SIM115
        weakref.finalize(self, self.file.close)

    def tensor(self) -> LazyTensor:
        """What is, or will be, there (1, K, *S)."""
        whole = LazyTensor(self._read, self.shape, self.kind)[None]
        return whole.to(self.device)  # type: ignore[return-value]

    def __setitem__(self, place: tuple[slice, slice, slice], part: Tensor) -> None:
        try:
            for channel, values in enumerate(part[0].cpu()):
                self.file.seek((channel * self.shape[1] + place[2].start) * self.row)
                self.file.write(values.contiguous().view(torch.uint8).numpy().data)
            self.file.flush()
        except OSError as error:
            room = f"{tempfile.gettempdir()} (for temporary files, see TMPDIR)"
            raise OSError(error.errno, error.strerror, room) from error

    def _read(self, at: Place) -> Tensor:
        channels, rows = (range(one.start, one.stop) for one in at[:2])
        part = torch.empty((len(channels), len(rows), *self.shape[2:]), dtype=self.kind)
        for values, channel in zip(part, channels, strict=True):
            self.file.seek((channel * self.shape[1] + rows.start) * self.row)
            self.file.readinto(values.view(torch.uint8).numpy().data)
        return part[(slice(None), slice(None), *at[2:])]


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
) -> Iterator[tuple[slice, Any]]:
    """Run a network tile by tile and put the kept parts straight into its output (thesis 3.1).

    No weights are needed beside the output. It comes in bands of rows, one row of tiles after the
    other where the image is large. The result is that of the untiled image where

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

    rows = [[span] for span in axes[0]] if _is_large(inputs) else [axes[0]]
    for spans_of_rows in rows:
        first, last = spans_of_rows[0].kept.start, spans_of_rows[-1].kept.stop
        output: Any = None
        places = itertools.product(range(len(inputs)), itertools.product(spans_of_rows, *axes[1:]))
        for size, alike in itertools.groupby(sorted(places, key=shape), key=shape):
            while batch := list(itertools.islice(alike, batch_size)):
                tiles = torch.stack(
                    [
                        inputs[(image, slice(None), *(s.seen for s in spans))]
                        for image, spans in batch
                    ]
                )
                pred = run(tiles, [image for image, _ in batch])
                if output is None:
                    output = _empty(pred, len(inputs), last - first, *inputs.shape[3:])
                for target, parts in zip(each_tensor(output), each_tensor(pred), strict=True):
                    if parts.shape[2:] != size:
                        raise ConfigError(
                            f"The network gave {tuple(parts.shape[2:])} pixels for a tile of "
                            f"{size}; tiles need a network that keeps the size. Use blend gaussian "
                            "or constant."
                        )
                    for part, (image, (span, *others)) in zip(parts, batch, strict=True):
                        kept = part[(slice(None), span.inner, *(s.inner for s in others))]
                        place = slice(span.kept.start - first, span.kept.stop - first)
                        target[(image, slice(None), place, *(s.kept for s in others))] = kept
        if any(missing):
            cut = (slice(None), slice(None), inner[0] if missing[0] else slice(None), *inner[1:])
            output = _cut(output, cut)
        yield (
            (slice(0, inner[0].stop - inner[0].start) if missing[0] else slice(first, last)),
            output,
        )


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
