"""What a training draws: from a seed and numbers alone, so that any epoch can be drawn again.

Nothing depends on what was drawn before: a run that was killed goes on with the same draws.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from metaseg_monai.errors import ConfigError, DataError

Numbers = NDArray[np.int64]
MOST_TURNS = 100  # of a round in which planes with foreground take their share


def seed_for(*numbers: int) -> int:
    """Return a seed in [0, 2**32) drawn from whole numbers >= 0, such as (seed, epoch, index).

    Example:
        >>> seed_for(0, 1, 2) == seed_for(0, 1, 2), seed_for(0, 1, 2) == seed_for(0, 2, 1)
        (True, False)
    """
    # The count stands first, for NumPy pads short seeds with zeros: (1, 2) would equal (1, 2, 0).
    return int(np.random.SeedSequence([len(numbers), *numbers]).generate_state(1)[0])


def check_seed(seed: int) -> None:
    """Refuse what is no whole number from 0."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number from 0, got {seed!r}.")


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators of the CPU, from [0, 2**32)."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 MONAI and users draw from it
    torch.default_generator.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the CPU's global generators inside the block, and put them back after it.

    For transforms that draw from global generators instead of their own.

    Example:
        >>> with seeded(7):
        ...     first = torch.rand(1)
        >>> with seeded(7):
        ...     bool(torch.rand(1) == first)
        True
    """
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        seed_generators(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)  # noqa: NPY002


class Deck:
    """An endless row of items in a drawn order, all once before any comes again, in a new order.

    Decks of one seed differ by their number.

    >>> [sorted(Deck([7, 8], seed=0, number=0).take(place, 2).tolist()) for place in (0, 2)]
    [[7, 8], [7, 8]]
    """

    def __init__(self, items: Sequence[int], seed: int, number: int) -> None:
        self.items = np.asarray(items, dtype=np.int64)
        self.size = len(self.items)
        self._draw = (seed, number)

    def take(self, start: int, items: int) -> Numbers:
        """Return the items at the places from `start`."""
        first, last = start // self.size, (start + items - 1) // self.size
        rounds = [self._order(number) for number in range(first, last + 1)] or [self.items]
        return np.concatenate(rounds)[start - first * self.size :][:items]

    def _order(self, number: int) -> Numbers:
        # four numbers, for (seed, epoch) and (seed, epoch, index) draw other things
        seed, deck = self._draw
        return np.random.default_rng(seed_for(seed, deck, number, 0)).permutation(self.items)


class Mix:
    """An endless row in which parts take turns, each as often as its weight, spread evenly.

    A round is as long as the sum of the weights, whole numbers from 1.

    >>> Mix([Deck([0], 0, 0), Deck([1], 0, 1)], weights=[1, 3]).take(0, 8).tolist()
    [1, 0, 1, 1, 1, 0, 1, 1]
    """

    def __init__(self, parts: "Sequence[Deck | Mix]", weights: Sequence[int]) -> None:
        self.parts = parts
        self.size: int = sum(part.size for part in parts)
        self._weights = np.asarray(weights, dtype=np.int64)
        owners = np.repeat(np.arange(len(weights)), self._weights)
        places = np.concatenate([(np.arange(weight) + 0.5) / weight for weight in weights])
        self._round = owners[np.argsort(places, kind="stable")]

    def take(self, start: int, turns: int, unit: int = 1) -> Numbers:
        """Return the items of the turns from `start`, in each of which `unit` are taken."""
        rounds, rest = divmod(start, len(self._round))
        owners = self._round[(rest + np.arange(turns)) % len(self._round)]
        had = np.bincount(self._round[:rest], minlength=len(self._weights))
        before = (rounds * self._weights + had) * unit
        taken = np.empty((turns, unit), dtype=np.int64)
        for number, part in enumerate(self.parts):
            own = owners == number
            items = part.take(int(before[number]), int(own.sum()) * unit)
            taken[own] = items.reshape(-1, unit)
        return taken.flatten()


class Order(NamedTuple):
    """The items of every epoch of a training, see `EpochDraw`."""

    row: Mix
    seed: int
    by_batch: bool

    def epoch(self, epoch: int, batches: int, batch: int, items: int) -> list[int]:
        """Return the items of an epoch over all processes, which take every so many-th of them.

        That are `items`, or, where each batch over all processes has one value, so many full
        batches.
        """
        generator = np.random.default_rng(seed_for(self.seed, epoch))
        if not self.by_batch:
            return generator.permutation(self.row.take((epoch - 1) * items, items)).tolist()
        taken = self.row.take((epoch - 1) * batches, batches, unit=batch)
        return generator.permutation(taken.reshape(batches, batch)).flatten().tolist()


@dataclass(frozen=True)
class EpochDraw:
    """Draw epochs in which values of the metadata are balanced, or each batch has one value.

    Balanced: each epoch holds every value equally often, to within one; items of a rare value are
    repeated and those of a common one take turns, so that no item comes again before the others of
    its value. Homogeneous: every batch, over all processes together, holds one value and is full
    (the sequential training of the thesis, 4.7); values have batches as they have items, or equally
    many where they are balanced too. The number of batches stays that of an epoch without it.

    A configuration puts it into the loader:
    `"train#dataloader#draw": {"_target_": "metaseg_monai.training.EpochDraw", "balance": "task"}`.

    Planes of volumes: a share of the draws is from those with foreground, the rest from all (so
    nnU-Net v2 draws for its 2D networks).

    Args:
        balance: field whose values are balanced; None balances nothing.
        homogeneous: field of which a batch has one value; None mixes them. With another field than
            `balance`, that one is balanced within the batches of each value.
        foreground: share of draws from planes with foreground, above 0 and below 1; without the
            other two.
    """

    balance: str | None = None
    homogeneous: str | None = None
    foreground: float | None = None

    def order(self, items: Sequence[Mapping[str, Any]], seed: int) -> Order:
        """Return the order of a training over these items.

        Args:
            items: of the dataset, each with its raw ``metadata``, or with `foreground`, see
                `metaseg_monai.tables.slices`.
            seed: of the order, from 0.

        Raises:
            ConfigError: nothing is given, or it cannot be used.
            DataError: a case has no value of a field, or no plane has foreground.
        """
        if self.balance is None and self.homogeneous is None:
            if self.foreground is not None:
                return self._of_foreground(items, self.foreground, seed)
            raise ConfigError("EpochDraw needs a field: give `balance` or `homogeneous`.")
        if self.foreground is not None:
            raise ConfigError("EpochDraw: give `foreground`, or fields, and not both.")
        balance = _values(items, self.balance, "balance")
        homogeneous = _values(items, self.homogeneous, "homogeneous")
        number = count()
        parts = []
        for members in _members(range(len(items)), homogeneous):
            decks = [Deck(own, seed, next(number)) for own in _members(members, balance)]
            parts.append(Mix(decks, [1] * len(decks)))
        equal = balance is not None and balance == (homogeneous or balance)
        weights = [1 if equal else part.size for part in parts]
        row = Mix(parts, weights) if homogeneous else parts[0]
        return Order(row, seed, by_batch=homogeneous is not None)

    @staticmethod
    def _of_foreground(items: Sequence[Mapping[str, Any]], share: float, seed: int) -> Order:
        if isinstance(share, bool) or not 0 < share < 1:
            raise ConfigError(f"foreground={share!r}: expected a share above 0 and below 1")
        if not all("foreground" in item for item in items):
            raise ConfigError(
                "foreground needs planes of volumes whose table has a column foreground_planes, as "
                "new-bundle writes it; add it, or leave the draw out"
            )
        full = [number for number, item in enumerate(items) if item["foreground"]]
        if not full:
            raise DataError("No plane of the training has foreground; give it other cases.")
        part = Fraction(share).limit_denominator(MOST_TURNS)
        weights = [max(1, part.numerator), max(1, part.denominator - part.numerator)]
        decks = [Deck(full, seed, 0), Deck(range(len(items)), seed, 1)]
        return Order(Mix(decks, weights), seed, by_batch=False)


def _values(items: Any, field: str | None, setting: str) -> list[str] | None:
    """Return each item's value of a metadata field; None for no field."""
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
    names = sorted({values[item] for item in items})
    return [[item for item in items if values[item] == name] for name in names]
