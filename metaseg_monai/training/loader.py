"""In which order cases are seen: the same however often resumed.

The order of an epoch is drawn from (seed, epoch), so it does not depend on what was run before.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, Randomizable, RandomizableTrait
from torch.utils.data import DataLoader, Dataset, Sampler

from metaseg_monai.errors import ConfigError
from metaseg_monai.training import processes
from metaseg_monai.training.collate import collate_cases
from metaseg_monai.training.randomness import seed_for, seeded
from metaseg_monai.training.sampling import EpochDraw, field_values

# With which random draws an item is seen: the same however often resumed.

Key = tuple[int, int]  # (epoch, index)


def check_seed(seed: int) -> None:
    """Refuse what is no seed.

    Raises:
        ConfigError: it is no whole number from 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number from 0, got {seed!r}.")


def _random_parts(transform: Any) -> list[str]:
    """Return the names of the random transforms in a chain."""
    if type(transform) is Compose:
        return [name for part in transform.transforms for name in _random_parts(part)]
    is_random = isinstance(transform, (Randomizable, RandomizableTrait))
    return [type(transform).__name__] if is_random else []


class ReplayDataset(Dataset[Any]):
    """Items after a fixed and a random chain of transforms, the draws replayed by their seed.

    Args:
        items: one dict per case.
        load: the fixed chain, e.g. reading and scaling; None for none.
        augment: the random chain; None for none. Its own generators and the global ones of the
            CPU are seeded from (seed, epoch, index) before each item, the global ones put back.
        seed: of the random chain, from 0.
        cache: keep what `load` gives in memory. Each loading worker keeps its own, and `augment`
            always gets a copy.

    Raises:
        ConfigError: `load` holds a random transform, or `seed` is negative.

    Example:
        >>> import numpy as np
        >>> from monai.transforms import RandScaleIntensityd
        >>> augment = RandScaleIntensityd("image", factors=0.5, prob=1.0)
        >>> items = [{"image": np.ones((1, 2, 2), dtype=np.float32)}] * 3
        >>> dataset = ReplayDataset(items, augment=augment, seed=0)
        >>> keys = (1, 2), (1, 2), 2
        >>> first, again, other = (float(dataset[key]["image"][0, 0, 0]) for key in keys)
        >>> first == again, first == other  # a plain index is epoch 0
        (True, False)
    """

    def __init__(
        self,
        items: Sequence[dict[str, Any]],
        load: Callable[[Any], Any] | None = None,
        augment: Callable[[Any], Any] | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        check_seed(seed)
        if drawn := _random_parts(load):
            raise ConfigError(
                f"`load` holds random transforms ({', '.join(drawn)}), whose draws would not be "
                "replayed. Move them to `augment`."
            )
        self.items = items
        self.load = load
        self.augment = augment
        self.seed = seed
        self.cache = cache
        self._loaded: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, key: int | Key) -> Any:
        """Return an item by (epoch, index), or by its index alone as of epoch 0."""
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if not -len(self) <= index < len(self):
            raise IndexError(f"Item {index} of {len(self)} was asked for.")
        index %= len(self)
        item = self._load(index)
        if self.augment is None:
            return item
        seed = seed_for(self.seed, epoch, index)
        if isinstance(self.augment, Randomizable):
            self.augment.set_random_state(seed=seed)
        with seeded(seed):
            return self.augment(item)

    def _load(self, index: int) -> Any:
        if index in self._loaded:
            return copy.deepcopy(self._loaded[index])
        item = copy.deepcopy(self.items[index])
        if self.load is not None:
            item = self.load(item)
        if self.cache:
            self._loaded[index] = copy.deepcopy(item)
        return item


