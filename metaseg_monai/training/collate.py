"""How cases become a batch, and a batch what the network and the loss get."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.utils import list_data_collate
from monai.engines import PrepareBatch, default_prepare_batch
from torch import Tensor, nn
from torch.utils.data import Sampler

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.metadata.fields import Continuous
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.training import processes

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


class PrepareBatchMeta(PrepareBatch):
    """Give a trainer or evaluator image and label, and `meta` to a network that reads metadata.

    The network tells whether it does by its `meta_features`; one that has none, such as MONAI's
    own, gets the image alone.

    Args:
        network: that the batches are for, also inside DistributedDataParallel.
    """

    def __init__(self, network: nn.Module) -> None:
        self.reads = bool(getattr(processes.bare_network(network), "meta_features", 0))

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Return image (B, C, *S), label (B, 1, *S) or None, (), and {"meta": (B, M)} or {}.

        Args:
            batchdata: with `image`, and where the network reads it the encoded `meta`.
            device: where all go.
            non_blocking: as of `Tensor.to`, like `kwargs`.

        Raises:
            DataError: the network reads metadata, but the batch has none.
        """
        image, label = default_prepare_batch(dict(batchdata), device, non_blocking, **kwargs)
        if not self.reads:
            return image, label, (), {}
        meta = _meta_of(batchdata, "for a network that reads it")
        move = {"device": device, "non_blocking": non_blocking, **kwargs}
        return image, label, (), {"meta": meta.to(**move)}


def continuous_field(schema: MetadataSchema, name: str | None = None) -> Continuous:
    """The field to estimate: the one of that name, or the first continuous one.

    Raises:
        MetadataError: The named field is not in the schema or not continuous, or none is.
    """
    numbers = [field for field in schema.fields if isinstance(field, Continuous)]
    if name is None:
        if not numbers:
            raise MetadataError(
                "Only a continuous field can be estimated from the image; the schema has "
                f"{', '.join(f'{field.name} ({field.kind})' for field in schema.fields)}. Use a "
                "bundle or schema_file with a size, a magnification or the like."
            )
        return numbers[0]
    field = schema.field(name)
    if not isinstance(field, Continuous):
        raise MetadataError(
            f"estimate_field {name!r} is {field.kind}, but only a continuous field can be "
            f"estimated: {', '.join(number.name for number in numbers) or 'this schema has none'}."
        )
    return field


class FieldTarget(PrepareBatch):
    """Give a trainer or evaluator the image, and as its target the code of one field.

    Args:
        schema: that `meta` of the batch was encoded with.
        field: the continuous field, whose code has one entry for the value.

    Raises:
        MetadataError: the schema has no such field.
    """

    def __init__(self, schema: MetadataSchema, field: Continuous) -> None:
        schema.field(field.name)
        self.name = field.name
        self.entry = schema.slices[field.name].start

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Return images (B, C, *S) and targets (B, 1), 0 to 1 inside the field's range.

        A missing value gives 0: leave such items out of training (`known_items`).

        Args:
            batchdata: with `image` and the encoded `meta` (B, M).
            device: where both go.
            non_blocking: as of `Tensor.to`, like `kwargs`.

        Raises:
            DataError: the batch has no `meta`.
        """
        target = _meta_of(batchdata, f"to learn {self.name!r} from")
        target = target[:, self.entry : self.entry + 1]
        move = {"device": device, "non_blocking": non_blocking, **kwargs}
        return batchdata["image"].to(**move), target.to(**move)


def _meta_of(batchdata: Mapping[str, Any], purpose: str) -> Tensor:
    if "meta" not in batchdata:
        raise DataError(
            f"The batch has no encoded metadata {purpose}; put EncodeMetadatad into the transforms."
        )
    meta: Tensor = batchdata["meta"]
    return meta
