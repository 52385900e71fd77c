"""Metadata for any network: gates or mechanisms behind its modules, without changing its code."""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.gates import HiddenFrom, Start
from metaseg_monai.networks.loading import refuse_strange_weights
from metaseg_monai.networks.mechanisms import Mechanism
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.places import find_places, forgets_constants
from metaseg_monai.networks.scripted import scriptable
from metaseg_monai.networks.variants import (
    MECHANISMS,
    base_variant,
    gate_of_variant,
    meta_input_of,
)

logger = logging.getLogger(__name__)


def condition(
    network: nn.Module,
    schema: MetadataSchema | None = None,
    variant: str = "sme",
    at: str | Sequence[str] = "encoder",
    *,
    reduction: float = 4,
    hidden_from: HiddenFrom = "channels",
    shift: bool = False,
    start: Start = "neutral",
    meta_features: int | None = None,
    unknown_trained: bool = False,
    image_shape: Sequence[int] | None = None,
) -> "Conditioned":
    """Return a network that metadata steer, made of any network.

    At the start it gives what the network gives, bit for bit, so that a trained one can be
    conditioned; weights of the bare network load into it. "none" gives the network as it is,
    behind the same door.

    Args:
        network: any that is called as network(image), such as MONAI's; it is used, not copied.
        schema: the metadata's schema; gives the width and the vector for unknown metadata.
        variant: a name of `metaseg_monai.networks.TABLE`, or of its dummy, or "none".
            "adaptive-norm" stands behind the last normalisation of each place, "low-rank" and
            "hyper" at its last convolution, "constant-channel" at the image whatever the group.
        at: "encoder", "decoder" or "all" blocks of MONAI's AttentionUnet, BasicUNet, DynUNet,
            FlexibleUNet, HighResNet, MedNeXt, SegResNet, SegResNetDS, SwinUNETR, UNETR, UNet,
            VNet and of Unet3; for these and all others a list of names of modules.
        reduction: as of `Unet3`.
        hidden_from: as of `Unet3`.
        shift: as of `Unet3`.
        start: as of `Unet3`; "paper" changes the network's output at the start.
        meta_features: without a schema: M, the width of the encoded metadata.
        unknown_trained: as of `Unet3`.
        image_shape: (C, *S) of an image to try the places with; None finds one.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another; a place is
            not there, or a gate there would have no effect (`metaseg_monai.networks.places`).

    >>> from monai.networks.nets import BasicUNet
    >>> bare = BasicUNet(spatial_dims=2, features=(4, 4, 4, 4, 4, 4)).eval()
    >>> network = condition(bare, variant="sme", meta_features=3)
    >>> print(network.overhead())
    sme at 5 places: 80 parameters beside the network's 3,240 (2.5 %)
    >>> network(torch.rand(2, 1, 32, 32), torch.eye(2, 3)).shape
    torch.Size([2, 2, 32, 32])
    """
    if not isinstance(network, nn.Module):
        raise ConfigError(f"expected a network, a torch.nn.Module, got {network!r}; give one")
    known = {one.running for one in network.modules() if isinstance(one, Conditioned)}
    hooks = [hook for one in network.modules() for hook in one._forward_hooks.values()]
    if any(isinstance(hook, Behind) and hook.running not in known for hook in hooks):
        raise ConfigError(
            f"this {type(network).__name__} is within a conditioned network already, which uses "
            "it and copies nothing: give condition() a copy made before (copy.deepcopy), or name "
            "all places in one call"
        )
    if getattr(network, "meta_features", 0):
        raise ConfigError(
            f"this {type(network).__name__} reads metadata by itself: condition one that does not "
            "(variant='none'), or name all places in one call"
        )
    meta_input = meta_input_of(variant, schema, meta_features, unknown_trained)
    base = base_variant(variant)
    gates: dict[str, nn.Module] = {}
    if base != "none":
        behind = MECHANISMS[base].behind if base in MECHANISMS else "block"
        places = find_places(network, at, behind, image_shape)
        for place in places:
            try:
                gates[place.name] = gate_of_variant(
                    base,
                    place.channels,
                    meta_input.meta_features,
                    reduction=reduction,
                    hidden_from=hidden_from,
                    shift=shift,
                    start=start,
                    layer=place.module,
                )
            except ConfigError as error:
                raise ConfigError(f"gate behind {place.name}: {error}") from error
        if behind == "image" and forgets_constants(network, places, image_shape):
            logger.warning(
                "%s: the first normalisation of this %s takes a constant out of each channel, so "
                "that metadata as constant channels reach it from the image's border only. As a "
                "baseline that is a finding; to steer the network take another variant.",
                variant,
                type(network).__name__,
            )
    return Conditioned(network, gates, meta_input, variant)


