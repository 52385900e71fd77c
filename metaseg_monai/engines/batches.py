"""Which slices share a batch: those of one volume, whose shapes are equal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import Sampler

from metaseg_monai.errors import ConfigError


class VolumeBatches(Sampler[list[int]]):
    """Batches of consecutive slices of one volume; an item without a volume goes alone.

    Volumes differ in shape, and images differ more often than not; the slices of one volume never
    do. The order of the items is kept, so that each volume is read once.

    Args:
        items: the dataset's, where slices name their `volume`.
        batch_size: largest number of slices in a batch.

    Raises:
        ConfigError: `batch_size` is below 1.

    Example:
        >>> items = [{"volume": name} for name in "aaab"] + [{"case": "photo"}]
        >>> list(VolumeBatches(items, batch_size=2))
        [[0, 1], [2], [3], [4]]
    """

    def __init__(self, items: Sequence[Mapping[str, Any]], batch_size: int) -> None:
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigError(f"batch_size must be a whole number from 1, got {batch_size!r}.")
        self.batches: list[list[int]] = []
        before = None
        for place, item in enumerate(items):
            volume = item.get("volume")
            if volume is None or volume != before or len(self.batches[-1]) == batch_size:
                self.batches.append([])
            self.batches[-1].append(place)
            before = volume

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the places of the items of each batch."""
        return iter(self.batches)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.batches)
