"""A conditioned network for TorchScript, which knows no hooks that carry metadata.

Behind every module that is steered its gate becomes part of the network, and holds the metadata of
the pass as an attribute, which the outer forward sets and clears in each of them.
"""

import copy
import inspect
from typing import TYPE_CHECKING, Any, Optional, no_type_check

import torch
from monai.networks.nets.dynunet import DynUNet, DynUNetSkipLayer
from torch import Tensor, nn

from metaseg_monai.networks.gates import ChannelGate
from metaseg_monai.networks.meta_input import MetaInput

if TYPE_CHECKING:
    from metaseg_monai.networks.condition import Conditioned


def scriptable(conditioned: "Conditioned") -> nn.Module:
    """Return a copy that `torch.jit.script` takes, wherever it takes the bare network.

    MONAI's DynUNet with deep supervision, too: it is refused bare (1.6.1 sets an item of an
    optional list), and answers here with its output alone, in training as well.

    Args:
        conditioned: stays as it is.
    """
    copied = copy.deepcopy(conditioned)
    network = copied.network
    for module in network.modules():
        if isinstance(module, DynUNet):
            module.deep_supervision = False
        if isinstance(module, DynUNetSkipLayer):
            module.super_head = None
    places = {place: network.get_submodule(place) for place in copied.places}
    for (place, module), gate in zip(places.items(), copied.gates.values(), strict=True):
        for number, hook in list(module._forward_hooks.items()):
            if getattr(hook, "gate", None) is gate:
                del module._forward_hooks[number]
        steered = steered_module(module, gate)
        for parent in list(network.modules()):
            if parent is steered:
                continue
            for name, child in parent._modules.items():
                if child is module:  # DynUNet has its blocks under two names
                    parent._modules[name] = steered
        places[place] = steered
    core: Any = torch.jit.script(_Core(network))
    names = [
        name
        for name, module in network.named_modules(remove_duplicate=False)
        if any(module is steered for steered in places.values())
    ]
    if not core._c._has_method("steered"):  # two networks of one structure share their type
        core.define(_source(names))
    return _Scripted(core, copied.meta_input)


def _source(names: list[str]) -> str:
    """The method that runs the network with metadata: set at every place, then cleared."""
    lines = ["def steered(self, image: Tensor, meta: Optional[Tensor]):"]
    for number, name in enumerate(names):
        module = "self.network"
        for part in name.split("."):
            module = f'getattr({module}, "{part}")'
        lines += [f"    place{number} = {module}", f"    place{number}.meta = meta"]
    lines.append("    output = self.network(image)")
    lines += [f"    place{number}.meta = None" for number in range(len(names))]
    lines.append("    return output")
    return "\n".join([*lines, ""])


class _Core(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Any:
        return image


class _Scripted(nn.Module):
    def __init__(self, core: Any, meta_input: MetaInput) -> None:
        super().__init__()
        self.core: Any = core
        self.meta_input = meta_input

    # without a type for what it returns, which is the network's, as TorchScript finds it
    @no_type_check
    def forward(self, image: Tensor, meta: Optional[Tensor] = None):  # noqa: ANN202, UP045
        return self.core.steered(image, self.meta_input(meta, image))


def steered_module(module: nn.Module, gate: nn.Module) -> nn.Module:
    """Return the module and its gate as one, by what the module is called with."""
    if isinstance(gate, ChannelGate):
        gate = _OfOutput(gate)
    given = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.default is inspect.Parameter.empty or "Tensor" in str(parameter.annotation)
    ]
    if len(given) == 1:
        return _One(module, gate)
    if "None" in str(given[1].annotation) or "Optional" in str(given[1].annotation):
        return _OneOrTwo(module, gate)
    return _Two(module, gate)


class _OfOutput(nn.Module):
    """A channel gate in the form of a mechanism."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor, y: Tensor, meta: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        return self.gate(y, meta)


class _One(nn.Module):
    meta: Optional[Tensor]  # noqa: UP045

    def __init__(self, module: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.module, self.gate, self.meta = module, gate, None

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x, self.module(x), self.meta)


class _Two(nn.Module):
    meta: Optional[Tensor]  # noqa: UP045

    def __init__(self, module: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.module, self.gate, self.meta = module, gate, None

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return self.gate(x, self.module(x, other), self.meta)


class _OneOrTwo(nn.Module):
    meta: Optional[Tensor]  # noqa: UP045

    def __init__(self, module: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.module, self.gate, self.meta = module, gate, None

    def forward(self, x: Tensor, other: Optional[Tensor] = None) -> Tensor:  # noqa: UP045
        return self.gate(x, self.module(x, other), self.meta)