class Conditioned(nn.Module):
    """A network whose modules are followed by gates; `condition` makes it.

    The gates are no part of the network: they are called by hooks behind its modules and get the
    metadata of the forward pass that is running. Outside of one, the inner network refuses to run.

    Args:
        network: any; hooks are put behind its modules.
        gates: by the name of the module that they stand behind.
        meta_input: the door of the metadata.
        variant: told in records.

    Attributes:
        places: names of the modules that gates stand behind; their weights are
            `gates.<place>.*`, with "-" for the dots in a place's name (and one more behind it
            where that is taken).
    """

    def __init__(
        self,
        network: nn.Module,
        gates: Mapping[str, nn.Module],
        meta_input: MetaInput,
        variant: str,
    ) -> None:
        super().__init__()
        refuse_strange_weights(self)
        self.network = network
        self.gates = nn.ModuleDict()
        for place, gate in gates.items():
            key = place.replace(".", "-")
            while hasattr(self.gates, key) or key in self.gates:  # "values"; "a-b" beside "a.b"
                key += "-"
            self.gates[key] = gate
        self.meta_input = meta_input
        self.meta_features = meta_input.meta_features  # M; 0: reads no metadata
        self.variant = variant
        self.places = tuple(gates)
        self.running = Running()
        reference = next(network.parameters(), None)
        if reference is not None:
            self.gates.to(reference.device, reference.dtype)
        for place, gate in gates.items():
            network.get_submodule(place).register_forward_hook(Behind(place, gate, self.running))

    def forward(self, image: Tensor, meta: Tensor | None = None) -> Any:
        """Return what the network gives, steered: mostly logits (B, K, *S).

        Args:
            image: images (B, C, *S).
            meta: encoded metadata (B, M); None for a variant without metadata, or for the unknown
                vector where the network has one.

        Raises:
            ValueError: the batch or width of `meta` is wrong.
            RuntimeError: a module was not run that a gate stands behind, so that metadata would be
                ignored; or another thread is within this network.
        """
        meta = self.meta_input(meta, image)
        plain = image.as_tensor() if isinstance(image, MetaTensor) else image
        before = self.running.begin(meta)
        try:
            output = self.network(plain)
            self.running.check(self.places)
        finally:
            self.running.end(before)
        if isinstance(image, MetaTensor):
            output = tree_map(lambda one: _as_meta(one, image), output)
        return output

    def overhead(self) -> str:
        """Tell how many parameters the gates have beside those of the network."""
        own = sum(weight.numel() for weight in self.gates.parameters())
        bare = sum(weight.numel() for weight in self.network.parameters())
        count = len(self.places)
        places = f"at {count} place" + "s" * (count != 1)
        share = f"{100 * own / bare:.1f} %" if bare else "of none"
        return (
            f"{self.variant} {places}: {own:,} parameters beside the network's {bare:,} ({share})"
        )

    def extra_repr(self) -> str:
        """Tell variant and overhead."""
        return self.overhead()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take weights of the bare network, too; the gates then stay as they are."""
        given = [name.removeprefix(prefix) for name in state_dict if name.startswith(prefix)]
        own, bare = self.state_dict().keys(), self.network.state_dict().keys()
        if not own & set(given) and bare & set(given):
            for name in given:
                state_dict[f"{prefix}network.{name}"] = state_dict.pop(prefix + name)
            for name, value in self.gates.state_dict().items():
                state_dict[f"{prefix}gates.{name}"] = value
        super()._load_from_state_dict(state_dict, prefix, *args)

    def __prepare_scriptable__(self) -> nn.Module:
        """Return a copy that TorchScript takes, without hooks."""
        return scriptable(self)


def _as_meta(output: Any, image: MetaTensor) -> Any:
    if not isinstance(output, Tensor):
        return output
    made = output.as_subclass(MetaTensor)
    made.copy_meta_from(image)
    return made


class Running:
    """The metadata of the forward pass that is running, for the gates of one network.

    Nothing of it is left when the pass has ended, by an error too; one inside another, of the same
    network, has its own.
    """

    def __init__(self) -> None:
        self.is_running = False
        self.meta: Tensor | None = None
        self.passed: list[str] = []
        self.owner: dict[str, int] = {}

    def begin(self, meta: Tensor | None) -> tuple[bool, Tensor | None, list[str]]:
        """Begin a pass; what it returns is for `end`.

        Raises:
            RuntimeError: another thread is within this network.
        """
        if not torch.compiler.is_compiling():
            mine = threading.get_ident()
            if self.owner.setdefault("thread", mine) != mine:
                raise RuntimeError(
                    "two threads run one conditioned network at once, whose metadata would mix: "
                    "give each thread a copy (copy.deepcopy), or run them one after the other"
                )
        before = (self.is_running, self.meta, self.passed)
        self.is_running, self.meta, self.passed = True, meta, []
        return before

    def end(self, before: tuple[bool, Tensor | None, list[str]]) -> None:
        """End the pass: what was before it is as it was."""
        self.is_running, self.meta, self.passed = before
        if not self.is_running and not torch.compiler.is_compiling():
            self.owner.pop("thread", None)

    def of(self, place: str) -> Tensor | None:
        """Return the metadata for the gate at a place.

        Raises:
            RuntimeError: no pass is running.
        """
        if not self.is_running:
            raise RuntimeError(
                f"the module {place!r} is steered by metadata and ran outside of its network's "
                "forward(image, meta), with no metadata known. Call the conditioned network "
                "itself; to save activations by checkpointing, checkpoint the call of the whole"
            )
        self.passed.append(place)
        return self.meta

    def check(self, places: Sequence[str]) -> None:
        """Refuse a pass in which a gate was left out.

        Raises:
            RuntimeError: naming the places.
        """
        if torch.compiler.is_compiling():
            return
        if missing := [place for place in places if place not in self.passed]:
            raise RuntimeError(
                f"no gate was called behind {', '.join(missing)}: the module was exchanged after "
                "condition() or is not run, so that metadata would be ignored. Condition the "
                "network after whatever exchanges its modules (such as SyncBatchNorm)"
            )


class Behind:
    """The hook behind a module: its gate, with the metadata of the running pass.

    An object, not a closure, so that copies and pickles of the network have gates of their own.
    """

    def __init__(self, place: str, gate: nn.Module, running: Running) -> None:
        self.place, self.gate, self.running = place, gate, running

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """Return what takes the place of the module's output."""
        meta = self.running.of(self.place)
        if isinstance(self.gate, Mechanism):
            return self.gate(inputs[0], output, meta)
        return self.gate(output, meta)
