"""Images too large to be held as a network takes them: parts are made when they are asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from metaseg_monai.images.image import row_blocks

LARGE_PIXELS = 1 << 22  # of a plane or volume that is taken in parts
Place = tuple[slice, ...]


class LazyTensor(Tensor):
    """A tensor (C, *S), or a batch (1, C, *S) of it, whose values are made where they are used.

    Slices of it are lazy, too; whatever else is done to it is done to all of its values at once, as
    to any other tensor.

    Args:
        read: gives a part (C, *part) by a slice of each axis, none of which has a step.
        shape: (C, *S).
        dtype: of the values.
        meta: what is known of the image, as a MetaTensor has it.
        ends: lowest and highest value of all, where they are known.

    >>> rows = LazyTensor(lambda at: torch.arange(12.0).reshape(1, 3, 4)[at], (1, 3, 4))
    >>> type(rows[None, :, 1:, :2]).__name__, (rows[0, 1:, :2] + 1).tolist()
    ('LazyTensor', [[5.0, 6.0], [9.0, 10.0]])
    """

    read: Callable[[Place], Tensor]
    at: tuple[slice | int, ...]  # of each axis of what `read` takes
    batch: bool
    meta: dict[str, Any]
    ends: tuple[float, float] | None

    def __new__(  # noqa: D102
        cls: type["LazyTensor"],
        read: Callable[[Place], Tensor],
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        meta: Mapping[str, Any] | None = None,
        ends: tuple[float, float] | None = None,
    ) -> "LazyTensor":
        at = tuple(slice(0, size) for size in shape)
        return cls._made(read, at, False, dtype, torch.device("cpu")).known(meta or {}, ends)

    @classmethod
    def _made(
        cls,
        read: Callable[[Place], Tensor],
        at: tuple[slice | int, ...],
        batch: bool,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "LazyTensor":
        sizes = [one.stop - one.start for one in at if isinstance(one, slice)]
        made = Tensor._make_wrapper_subclass(cls, [1] * batch + sizes, dtype=dtype, device=device)
        made.read, made.at, made.batch, made.meta, made.ends = read, at, batch, {}, None
        return made

    def known(
        self, meta: Mapping[str, Any], ends: tuple[float, float] | None = None
    ) -> "LazyTensor":
        """Say what is known of the image."""
        self.meta, self.ends = dict(meta), ends
        return self

    def mapped(self, function: Callable[[Tensor], Tensor]) -> "LazyTensor":
        """The same with each part as `function` makes it of the part, of which it keeps shape."""
        read = self.read
        made = self._made(
            lambda at: function(read(at)), self.at, self.batch, torch.float32, self.device
        )
        return made.known(self.meta)

    def whole(self) -> Tensor:
        """All values, as an ordinary tensor."""
        place = tuple(one if isinstance(one, slice) else slice(one, one + 1) for one in self.at)
        values = self.read(place).to(self.device)
        values = values[tuple(slice(None) if isinstance(one, slice) else 0 for one in self.at)]
        return values[None] if self.batch else values

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Answer what the form alone tells; give a slice lazily; else make all values.

        Raises:
            TypeError: values would be changed in place, which are not kept.
        """
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is Tensor.__setitem__ or (name.endswith("_") and not name.endswith("__")):
            raise TypeError(f"{name} would change values that are made anew; take `at_hand` of it")
        if func in _OF_FORM:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        one = args[0] if args else None
        if isinstance(one, LazyTensor):
            if func is Tensor.__getitem__:
                return one._part(args[1])
            if func in (Tensor.detach, Tensor.contiguous):
                return one
            if func in (Tensor.to, Tensor.cpu):
                at = "cpu" if func is Tensor.cpu else one.device
                like = func(torch.empty(0, dtype=one.dtype, device=at), *args[1:], **kwargs)
                if like.dtype == one.dtype:
                    return cls._made(one.read, one.at, one.batch, one.dtype, like.device).known(
                        one.meta, one.ends
                    )
            if func in (Tensor.min, Tensor.max) and len(args) == 1 and one.ends and not kwargs:
                return torch.tensor(one.ends[func is Tensor.max])
        return func(*tree_map(at_hand, list(args)), **tree_map(at_hand, kwargs))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Make all values for what torch does by itself."""
        return func(*tree_map(at_hand, list(args)), **tree_map(at_hand, kwargs or {}))

    def _part(self, index: Any) -> Tensor:
        """The part at an index, lazily where it is cut out by slices (and numbers in front)."""
        given = list(index) if isinstance(index, tuple) else [index]
        if given[:1] == [None] and not self.batch:
            front = self._made(self.read, self.at, True, self.dtype, self.device)
            return front.known(self.meta, self.ends)._part((slice(None), *given[1:]))
        if any(one is Ellipsis for one in given):
            place = next(place for place, one in enumerate(given) if one is Ellipsis)
            given[place : place + 1] = [slice(None)] * (self.ndim - len(given) + 1)
        if len(given) > self.ndim or not all(type(one) in (int, slice) for one in given):
            return self.whole()[index]
        given += [slice(None)] * (self.ndim - len(given))
        batch, rest = self.batch, []
        if batch:
            first, given = given[0], given[1:]
            whole = isinstance(first, slice) and range(1)[first] == range(1)
            if not whole and first not in (0, -1):
                return self.whole()[index]
            batch = whole
        axes, at = iter(given), list(self.at)
        for axis, one in enumerate(self.at):
            if isinstance(one, slice):
                asked, size = next(axes), one.stop - one.start
                part = range(size)[asked]
                if isinstance(part, int):
                    at[axis] = one.start + part
                    continue
                low, high = (part[0], part[-1] + 1) if part else (0, 0)
                at[axis] = slice(one.start + low, one.start + high)
                rest.append(slice(None, None, part.step))
        cut = self._made(self.read, tuple(at), batch, self.dtype, self.device)
        cut.known(self.meta, self.ends if cut.shape == self.shape else None)
        if all(one.step == 1 for one in rest):
            return cut
        return cut.whole()[(slice(None),) * batch + tuple(rest)]


_OF_FORM = frozenset(
    [
        *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device")),
        *(getattr(Tensor, name).__get__ for name in ("requires_grad", "is_cuda", "layout")),
        *(Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.__hash__),
        *(Tensor.is_floating_point, Tensor.element_size, torch.is_floating_point, torch.numel),
    ]
)


def at_hand(value: Any) -> Any:
    """The values of a `LazyTensor`, and anything else as it is."""
    return value.whole() if isinstance(value, LazyTensor) else value


def every_nth(image: Any, step: int) -> np.ndarray:
    """Every n-th row, column and plane of an image (C, *S), of which little is made at once.

    >>> every_nth(np.arange(16).reshape(1, 4, 4), 3).tolist()
    [[[0, 3], [12, 15]]]
    """
    across = [slice(None, None, step)] * (len(image.shape) - 2)
    parts = [
        np.asarray(image[:, rows])[(slice(None), slice(-rows.start % step, None, step), *across)]
        for rows in row_blocks(image.shape)
    ]
    return np.concatenate(parts, axis=1)
