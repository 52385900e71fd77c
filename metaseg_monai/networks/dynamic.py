"""DynamicUnet3: a U-Net some of whose convolutions have weights made from metadata."""

from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.gates import HiddenFrom, Start, check_flags
from metaseg_monai.networks.meta_input import required_meta
from metaseg_monai.networks.unet3 import GatesAtPlaces, ToNearest, Trunk, check_sizes, gate_places
from metaseg_monai.networks.variants import base_variant, meta_input_of

Product = Literal["matrix", "elementwise"]
GeneratorForm = Literal["linear", "two-layer"]
STEPS = (0.25, 0.5, 0.75, 1.0)  # values of an entry at which a generator of two layers is fitted


def dynamic_layers(
    convolutions: int,
    layers: Literal["outer", "inner"] = "outer",
    part: float = 0.25,
    symmetric: bool = True,
) -> list[int]:
    """Choose of the convolutions along a U-Net, an odd number, those with dynamic parameters.

    Args:
        convolutions: how many there are; the middle one is deepest.
        layers: "outer", from the ends of the U inwards, or "inner", from its middle outwards.
        part: how many of all, at most: a quarter to a half in the proposal (Q3).
        symmetric: each with its counterpart on the other side (Q4); else of the encoder and the
            middle only.

    Raises:
        ConfigError: a setting is out of range, or the encoder has not so many.

    >>> dynamic_layers(9), dynamic_layers(9, "inner", 0.4), dynamic_layers(9, symmetric=False)
    ([0, 8], [3, 4, 5], [0, 1])
    """
    if layers not in ("outer", "inner"):
        raise ConfigError(f"layers must be 'outer' or 'inner', got {layers!r}")
    if not isinstance(part, int | float) or not 0 < part <= 1:
        raise ConfigError(f"part must be above 0 and at most 1, got {part!r}")
    middle = convolutions // 2
    wanted = int(part * convolutions + 0.5)
    inwards = range(middle + 1)
    order = inwards if layers == "outer" else inwards[::-1]
    if not symmetric:
        if wanted > len(order):
            raise ConfigError(
                f"part={part:g} of {convolutions} convolutions is more than the {len(order)} of "
                "encoder and middle: set symmetric, or a smaller part"
            )
        return sorted(order[: max(1, wanted)])
    chosen: set[int] = set()
    for one in order:
        pair = {one, convolutions - 1 - one}
        if chosen and len(chosen | pair) > wanted:
            break
        chosen |= pair
    return sorted(chosen)


