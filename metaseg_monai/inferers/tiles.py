"""Tiles whose margins are discarded (thesis 3.1): each pixel of the output comes from one tile.

No weights are needed beside the output, which saves a third of its memory with two classes. The
result is that of the untiled image where

- the margin is as wide as the network sees to one side: 33, 69, 141 and 285 pixels for a Unet3 of
  2, 3, 4 and 5 levels;
- tiles begin at multiples of 2 ** levels, so that they share the pooling cells of the image. The
  image itself may have any size, for its last tile ends where it ends, as its own pooling does;
- the image is not smaller than the tile (it would be padded);
- the network does not pool over the whole image, as the gates of SE and SME do.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers.outputs import each_tensor, map_tensors


class Span(NamedTuple):
    """A tile along one axis, in pixels: what the network sees, and the part that is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


class Tile(NamedTuple):
    """A tile of one image of a batch, with a span for each axis."""

    image: int
    spans: tuple[Span, ...]

    @property
    def seen(self) -> tuple[slice, ...]:
        """Where the tile lies in images (B, C, *S), as a batch of one."""
        place = (slice(span.start, span.stop) for span in self.spans)
        return (slice(self.image, self.image + 1), slice(None), *place)

    @property
    def kept(self) -> tuple[slice, ...]:
        """Where the kept part lies in the tile (K, *S)."""
        spans = self.spans
        return (
            slice(None),
            *(slice(one.keep_start - one.start, one.keep_stop - one.start) for one in spans),
        )

    @property
    def target(self) -> tuple[int | slice, ...]:
        """Where the kept part lies in the output (B, K, *S)."""
        place = (slice(span.keep_start, span.keep_stop) for span in self.spans)
        return (self.image, slice(None), *place)

    @property
    def shape(self) -> tuple[int, ...]:
        """The pixels that the network sees along each axis."""
        return tuple(span.stop - span.start for span in self.spans)


def tile_spans(size: int, window: int, margin: int, align: int) -> list[Span]:
    """Cover an axis by tiles whose kept parts meet without gap or overlap.

    Tiles begin at multiples of `align`, so that the cells of pooling layers are those of the
    untiled image. The last tile ends with the image and is up to `align - 1` pixels smaller.

    Args:
        size: pixels of the image, one tile where that is at most `window`.
        window: pixels of a tile.
        margin: pixels discarded at each inner end of a tile.
        align: what tiles begin at multiples of.

    >>> tile_spans(size=20, window=12, margin=2, align=4)
    [Span(start=0, stop=12, keep_start=0, keep_stop=10), \
Span(start=8, stop=20, keep_start=10, keep_stop=20)]
    """
    if size <= window:
        return [Span(0, size, 0, size)]
    step = (window - 2 * margin) // align * align
    last = -((window - size) // align) * align  # the first multiple from which a tile reaches over
    starts = [*range(0, last, step), last]
    joints = [0, *(start + margin for start in starts[1:]), size]
    return [
        Span(start, min(start + window, size), keep_start, keep_stop)
        for start, (keep_start, keep_stop) in zip(starts, itertools.pairwise(joints), strict=True)
    ]


def check_tiles(windows: Sequence[int], margins: Sequence[int], align: int) -> None:
    """Refuse margins that leave nothing of a tile.

    Args:
        windows: pixels of a tile along each axis; -1 is the image's own size and has no margin.
        margins: pixels discarded at each end, along each axis.
        align: what tiles begin at multiples of.

    Raises:
        ConfigError: a margin or `align` is out of range, or a window is no multiple of `align`.
    """
    if align < 1 or any(margin < 0 for margin in margins):
        raise ConfigError(f"margin_px must be 0 or more and align 1 or more: {margins}, {align}.")
    for window, margin in zip(windows, margins, strict=True):
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


def run_tiles(
    inputs: Tensor,
    run: Callable[[Tensor, list[int]], Any],
    windows: Sequence[int],
    margins: Sequence[int],
    align: int = 1,
    batch_size: int = 4,
    pad_mode: str = "constant",
    pad_value: float = 0.0,
    sw_device: torch.device | str | None = None,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Any:
    """Run a network tile by tile and put the kept parts straight into its output.

    Args:
        inputs: images (B, C, *S).
        run: called with tiles (N, C, *windows) and the N numbers of their images.
        windows: pixels of a tile along each axis; images smaller than it are padded on both sides.
        margins: pixels discarded at each inner end of a tile, along each axis.
        align: tiles begin at multiples of it.
        batch_size: tiles run at once.
        pad_mode: how smaller images are padded, "constant" or "replicate".
        pad_value: of constant padding.
        sw_device: where tiles are run; default: where the images are.
        device: where the output is put together; default: where the images are.
        progress: show a bar over the batches of tiles.

    Returns:
        The output (B, K, *S); a tuple or dict of them where `run` gives one.

    Raises:
        ConfigError: the network changes the size of a tile.
    """
    sizes = inputs.shape[2:]
    missing = [max(window - size, 0) for window, size in zip(windows, sizes, strict=True)]
    before = [pixels // 2 for pixels in missing]
    if any(missing):
        ends = [(low, pixels - low) for low, pixels in zip(before, missing, strict=True)]
        widths = [width for pair in reversed(ends) for width in pair]
        value = pad_value if pad_mode == "constant" else None
        inputs = F.pad(inputs, widths, mode=pad_mode, value=value)
    axes = [
        tile_spans(size, window, margin, align)
        for size, window, margin in zip(inputs.shape[2:], windows, margins, strict=True)
    ]
    batches = list(_batches(inputs.shape[0], axes, batch_size))
    where, place = sw_device or inputs.device, device or inputs.device
    output: Any = None
    for batch in tqdm(batches) if progress else batches:
        tiles = torch.cat([inputs[tile.seen] for tile in batch]).to(where)
        pred = run(tiles, [tile.image for tile in batch])
        if output is None:
            output = map_tensors(lambda one: _whole(one, inputs, place), pred)
        for whole, parts in zip(each_tensor(output), each_tensor(pred), strict=True):
            if parts.shape[2:] != tiles.shape[2:]:
                raise ConfigError(
                    f"The network gave {tuple(parts.shape[2:])} pixels for a tile of "
                    f"{tuple(tiles.shape[2:])}; tiles need a network that keeps the size. Use "
                    "blend gaussian or constant."
                )
            for part, tile in zip(parts, batch, strict=True):
                whole[tile.target] = part[tile.kept].to(place)
    if any(missing):
        inner = [slice(low, low + size) for low, size in zip(before, sizes, strict=True)]
        output = map_tensors(lambda whole: whole[(slice(None), slice(None), *inner)], output)
    return output


def _whole(part: Tensor, inputs: Tensor, device: torch.device | str) -> Tensor:
    shape = (inputs.shape[0], part.shape[1], *inputs.shape[2:])
    return torch.empty(shape, dtype=part.dtype, device=device)


def _batches(
    images: int, axes: Sequence[Sequence[Span]], batch_size: int
) -> Iterator[tuple[Tile, ...]]:
    """Tiles of equal shape, at most `batch_size` at once."""
    grid = itertools.product(range(images), itertools.product(*axes))
    tiles = sorted((Tile(image, spans) for image, spans in grid), key=lambda tile: tile.shape)
    for _, alike in itertools.groupby(tiles, key=lambda tile: tile.shape):
        while batch := tuple(itertools.islice(alike, batch_size)):
            yield batch
