"""Where in a network metadata can steer: blocks found by structure, each tried before it is taken.

A gate directly before a normalisation of each channel does nothing: the normalisation takes the
scale out again, and what the network then learns through its eps is no more than rounding. So
each place is tried with a tiny eps, and one without effect on the network's output is refused.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from metaseg_monai.errors import ConfigError, did_you_mean, listing

# The blocks of an encoder and of a decoder by the names of modules, for a class and its children.
# Of modules that lie in each other the inner ones count, never the one that gives the output.
KNOWN = {
    "AttentionUnet": (
        r"model\.0|model\.1(\.submodule\.1)*\.submodule(\.0)?",
        r"model\.1(\.submodule\.1)*\.merge",
    ),
    "BasicUNet": (r"conv_0|down_\d+", r"upcat_\d+"),
    "DenseUnetGenerator": (r"encoder\.\d+|middle", r"decoder\.\d+"),
    "DynUNet": (r"input_block|downsamples\.\d+|bottleneck", r"upsamples\.\d+"),
    "FlexibleUNet": (r"encoder\.(layer\d+|_blocks\.\d+)", r"decoder\.blocks\.\d+"),
    "HighResNet": (r"blocks\.\d+", r"(?!)"),  # all at one resolution: there is no decoder
    "MedNeXt": (r"enc_stages\.\d+", r"dec_stages\.\d+"),
    "NucleiLupiUnet": (r"encoder\.\d+|middle", r"(segmentation|decoder)\.\d+"),
    "PatchDiscriminator": (r"layers\.\d+", r"(?!)"),
    "PlainConvUNet": (r"encoder\.stages\.\d+", r"decoder\.stages\.\d+"),  # of nnU-Net v2
    "PPUnet": (r"encoder\.\d+|middle", r"decoder\.\d+"),
    "ResidualEncoderUNet": (r"encoder\.stages\.\d+", r"decoder\.stages\.\d+"),
    "SegResNet": (r"down_layers\.\d+", r"up_layers\.\d+"),
    "SegResNetDS": (r"encoder\.layers\.\d+\.blocks", r"up_layers\.\d+\.blocks"),
    "SwinUNETR": (r"encoder\d+", r"decoder\d+"),
    "UNETR": (r"encoder\d+", r"decoder\d+"),
    "UNet": (r"model(\.1\.submodule)*\.0|model(\.1\.submodule)+", r"model(\.1\.submodule)+\.2"),
    "Unet3": (r"encoder\.\d+|middle", r"decoder\.\d+"),
    "VNet": (r"in_tr|down_tr\d+", r"up_tr\d+"),
}
GROUPS = ("encoder", "decoder", "all")
SIZES: dict[int, list[tuple[int, ...]]] = {
    1: [(64,), (256,), (1024,)],
    2: [(32, 32), (32, 64), (64, 64), (96, 96), (128, 128), (256, 256)],
    3: [(16, 16, 16), (32, 32, 32), (32, 32, 64), (64, 64, 64), (96, 96, 96), (128, 128, 128)],
}
SEED = 0
TINY = 1e-12  # eps of normalisations
NORMS = (_NormBase, nn.GroupNorm)  # of batches, instances, groups: over (B, C, *S)
LAYERS: dict[str, tuple[type[nn.Module], ...]] = {
    "block": (nn.Module,),
    "convolution": (_ConvNd,),
    "normalisation": NORMS,
    "image": (_ConvNd,),
}


@dataclass(frozen=True)
class Place:
    """A module whose output is steered: its name in the network, and its output's channels."""

    name: str
    module: nn.Module
    channels: int