class DynamicUnet3(Trunk):
    """The trunk of `Unet3` with dynamic parameters (proposal 3.2, equation 2).

    Some convolutions are Y = [F_w(M) . W] X + [F_b(M) + b], with W and b learned from images, and
    F_w and F_b from the metadata M of each image. F_w(M) has the size of W, and its product with W
    is a matrix product for each kernel or elementwise. F does not learn with the images (the
    proposal): it is pretrained to F_w(M) = I + sum_i M_i v_i v_i^T, in which every entry of the
    metadata has its own eigenvector in each kernel, its value the eigenvalue, and then frozen. It
    is a part of the weights. Without metadata (zeros) the network is a plain one.

    Args:
        schema: the metadata's schema; gives the width and the vector for unknown metadata.
        variant: "dynamic", or "dynamic-dummy", which is trained and tested with zeros.
        in_channels: channels of the image.
        out_channels: K, the classes, background included.
        channels: C, the filters of every convolution.
        levels: how often the image is halved.
        reduction: r of the hidden width of SE gates.
        spatial_dims: 2 or 3.
        layers: see `dynamic_layers`; of the 3 * (2 * levels + 1) convolutions.
        part: likewise.
        symmetric: likewise.
        product: "matrix", over the kernels' first axis, or "elementwise".
        generator: F is "linear" or "two-layer", with tanh at its end.
        joint: F learns with the images, from its pretrained state, instead of being frozen.
        seed: of the eigenvectors.
        gates: "none" (the proposal), or "se" behind each level.
        hidden_from: as of `Unet3`, whose SE gates have no use for it.
        shift: SE gates give x * s + b.
        start: of SE gates, "paper" or "neutral".
        meta_features: without a schema: M.
        unknown_trained: with a schema: training drops metadata, see `Unet3`.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another.

    >>> network = DynamicUnet3(meta_features=3, channels=8, levels=2)
    >>> network(torch.rand(2, 1, 33, 47), torch.eye(2, 3)).shape
    torch.Size([2, 2, 33, 47])
    """

    def __init__(
        self,
        schema: MetadataSchema | None = None,
        variant: str = "dynamic",
        in_channels: int = 1,
        out_channels: int = 2,
        channels: int = 64,
        levels: int = 5,
        reduction: float = 4,
        spatial_dims: int = 2,
        *,
        layers: Literal["outer", "inner"] = "outer",
        part: float = 0.25,
        symmetric: bool = True,
        product: Product = "matrix",
        generator: GeneratorForm = "linear",
        joint: bool = False,
        seed: int = 0,
        gates: Literal["none", "se"] = "none",
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "paper",
        meta_features: int | None = None,
        unknown_trained: bool = False,
    ) -> None:
        check_sizes(spatial_dims, in_channels, out_channels, channels, levels)
        if base_variant(variant) != "dynamic":
            raise ConfigError(
                f"variant of DynamicUnet3 is 'dynamic' or 'dynamic-dummy', got {variant!r}: set it "
                "to that, or take Unet3"
            )
        if gates not in ("none", "se"):
            raise ConfigError(f"gates must be 'none' or 'se', got {gates!r}")
        check_flags(symmetric=symmetric, joint=joint)
        if not isinstance(seed, int):
            raise ConfigError(f"seed must be a whole number, got {seed!r}")
        if product not in ("matrix", "elementwise"):
            raise ConfigError(f"product must be 'matrix' or 'elementwise', got {product!r}")
        if generator not in ("linear", "two-layer"):
            raise ConfigError(f"generator must be 'linear' or 'two-layer', got {generator!r}")
        meta_input = meta_input_of(variant, schema, meta_features, unknown_trained)
        names = gate_places(levels)
        placed = GatesAtPlaces(
            *(gates, 0, names),
            reduction=reduction,
            hidden_from=hidden_from,
            shift=shift,
            start=start,
        )
        chosen = dynamic_layers(3 * len(names), layers, part, symmetric)
        convolution, normalisation = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]

        def layer(number: int, inputs: int) -> nn.Module:
            plain = convolution(inputs, channels, kernel_size=3, padding=1)
            if number not in chosen:
                return FixedConvolution(plain)
            draw = torch.Generator().manual_seed((seed << 16) + number)
            return DynamicConvolution(
                plain, meta_input.meta_features, product, generator, joint, draw
            )

        def level(place: str, inputs: int) -> DynamicTriple:
            first = 3 * names.index(place)
            widths = (inputs, channels, channels)
            return DynamicTriple(
                [layer(first + number, width) for number, width in enumerate(widths)],
                [normalisation(channels) for _ in widths],
                placed.gate_at(place, channels),
            )

        up = [ToNearest() for _ in range(levels)]
        super().__init__(meta_input, level, up, in_channels, out_channels, channels, spatial_dims)
        self.variant = variant


