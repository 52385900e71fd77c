"""In which order cases are seen, and with which random draws: the same however often resumed."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from monai.data import CacheDataset, get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandCropByLabelClassesd,
    RandCropByPosNegLabeld,
    Randomizable,
    RandomizableTrait,
    RandSpatialCropd,
    RandSpatialCropSamplesd,
    RandWeightedCropd,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.table import CaseTable, as_known
from metaseg_monai.training import processes
from metaseg_monai.training.collate import JoinHeadsd, batchable, collate_cases, join_heads
from metaseg_monai.training.sampling import EpochDraw, Order, check_seed, seed_for, seeded
from metaseg_monai.transforms.metadata import DropMetadatad

Key = tuple[int, ...]  # (epoch, index), and how often the epoch has had the item if it has
OF_CLASSES = "_cls_indices"  # the postfix of ClassesToIndicesd
CROPS = (
    *(RandCropByLabelClassesd, RandCropByPosNegLabeld),
    *(RandSpatialCropd, RandSpatialCropSamplesd, RandWeightedCropd),
)
Chain = Callable[[Any], Any] | Sequence[Callable[[Any], Any]] | None


class ReplayDataset(Dataset[Any]):
    """Items after a fixed and a random chain of transforms, the draws replayed by their seed.

    After the fixed chain an item keeps what goes into a batch (`batchable`) and the places of the
    classes that MONAI's `ClassesToIndicesd` lists; the random one gets a copy. Where that begins
    with one of MONAI's crops, of the crop alone: what it costs does not depend on the volume.

    Args:
        data: one dict per case.
        transform: the fixed chain, e.g. reading and scaling: one transform or a list; None for
            none.
        augment: the random chain, likewise. Its own generators and the global ones of the CPU are
            seeded from (seed, epoch, index) before each item, the global ones put back.
        seed: of the random chain, from 0.
        cache: keep what `transform` gives in memory; each loading worker keeps its own. The first
            plane of a volume's file that is asked for has all of them read, so that no volume is
            read once a plane, in whatever order they are drawn.
        cases: the table that knows more of `data` that an application gives, see `as_known`.

    Raises:
        ConfigError: `transform` holds a random transform, or `seed` is negative.

    Example:
        >>> from monai.transforms import RandScaleIntensityd
        >>> augment = RandScaleIntensityd("image", factors=0.5, prob=1.0)
        >>> items = [{"image": np.ones((1, 2, 2), dtype=np.float32)}] * 3
        >>> dataset = ReplayDataset(items, augment=[augment], seed=0)
        >>> keys = (1, 2), (1, 2), 2
        >>> first, again, other = (float(dataset[key]["image"][0, 0, 0]) for key in keys)
        >>> first == again, first == other  # a plain index is epoch 0
        (True, False)
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Chain = None,
        augment: Chain = None,
        seed: int = 0,
        cache: bool = True,
        cases: CaseTable | None = None,
    ) -> None:
        check_seed(seed)
        self.data = as_known(data, cases)
        self.transform = _chain(transform)
        self.augment = _chain(augment)
        if drawn := _random_parts(self.transform):
            raise ConfigError(
                f"`transform` holds random transforms ({', '.join(drawn)}), whose draws would not "
                "be replayed. Move them to `augment`."
            )
        self.seed = seed
        self.cache = cache
        self._loaded: dict[int, Any] = {}
        self._planes: dict[str, list[int]] = {}  # places of the planes of each volume's file

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: int | Key) -> Any:
        """Return an item by (epoch, index), or by its index alone as of epoch 0.

        An item that an epoch draws again, (epoch, index, times before), is drawn otherwise.
        """
        epoch, index, *again = key if isinstance(key, tuple) else (0, key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"Item {index} of {len(self)} was asked for.")
        index %= len(self)
        if self.cache and index not in self._loaded:
            for other in self._beside(index):
                self._kept(other)
        if self.augment is None:
            return self.load(index)
        item, chain = self._kept(index), cast(Any, self.augment)
        first = chain.transforms[:1] if type(chain) is Compose else ()
        crops = any(isinstance(one, CROPS) for one in first)
        item = dict(item) if crops else _copied(item)
        seed = seed_for(self.seed, epoch, index, *(again and (*again, 0)))  # a Deck has 4 numbers
        if isinstance(chain, Randomizable):
            chain.set_random_state(seed=seed)
        with seeded(seed), _untracked():
            return chain(_copied(chain(item, end=1)), start=1) if crops else chain(item)

    def apart(self) -> "ReplayDataset":
        """The same items, read anew: what they are read for leaves nothing behind here."""
        other = copy.copy(self)
        other._loaded = {}
        return other

    def load(self, index: int) -> Any:
        """Return an item after the fixed chain alone."""
        return _copied(self._kept(index)) if self.cache else self._kept(index)

    def _beside(self, index: int) -> list[int]:
        """The places of all planes of the volume that an item is a plane of."""
        if "plane" not in self.data[index]:
            return []
        if not self._planes:
            for place, item in enumerate(self.data):
                if "plane" in item:
                    self._planes.setdefault(str(item["image"]), []).append(place)
        return self._planes[str(self.data[index]["image"])]

    def _kept(self, index: int) -> Any:
        """The item as it is kept, which nobody may change."""
        if index in self._loaded:
            return self._loaded[index]
        item = copy.deepcopy(self.data[index])
        if self.transform is not None:
            read = self.transform(item)
            places = {key: one for key, one in read.items() if str(key).endswith(OF_CLASSES)}
            item = {**batchable(read), **places}
        if self.cache:
            self._loaded[index] = item
        return item


