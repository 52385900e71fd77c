"""How far a prediction follows its metadata, and what becomes of metadata known as a range only."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers.sliding import each_tensor, map_tensors
from metaseg_monai.networks.meta_input import MetaInput

Average = Literal["probabilities", "values"]

STRONGEST = 2.0  # guidance
AS_SET = -1.0  # in a row of guidance: that of the inferer


class SteeredInferer(Inferer):
    """Run another inferer's network with guidance, and on average over what metadata may be.

    With guidance w the logits are u + w (v - u), where v are those with the metadata and u those
    with unknown metadata: 0 leaves the metadata out, 1 is the plain prediction, above 1 their
    effect is exaggerated. It is what classifier-free guidance does for diffusion models (Ho and
    Salimans 2022), and needs a network trained with metadata dropout. All that the wrapped inferer
    does, such as windows and their blending, it does with these logits. 0 and 1 run the network
    once and give what it gives, bit for bit; all else takes two runs.

    Metadata known to lie between two vectors only come as both ends. The network is then run on
    draws from between them, of which every equal part of a range gets one, and the output is the
    logarithm of the mean of their probabilities (softmax over the K channels, sigmoid where K is
    1), or of images that are predicted the mean. Images whose ends are equal are run once, as they
    are.

    Images may have a guidance of their own, as a third row of their metadata, which is that number
    in each entry, or -1 for that of the inferer: so test modes of several strengths are one run.

    Args:
        inferer: to wrap, such as `SlidingWindowMetadataInferer`.
        network: that will be run, also inside DistributedDataParallel; tells the unknown vector.
        guidance: w, from 0 to 2; None is the plain prediction of any network.
        draws: how many, for each image with a range.
        seed: of the draws, which are the same for all images.
        average: what is averaged over draws: "probabilities", or "values" of predicted images.

    Raises:
        ConfigError: a setting is out of range, or the network knows no unknown metadata.
    """

    def __init__(
        self,
        inferer: Inferer,
        network: nn.Module,
        guidance: float | None = None,
        draws: int = 16,
        seed: int = 0,
        average: Average = "probabilities",
    ) -> None:
        super().__init__()
        self.mean = Mean.of(average)
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
            raise ConfigError(f"draws must be a whole number from 1, got {draws!r}; correct it")
        self.inferer, self.draws, self.seed = inferer, draws, seed
        self.guidance = checked_guidance(guidance)
        doors = [module for module in network.modules() if isinstance(module, MetaInput)]
        self.door = doors[0] if doors else None
        if guidance is not None and (self.door is None or self.door.unknown is None):
            raise ConfigError(
                f"guidance {guidance:g} needs a prediction without metadata, and {self._lack()}; "
                "leave guidance out, or train with --metadata_dropout 0.1 and a schema in which "
                "every field has missing='unknown'"
            )

    def __call__(self, inputs: Tensor, network: Any, meta: Tensor | None = None) -> Any:
        """Return the wrapped inferer's output, steered: logits (B, K, *S), or several of them.

        Args:
            inputs: images (B, C, *S).
            network: called by the wrapped inferer.
            meta: encoded metadata (B, M); (B, 2, M) for both ends of ranges; (B, 3, M) with a
                guidance for each; or None where the network takes none.
        """
        if meta is None:
            return self.inferer(inputs, network)
        guided = self._guided(network)
        if meta.ndim != 3:
            return self.inferer(inputs, guided, meta=meta)

        count = meta.shape[1]

        def averaged(images: Tensor, meta: Tensor) -> Any:
            low, high, *own = meta.unflatten(1, (count, -1)).unbind(1)
            found = self._averaged(guided, images, low, high)
            return self._as_asked(network, images, low, own[0][:, 0], found) if own else found

        return self.inferer(inputs, averaged, meta=meta.flatten(1))  # one row for each image

    def _averaged(
        self, guided: Callable[..., Any], images: Tensor, low: Tensor, high: Tensor
    ) -> Any:
        """The network's output, averaged for those images whose ends (B, M) differ."""
        rows = (low != high).any(1).nonzero()[:, 0]
        if len(rows) == 0 or self.guidance == 0:
            return guided(images, meta=low)
        places = spread(self.draws, low.shape[1], self.seed).to(low)
        whole = guided(images, meta=low + places[0] * (high - low))
        total = map_tensors(lambda one: self.mean.into(one[rows]), whole)
        for place in places[1:]:
            drawn = low[rows] + place * (high - low)[rows]
            found = map_tensors(self.mean.into, guided(images[rows], meta=drawn))
            total = combined(self.mean.add, total, found)

        def with_means(plain: Tensor, total: Tensor) -> Tensor:
            return plain.index_copy(0, rows, self.mean.back(plain, total, self.draws))

        return combined(with_means, whole, total)

    def _guided(self, network: Any) -> Callable[..., Any]:
        """The network under guidance, called as it is itself."""
        w, unknown = self.guidance, None if self.door is None else self.door.unknown
        if w is None or w == 1 or unknown is None:
            return lambda images, meta: network(images, meta=meta)

        def guided(images: Tensor, meta: Tensor) -> Any:
            rows = unknown.to(meta).expand_as(meta)
            without = network(images, meta=rows)
            if w == 0:
                return without
            return combined(lambda u, v: u + w * (v - u), without, network(images, meta=meta))

        return guided

    def _as_asked(
        self, network: Any, images: Tensor, meta: Tensor, strength: Tensor, found: Any
    ) -> Any:
        """The output, in which images with a guidance of their own (B,) have theirs."""
        rows = (strength != AS_SET).nonzero()[:, 0]
        if len(rows) == 0:
            return found
        if self.door is None or self.door.unknown is None:
            raise ConfigError(f"a guidance of its own needs unknown metadata, and {self._lack()}")
        plain = network(images[rows], meta=meta[rows])
        without = network(images[rows], meta=self.door.unknown.to(meta).expand_as(meta[rows]))

        def guided(v: Tensor, u: Tensor) -> Tensor:
            w = strength[rows].to(v).view(-1, *[1] * (v.ndim - 1))
            return torch.where(w == 1, v, u + w * (v - u))

        own = combined(guided, plain, without)
        return combined(lambda all_, one: all_.index_copy(0, rows, one.to(all_.dtype)), found, own)

    def _lack(self) -> str:
        if self.door is None:
            return "this network is not known to have one"
        if self.door.meta_features == 0:
            return "this network reads no metadata"
        return f"it has no such vector, which {self.door.no_unknown}"