class DynamicTriple(nn.Module):
    """Three times convolution, batch normalisation and ReLU, then a gate, as `GatedTriple`.

    Args:
        convolutions: three, called with features and metadata.
        normalisations: one behind each.
        gate: called with the features before the last ReLU, no metadata and rectify=True.
    """

    def __init__(
        self, convolutions: list[nn.Module], normalisations: list[nn.Module], gate: nn.Module
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.normalisations = nn.ModuleList(
            nn.Sequential(one, nn.ReLU(inplace=True)) for one in normalisations[:-1]
        )
        self.normalisations.append(normalisations[-1])
        self.gate = gate

    def forward(self, x: Tensor, meta: Tensor | None) -> Tensor:
        """Return the features (B, C, *S) of x (B, in_channels, *S) with metadata (B, M)."""
        for convolution, normalise in zip(self.convolutions, self.normalisations, strict=True):
            x = normalise(convolution(x, meta))
        return self.gate(x, None, True)


class FixedConvolution(nn.Module):
    """A convolution that is called with metadata, and has no use for them."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor, meta: Tensor | None) -> Tensor:
        """Return the convolution of x."""
        return self.convolution(x)


class DynamicConvolution(nn.Module):
    """Y = [F_w(M) . W] X + [F_b(M) + b], each image with the weights of its own metadata.

    Args:
        convolution: with W and b, a kernel of three an axis, stride 1 and padding 1.
        meta_features: M, the entries of the metadata.
        product: "matrix" or "elementwise".
        generator: "linear" or "two-layer".
        joint: whether F learns.
        draw: of the eigenvectors.
    """

    def __init__(
        self,
        convolution: _ConvNd,
        meta_features: int,
        product: Product,
        generator: GeneratorForm,
        joint: bool,
        draw: torch.Generator,
    ) -> None:
        super().__init__()
        self.convolution = convolution
        self.meta_features = meta_features
        self.by_matrix = product == "matrix"
        weight = convolution.weight.detach()
        vectors = _eigenvectors(weight.shape[:2], meta_features, draw)  # (M, O, I, 3)
        own = vectors.unsqueeze(-1) * vectors.unsqueeze(-2)
        if not self.by_matrix and weight.dim() == 5:
            own = own.unsqueeze(-1) * vectors[..., None, None, :]
        bound = prod(weight.shape[1:]) ** -0.5  # as of a convolution's own bias
        biases = (2 * torch.rand(meta_features, weight.shape[0], generator=draw) - 1) * bound
        self.kernel_change = Generator(own.flatten(1), generator, draw)
        self.bias_change = Generator(biases, generator, draw)
        for layer in (*self.kernel_change.modules(), *self.bias_change.modules()):
            if isinstance(layer, nn.Linear) and not joint:  # a buffer, which does not learn
                fixed = layer.weight.detach()
                del layer.weight
                layer.register_buffer("weight", fixed)

    def made(self, meta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights (B, O, I, 3, ...) and biases (B, O) for metadata (B, M)."""
        w, b = self.convolution.weight, self.convolution.bias
        change = self.kernel_change(meta)
        if self.by_matrix:
            kernels = w.flatten(3)  # (O, I, 3, 3 or 9)
            change = change.view(-1, w.shape[0], w.shape[1], 3, 3)
            weight = (kernels + torch.matmul(change, kernels)).view([-1] + list(w.shape))  # noqa: RUF005
        else:
            weight = w + change.view([-1] + list(w.shape)) * w  # noqa: RUF005
        bias = self.bias_change(meta)
        return weight, bias if b is None else b + bias

    def forward(self, x: Tensor, meta: Tensor | None) -> Tensor:
        """Return Y (B, O, *S) for X (B, I, *S) and metadata (B, M).

        Raises:
            ValueError: the batch or width of `meta` is wrong.
        """
        entries = required_meta(meta, x.shape[0], self.meta_features).to(x.device)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            recording = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined]
            if not recording:
                return self._eager(x, entries)
        weight, bias = self.made(entries)
        return shifted_convolution(x, weight, bias)

    @torch.jit.unused
    def _eager(self, x: Tensor, meta: Tensor) -> Tensor:
        convolve = F.conv2d if x.dim() == 4 else F.conv3d
        # One weight for all; tensors without memory, which only try a size, have no values.
        if len(meta) == 1 or (not meta.is_meta and bool((meta == meta[:1]).all())):
            weight, bias = self.made(meta[:1])
            return convolve(x, weight[0], bias[0], padding=1)
        weight, bias = self.made(meta)
        if x.is_contiguous():
            images, space = len(x), x.shape[2:]
            grouped = x.reshape(1, -1, *space), weight.flatten(0, 1), bias.flatten()
            return convolve(*grouped, padding=1, groups=images).view(images, -1, *space)
        parts = zip(x.chunk(len(x)), weight, bias, strict=True)  # channels-last: groups are slow
        return torch.cat([convolve(one, w, b, padding=1) for one, w, b in parts])