def find_places(
    network: nn.Module,
    at: str | Sequence[str] = "encoder",
    behind: str = "block",
    image_shape: Sequence[int] | None = None,
) -> list[Place]:
    """Return the places to steer, in the order in which an image passes them.

    Args:
        network: any, which gets images (B, C, *S); it is left as it was.
        at: "encoder", "decoder" or "all" of a network in `KNOWN`, or names of modules.
        behind: "block" for these modules, "convolution" or "normalisation" for the last such
            layer that runs in each, "image" for the convolutions that are given the image itself,
            whichever group is named.
        image_shape: (C, *S) of an image to try it with; None finds one that the network takes.

    Raises:
        ConfigError: there is no such place; the network takes no image of the shapes tried; a place
            gives no features of an image; or what is done there has no effect on the output.
    """
    with _as_tried(network):
        image = _an_image(network, image_shape)
        if behind == "image":
            if at not in GROUPS:
                raise ConfigError(
                    "metadata as channels beside the image stand at the image, at no other place: "
                    f"leave out at, or name a group ({listing(GROUPS)}), got at={at!r}"
                )
            names = _first_convolutions(network, image)
        else:
            names = _named(network, at)
        chosen = [network.get_submodule(name) for name in names]
        if behind in ("convolution", "normalisation"):
            layers = {inner for one in chosen for inner in one.modules()}
            chosen += [one for one in layers if isinstance(one, (_ConvNd, *NORMS))]
        runs = _watched(network, image, [*chosen, network])
        if isinstance(at, str) and behind != "image":
            ends = {run.name for run in runs if run.name and _is(run.output, runs[-1].output)}
            names = [name for name in names if name not in ends]
        if isinstance(at, str) and behind == "normalisation":  # not every block has one
            names = [name for name in names if _ran(network, name, runs, behind)]
        found = [_place(network, name, runs, behind, image) for name in names]
        found.sort(key=lambda one: runs.index(one[1]))
        places = [place for place, _ in found]
        if len({place.module for place in places}) < len(places):
            raise ConfigError(f"at names a layer twice: {listing([one.name for one in places])}")
        if behind in ("block", "normalisation"):
            _refuse_without_effect(network, image, _joined(runs[-1].output), places, at)
    return places


def forgets_constants(network: nn.Module, places: Sequence[Place], image_shape: Any = None) -> bool:
    """Whether a constant that is added at all these places leaves the output as it was.

    Args:
        network: as for `find_places`.
        places: what that found.
        image_shape: as for `find_places`.
    """
    with _as_tried(network):
        image = _an_image(network, image_shape)
        plain = _joined(network(image))
        hooks = [place.module.register_forward_hook(_Change(1.0, adds=True)) for place in places]
        try:
            # a border is told from the rest by a convolution's padding; the middle is not
            moved = _middle(_joined(network(image)) - plain).abs().max()
        finally:
            for hook in hooks:
                hook.remove()
        return bool(moved <= 1e-3 * plain.abs().max())