class EpochBatchSampler(Sampler[list[Key]]):
    """Yield batches of (epoch, index) in an order drawn from (seed, epoch).

    Each pass is the next epoch, from 1 as Ignite counts. `begin_epoch` moves to any batch of any
    epoch, so that a resumed run goes on where it was killed.

    Args:
        length: items in the dataset.
        batch_size: items in a batch of one process.
        seed: of the order, from 0.
        shuffle: draw a new order each epoch; else the dataset's own order.
        drop_last: leave out the items that do not fill a batch on every process. Otherwise the
            last batch is smaller, and over several processes items from the start of the order
            are repeated until all have the same number.
        rank: number of this process; default: that of the distributed run, if any.
        world_size: number of processes; default: that of the distributed run, if any.
        draw: takes the place of the order, see `EpochDraw`; batches are as many as without.

    Raises:
        ConfigError: A value is out of its range, or no batch would be left.

    Example:
        >>> sampler = EpochBatchSampler(length=4, batch_size=3, seed=0, shuffle=False)
        >>> list(sampler)
        [[(1, 0), (1, 1), (1, 2)], [(1, 3)]]
        >>> sampler.begin_epoch(7, skip=1)
        >>> list(sampler)
        [[(7, 3)]]
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        draw: EpochDraw | None = None,
    ) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank = processes.rank() if rank is None else rank
        self.world_size = processes.world_size() if world_size is None else world_size
        self.draw = draw
        self._position = (1, 0)
        check_seed(seed)
        if length < 1 or batch_size < 1:
            raise ConfigError(
                f"Training needs at least one item and one item a batch, got {length} items and "
                f"batch_size={batch_size}."
            )
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank {self.rank} is not one of {self.world_size} processes.")
        if len(self) == 0:
            raise ConfigError(
                f"{length} items do not fill a batch of {batch_size} on {self.world_size} "
                "process(es). Lower batch_size or set drop_last to False."
            )

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this process."""
        if self.drop_last:
            return self.length // (self.batch_size * self.world_size)
        share = -(-self.length // self.world_size)
        return -(-share // self.batch_size)

    def begin_epoch(self, epoch: int, skip: int = 0) -> None:
        """Make the next pass that of `epoch`, without its first `skip` batches."""
        self._position = (epoch, skip)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, skip = self._position
        own = self._order(epoch)[self.rank :: self.world_size]
        for batch in range(skip, len(self)):
            items = own[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(epoch, index) for index in items]
        self._position = (epoch + 1, 0)

    def _order(self, epoch: int) -> list[int]:
        """Return the epoch's items over all processes, their number a multiple of them."""
        batch = self.batch_size * self.world_size
        items = len(self) * batch
        if not self.drop_last:
            items = -(-self.length // self.world_size) * self.world_size
        if self.draw is not None:
            return self.draw.epoch(epoch, len(self), batch, items)
        order = list(range(self.length))
        if self.shuffle:
            generator = np.random.default_rng(seed_for(self.seed, epoch))
            order = generator.permutation(self.length).tolist()
        return [order[place % self.length] for place in range(items)]


def training_loader(
    dataset: Dataset[Any],
    batch_size: int,
    seed: int,
    num_workers: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    pin_memory: bool = False,
    rank: int | None = None,
    world_size: int | None = None,
    balance: str | None = None,
    homogeneous: str | None = None,
) -> DataLoader[Any]:
    """Make the loader of a training run that can be resumed exactly.

    It has a generator of its own: otherwise starting it would draw from the global one, and shift
    the network's dropout where a run is resumed.

    Args:
        dataset: takes (epoch, index), such as `ReplayDataset`.
        batch_size: items in a batch of one process.
        seed: of the order, from 0.
        num_workers: loading processes; kept alive between epochs.
        shuffle: draw a new order each epoch.
        drop_last: see `EpochBatchSampler`.
        pin_memory: copy batches to pinned memory, for a faster move to the GPU.
        rank: see `EpochBatchSampler`.
        world_size: see `EpochBatchSampler`.
        balance: metadata field whose values an epoch holds equally often; None for as they are.
        homogeneous: metadata field of which a batch holds one value; None for any. Both are told
            in `EpochDraw`; the number of batches is that without them.

    Raises:
        ConfigError: A value is out of its range, or a field cannot be used.
        DataError: A case has no value of a field.
    """
    length = len(dataset)  # type: ignore[arg-type]
    draw = None
    if balance is not None or homogeneous is not None:
        check_seed(seed)
        items = dataset.items if isinstance(dataset, ReplayDataset) else ()
        balanced = field_values(items, balance, "balance")
        draw = EpochDraw(balanced, field_values(items, homogeneous, "homogeneous"), seed, shuffle)
    sampler = EpochBatchSampler(
        length, batch_size, seed, shuffle, drop_last, rank, world_size, draw
    )
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
        collate_fn=collate_cases,
        generator=torch.Generator().manual_seed(seed),
    )
