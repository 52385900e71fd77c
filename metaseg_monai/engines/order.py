"""In which order cases are seen: the same however often resumed.

The order of an epoch is drawn from (seed, epoch), so it does not depend on what was run before.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from metaseg_monai.engines import processes
from metaseg_monai.engines.collate import collate_cases
from metaseg_monai.engines.randomness import seed_for
from metaseg_monai.engines.replay import Key, ReplayDataset, check_seed
from metaseg_monai.engines.sampling import EpochDraw, field_values
from metaseg_monai.errors import ConfigError


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