class Tells(Protocol):
    """What knows the metadata that a user has set, as `EncodeMetadatad` does."""

    def told(self) -> Tensor | None:
        """Return them encoded, (M,) or, of ranges, (2, M); None where there are none."""


class ToldInferer(Inferer):
    """Run another inferer with the metadata that a user has set, where a call brings none.

    MONAI Label calls ``inferer(image, network)``, and knows of no second input.

    Args:
        inferer: to wrap.
        encode: is asked at each call without metadata; None where the network reads none.

    >>> from monai.inferers import SimpleInferer
    >>> def network(image, meta):
    ...     return image * meta[:, :1]
    >>> class Panel:
    ...     def told(self):
    ...         return torch.tensor([2.0])
    >>> inferer = ToldInferer(SimpleInferer(), Panel())
    >>> inferer(torch.ones(2, 1), network).tolist()
    [[2.0], [2.0]]
    >>> inferer(torch.ones(1, 1), network, meta=torch.tensor([[5.0]])).tolist()
    [[5.0]]
    """

    def __init__(self, inferer: Inferer, encode: Tells | None) -> None:
        super().__init__()
        self.inferer, self.encode = inferer, encode

    def __call__(self, inputs: Tensor, network: Any, meta: Tensor | None = None) -> Any:
        """Return the wrapped inferer's output.

        Args:
            inputs: images (B, C, *S).
            network: called by the wrapped inferer.
            meta: encoded metadata, one row for each image; None takes what `encode` tells, for all.
        """
        vector = self.encode.told() if meta is None and self.encode is not None else None
        if vector is not None:
            meta = vector.to(inputs.device)[None].repeat(len(inputs), *[1] * vector.ndim)
        metadata = {} if meta is None else {"meta": meta}
        return self.inferer(inputs, network, **metadata)


def checked_guidance(guidance: Any) -> float | None:
    """Return the guidance as a number; None stays.

    Raises:
        ConfigError: it is no number from 0 to 2.
    """
    is_number = isinstance(guidance, int | float) and not isinstance(guidance, bool)
    if guidance is None or (is_number and 0 <= guidance <= STRONGEST):
        return guidance
    raise ConfigError(
        f"guidance must be a number from 0 (as if the metadata were unknown) to {STRONGEST:g}, 1 "
        f"being the plain prediction, got {guidance!r}; correct it, or leave it out"
    )


def combined(function: Callable[[Tensor, Tensor], Tensor], first: Any, second: Any) -> Any:
    """Apply a function to each tensor of two outputs of one form."""
    others = iter(each_tensor(second))
    return map_tensors(lambda one: function(one, next(others)), first)


def spread(draws: int, entries: int, seed: int) -> Tensor:
    """Places (D, M) in [0, 1): in each entry one in every D-th of the range, in random order.

    >>> spread(4, 2, seed=0).sort(0).values.mul(4).floor().T
    tensor([[0., 1., 2., 3.],
            [0., 1., 2., 3.]])
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(draws, entries, generator=generator).argsort(0)
    return (order + torch.rand(draws, entries, generator=generator)) / draws


class Mean(NamedTuple):
    """How outputs are averaged.

    Attributes:
        into: what of an output is added.
        add: two of these.
        back: their mean in the form of an output, given one, their sum and their number.
    """

    into: Callable[[Tensor], Tensor]
    add: Callable[[Tensor, Tensor], Tensor]
    back: Callable[[Tensor, Tensor, int], Tensor]

    @classmethod
    def of(cls, average: Average) -> "Mean":
        """Of probabilities, whose logarithms are given back, or of the values as they are.

        Raises:
            ConfigError: it is neither.

        >>> mean = Mean.of("values")
        >>> one, other = torch.tensor([[0.25]]), torch.tensor([[0.75]])
        >>> mean.back(one, mean.add(mean.into(one), mean.into(other)), 2).item()
        0.5
        """
        if average == "values":
            return cls(Tensor.float, torch.add, lambda one, sums, n: (sums / n).to(one.dtype))
        if average != "probabilities":
            raise ConfigError(f"average={average!r}: expected probabilities or values")
        return cls(log_probabilities, torch.logaddexp, _as_logits)


def _as_logits(plain: Tensor, total: Tensor, count: int) -> Tensor:
    """The logarithms of mean probabilities in the form of the network's own output."""
    mean = total - math.log(count)
    mean = mean[:, 1:] - mean[:, :1] if plain.shape[1] == 1 else mean
    return mean.to(plain.dtype)


def log_probabilities(logits: Tensor) -> Tensor:
    """Of the K classes, or of no and yes where K is 1, in float32: (B, max(K, 2), *S)."""
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return logits.float().log_softmax(1)