def _middle(x: Tensor) -> Tensor:
    for axis in range(2, x.dim()):
        x = x.narrow(axis, x.shape[axis] // 2, 1)
    return x


@contextmanager
def _as_tried(network: nn.Module) -> Iterator[None]:
    """Without dropout and gradients, with the batch's statistics and a tiny eps; then as it was."""
    names = ("training", "eps", "momentum", "track_running_stats")
    before = [
        (module, name, module.__dict__[name])
        for module in network.modules()
        for name in names
        if isinstance(module.__dict__.get(name), bool | float)
    ]
    try:
        network.eval()
        for module, name, _ in before:
            if name == "eps":
                module.__dict__["eps"] = TINY
            elif name == "training" and isinstance(module, _NormBase):
                module.training, module.track_running_stats = True, False
                module.momentum = 0.0  # their running statistics stay as they are
        with torch.no_grad(), _TinyEps():
            yield
    finally:
        for module, name, value in before:
            module.__dict__[name] = value


class _TinyEps(TorchFunctionMode):
    """Normalisations that are called as functions have a tiny eps."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch."""
        kwargs = kwargs or {}
        if func in (F.batch_norm, F.instance_norm, F.group_norm):
            kwargs = {**kwargs, "eps": TINY}
        return func(*args, **kwargs)


def _an_image(network: nn.Module, shape: Sequence[int] | None) -> Tensor:
    """Return images (B, C, *S) of noise that the network takes: one, or three if these mix."""
    images = 3 if any(isinstance(one, _BatchNorm) for one in network.modules()) else 1
    weight = next(network.parameters(), torch.empty(0))
    if shape is not None:
        tried = [tuple(shape) if isinstance(shape, Sequence) else (shape,)]
    else:
        convolutions = [one for one in network.modules() if isinstance(one, _ConvNd)]
        if not convolutions or any(is_lazy(one) for one in network.parameters()):
            raise ConfigError(
                f"{_kind(network)} has no convolution that tells its images' channels and axes, or "
                "a lazy one: "
                "give image_shape, (channels, *size) of an image that it takes"
            )
        axes = convolutions[0].weight.dim() - 2
        tried = [(convolutions[0].in_channels, *size) for size in SIZES[axes]]
        patches, sizes = (network.__dict__.get(name) for name in ("feat_size", "patch_size"))
        if isinstance(patches, tuple) and isinstance(sizes, tuple):  # UNETR: one size only
            own = [number * size for number, size in zip(patches, sizes, strict=True)]
            tried = [(convolutions[0].in_channels, *own)]
    faults = []
    for one in tried:
        generator = torch.Generator().manual_seed(SEED)
        try:
            image = torch.rand(images, *one, generator=generator).to(weight)
            network(image)
        except Exception as error:  # whatever the network says of a size that it does not take
            faults.append(f"{one}: {type(error).__name__}: {str(error)[:120]}")
        else:
            return image
    raise ConfigError(
        f"{_kind(network)} takes no image of the shapes tried ({'; '.join(faults)}): give "
        "image_shape, (channels, *size) of an image that it takes"
    )


def _named(network: nn.Module, at: str | Sequence[str]) -> list[str]:
    """Return the modules' names that `at` stands for."""
    names = [name for name, _ in network.named_modules() if name]
    every = [name for name, _ in network.named_modules(remove_duplicate=False) if name]
    if not isinstance(at, str):
        if not at:
            raise ConfigError("at is an empty list: name modules, or take variant 'none'")
        for name in at:
            if name not in every:
                raise ConfigError(
                    f"at: {_kind(network)} has no module {name!r}; {did_you_mean(name, every)}. "
                    "The names are those of network.named_modules()"
                )
        return list(at)
    patterns = next(
        (KNOWN[one.__name__] for one in type(network).mro() if one.__name__ in KNOWN), None
    )
    if at not in GROUPS or patterns is None:
        known = "" if at in GROUPS else f"; {did_you_mean(at, [*GROUPS, *every])}"
        raise ConfigError(
            f"at must be one of {listing(GROUPS)} for a network whose parts are known "
            f"({', '.join(KNOWN)}), or a list of names of modules; got {at!r} for "
            f"{_kind(network)}, whose parts are "
            f"{listing([name for name, _ in network.named_children()])}{known}"
        )
    pattern = dict(zip(GROUPS, (*patterns, "|".join(patterns)), strict=True))[at]
    matching = [name for name in names if re.fullmatch(pattern, name)]
    inner = [
        name for name in matching if not any(other.startswith(f"{name}.") for other in matching)
    ]
    if not inner:
        raise ConfigError(
            f"this {_kind(network)} has no {at} of its own: take another of {listing(GROUPS)}, or "
            "name modules"
        )
    return inner


@dataclass(frozen=True, eq=False)
class _Run:
    """What one call of a module was given first, and gave."""

    name: str
    given: Any
    output: Any
    alone: bool  # the first is all that it was given, and by place


def _watched(network: nn.Module, image: Tensor, modules: Sequence[nn.Module]) -> list[_Run]:
    """Return the runs of modules, in the order in which they ended."""
    runs: list[_Run] = []
    names = {one: name for name, one in network.named_modules()}

    def watch(name: str) -> Any:
        def record(module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
            alone = len(inputs) == 1 and not named
            runs.append(_Run(name, inputs[0] if inputs else None, output, alone))

        return record

    hooks = [
        one.register_forward_hook(watch(names[one]), with_kwargs=True)
        for one in dict.fromkeys(modules)
    ]
    try:
        network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return runs


def _is(one: Any, other: Any) -> bool:
    """Whether two are the same values in memory."""
    both = isinstance(one, Tensor) and isinstance(other, Tensor)
    return both and one.data_ptr() == other.data_ptr() and one.shape == other.shape


def _place(
    network: nn.Module, name: str, runs: list[_Run], behind: str, image: Tensor
) -> tuple[Place, _Run]:
    """Return the place that a module stands for, and its last run."""
    ran = _ran(network, name, runs, behind)
    if not ran:
        what = "" if behind in ("block", "image") else f"no {behind} of "
        raise ConfigError(
            f"at: {what}{name!r} runs when this {_kind(network)} does, so that nothing there has "
            "an effect; name another module"
        )
    output = ran[-1].output
    if not isinstance(output, Tensor) or output.dim() != image.dim():
        gives = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ConfigError(
            f"at: {name!r} gives no features (B, C, *S) with {image.dim() - 2} spatial axes, but "
            f"{gives}; name another module"
        )
    if behind != "block" and not all(run.alone for run in ran):
        raise ConfigError(
            f"at: {ran[-1].name!r} is given more than its input, or that by name (such as "
            "output_size), which a mechanism cannot follow; name another module, or take a gate "
            "(me, sme, film)"
        )
    return Place(ran[-1].name, network.get_submodule(ran[-1].name), output.shape[1]), ran[-1]


def _ran(network: nn.Module, name: str, runs: list[_Run], behind: str) -> list[_Run]:
    """Return the runs of a block, or of the layers in it that a mechanism may stand behind.

    Layers on what the block is given, such as those of a residual, are left out if there are more.
    """
    block = network.get_submodule(name)
    named = {one: known for known, one in network.named_modules()}
    if behind in ("block", "image"):
        return [run for run in runs if run.name == named[block]]
    inside = {named[one]: one for one in block.modules()}
    ran = [run for run in runs if isinstance(inside.get(run.name), (_ConvNd, *NORMS))]
    inputs = [run.given for run in runs if run.name == named[block]]
    first = [run for run in ran if any(_is(run.given, one) for one in inputs)]
    direct = [*inputs, *(run.output for run in first)]
    of_kind = [run for run in ran if isinstance(inside[run.name], LAYERS[behind])]
    inner = [run for run in of_kind if not any(_is(run.given, one) for one in direct)]
    return inner or of_kind


def _first_convolutions(network: nn.Module, image: Tensor) -> list[str]:
    """Name the convolutions that are given the image itself; else the very first."""
    convolutions = [one for one in network.modules() if isinstance(one, _ConvNd)]
    runs = _watched(network, image, convolutions)
    if not runs:
        raise ConfigError(f"no convolution runs in this {_kind(network)}: take another variant")
    return [run.name for run in runs if _is(run.given, image)] or [runs[0].name]


class _Change:
    """A hook that multiplies each channel of each image by a power of two, or adds one to it.

    A normalisation takes a power of two out to the last bit.
    """

    def __init__(self, seed: float, adds: bool = False) -> None:
        self.seed, self.adds = int(seed), adds

    def __call__(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        powers = torch.randint(-2, 3, output.shape[:2], generator=generator)
        powers[0, 0] = 3  # never all alike
        values = (2.0**powers).to(output).reshape(*powers.shape, *[1] * (output.dim() - 2))
        return output + values if self.adds else output * values


def _joined(output: Any) -> Tensor:
    """Return a network's output, flattened to one tensor if it is several."""
    leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    if not leaves:
        raise ConfigError(
            f"the network gives a {type(output).__name__} in which no tensor is found, so that "
            "no effect of metadata can be seen: let it give a tensor, or a list, tuple or dict"
        )
    if len(leaves) == 1:
        return leaves[0]
    return torch.cat([leaf.flatten() for leaf in leaves])


def _refuse_without_effect(
    network: nn.Module,
    image: Tensor,
    plain: Tensor,
    places: Sequence[Place],
    at: str | Sequence[str],
) -> None:
    works: list[str] = []
    inert: list[str] = []
    for place in places:
        hook = place.module.register_forward_hook(_Change(SEED))
        try:
            moved = (_joined(network(image)) - plain).abs().max()
        finally:
            hook.remove()
        (works if moved > 1e-5 * plain.abs().max() else inert).append(place.name)
    if inert:
        raise ConfigError(
            f"at={at!r}: scales behind {listing(inert)} have no effect on the output of this "
            f"{_kind(network)}: a normalisation of each channel follows, which takes them out "
            "again. "
            + (
                f"These places work: at={works}"
                if works
                else "None of these places works; name modules behind which no such layer follows"
            )
        )


def _kind(network: nn.Module) -> str:
    return type(network).__name__
