"""Which items an epoch draws where values of the metadata are to be balanced or kept apart.

Everything is counted from the start of the training and drawn from a seed, so that any epoch can be
drawn without those before it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.training.randomness import seed_for

Numbers = NDArray[np.int64]


class Stream(ABC):
    """An endless row of items of which any part can be asked for."""

    size: int  # different items

    @abstractmethod
    def take(self, start: int, count: int) -> Numbers:
        """Return the items at the places from `start`."""


class Deck(Stream):
    """Items in a drawn order, all once before any comes again, in a new order each time.

    Args:
        items: numbers of the items.
        seed: of the orders, from 0.
        number: of the deck, so that decks of one seed differ.
        shuffle: draw the orders; else the items' own.

    >>> Deck([7, 8], seed=0, number=0, shuffle=False).take(1, 4).tolist()
    [8, 7, 8, 7]
    """

    def __init__(self, items: Sequence[int], seed: int, number: int, shuffle: bool) -> None:
        self.items = np.asarray(items, dtype=np.int64)
        self.size = len(self.items)
        self._draw = (seed, number)
        self._shuffle = shuffle

    def take(self, start: int, count: int) -> Numbers:
        """Return the items at the places from `start`."""
        first, last = start // self.size, (start + count - 1) // self.size
        rounds = [self._order(number) for number in range(first, last + 1)] or [self.items]
        return np.concatenate(rounds)[start - first * self.size :][:count]

    def _order(self, number: int) -> Numbers:
        if not self._shuffle:
            return self.items
        # four numbers, for (seed, epoch) and (seed, epoch, index) draw other things
        seed, deck = self._draw
        generator = np.random.default_rng(seed_for(seed, deck, number, 0))
        return generator.permutation(self.items)


class Turns:
    """Whose turn it is: every part as often as its weight, spread evenly, for ever.

    Args:
        weights: whole numbers from 1; a round is as long as their sum.

    >>> Turns([1, 3]).between(0, 8)[0].tolist()
    [1, 0, 1, 1, 1, 0, 1, 1]
    """

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = np.asarray(weights, dtype=np.int64)
        owners = np.repeat(np.arange(len(weights)), self.weights)
        places = np.concatenate([(np.arange(weight) + 0.5) / weight for weight in weights])
        self._round = owners[np.argsort(places, kind="stable")]

    def between(self, start: int, count: int) -> tuple[Numbers, Numbers]:
        """Return whose turns the places from `start` are, and the turns each part had before."""
        rounds, rest = divmod(start, len(self._round))
        owners = self._round[(rest + np.arange(count)) % len(self._round)]
        had = np.bincount(self._round[:rest], minlength=len(self.weights))
        return owners, rounds * self.weights + had


class Mix(Stream):
    """Items of several streams, each as often as the others.

    >>> rare, common = (Deck(items, 0, 0, shuffle=False) for items in ([0], [1, 2, 3]))
    >>> Mix([rare, common]).take(0, 6).tolist()
    [0, 1, 0, 2, 0, 3]
    """

    def __init__(self, streams: Sequence[Stream]) -> None:
        self.streams = streams
        self.size = sum(stream.size for stream in streams)
        self._turns = Turns([1] * len(streams))

    def take(self, start: int, count: int) -> Numbers:
        """Return the items at the places from `start`."""
        owners, before = self._turns.between(start, count)
        taken = np.empty(count, dtype=np.int64)
        for number, stream in enumerate(self.streams):
            own = owners == number
            taken[own] = stream.take(int(before[number]), int(own.sum()))
        return taken


class EpochDraw:
    """Draw the items of each epoch so that values are balanced, or that each batch has one value.

    Balanced: each epoch holds every value equally often, to within one; items of a rare value are
    repeated and those of a common one take turns, so that no item comes again before the others of
    its value. Homogeneous: every batch, over all processes together, holds one value and is full
    (the sequential training of the thesis, 4.7); values have batches as they have items, or equally
    many where they are balanced too.

    Args:
        balance: value of each item to balance; None balances nothing.
        homogeneous: value of each item that a batch has one of; None mixes them. With other values
            than `balance`, those are balanced within the batches of each value.
        seed: of the order, from 0.
        shuffle: draw the order; else values come in turns and items in their own order.
    """

    def __init__(
        self,
        balance: Sequence[str] | None,
        homogeneous: Sequence[str] | None,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        self._seed = seed
        self._shuffle = shuffle
        values = homogeneous or balance or ()
        parts = _members(range(len(values)), homogeneous)
        self._by_batch = homogeneous is not None
        self._streams: list[Stream] = []
        decks = 0
        for part in parts:
            inner = _members(part, balance)
            drawn = [Deck(one, seed, decks + n, shuffle) for n, one in enumerate(inner)]
            self._streams.append(drawn[0] if len(drawn) == 1 else Mix(drawn))
            decks += len(drawn)
        equal = balance is not None and list(balance) == list(homogeneous or balance)
        self._turns = Turns([1 if equal else stream.size for stream in self._streams])

    def epoch(self, epoch: int, batches: int, batch: int, items: int) -> list[int]:
        """Return the items of an epoch over all processes, which take every so many-th of them.

        Args:
            epoch: from 1.
            batches: of an epoch.
            batch: items of a batch over all processes.
            items: of an epoch; homogeneous epochs hold `batches` full batches instead.
        """
        generator = np.random.default_rng(seed_for(self._seed, epoch))
        if not self._by_batch:
            drawn = self._streams[0].take((epoch - 1) * items, items)
            return (generator.permutation(drawn) if self._shuffle else drawn).tolist()
        owners, before = self._turns.between((epoch - 1) * batches, batches)
        taken = np.empty((batches, batch), dtype=np.int64)
        for number, stream in enumerate(self._streams):
            own = owners == number
            start, count = int(before[number]) * batch, int(own.sum()) * batch
            taken[own] = stream.take(start, count).reshape(-1, batch)
        return (generator.permutation(taken) if self._shuffle else taken).flatten().tolist()


def field_values(items: Any, field: str | None, setting: str) -> list[str] | None:
    """Return each item's value of a metadata field; None for no field.

    Args:
        items: of the dataset, each with its raw ``metadata``.
        field: its name.
        setting: that asks for it, for messages.

    Raises:
        ConfigError: the dataset has no such items, no item has the field, or no two items share a
            value.
        DataError: an item has no value.
    """
    if field is None:
        return None
    if not items or any("metadata" not in item for item in items):
        raise ConfigError(
            f"{setting}={field!r} needs a dataset whose items hold their metadata, such as "
            f"ReplayDataset over the items of a table; give it one, or set {setting} to null."
        )
    known = sorted({name for item in items for name in item["metadata"]})
    if field not in known:
        raise ConfigError(
            f"{setting}={field!r} is no metadata field of the training cases; choose one of "
            f"{', '.join(known) or 'none (they have no metadata)'}, or null."
        )
    values = []
    for number, item in enumerate(items):
        value = item["metadata"].get(field)
        if value is None or not str(value).strip():
            raise DataError(
                f"Case {item.get('case', number)} has no value of {field!r}, which "
                f"{setting}={field!r} needs of every training case; fill it in, or set {setting} "
                "to null."
            )
        values.append(str(value).strip())
    if len(values) > 1 and len(set(values)) == len(values):
        raise ConfigError(
            f"{setting}={field!r}: every one of the {len(values)} training cases has a value of "
            "its own; choose a field of few values, or null."
        )
    return values


def _members(items: Sequence[int], values: Sequence[str] | None) -> list[list[int]]:
    """Return the items of each value, values in alphabetical order; all items where there are none.

    >>> _members([0, 1, 3], "baab")
    [[1], [0, 3]]
    """
    if values is None:
        return [list(items)]
    found: dict[str, list[int]] = {}
    for item in items:
        found.setdefault(values[item], []).append(item)
    return [found[value] for value in sorted(found)]