def shifted_convolution(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve each image with its own weights by matrix products, of any batch in an export.

    Args:
        x: features (B, I, *S).
        weight: kernels (B, O, I, 3, ...), for padding 1.
        bias: (B, O).

    >>> x, weight, bias = torch.rand(1, 2, 5, 4), torch.rand(3, 2, 3, 3), torch.rand(3)
    >>> expected = F.conv2d(x, weight, bias, padding=1)
    >>> torch.allclose(shifted_convolution(x, weight[None], bias[None]), expected, atol=1e-5)
    True
    """
    axes = x.dim() - 2
    padded = F.pad(x, [1, 1] * axes)
    kernels = weight.flatten(3)  # (B, O, I, 9 or 27)
    y = bias.unsqueeze(-1)
    for place in range(9 if axes == 2 else 27):
        shifted, rest = padded, place
        for axis in range(x.dim() - 1, 1, -1):
            shifted = shifted.narrow(axis, rest % 3, x.shape[axis])
            rest = rest // 3
        y = y + torch.bmm(kernels[..., place], shifted.flatten(2))
    shape = list(x.shape)
    return y.view([-1, weight.shape[1]] + shape[2:])  # noqa: RUF005


class Generator(nn.Module):
    """F: from metadata to values in [-1, 1], 0 for zeros, with tanh at its end.

    It is fitted to targets without any image: a linear one, tanh(A m), to each entry alone at 1;
    one of two layers, tanh(W2 tanh(W1 m)) with W1 drawn, to fractions of it as well. Where several
    entries meet, their sum saturates at 1.

    Args:
        targets: (M, N), the values for each entry of the metadata alone.
        form: "linear" or "two-layer".
        draw: of W1.

    >>> targets = torch.tensor([[0.5, -0.2], [0.0, 0.9]])
    >>> generator = Generator(targets, "two-layer", torch.Generator())
    >>> generator(torch.tensor([[1.0, 0.0], [0.0, 0.5]])).detach().round(decimals=2)
    tensor([[ 0.5000, -0.2000],
            [ 0.0000,  0.4500]])
    """

    def __init__(self, targets: Tensor, form: GeneratorForm, draw: torch.Generator) -> None:
        super().__init__()
        entries, values = targets.shape
        wanted = targets.double().clamp(-0.999, 0.999)
        if form == "linear":
            self.hidden: nn.Module = nn.Identity()
            last = wanted.atanh().T
        else:
            layer = nn.Linear(entries, len(STEPS) * entries, bias=False)
            first = torch.randn(layer.weight.shape, generator=draw, dtype=torch.float64)
            layer.weight.data = first.float()
            self.hidden = nn.Sequential(layer, nn.Tanh())
            inputs = torch.cat([step * torch.eye(entries, dtype=torch.float64) for step in STEPS])
            outputs = torch.cat([step * wanted for step in STEPS]).atanh()
            last = (torch.linalg.pinv(torch.tanh(inputs @ first.T)) @ outputs).T
        self.last = nn.Linear(last.shape[1], values, bias=False)
        self.last.weight.data = last.float().contiguous()

    def forward(self, meta: Tensor) -> Tensor:
        """Return the values (B, N) for metadata (B, M)."""
        return torch.tanh(self.last(self.hidden(meta)))


def _eigenvectors(kernels: torch.Size, entries: int, draw: torch.Generator) -> Tensor:
    """Draw unit vectors (M, O, I, 3), in each kernel those of three entries at right angles."""
    bases = []
    for _ in range(0, entries, 3):
        one, other = torch.randn(2, *kernels, 3, generator=draw, dtype=torch.float64)
        one = F.normalize(one, dim=-1)
        other = F.normalize(other - (other * one).sum(-1, keepdim=True) * one, dim=-1)
        bases += [one, other, torch.linalg.cross(one, other)]
    return torch.stack(bases[:entries]).float()