def joined_dataset(
    data: Sequence[dict[str, Any]],
    heads: str,
    schema: MetadataSchema,
    transform: Sequence[Callable[[Any], Any]],
    augment: Sequence[Callable[[Any], Any]] = (),
    seed: int = 0,
    cache: bool = True,
    cases: CaseTable | None = None,
) -> ReplayDataset:
    """Make the dataset of a parallel training: an item an image, with the labels of all heads.

    It takes the place of `ReplayDataset` in a configuration: `"train#dataset#_target_"` and its
    `heads` and `schema`, with `HeadsCrossEntropy` and `PrepareBatchHeads` of the trainer.

    Args:
        data: one dict per case, a row of one image and task.
        heads: field whose values are the tasks, as of `MultiHeadUnet3`.
        schema: of the metadata.
        transform: the fixed chain of a case.
        augment: the random chain, of which `DropMetadatad` is left out: no head reads metadata.
        seed: of the random chain, from 0.
        cache: keep what the fixed chain gives in memory.
        cases: see `ReplayDataset`.

    Raises:
        DataError, MetadataError: see `join_heads`.
    """
    items = join_heads(as_known(data, cases), schema, heads)
    fixed: list[Callable[[Any], Any]] = [*transform, JoinHeadsd(transform)]
    random = [one for one in augment if not isinstance(one, DropMetadatad)]
    return ReplayDataset(items, fixed, random, seed, cache)


def validation_dataset(
    data: Sequence[dict[str, Any]], transform: Chain = None, cases: CaseTable | None = None
) -> CacheDataset:
    """MONAI's dataset that keeps what it has read, of validation cases.

    Args:
        data: one dict per case.
        transform: reading and scaling, see `ReplayDataset`; likewise `cases`.
        cases: see `transform`.
    """
    return CacheDataset(as_known(data, cases), transform, progress=False)


def _chain(transform: Chain) -> Callable[[Any], Any] | None:
    return Compose(list(transform)) if isinstance(transform, Sequence) else transform


