"""Unet3: a U-Net of triple convolutions and constant width, with a gate behind each level."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError, did_you_mean, listing
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.gates import HiddenFrom, NoGate, Start
from metaseg_monai.networks.loading import refuse_strange_weights
from metaseg_monai.networks.mechanisms import NoMechanism
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.variants import (
    MECHANISMS,
    base_variant,
    gate_of_variant,
    meta_input_of,
    without_effect,
)


def gate_places(levels: int) -> tuple[str, ...]:
    """Name the places of the gates in the order in which an image passes them.

    >>> gate_places(2)
    ('encoder1', 'encoder2', 'middle', 'decoder2', 'decoder1')
    """
    downward = [f"encoder{level}" for level in range(1, levels + 1)]
    upward = [f"decoder{level}" for level in range(levels, 0, -1)]
    return (*downward, "middle", *upward)


class GatedTriple(nn.Module):
    """Three times convolution, batch normalisation and ReLU, then a gate: one level (thesis 3.3).

    The gate is called with the features (B, C, *S) before the last ReLU, `meta` and rectify=True.
    A mechanism stands inside, behind one of the convolutions or normalisations (`steer`).

    >>> from metaseg_monai.networks import SqueezeExcite
    >>> GatedTriple(1, 8, SqueezeExcite(8))(torch.rand(2, 1, 9, 7)).shape
    torch.Size([2, 8, 9, 7])
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        gate: nn.Module | None = None,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        convolution, normalisation = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        self.convolutions = nn.Sequential(
            convolution(in_channels, channels, kernel_size=3, padding=1),
            normalisation(channels),
            nn.ReLU(inplace=True),
            convolution(channels, channels, kernel_size=3, padding=1),
            normalisation(channels),
            nn.ReLU(inplace=True),
            convolution(channels, channels, kernel_size=3, padding=1),
            normalisation(channels),
        )
        self.gate = NoGate() if gate is None else gate
        self.mechanism: nn.Module = NoMechanism()
        self.behind = -1  # place in `convolutions` of the layer that the mechanism stands behind

    def steer(self, behind: int, mechanism: nn.Module) -> None:
        """Put a mechanism behind a layer of `convolutions`."""
        self.behind, self.mechanism = behind, mechanism

    def forward(self, x: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return gate(features of x, meta) (B, C, *S) for x (B, in_channels, *S)."""
        for place, layer in enumerate(self.convolutions):
            y = layer(x)
            x = self.mechanism(x, y, meta) if place == self.behind else y
        return self.gate(x, meta, True)


class ToNearest(nn.Module):
    """Up-sampling without weights: each pixel takes the value of the nearest one."""

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return x (B, C, ...) in the size of skip (B, C, *S)."""
        return F.interpolate(x, size=skip.shape[2:], mode="nearest")


class Transposed(nn.Module):
    """Up-sampling by a transposed convolution of 2 x 2 with stride 2, cut to the skip's size."""

    def __init__(self, channels: int, spatial_dims: int = 2) -> None:
        super().__init__()
        transposed = Conv[Conv.CONVTRANS, spatial_dims]
        self.convolution = transposed(channels, channels, kernel_size=2, stride=2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return x (B, C, ...), of half its size, in the size of skip (B, C, *S)."""
        return cut(self.convolution(x), skip)


def cut(x: Tensor, like: Tensor) -> Tensor:
    """Return x (B, C, ...) without what lies beyond the size of another (B, any, *S).

    A copy, also where nothing is cut: `torch.export` guards the strides of a view, and takes no
    other size then. It costs nothing that is measured in the whole network.
    """
    beyond: list[int] = []
    for axis in range(x.dim() - 1, 1, -1):
        beyond += [0, like.shape[axis] - x.shape[axis]]
    return F.pad(x, beyond)


def check_sizes(
    spatial_dims: int, in_channels: int, out_channels: int, channels: int, levels: int
) -> None:
    """Refuse sizes of a U-Net that none can have.

    Raises:
        ConfigError: naming the size.
    """
    sizes = {"in_channels": in_channels, "out_channels": out_channels}
    for name, size in {**sizes, "channels": channels, "levels": levels}.items():
        if isinstance(size, bool) or not isinstance(size, Integral):
            raise ConfigError(f"{name} must be a whole number, got {size!r}")
        if size < 1:
            raise ConfigError(f"{name} must be 1 or more, got {size}")
    if not isinstance(spatial_dims, Integral) or spatial_dims not in (2, 3):
        raise ConfigError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")


def check_axes(image: Tensor, spatial_dims: int) -> None:
    """Refuse images (B, C, *S) of other than `spatial_dims` spatial axes.

    Raises:
        ValueError: naming both.
    """
    if image.dim() != spatial_dims + 2:
        raise ValueError(
            f"expected images (B, C, *S) with {spatial_dims} spatial axes, "
            f"got {image.dim()} axes in all"
        )


class Trunk(nn.Module):
    """What an image passes in `Unet3` and `DynamicUnet3`, which make the levels: abstract.

    Args:
        meta_input: the door of the metadata.
        level: makes the level at a place (`gate_places`) from its name and input channels.
        up: leads up to each decoder level, called with the features below and the skip.
        in_channels: channels of the image.
        out_channels: K, the classes, background included.
        channels: C, of every level.
        spatial_dims: 2 or 3.
    """

    def __init__(
        self,
        meta_input: MetaInput,
        level: Callable[[str, int], nn.Module],
        up: Sequence[nn.Module],
        in_channels: int,
        out_channels: int,
        channels: int,
        spatial_dims: int,
    ) -> None:
        super().__init__()
        refuse_strange_weights(self)
        self.spatial_dims = spatial_dims
        self.meta_input = meta_input
        self.meta_features = meta_input.meta_features  # M; 0: reads no metadata
        levels = len(up)
        names = gate_places(levels)
        self.encoder = nn.ModuleList(
            level(name, in_channels if name == "encoder1" else channels) for name in names[:levels]
        )
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2, ceil_mode=True)
        self.middle = level("middle", channels)
        self.up = nn.ModuleList(up)
        self.decoder = nn.ModuleList(level(name, 2 * channels) for name in names[levels + 1 :])
        self.head = Conv[Conv.CONV, spatial_dims](channels, out_channels, kernel_size=1)

    def forward(self, image: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return the logits (B, K, *S).

        Args:
            image: images (B, in_channels, *S).
            meta: encoded metadata (B, M); None for a network without metadata, or for the
                unknown vector where the network has one.

        Raises:
            ValueError: the number of axes of `image`, or the batch or width of `meta`, is wrong.
        """
        check_axes(image, self.spatial_dims)
        meta = self.meta_input(meta, image)
        x = image
        skips: list[Tensor] = []
        for level in self.encoder:
            skips.append(level(x, meta))
            x = self.pool(skips[-1])
        x = self.middle(x, meta)
        for up, level in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            x = level(torch.cat([up(x, skip), skip], dim=1), meta)
        return self.head(x)


class Unet3(Trunk):
    """The network of the thesis (3.3, figure 3.2), gated by image and metadata (paper, figure 1).

    Encoder levels, a middle and decoder levels are each three times convolution 3x3, batch
    normalisation and ReLU with `channels` filters; max pooling by 2 leads down, up-sampling to
    the nearest pixel and the concatenated skip lead up, a 1x1 convolution ends it. Any image size
    from 1 up works and is kept. With its defaults and variant "none" it has 1,371,010 parameters.

    Args:
        schema: the metadata's schema; gives the width and the vector for unknown metadata. Not
            used by "none" and "se".
        variant: "none" or a name of `metaseg_monai.networks.TABLE`: "se", "me", "sme", "film" ...;
            "<variant>-dummy", which is trained and tested with zeros, is the same network. Of a
            level's three convolutions "low-rank", "hyper" and "weight-noise" steer the last,
            "adaptive-norm" the normalisation behind it, "constant-channel" and "meta-image" the
            image's very first.
        in_channels: channels of the image.
        out_channels: K, the classes, background included.
        channels: C, the filters of every convolution.
        levels: how often the image is halved.
        reduction: r of the gates' hidden width, round(C / r); 4 in the paper (2.1), 2 in the
            thesis (4.1). "film-ivadomed" has its own.
        places: which of the 2 * levels + 1 `gate_places` get a gate (thesis 4.8, figure 4.11); None
            for all; but for the first and last of "hyper", the first of "constant-channel" and
            "meta-image", the middle of "weight-noise".
        spatial_dims: 2 or 3.
        hidden_from: "inputs" makes the hidden width of "sme" round((C + M) / r) (thesis 4.1).
        shift: se, me and sme give x * s + b instead of x * s (the authors' code, DAFT).
        start: "paper" as in the texts, where a sigmoid gate first halves the features, or
            "neutral", where the gates first change nothing: 2 * sigmoid(2 h) with h = 0. The
            mechanisms but "constant-channel" and "meta-image" are neutral always, "weight-noise"
            never.
        meta_features: without a schema: M, the width of the encoded metadata.
        unknown_trained: with a schema: training drops metadata, so that `meta=None` stands for
            unknown if every field of the schema has missing="unknown".
        upsampling: "nearest", which has no weights (thesis 3.3), or "transposed" convolutions (the
            authors' code).

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another.

    >>> network = Unet3(variant="sme", meta_features=3, channels=8, levels=2)
    >>> network(torch.rand(2, 1, 33, 47), torch.eye(2, 3)).shape
    torch.Size([2, 2, 33, 47])
    """

    def __init__(
        self,
        schema: MetadataSchema | None = None,
        variant: str = "sme",
        in_channels: int = 1,
        out_channels: int = 2,
        channels: int = 64,
        levels: int = 5,
        reduction: float = 4,
        places: Sequence[str] | None = None,
        spatial_dims: int = 2,
        *,
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "paper",
        meta_features: int | None = None,
        unknown_trained: bool = False,
        upsampling: Literal["nearest", "transposed"] = "nearest",
    ) -> None:
        check_sizes(spatial_dims, in_channels, out_channels, channels, levels)
        if upsampling not in ("nearest", "transposed"):
            raise ConfigError(f"upsampling must be 'nearest' or 'transposed', got {upsampling!r}")
        meta_input = meta_input_of(variant, schema, meta_features, unknown_trained)
        gates = GatesAtPlaces(
            *(variant, meta_input.meta_features, gate_places(levels), places),
            reduction=reduction,
            hidden_from=hidden_from,
            shift=shift,
            start=start,
        )

        def level(place: str, inputs: int) -> GatedTriple:
            return gates.level(place, inputs, channels, spatial_dims)

        up = [
            ToNearest() if upsampling == "nearest" else Transposed(channels, spatial_dims)
            for _ in range(levels)
        ]
        super().__init__(meta_input, level, up, in_channels, out_channels, channels, spatial_dims)
        self.variant = variant

    @staticmethod
    def without_effect(arguments: Mapping[str, Any]) -> set[str]:
        """Which of these arguments do nothing, so that weights are not told by them."""
        return without_effect(arguments["variant"])


class GatesAtPlaces:
    """The gates or mechanisms of a network at those of its places that have one.

    Args:
        variant: as of `Unet3`, also a dummy's.
        meta_features: M; 0 for a variant that reads no metadata.
        names: of all places, in the order in which an image passes them.
        places: which of these are gated; None for the variant's own choice, mostly all.
        reduction: as of `Unet3`.
        hidden_from: as of `Unet3`.
        shift: as of `Unet3`.
        start: as of `Unet3`.

    Raises:
        ConfigError: a place is none of these or named twice, or the variant has no gates.
    """

    def __init__(
        self,
        variant: str,
        meta_features: int,
        names: Sequence[str],
        places: Sequence[str] | None = None,
        *,
        reduction: float = 4,
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "paper",
    ) -> None:
        self.variant = base_variant(variant)
        self.mechanism = MECHANISMS.get(self.variant)
        own: Sequence[str] = names
        if self.mechanism is not None and self.mechanism.behind == "image":
            names = own = names[:1]
        elif self.mechanism is not None and self.mechanism.outer:
            own = (names[0], names[-1])
        elif self.mechanism is not None and self.mechanism.middle:
            own = (names[len(names) // 2],)
        chosen = chosen_places(places, names, self.variant)
        self.places = chosen if places is not None or self.variant == "none" else own

        def made(channels: int, layer: nn.Module | None = None) -> nn.Module:
            return gate_of_variant(
                self.variant,
                channels,
                meta_features,
                reduction=reduction,
                hidden_from=hidden_from,
                shift=shift,
                start=start,
                layer=layer,
            )

        self.made = made

    def gate_at(self, place: str, channels: int) -> nn.Module:
        """Return the gate at a place; `NoGate` where there is none, or a mechanism instead."""
        if place not in self.places or self.mechanism is not None:
            return NoGate()
        return self.made(channels)

    def level(
        self, place: str, in_channels: int, channels: int, spatial_dims: int = 2
    ) -> GatedTriple:
        """Return the level at a place, with its gate or mechanism."""
        gate = self.gate_at(place, channels)
        level = GatedTriple(in_channels, channels, gate, spatial_dims)
        if place in self.places and self.mechanism is not None:
            behind = {"image": 0, "convolution": 6, "normalisation": 7}[self.mechanism.behind]
            level.steer(behind, self.made(channels, level.convolutions[behind]))
        return level


def chosen_places(
    places: Sequence[str] | None, names: Sequence[str], variant: str
) -> Sequence[str]:
    """Return which of the places that a network has, its `names`, get a gate; None stands for all.

    Raises:
        ConfigError: a place is none of these or named twice, or the variant has no gates.
    """
    if variant == "none":
        if places is not None:
            raise ConfigError("variant 'none' has no gates: leave places out")
        return []
    if places is None:
        return names
    if isinstance(places, str) or len(places) == 0:
        raise ConfigError(
            f"places must be a list of some of {listing(names)}, got {places!r}; for a network "
            "without gates use variant 'none'"
        )
    for place in places:
        if place not in names:
            raise ConfigError(
                f"places: expected some of {listing(names)}, got {place!r}; "
                f"{did_you_mean(place, names, told=True)}"
            )
    if len(set(places)) < len(places):
        raise ConfigError(f"places names a place twice: {', '.join(places)}")
    return places
