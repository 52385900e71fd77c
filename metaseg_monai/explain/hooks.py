"""Watch the gates of a network: what scale and shift they give, what passes through them."""

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.gates import ChannelGate
from metaseg_monai.networks.unet3 import Unet3, gate_places


@dataclass
class GateRecord:
    """What the gates did while `record_gates` was watching.

    Attributes:
        scale: scales (B, C) of each gate, one tensor a call, gates in the order they were passed.
        shift: the same of the shifts, for gates that have one.
        before: features (C, *S) of the first image of the first call, as the gate scales them (a
            ReLU that belongs to the gate is done), for the gates whose features were asked for.
        after: the same behind the gate.
        image: the first image (C, *S) that the network was given.
        images: how many images, or windows of them, the network was given.
    """

    scale: dict[str, list[Tensor]] = field(default_factory=dict)
    shift: dict[str, list[Tensor]] = field(default_factory=dict)
    before: dict[str, Tensor] = field(default_factory=dict)
    after: dict[str, Tensor] = field(default_factory=dict)
    image: Tensor | None = None
    images: int = 0


def gates_of(network: nn.Module) -> dict[str, ChannelGate]:
    """Name the gates of a network.

    Args:
        network: any network. Those of a `Unet3` have the names of `gate_places`, in the order in
            which an image passes them; those of another have their module path.

    Raises:
        ConfigError: it has no gate.

    >>> list(gates_of(Unet3(variant="se", channels=4, levels=1)))
    ['encoder1', 'middle', 'decoder1']
    """
    if isinstance(network, Unet3):
        levels = [*network.encoder, network.middle, *network.decoder]
        places = zip(gate_places(len(network.encoder)), levels, strict=True)
        gates = {name: level.gate for name, level in places if isinstance(level.gate, ChannelGate)}
    else:
        gates = {
            name or "gate": module
            for name, module in network.named_modules()
            if isinstance(module, ChannelGate)
        }
    if not gates:
        raise ConfigError(
            f"This {type(network).__name__} has no gates to explain; train a variant that has, "
            "such as se, me, sme or film."
        )
    return gates


@contextmanager
def record_gates(network: nn.Module, features_of: Sequence[str] = ()) -> Iterator[GateRecord]:
    """Watch every gate of a network inside a `with` block; afterwards the network is as before.

    Args:
        network: in eager mode (scripted or compiled copies are not watched).
        features_of: the gates whose features before and behind are kept as well.

    Raises:
        ConfigError: the network has no gates, or none of a name in `features_of`.

    >>> import torch
    >>> network = Unet3(variant="se", channels=4, levels=1).eval()
    >>> with record_gates(network) as record:
    ...     _ = network(torch.rand(2, 1, 8, 8))
    >>> record.scale["decoder1"][0].shape
    torch.Size([2, 4])
    """
    gates = gates_of(network)
    for name in features_of:
        if name not in gates:
            raise ConfigError(_no_gate(name, list(gates)))
    record = GateRecord()
    hooks = [network.register_forward_pre_hook(_keep_image(record), with_kwargs=True)]
    former = [(gate, gate.__dict__.get("excite")) for gate in gates.values()]
    try:
        for name, gate in gates.items():
            # `excite` is what every gate has, whatever modules it is made of, and what the fused
            # and the plain path both call; the instance's own attribute hides the class's method
            gate.__dict__["excite"] = _watched(gate.excite, name, record)
        for name in dict.fromkeys(features_of):
            gate = gates[name]
            hooks.append(gate.register_forward_pre_hook(_keep_before(name, record)))
            hooks.append(gate.register_forward_hook(_keep_after(name, record)))
        yield record
    finally:
        for hook in hooks:
            hook.remove()
        for gate, excite in former:
            gate.__dict__.pop("excite", None)
            if excite is not None:
                gate.__dict__["excite"] = excite


Excite = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


def _watched(excite: Excite, name: str, record: GateRecord) -> Excite:
    def watched(z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        scale, shift = excite(z, meta)
        record.scale.setdefault(name, []).append(scale.detach().float().cpu())
        if shift is not None:
            record.shift.setdefault(name, []).append(shift.detach().float().cpu())
        return scale, shift

    return watched


def _keep_image(record: GateRecord) -> Callable[[nn.Module, Any, dict[str, Any]], None]:
    def keep(network: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        image = next(iter([*inputs, *named.values()]))
        record.images += image.shape[0]
        if record.image is None:
            record.image = _first(image)

    return keep


def _keep_before(name: str, record: GateRecord) -> Callable[[nn.Module, Any], None]:
    def keep(gate: nn.Module, inputs: tuple[Any, ...]) -> None:
        if name not in record.before:  # copied at once: a gate with a ReLU overwrites its input
            x = _first(inputs[0])
            record.before[name] = F.relu(x) if inputs[2:] == (True,) else x

    return keep


def _keep_after(name: str, record: GateRecord) -> Callable[[nn.Module, Any, Tensor], None]:
    def keep(gate: nn.Module, inputs: Any, output: Tensor) -> None:
        if name not in record.after:
            record.after[name] = _first(output)

    return keep


def _first(batch: Tensor) -> Tensor:
    """Copy the first image (C, *S) of a batch to memory of its own."""
    return batch[0].detach().float().cpu().contiguous().clone()


def _no_gate(name: str, gates: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, gates, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    return f"The network has no gate {name!r}{hint} Its gates are {', '.join(gates)}."
