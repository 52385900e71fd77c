"""With which random draws an item is seen: the same however often resumed.

They are drawn from (seed, epoch, index), so they depend neither on workers nor on what was run
before.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from monai.transforms import Compose, Randomizable, RandomizableTrait
from torch.utils.data import Dataset

from metaseg_monai.engines.randomness import seed_for, seeded
from metaseg_monai.errors import ConfigError

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