@contextmanager
def _untracked() -> Iterator[None]:
    """Let MONAI's transforms keep no history, which `batchable` would drop: up to twice as fast."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def _copied(item: Any) -> Any:
    """A copy that may be changed; of a crop, which is a view, without the rest of the image."""
    if isinstance(item, list):
        return [_copied(one) for one in item]
    if isinstance(item, dict):
        return {key: _copied(one) for key, one in item.items()}
    return item.clone() if isinstance(item, Tensor) else copy.deepcopy(item)


def _random_parts(transform: Any) -> list[str]:
    """Return the names of the random transforms in a chain."""
    if type(transform) is Compose:
        return [name for part in transform.transforms for name in _random_parts(part)]
    is_random = isinstance(transform, (Randomizable, RandomizableTrait))
    return [type(transform).__name__] if is_random else []


AHEAD_BYTES = 1 << 30  # of a batch, behind which the next is read only when it was let go


class ReadAhead(DataLoader[Any]):
    """Batches, of which the next is read in a thread while the last one is worked on.

    Batches and their order are those of `DataLoader`, and what reading raises is raised where the
    batch is taken. One batch more is held than without; none behind one whose `image` has more
    than a GiB. Arguments are those of `DataLoader`, whose loading processes it does not take.

    >>> list(ReadAhead([{"image": torch.ones(1)}] * 3, batch_size=2))[1]["image"].shape
    torch.Size([1, 1])
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches."""
        batches = super().__iter__()
        with ThreadPoolExecutor(1, "read") as pool:
            coming = pool.submit(next, batches, None)
            while (batch := coming.result()) is not None:
                image = batch.get("image") if isinstance(batch, Mapping) else None
                large = isinstance(image, Tensor) and _bytes(image) > AHEAD_BYTES
                if not large:
                    coming = pool.submit(next, batches, None)
                yield batch
                del batch, image
                if large:
                    coming = pool.submit(next, batches, None)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


class EpochBatchSampler(Sampler[list[Key]]):
    """Yield batches of (epoch, index) in an order drawn from (seed, epoch).

    Each pass is the next epoch, from 1 as Ignite counts. `begin_epoch` moves to any batch of any
    epoch, so that a resumed run goes on where it was killed. The last batch may be smaller; over
    several processes items from the start of the order are repeated until all have the same
    number. An `order` (of `EpochDraw`) takes the place of the permutations; batches are as many.

    Example:
        >>> sampler = EpochBatchSampler(length=4, batch_size=3, seed=0)
        >>> [len(batch) for batch in sampler]
        [3, 1]
        >>> sampler.begin_epoch(7, skip=1)
        >>> [[epoch for epoch, *_ in batch] for batch in sampler]
        [[7]]
    """

    def __init__(self, length: int, batch_size: int, seed: int, order: Order | None = None) -> None:
        check_seed(seed)
        if length < 1 or batch_size < 1:
            raise ConfigError(
                f"Training needs at least one item and one item a batch, got {length} items and "
                f"batch_size={batch_size}."
            )
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.order = order
        self.rank = processes.rank()
        self.world_size = processes.world_size()
        self._position = (1, 0)

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this process."""
        return math.ceil(math.ceil(self.length / self.world_size) / self.batch_size)

    @property
    def smallest(self) -> int:
        """Items of the smallest batch of an epoch on this process."""
        own = math.ceil(self.length / self.world_size)
        if self.order is not None and self.order.by_batch:  # they are full
            return self.batch_size
        return own % self.batch_size or self.batch_size

    def begin_epoch(self, epoch: int, skip: int = 0) -> None:
        """Make the next pass that of `epoch`, without its first `skip` batches."""
        self._position = (epoch, skip)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, skip = self._position
        had: Counter[int] = Counter()
        keys: list[Key] = []
        for index in self._items(epoch):
            keys.append((epoch, index, had[index]) if had[index] else (epoch, index))
            had[index] += 1
        own = keys[self.rank :: self.world_size]
        for batch in range(skip, len(self)):
            yield own[batch * self.batch_size : (batch + 1) * self.batch_size]
        self._position = (epoch + 1, 0)

    def _items(self, epoch: int) -> list[int]:
        """Return the epoch's items over all processes, their number a multiple of them."""
        items = math.ceil(self.length / self.world_size) * self.world_size
        if self.order is not None:
            return self.order.epoch(epoch, len(self), self.batch_size * self.world_size, items)
        drawn = np.random.default_rng(seed_for(self.seed, epoch)).permutation(self.length)
        return np.resize(drawn, items).tolist()


def training_loader(
    dataset: Dataset[Any],
    batch_size: int,
    seed: int,
    num_workers: int = 0,
    draw: EpochDraw | None = None,
) -> DataLoader[Any]:
    """Make the loader of a training run that can be resumed exactly.

    It has a generator of its own: otherwise starting it would draw from the global one.

    Args:
        dataset: takes (epoch, index), such as `ReplayDataset`.
        batch_size: items in a batch of one process.
        seed: of the order, from 0.
        num_workers: loading processes; kept alive between epochs.
        draw: balances metadata or keeps them apart; None draws every item once an epoch.

    Raises:
        ConfigError: A value is out of its range, or a field of `draw` cannot be used.
        DataError: A case has no value of a field.
    """
    check_seed(seed)
    order = None if draw is None else draw.order(getattr(dataset, "data", ()), seed)
    sampler = EpochBatchSampler(len(dataset), batch_size, seed, order)  # type: ignore[arg-type]
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        collate_fn=collate_cases,
        generator=torch.Generator().manual_seed(seed),
    )
