"""Watch the gates while an evaluator runs its network, one case after the other."""

from typing import Any

from ignite.engine import Engine
from monai.inferers import Inferer
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.explain.hooks import GateRecord, gates_of, record_gates


class RecordGates(Inferer):
    """Run another inferer and keep what the gates did, for the handlers of this package.

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
        """Return the wrapped inferer's output (B, K, *S).

        Args:
            inputs: images (B, C, *S).
            network: any network with gates.
            meta: encoded metadata (B, M), or None where the network takes none.

        Raises:
            ConfigError: the network has no gates, or not the one named.
        """
        if self.gate is None:
            self.gate = list(gates_of(network))[-1]
        metadata = {} if meta is None else {"meta": meta}
        with record_gates(network, [self.gate]) as self.record:
            return self.inferer(inputs, network, **metadata)


def one_case(engine: Engine) -> tuple[str, str, str]:
    """Return case, mode and domain of a batch that holds one case.

    Raises:
        ConfigError: it holds several, whose windows could not be told apart.
    """
    batch = engine.state.batch
    if len(batch["case"]) != 1:
        raise ConfigError(
            f"Gates are explained one case at a time, but a batch holds {len(batch['case'])}: set "
            "the evaluator's batch size (validate#dataloader#batch_size in a bundle) to 1."
        )
    return batch["case"][0], batch["mode"][0], batch["domain"][0]
