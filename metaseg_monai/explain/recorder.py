"""Watch the gates of a network: what scale and shift they give, what passes through them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from monai.inferers import Inferer
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError, did_you_mean
from metaseg_monai.networks.condition import Conditioned
from metaseg_monai.networks.gates import ChannelGate
from metaseg_monai.networks.mechanisms import AdaptiveNorm
from metaseg_monai.networks.multi_head import MultiHeadUnet3
from metaseg_monai.networks.unet3 import Unet3, gate_places

Excite = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


@dataclass
class GateRecord:
    """What the gates did while `record_gates` was watching.

    Attributes:
        scale: scales (B, C) of each gate, one tensor a call, gates in the order they were passed.
        shift: the same of the shifts, for gates that have one.
        before: features (C, *S) of the first image of the first call, as the watched gate scales
            them (a ReLU that belongs to the gate is done); None where none is watched.
        after: the same behind the gate.
        image: the first image (C, *S) that the network was given.
        images: how many images, or windows of them, the network was given.
    """

    scale: dict[str, list[Tensor]] = field(default_factory=dict)
    shift: dict[str, list[Tensor]] = field(default_factory=dict)
    before: Tensor | None = None
    after: Tensor | None = None
    image: Tensor | None = None
    images: int = 0

    def keep_image(self, network: nn.Module, inputs: Sequence[Any], named: dict[str, Any]) -> None:
        """Hook before the network: count its images, keep the first."""
        image = next(iter([*inputs, *named.values()]))
        self.images += image.shape[0]
        if self.image is None:
            self.image = _first(image)

    def keep_before(self, gate: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Hook before a gate."""
        if self.before is None:  # copied at once: a gate with a ReLU overwrites its input
            x = _first(inputs[0])
            self.before = F.relu(x) if inputs[2:] == (True,) else x

    def keep_after(self, gate: nn.Module, inputs: Any, output: Tensor) -> None:
        """Hook behind a gate."""
        if self.after is None:
            self.after = _first(output)

    def watched(self, excite: Excite, name: str) -> Excite:
        """The excitation of a gate, which is recorded under a name."""

        def watched(z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
            scale, shift = excite(z, meta)
            self.scale.setdefault(name, []).append(scale.detach().float().cpu())
            if shift is not None:
                self.shift.setdefault(name, []).append(shift.detach().float().cpu())
            return scale, shift

        return watched


def _first(batch: Tensor) -> Tensor:
    """Copy the first image (C, *S) of a batch to memory of its own."""
    return batch[0].detach().float().cpu().contiguous().clone()


def gates_of(network: nn.Module) -> dict[str, ChannelGate]:
    """Name the gates of a network.

    Args:
        network: any network. Those of a `Unet3` have the names of `gate_places`, in the order in
            which an image passes them, those of `condition` the names of the modules they stand
            behind; those of another have their module path. Of `MultiHeadUnet3` they are those
            that all heads share.

    Raises:
        ConfigError: it has no gate.

    >>> list(gates_of(Unet3(variant="se", channels=4, levels=1)))
    ['encoder1', 'middle', 'decoder1']
    """
    named: Mapping[str, nn.Module] = dict(network.named_modules())
    if isinstance(network, Unet3):
        levels = [*network.encoder, network.middle, *network.decoder]
        places = gate_places(len(network.encoder))
        named = {name: level.gate for name, level in zip(places, levels, strict=True)}
        for name, level in zip(places, levels, strict=True):
            if isinstance(level.mechanism, AdaptiveNorm):
                named[name] = level.mechanism.modulation
    elif isinstance(network, Conditioned):
        gates_at = zip(network.places, network.gates.values(), strict=True)
        named = {name: getattr(gate, "modulation", gate) for name, gate in gates_at}
    elif isinstance(network, MultiHeadUnet3):  # a head is run on its own images only
        named = {name: one for name, one in named.items() if not name.startswith("heads.")}
    gates = {name or "gate": gate for name, gate in named.items() if isinstance(gate, ChannelGate)}
    if not gates:
        raise ConfigError(
            f"This {type(network).__name__} has no gates to explain; train a variant that has, "
            "such as se, me, sme or film."
        )
    return gates


@contextmanager
def record_gates(network: nn.Module, features_of: str | None = None) -> Iterator[GateRecord]:
    """Watch every gate of a network inside a `with` block; afterwards the network is as before.

    Args:
        network: in eager mode (scripted or compiled copies are not watched).
        features_of: the gate whose features before and behind are kept as well.

    Raises:
        ConfigError: the network has no gates, or none of that name.

    >>> import torch
    >>> network = Unet3(variant="se", channels=4, levels=1).eval()
    >>> with record_gates(network) as record:
    ...     _ = network(torch.rand(2, 1, 8, 8))
    >>> record.scale["decoder1"][0].shape
    torch.Size([2, 4])
    """
    gates, record = gates_of(network), GateRecord()
    if features_of is not None and features_of not in gates:
        raise ConfigError(
            f"The network has no gate {features_of!r}, its gates are {', '.join(gates)}; "
            f"{did_you_mean(features_of, gates, told=True)}"
        )
    hooks = [network.register_forward_pre_hook(record.keep_image, with_kwargs=True)]
    try:
        for name, gate in gates.items():
            # `excite` is what every gate has, whatever modules it is made of, and what the fused
            # and the plain path both call; the instance's own attribute hides the class's method
            gate.__dict__["excite"] = record.watched(gate.excite, name)
        if features_of is not None:
            hooks.append(gates[features_of].register_forward_pre_hook(record.keep_before))
            hooks.append(gates[features_of].register_forward_hook(record.keep_after))
        yield record
    finally:
        for hook in hooks:
            hook.remove()
        for gate in gates.values():
            gate.__dict__.pop("excite", None)


class RecordGates(Inferer):
    """Run another inferer and keep what the gates did, for the measures of this package.

    The gates are watched only while the inferer runs, also where it fails.

    Args:
        inferer: the inferer to wrap; it may cut the image into windows. Without autocast small
            differences between metadata values are not rounded away.
        gate: the gate whose features are kept; None for the last one.

    Attributes:
        record: of the last call.
        gate: name of the gate whose features are kept; known after the first call.
    """

    def __init__(self, inferer: Inferer, gate: str | None = None) -> None:
        super().__init__()
        self.inferer = inferer
        self.gate = gate
        self.record = GateRecord()

    def __call__(self, inputs: Tensor, network: nn.Module, meta: Tensor | None = None) -> Any:
        """Return the wrapped inferer's output (1, K, *S).

        Args:
            inputs: one image (1, C, *S).
            network: any network with gates.
            meta: encoded metadata (1, M), or None where the network takes none.

        Raises:
            ConfigError: there are several images, whose windows could not be told apart; the
                network has no gates, or not the one named.
        """
        if len(inputs) != 1:
            raise ConfigError(
                f"Gates are explained one case at a time, but a batch holds {len(inputs)}: set the "
                "evaluator's batch size (validate#dataloader#batch_size in a bundle) to 1."
            )
        if self.gate is None:
            self.gate = list(gates_of(network))[-1]
        metadata = {} if meta is None else {"meta": meta}
        with record_gates(network, self.gate) as self.record:
            return self.inferer(inputs, network, **metadata)


def few_cases(items: Sequence[dict[str, Any]], cases: int = 12) -> list[dict[str, Any]]:
    """Keep all items of a few cases: the first of every domain, then the second, and so on.

    Args:
        items: cases x test modes, each with ``case``, ``domain`` and ``mode``.
        cases: how many cases to keep; all where there are fewer.

    Returns:
        Items of the kept cases, in the order they came.

    Raises:
        ConfigError: `cases` is below 1.

    >>> items = [{"case": case, "domain": case[0]} for case in ("a1", "a2", "a3", "b1")]
    >>> [item["case"] for item in few_cases(items, 2)]
    ['a1', 'b1']
    """
    if cases < 1:
        raise ConfigError(f"explain_cases must be 1 or more, got {cases}")
    of_domain: dict[str, dict[str, None]] = {}
    for item in items:
        of_domain.setdefault(item["domain"], {})[item["case"]] = None
    in_turn = sorted(
        (place, number, case)
        for number, known in enumerate(of_domain.values())
        for place, case in enumerate(known)
    )
    kept = {case for _, _, case in in_turn[:cases]}
    return [item for item in items if item["case"] in kept]
