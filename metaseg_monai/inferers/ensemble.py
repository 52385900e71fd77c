"""One prediction of several networks, and of an image seen in mirrors."""

from collections.abc import Iterator, Sequence
from itertools import chain, combinations
from typing import Any

from monai.inferers import Inferer
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers.sliding import map_tensors
from metaseg_monai.inferers.steered import Average, Mean, combined


class EnsembleInferer(Inferer):
    """Average the probabilities of several networks, and of mirrored images, with their metadata.

    The output is the logarithm of the mean of the probabilities (softmax over the K channels, or of
    no and yes where K is 1: then its logit). Every network sees the same windows, so that no more
    than a window is held of each; what is mirrored is mirrored back before anything is averaged.
    With one network and no mirror the output is the plain one, bit for bit.

    Args:
        inferer: to wrap, such as `SteeredInferer` around windows.
        mirror: axes of the image to mirror, as [0, 1] for rows and columns, and all their
            combinations: as many runs as 2 to their number. Leave out an axis along which the
            classes, or the body, are not symmetric (left and right kidney). None: no mirrors.
        average: "probabilities"; or "values" of images that are predicted, whose mean is the
            output.

    Attributes:
        networks: beside the one that the engine runs; of its form, given the same metadata.
            `LoadWeights` fills it.

    Raises:
        ConfigError: `mirror` is no list of different axes, or (when called) images have no such.

    >>> import torch
    >>> from monai.inferers import SimpleInferer
    >>> image = torch.rand(1, 1, 4, 4)
    >>> rising = EnsembleInferer(SimpleInferer(), mirror=[1])(
    ...     image, lambda one: torch.stack([one[:, 0] * 0, torch.ones(1, 4, 4).cumsum(2)], 1)
    ... )
    >>> torch.allclose(rising, rising.flip(3), atol=1e-6)  # what a mirror changes is averaged out
    True
    """

    def __init__(
        self,
        inferer: Inferer,
        mirror: Sequence[int] | None = None,
        average: Average = "probabilities",
    ) -> None:
        super().__init__()
        self.mean = Mean.of(average)
        axes = list(mirror or ())
        whole = all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes)
        if not whole or len(set(axes)) < len(axes) or any(not 0 <= axis < 3 for axis in axes):
            raise ConfigError(
                f"mirror={mirror!r}: expected different axes of the image, as [0, 1] for rows and "
                "columns (2 is the depth of volumes), or null for none"
            )
        self.inferer, self.mirror = inferer, sorted(axes)
        self.networks: list[nn.Module] = []

    def __call__(self, inputs: Tensor, network: Any, meta: Tensor | None = None) -> Any:
        """Return the wrapped inferer's output, averaged: logits (B, K, *S), or several of them.

        Args:
            inputs: images (B, C, *S).
            network: called by the wrapped inferer; the first of the ensemble.
            meta: encoded metadata, or None where the network takes none.
        """
        metadata = {} if meta is None else {"meta": meta}
        networks = [network, *self.networks]
        if len(networks) == 1 and not self.mirror:
            return self.inferer(inputs, network, **metadata)
        if self.mirror and self.mirror[-1] >= inputs.ndim - 2:
            raise ConfigError(
                f"mirror={self.mirror}: images of {inputs.ndim - 2} axes have no axis "
                f"{self.mirror[-1]}; leave it out"
            )

        def mean(images: Tensor, **rows: Tensor) -> Any:
            return self._mean(networks, images, rows)

        return self.inferer(inputs, mean, **metadata)

    def _mean(self, networks: Sequence[Any], images: Tensor, metadata: dict[str, Tensor]) -> Any:
        plain, total, count = None, None, 0
        for network in networks:
            for axes in self._flips():
                found = _flipped(network(_flipped(images, axes), **metadata), axes)
                plain = found if plain is None else plain
                found = map_tensors(self.mean.into, found)
                total = found if total is None else combined(self.mean.add, total, found)
                count += 1
        return combined(lambda one, sums: self.mean.back(one, sums, count), plain, total)

    def _flips(self) -> Iterator[list[int]]:
        """The axes of each mirror, of tensors (B, C, *S); first none."""
        numbers = range(len(self.mirror) + 1)
        for axes in chain.from_iterable(combinations(self.mirror, n) for n in numbers):
            yield [axis + 2 for axis in axes]


def _flipped(output: Any, axes: Sequence[int]) -> Any:
    return map_tensors(lambda one: one.flip(tuple(axes)) if axes else one, output)
