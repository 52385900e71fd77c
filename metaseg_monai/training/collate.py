"""Which slices share a batch: those of one volume, whose shapes are equal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from monai.data.utils import list_data_collate
from torch import Tensor
from torch.utils.data import Sampler

from metaseg_monai.errors import ConfigError, DataError


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


# Which cases may share a batch: those with the same keys and shapes.

_CARRIED = (Tensor, np.ndarray, np.generic, bool, int, float, str)


def collate_cases(batch: Sequence[Mapping[str, Any] | list[Mapping[str, Any]]]) -> dict[str, Any]:
    """Join items into a batch, and refuse items that differ in keys or shapes.

    Tensors, arrays and numbers are stacked, text becomes a list, so that "case" names each row of
    the batch. Raw values (mappings, lists, None), such as metadata before encoding, stay behind:
    MONAI would drop or transpose them where items differ.

    Args:
        batch: one dict per item, or one list of dicts where a transform crops several samples.

    Returns:
        The batch, `image` (B, C, *S), `label` (B, 1, *S), `meta` (B, M), "case" a list of B.

    Raises:
        DataError: A key is missing in one item, or its shapes differ; names the cases.

    Example:
        >>> batch = collate_cases([{"case": name, "meta": np.ones(2)} for name in ("a", "b")])
        >>> batch["case"], batch["meta"].shape
        (['a', 'b'], torch.Size([2, 2]))
    """
    samples: list[Mapping[str, Any]] = []
    for item in batch:
        samples += item if isinstance(item, list) else [item]
    cases = [str(sample.get("case", f"item {place}")) for place, sample in enumerate(samples)]
    carried = [
        {key: value for key, value in sample.items() if isinstance(value, _CARRIED)}
        for sample in samples
    ]
    keys = list(dict.fromkeys(key for sample in carried for key in sample))
    for key in keys:
        _check_present(key, carried, samples, cases)
        _check_shapes(key, carried, cases)
    return list_data_collate([{key: sample[key] for key in keys} for sample in carried])


def _check_present(
    key: str,
    carried: Sequence[Mapping[str, Any]],
    samples: Sequence[Mapping[str, Any]],
    cases: Sequence[str],
) -> None:
    having = next(case for case, sample in zip(cases, carried, strict=True) if key in sample)
    for case, sample, raw in zip(cases, carried, samples, strict=True):
        if key not in sample:
            found = f"holds {type(raw[key]).__name__} there" if key in raw else "has none"
            raise DataError(
                f"Case {having} has {key!r} to put in a batch, but case {case} {found}. Give every "
                f"case {key!r}, or none."
            )


def _check_shapes(key: str, carried: Sequence[Mapping[str, Any]], cases: Sequence[str]) -> None:
    shapes = [
        "text" if isinstance(sample[key], str) else tuple(np.shape(sample[key]))
        for sample in carried
    ]
    if len(set(shapes)) == 1:
        return
    odd = next(place for place, shape in enumerate(shapes) if shape != shapes[0])
    raise DataError(
        f"Cases of one batch differ in the shape of {key!r}: {shapes[0]} in case {cases[0]}, "
        f"{shapes[odd]} in case {cases[odd]}. Crop or pad them to one size in the transforms "
        "(e.g. RandSpatialCropd, SpatialPadd), or set the batch size to 1: val_batch_size for "
        "validation and tests, which see whole images."
    )
